# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.board.memory.Memory`: random writes, then random reads of all readers at once."""

import ast
import os
import random

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from hw.fetch import request, write
from sim.ports import pack
from sim.stream import Sink, Source, check_stalls, reset

SIZE, READERS, WRITERS = ast.literal_eval(os.environ.get("MEMORY", "(1024, (), ())"))


def writes(rng, words, size, count):
    """Payloads of random writes to `words`, which they change."""
    for _ in range(count):
        address, length, content = rng.randrange(len(words)), rng.randint(0, size), rng.randbytes(size)
        for n in range(length):
            words[(address + n) % len(words)] = content[n]
        yield pack(write(size), {"address": address, "data": int.from_bytes(content, "little"), "count": length})


def reads(rng, words, reader, count):
    """(payload, beats that answer it) of random requests."""
    size, most, rows = reader
    for _ in range(count):
        asked = {"address": rng.randrange(len(words)), "stride": rng.randrange(200),
                 "beats": rng.randint(1, most), "rows": rng.randint(1, rows)}
        starts = [asked["address"] + row * asked["stride"] + beat * size
                  for row in range(asked["rows"]) for beat in range(asked["beats"])]
        beats = [sum(words[(start + n) % len(words)] << 8 * n for n in range(size)) for start in starts]
        beats[-1] |= 1 << 8 * size
        yield pack(request(most, rows), asked), beats


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(stall=[0.0, 0.6])
async def random_traffic(dut, stall):
    rng, words = random.Random(cocotb.RANDOM_SEED), bytearray(SIZE)
    sources = [Source(dut, f"write{n}", idle=stall) for n in range(len(WRITERS))]
    requests = [Source(dut, f"request{n}", idle=stall) for n in range(len(READERS))]
    responses = [Sink(dut, f"response{n}", stall=stall) for n in range(len(READERS))]
    dut.clear.value = 0
    await reset(dut)
    fill = pack(write(1), {"count": 1})
    sources[0].send(pack(write(1), {"address": n}) | fill for n in range(SIZE))
    await sources[0].drain()
    for source, size in zip(sources, WRITERS, strict=True):     # one after the other, so that the last wins
        source.send(writes(rng, words, size, 300))
        await source.drain()
    await ClockCycles(dut.clk, 4)

    expected = [list(reads(rng, words, reader, 60)) for reader in READERS]
    for source, each in zip(requests, expected, strict=True):
        source.send(payload for payload, _ in each)
    for sink, each in zip(responses, expected, strict=True):
        beats = [beat for _, beats in each for beat in beats]
        assert await sink.recv(len(beats)) == beats
    if stall:
        check_stalls(*requests, *responses)
    assert int(dut.fault.value)             # some of it was beyond the end
    dut.clear.value = 1
    await ClockCycles(dut.clk, 2)
    assert not int(dut.fault.value)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_beat_a_cycle(dut):
    """Nothing is lost between beats, rows or requests, nor between readers."""
    requests = [Source(dut, f"request{n}") for n in range(len(READERS))]
    responses = [Sink(dut, f"response{n}") for n in range(len(READERS))]
    dut.clear.value = 0
    await reset(dut)
    total = 0
    for source, (_, beats, rows) in zip(requests, READERS, strict=True):
        source.send([pack(request(beats, rows), {"beats": beats, "rows": rows})] * 20)
        total += 20 * beats * rows
    cycles = 0
    while sum(len(sink.items) for sink in responses) < total:
        await RisingEdge(dut.clk)
        cycles += 1
    assert cycles <= total + 12
