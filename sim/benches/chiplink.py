# SPDX-License-Identifier: Apache-2.0
"""Bench of one side of a chip link against the reference of the other.

`ARGS` are the link's sizes: data of a flit, channels, depth, slots. `COUNT` flits go each way.
"""

import os
import random
from collections import deque

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from golden.chiplink import Side, split
from golden.framing import Error
from golden.packet import flit
from sim.stream import Sink, Source, reset

SESSION = 77


class Bench:
    """The network at the DUT's side, the reference at the other, and the line between them.

    `loss` is the chance of a frame not to arrive, `errors` that of one to lose a bit.
    """

    def __init__(self, dut, loss=0.0, errors=0.0, stall=0.0):
        self.dut, self.loss, self.errors, self.stall = dut, loss, errors, stall
        self.rng = random.Random(cocotb.RANDOM_SEED)
        data, self.vcs, self.depth, self.slots = map(int, os.environ["ARGS"].split())
        self.bits = sum(flit(data).values())
        self.size = -(-self.bits // 8)
        self.far = Side(self.size, self.vcs, self.slots, SESSION)
        self.rx, self.tx, self.line = Source(dut, "rx", idle=stall), Sink(dut, "tx", stall=stall), bytearray()
        self.sends, self.due = ([deque() for _ in range(self.vcs)] for _ in range(2))   # to and from the far side
        self.puts, self.comes = ([deque() for _ in range(self.vcs)] for _ in range(2))
        self.credits, self.frees = [self.depth] * self.vcs, [0] * self.vcs
        dut.burst.value, dut.timeout.value, dut.clear.value = 4, 800, 0
        dut.i__valid.value = dut.o__credit.value = 0

    async def start(self):
        await reset(self.dut)
        for task in self.network(), self.other():
            cocotb.start_soon(task)

    def draw(self, count):
        """Some flits each way."""
        for _ in range(count):
            for sent, due in (self.sends, self.due), (self.puts, self.comes):
                vc, item = self.rng.randrange(self.vcs), self.rng.getrandbits(self.bits)
                sent[vc].append(item)
                due[vc].append(item)

    async def finish(self):
        while any(map(len, (*self.due, *self.comes))):
            await ClockCycles(self.dut.clk, 10)

    async def network(self):
        """Send as there are credits; take each channel's flits in order, and free them later."""
        dut, rng = self.dut, self.rng
        while True:
            await RisingEdge(dut.clk)
            credit, valid = int(dut.i__credit.value), int(dut.o__valid.value)
            for vc in range(self.vcs):
                self.credits[vc] += credit >> vc & 1
                if valid >> vc & 1:
                    assert valid == 1 << vc, "two flits at once"
                    assert int(dut.o__flit.value) == self.comes[vc].popleft(), f"another flit comes on channel {vc}"
                    self.frees[vc] += 1
                    assert self.frees[vc] <= self.depth, "a flit without credit"
            may = [vc for vc in range(self.vcs) if self.credits[vc] and self.sends[vc]]
            chosen = rng.choice(may) if may and rng.random() >= self.stall else None
            dut.i__valid.value = 0 if chosen is None else 1 << chosen
            if chosen is not None:
                self.credits[chosen] -= 1
                dut.i__flit.value = self.sends[chosen].popleft()
            freed = [self.frees[vc] and rng.random() >= self.stall for vc in range(self.vcs)]
            self.frees = [count - bool(free) for count, free in zip(self.frees, freed, strict=True)]
            dut.o__credit.value = sum(bool(free) << vc for vc, free in enumerate(freed))

    async def other(self):
        """The far side: sees what comes through, sends what there is, and again what may be lost."""
        cycle = 0
        while True:
            await RisingEdge(self.dut.clk)
            cycle, far = cycle + 1, self.far
            if self.tx.items:
                self.line += bytes(self.tx.items)
                self.tx.items.clear()
                frames, self.line = split(self.line)
                self.line = bytearray(self.line)
                for frame in frames:
                    self.far.receive(self.damage(frame))
                for vc in range(self.vcs):
                    while (item := far.take(vc)) is not None:
                        due = self.due[vc].popleft()
                        assert int.from_bytes(item, "little") == due, f"another flit goes on channel {vc}"
            for vc in range(self.vcs):
                while self.puts[vc] and far.room(vc):
                    far.put(vc, self.puts[vc].popleft().to_bytes(self.size, "little"))
            if cycle % 600 == 0:
                far.expire()
            if not self.rx.queue and (far.up or cycle % 100 == 0):
                self.rx.send(self.damage(far.frame(4)))

    def damage(self, frame):
        """What is left of a frame, with its flag or without."""
        if not frame or self.rng.random() < self.loss:
            return b""
        frame = bytearray(frame)
        if self.rng.random() < self.errors:
            frame[self.rng.randrange(len(frame))] ^= 1 << self.rng.randrange(8)
        return bytes(frame)


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(loss=[0.0, 0.2], stall=[0.0, 0.3])
async def random_traffic(dut, loss, stall):
    bench = Bench(dut, loss=loss, errors=loss, stall=stall)
    await bench.start()
    bench.draw(int(os.environ["COUNT"]))
    await bench.finish()
    assert int(dut.error.value) == Error.NONE and bench.far.error == Error.NONE


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def first_error_stays(dut):
    """More flits than credits, then silence."""
    bench = Bench(dut)
    await reset(dut)
    dut.i__valid.value = 1
    await ClockCycles(dut.clk, bench.depth + 1)
    assert int(dut.error.value) == Error.NONE
    await ClockCycles(dut.clk, bench.slots + 2)     # beyond all credits that come meanwhile
    dut.i__valid.value = 0
    assert int(dut.error.value) == Error.OVERRUN
    await ClockCycles(dut.clk, 7000)
    assert int(dut.error.value) == Error.OVERRUN
    dut.clear.value = 1
    await ClockCycles(dut.clk, 2)
    dut.clear.value = 0
    assert int(dut.error.value) == Error.NONE
    await ClockCycles(dut.clk, 7000)
    assert int(dut.error.value) == Error.DEAD


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def far_side_begins_anew(dut):
    """Another session at the far side: the link tells of it and carries on."""
    bench = Bench(dut)
    await bench.start()
    bench.draw(50)
    await bench.finish()
    await ClockCycles(dut.clk, 1200)        # until old frames are gone
    bench.far = Side(bench.size, bench.vcs, bench.slots, SESSION + 1)
    while int(dut.error.value) == Error.NONE:
        await RisingEdge(dut.clk)
    assert int(dut.error.value) == Error.RESTART
    bench.draw(50)
    await bench.finish()
