# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.tile.host.Host`, with an AXI4-Lite master that is not ours."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from golden.registers import IDENTITY, REGISTERS, Access


async def begin(dut, rng, stall):
    Clock(dut.clk, 2, unit="ns").start()
    dut.rst.value, dut.i.value = 1, 0
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "port_"), dut.clk, dut.rst)
    if stall:
        for channel in (master.write_if.aw_channel, master.write_if.w_channel, master.write_if.b_channel,
                        master.read_if.ar_channel, master.read_if.r_channel):
            channel.set_pause_generator(iter(lambda: rng.random() < stall, None))
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return master


def places(access):
    """(register, field, first bit in the port) of all fields with this access, or not."""
    found, at = [], 0
    for each in REGISTERS:
        for field in each.fields:
            if (field.access is Access.READ) == access:
                found.append((each, field, at))
                at += field.bits
    return found


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=[0.0, 0.5])
async def registers(dut, stall):
    """What is written is given, and reads back; what the tile tells is read; the rest is refused."""
    rng = random.Random(cocotb.RANDOM_SEED)
    master = await begin(dut, rng, stall)
    values, refused = {each.address: 0 for each in REGISTERS}, 0
    for _ in range(200):
        told = rng.getrandbits(len(dut.i))
        dut.i.value = told
        address, data = rng.choice([*values, 0x18, 0xFFC]), rng.randbytes(4)
        first = rng.randrange(4)
        answer = await master.write(address + first, data[first:])
        if address in values:
            mask = 0xFFFFFFFF << 8 * first & 0xFFFFFFFF
            values[address] = values[address] & ~mask | int.from_bytes(data, "little") & mask
        assert (answer.resp == AxiResp.OKAY) == (address in values)
        await RisingEdge(dut.clk)
        given = int(dut.o.value)
        for each, field, at in places(False):
            shown = given >> at & (1 << field.bits) - 1
            if field.access is Access.WRITE:
                assert shown == values[each.address] >> field.at & (1 << field.bits) - 1, field
            else:
                assert not shown, field                     # it was up for a cycle
        address = rng.choice([*values, 0x18])
        answer = await master.read(address, 4)
        assert (answer.resp == AxiResp.OKAY) == (address in values)
        refused += address not in values
        wanted = 0
        for each in REGISTERS:
            for field in each.fields if each.address == address else ():
                if field.access is Access.WRITE:
                    wanted |= values[address] & (1 << field.bits) - 1 << field.at
        for each, field, at in places(True):
            if each.address == address:
                wanted |= (told >> at & (1 << field.bits) - 1) << field.at
        assert address not in values or int.from_bytes(answer.data, "little") == wanted, hex(address)
    assert refused
    assert REGISTERS[0].text == f"{IDENTITY:#x}"


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def pulses(dut):
    """Each is up for one cycle, as often as it is asked for."""
    rng = random.Random(cocotb.RANDOM_SEED)
    master = await begin(dut, rng, 0)
    own = {field.name: (field.at, at) for _, field, at in places(False) if field.access is Access.PULSE}
    seen = dict.fromkeys(own, 0)

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            for name, (_, at) in own.items():
                seen[name] += int(dut.o.value) >> at & 1

    cocotb.start_soon(watch())
    wanted = dict.fromkeys(own, 0)
    for _ in range(40):
        chosen = [name for name in own if rng.random() < 0.5]
        await master.write_dword(4, sum(1 << own[name][0] for name in chosen))
        for name in chosen:
            wanted[name] += 1
    await Timer(20, unit="ns")
    assert seen == wanted and all(seen.values())
