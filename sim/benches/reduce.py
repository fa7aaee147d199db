# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.noc.reduce.Reduce`, bit for bit against `golden.noc.combine`.

`SIDES`, `GROUPS` and `PATIENCE` are the block's. Groups are such that `golden.noc.check_groups` allows them together.
"""

import os
import random

import cocotb
from cocotb.triggers import RisingEdge

from golden.noc import Join
from golden.packet import ORDER, Error, Port, Reduction
from golden.paging import unpack
from sim.reduce import SHAPES, allowed, order, packet, reductions, result, some_join
from sim.stream import Sink, Source, check_stalls, reset

SIDES, GROUPS, PATIENCE = os.environ["SIDES"], int(os.environ["GROUPS"]), int(os.environ["PATIENCE"])
PORTS = [port for port in ORDER if port.name in f"{SIDES}L"]
HERE = [shape for shape in SHAPES if set(shape) <= set(PORTS)]
whole = {"skip": SIDES != "NESW", "timeout_time": 200, "timeout_unit": "us"}


class Bench:
    """The block with a source at each input and a sink, and what must come out of it."""

    def __init__(self, dut, idle=0.0, stall=0.0):
        self.dut, self.rng = dut, random.Random(cocotb.RANDOM_SEED)
        self.bits = len(dut.l_i__payload) - 3
        self.sources = {port: Source(dut, f"{port.name.lower()}_i", idle=idle) for port in PORTS}
        self.sink = Sink(dut, "o", stall=stall)
        self.joins, self.expected = {}, []
        dut.clear.value = 0
        dut.write.value = 0

    async def write(self, number, join):
        """Set the register of a group."""
        self.joins[number] = join
        self.dut.write.value = order(number, join, GROUPS)
        await RisingEdge(self.dut.clk)
        self.dut.write.value = 0
        await RisingEdge(self.dut.clk)

    def packet(self, number, length):
        return packet(self.rng, number, length, self.bits)

    def reduction(self, number, length):
        """Send the packets of a reduction and expect its result."""
        packets = {port: self.packet(number, length) for port in self.joins[number].inputs}
        for port, flits in packets.items():
            self.sources[port].send(flits)
        self.expected += result(self.joins[number], packets, self.bits)

    async def finish(self, timeout=5000):
        """Wait for all that must come out, and that nothing else does."""
        for _ in range(timeout):
            await RisingEdge(self.dut.clk)
            if len(self.sink.items) >= len(self.expected) and not any(
                    source.queue or source.busy for source in self.sources.values()):
                break
        else:
            raise AssertionError(f"{len(self.sink.items)} of {len(self.expected)} flits came; error {self.error()}")
        for _ in range(20):
            await RisingEdge(self.dut.clk)
        for n, (item, expected) in enumerate(zip(self.sink.items, self.expected, strict=False)):
            assert item == expected, f"flit {n} is {item:x}, not {expected:x}"
        assert len(self.sink.items) == len(self.expected)
        self.sink.items, self.expected = [], []

    def error(self):
        fields = unpack({"code": 4, "port": 3, "tag": 8}, int(self.dut.error.value))
        return Error(fields["code"]), Port(fields["port"]), fields["tag"]

    async def clear(self):
        self.dut.clear.value = 1
        await RisingEdge(self.dut.clk)
        self.dut.clear.value = 0
        await RisingEdge(self.dut.clk)


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(idle=[0.0, 0.4], stall=[0.0, 0.4])
async def random_reductions(dut, idle, stall):
    """Random groups, operations and lengths."""
    bench = Bench(dut, idle, stall)
    await reset(dut)
    sizes = set()
    for _ in range(40):
        while True:
            numbers = bench.rng.sample(range(GROUPS), min(3, GROUPS))
            joins = {number: some_join(bench.rng, PORTS) for number in numbers}
            if allowed(joins):
                break
        for number, join in joins.items():
            await bench.write(number, join)
            sizes.add(len(join.inputs))
        sent, leaves = reductions(bench.rng, joins, 20, bench.bits)
        for port, flits in sent.items():
            bench.sources[port].send(flits)
        bench.expected += leaves
        await bench.finish()
    assert bench.error()[0] == Error.NONE and len(sizes) >= len(PORTS) - 1
    if idle and stall:
        check_stalls(bench.sink)
        assert all(source.moved and source.blocked for source in bench.sources.values())


@cocotb.test(timeout_time=200, timeout_unit="us")
async def a_flit_a_cycle(dut):
    """Of every shape, also from one packet to the next and from one group to another of this shape."""
    bench = Bench(dut)
    await reset(dut)
    for shape in HERE:
        for number in range(min(2, GROUPS)):
            await bench.write(number, some_join(bench.rng, PORTS, shape))
        for n in range(12):
            bench.reduction(n % min(2, GROUPS), 3)
        blocked = bench.sink.blocked
        count = -bench.sink.starved
        while len(bench.sink.items) < len(bench.expected):
            await RisingEdge(dut.clk)
        count += bench.sink.starved
        await bench.finish()
        assert bench.sink.blocked == blocked and count <= 2 * len(shape) + 3, (shape, count)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def late_operands_take_one_adder(dut):
    """Those that come in their order, two cycles apart, are out two cycles after the last."""
    bench = Bench(dut)
    await reset(dut)
    for shape in HERE:
        await bench.write(0, some_join(bench.rng, PORTS, shape))
        for port in shape:
            bench.sources[port].send(bench.packet(0, 4))
            for _ in range(2 if port != shape[-1] else 0):
                await RisingEdge(dut.clk)
        waited = 0
        while not bench.sink.items:
            await RisingEdge(dut.clk)
            waited += 1
        # One cycle until the source drives, one until the sink has seen.
        assert waited == 2 + (2 if shape != (Port.L,) else 0), (shape, waited)
        for _ in range(10):
            await RisingEdge(dut.clk)
        bench.sink.items = []


@cocotb.test(timeout_time=10, timeout_unit="us")
async def entries_that_do_not_fit(dut):
    """An entry with ports that there are not is refused, and with it what its group held before."""
    bench = Bench(dut)
    await reset(dut)
    good = Join((Port.L,), Port.L, Reduction.SUM_FP32)
    absent = [port for port in Port if port not in PORTS]
    beyond = [(GROUPS, good)] if GROUPS & GROUPS - 1 else []
    for number, join in [*((0, Join((Port.L,), port, good.op)) for port in absent),
                         *((0, Join((Port.L, port), Port.L, good.op)) for port in absent), *beyond]:
        await bench.write(0, good)
        await bench.write(number, join)
        assert bench.error() == (Error.GROUP, join.output, number)
        await bench.clear()
        if number < GROUPS:
            bench.sources[Port.L].send(bench.packet(number, 2))
            await bench.finish()
            assert bench.error() == (Error.GROUP, Port.L, number)
            await bench.clear()


@cocotb.test(**whole)
@cocotb.parametrize(stall=[0.0, 0.5])
async def errors(dut, stall):
    """What does not belong is dropped and named, and nothing hangs; the first error stays."""
    bench = Bench(dut, stall, stall)
    await reset(dut)
    good = Join((Port.L, Port.W, Port.S), Port.E, Reduction.SUM_FP32)
    await bench.write(0, good)

    bench.sources[Port.W].send(bench.packet(0x80, 3))             # no such group
    bench.reduction(0, 2)
    await bench.finish()
    assert bench.error() == (Error.GROUP, Port.W, 0x80)

    bench.sources[Port.N].send(bench.packet(0, 0))                 # not here
    bench.reduction(0, 2)
    await bench.finish()
    assert bench.error() == (Error.GROUP, Port.W, 0x80)
    await bench.clear()
    assert bench.error()[0] == Error.NONE
    bench.sources[Port.N].send(bench.packet(0, 4))
    bench.reduction(0, 1)
    await bench.finish()
    assert bench.error() == (Error.GROUP, Port.N, 0)
    await bench.clear()

    for port in good.inputs:                                # of different lengths, and all after it
        bench.reduction(0, 3)
        await bench.finish()
        for _ in range(2):
            for other in good.inputs:
                bench.sources[other].send(bench.packet(0, 5 if other == port else 2))
        await bench.finish()
        assert bench.error()[0] == Error.GROUP and bench.error()[1] in good.inputs and bench.error()[2] == 0
        await bench.write(0, good)
        await bench.clear()

    for port in good.inputs:                                # one that does not come
        for other in good.inputs:
            if other != port:
                bench.sources[other].send(bench.packet(0, 3))
        for _ in range(2 * PATIENCE + 20):
            await RisingEdge(dut.clk)
        await bench.finish()
        assert bench.error()[0] == Error.PATIENCE and bench.error()[2] == 0
        await bench.write(0, good)
        await bench.clear()
        bench.reduction(0, 2)
        await bench.finish()


@cocotb.test(**whole)
async def others_go_on(dut):
    """While one group waits in vain, another is not disturbed; patience does not count while the output stands."""
    bench = Bench(dut)
    await reset(dut)
    if GROUPS == 1:
        return
    await bench.write(0, Join((Port.L, Port.W), Port.E, Reduction.SUM_INT32))
    await bench.write(1, Join((Port.E, Port.N), Port.S, Reduction.MAX_FP32))
    bench.sources[Port.W].send(bench.packet(0, 1))
    for _ in range(PATIENCE):
        bench.reduction(1, 2)
    await bench.finish()
    assert bench.error() == (Error.PATIENCE, Port.W, 0)
    await bench.clear()
    bench.sink.stall = 1.0
    for _ in range(4):
        bench.reduction(1, 3)
    for _ in range(3 * PATIENCE):
        await RisingEdge(dut.clk)
    bench.sink.stall = 0.0
    await bench.finish()
    assert bench.error()[0] == Error.NONE


@cocotb.test(**whole)
async def groups_that_cross_are_parted(dut):
    """Inputs that bring two groups in different orders: one of them is given up, and the other is right."""
    bench = Bench(dut)
    await reset(dut)
    if GROUPS == 1:
        return
    for number in range(2):
        await bench.write(number, Join((Port.L, Port.W), Port.E, Reduction.SUM_INT32))
    bench.sources[Port.L].send(bench.packet(0, 2))
    bench.reduction(1, 2)
    bench.sources[Port.W].send(bench.packet(0, 2))
    await bench.finish()
    assert bench.error() == (Error.PATIENCE, Port.W, 0)


@cocotb.test(**whole)
async def a_broken_packet_ends(dut):
    """One that breaks off after it has begun to leave gets an end of odd parity."""
    bench = Bench(dut)
    await reset(dut)
    join = Join((Port.L, Port.E), Port.W, Reduction.SUM_INT32)
    await bench.write(0, join)
    bench.sources[Port.L].send(bench.packet(0, 3))
    bench.sources[Port.E].send(bench.packet(0, 3))
    for _ in range(2):                          # its head and a body come
        bench.sources[Port.E].queue.pop()
    for _ in range(2 * PATIENCE + 20):
        await RisingEdge(dut.clk)
    items, bench.sink.items = bench.sink.items, []
    assert len(items) == 3 and bench.error() == (Error.PATIENCE, Port.E, 0)
    marks = items[-1] >> bench.bits
    assert marks & 3 == 2 and marks >> 3 == 1 << Port.W
    assert (items[-1] & (1 << bench.bits + 3) - 1).bit_count() % 2 == 1
    await bench.clear()
    await bench.write(0, join)
    bench.reduction(0, 4)
    await bench.finish()


@cocotb.test(**whole)
async def reset_in_traffic(dut):
    bench = Bench(dut)
    await reset(dut)
    await bench.write(0, Join(ORDER, Port.L, Reduction.SUM_FP32))
    for _ in range(4):
        bench.reduction(0, 3)
    for _ in range(9):
        await RisingEdge(dut.clk)
    for source in bench.sources.values():
        source.queue.clear()
        source.busy = False
        source.valid.value = 0
    await reset(dut, running=True)
    bench.sink.items, bench.expected = [], []
    await bench.write(0, Join(ORDER, Port.L, Reduction.SUM_FP32))
    bench.reduction(0, 3)
    await bench.finish()
