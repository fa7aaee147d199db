# SPDX-License-Identifier: Apache-2.0
"""Bench of `Queue`, `Buffer` and `DeepQueue` of `hw.stream` against their references in `golden.stream`.

`MODEL` names the class, `ARGS` its constructor's arguments after the shape.
"""

import os

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from golden import stream as golden
from sim.stream import Port, Sink, Source, check_stalls, reset


def model():
    return getattr(golden, os.environ["MODEL"])(*map(int, os.environ["ARGS"].split()))


async def follow(dut, model):
    """Compare every cycle of the DUT with the model."""
    i, o = Port(dut, "i"), Port(dut, "o")
    while True:
        await RisingEdge(dut.clk)
        assert bool(i.ready.value) == model.i_ready
        assert bool(o.valid.value) == model.o_valid
        if model.o_valid:
            assert int(o.payload.value) == model.o_payload
        model.step(bool(i.valid.value), int(i.payload.value), bool(o.ready.value))


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(idle=[0.0, 0.5, 0.9], stall=[0.0, 0.5, 0.9])
async def random_traffic(dut, idle, stall):
    source, sink = Source(dut, "i", idle=idle), Sink(dut, "o", stall=stall)
    await reset(dut)
    checker = cocotb.start_soon(follow(dut, model()))
    items = [source.rng.getrandbits(len(source.payload)) for _ in range(500)]
    source.send(items)
    assert await sink.recv(len(items)) == items
    checker.cancel()
    if idle and stall > idle:
        check_stalls(source)
    if stall and idle > stall:
        check_stalls(sink)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def full_throughput(dut):
    source, sink = Source(dut, "i"), Sink(dut, "o")
    await reset(dut)
    items = [n % 2 for n in range(100)]
    source.send(items)
    await sink.recv(1)
    await ClockCycles(dut.clk, len(items) - 1)
    assert len(sink.items) == len(items) - 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def reset_in_traffic(dut):
    source, sink = Source(dut, "i"), Sink(dut, "o", stall=0.9)
    await reset(dut)
    source.send([1] * 20)
    await ClockCycles(dut.clk, 10)
    source.queue.clear()
    await reset(dut, running=True)
    checker = cocotb.start_soon(follow(dut, model()))
    sink.stall = 0.0
    await source.drain()
    await ClockCycles(dut.clk, 4)          # whatever the source still held has passed
    sink.items.clear()
    source.send([0, 1, 1, 0])
    assert await sink.recv(4) == [0, 1, 1, 0]
    checker.cancel()
