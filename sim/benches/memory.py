# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.board.memory.Memory`, with an AXI4 master that is not ours."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiMaster, AxiResp

SIZE, BEAT = int(os.environ["SIZE"]), int(os.environ["BEAT"])


async def begin(dut, rng, stall):
    Clock(dut.clk, 2, unit="ns").start()
    dut.rst.value, dut.write__valid.value, dut.read__valid.value, dut.found__ready.value = 1, 0, 0, 0
    master = AxiMaster(AxiBus.from_prefix(dut, "axi_"), dut.clk, dut.rst)
    writes, reads = master.write_if, master.read_if
    for side in writes, reads:
        side.log.setLevel("WARNING")
    if stall:
        for channel in writes.aw_channel, writes.w_channel, writes.b_channel, reads.ar_channel, reads.r_channel:
            channel.set_pause_generator(iter(lambda: rng.random() < stall, None))
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return master


async def put(dut, address, byte):
    dut.write__payload.value, dut.write__valid.value = address | byte << 32, 1
    await RisingEdge(dut.clk)
    dut.write__valid.value = 0


async def get(dut, rng, address):
    dut.read__payload.value, dut.read__valid.value = address, 1
    while True:
        await RisingEdge(dut.clk)
        if int(dut.read__ready.value):
            break
    dut.read__valid.value = 0
    while not int(dut.found__valid.value):
        await RisingEdge(dut.clk)
    for _ in range(rng.randrange(3)):
        await RisingEdge(dut.clk)
    byte, dut.found__ready.value = int(dut.found__payload.value), 1
    await RisingEdge(dut.clk)
    dut.found__ready.value = 0
    await RisingEdge(dut.clk)
    return byte


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=[0.0, 0.6])
async def traffic(dut, stall):
    """Several masters and a host, each in a part of its own: what they read is what they wrote."""
    rng = random.Random(cocotb.RANDOM_SEED)
    master, part = await begin(dut, rng, stall), SIZE // 4 // BEAT * BEAT
    words = bytearray(SIZE)
    await master.write(0, bytes(words))

    async def masters(base):
        for _ in range(30):
            count = rng.randrange(1, min(part, 300))
            address = base + rng.randrange(part - count)
            if rng.random() < 0.5:
                words[address:address + count] = fresh = rng.randbytes(count)
                assert (await master.write(address, fresh)).resp == AxiResp.OKAY
            else:
                assert bytes((await master.read(address, count)).data) == words[address:address + count]

    async def host(base):
        for _ in range(60):
            address = base + rng.randrange(part)
            if rng.random() < 0.5:
                words[address] = byte = rng.randrange(256)
                await put(dut, address, byte)
            else:
                assert await get(dut, rng, address) == words[address]

    tasks = [cocotb.start_soon(masters(n * part)) for n in range(3)] + [cocotb.start_soon(host(3 * part))]
    for task in tasks:
        await task
    assert bytes((await master.read(0, SIZE)).data) == words


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def beyond(dut):
    """Bursts that reach beyond the memory are refused whole, and told of."""
    rng, seen = random.Random(cocotb.RANDOM_SEED), []
    master = await begin(dut, rng, 0)

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            seen.append(int(dut.beyond.value))

    cocotb.start_soon(watch())
    await master.write(0, bytes(SIZE))
    assert not any(seen)
    for address in SIZE, SIZE - BEAT, 1 << 32:
        assert (await master.write(address, b"\xff" * 2 * BEAT)).resp == AxiResp.DECERR
        assert (await master.read(address, 2 * BEAT)).resp == AxiResp.DECERR
    assert sum(seen) == 6
    assert not any((await master.read(0, SIZE)).data)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_beat_a_cycle(dut):
    """Bursts are read without a pause between them; one that is written pauses for its response."""
    master, cycles = await begin(dut, random.Random(0), 0), {"r": [], "w": []}

    async def watch():
        cycle = 0
        while True:
            await RisingEdge(dut.clk)
            cycle += 1
            for way, found in cycles.items():
                if int(getattr(dut, f"axi__{way}valid").value) and int(getattr(dut, f"axi__{way}ready").value):
                    found.append(cycle)

    cocotb.start_soon(watch())
    await master.write(0, bytes(SIZE))
    pieces = [cocotb.start_soon(master.read(at, SIZE // 4)) for at in range(0, SIZE, SIZE // 4)]
    for piece in pieces:
        await piece
    beats = SIZE // BEAT
    assert len(cycles["r"]) == len(cycles["w"]) == beats
    assert cycles["r"][-1] - cycles["r"][0] == beats - 1
    assert cycles["w"][-1] - cycles["w"][0] <= beats + beats // 16
