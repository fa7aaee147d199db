# SPDX-License-Identifier: Apache-2.0
"""Counters of what happens in a tile."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.emit import Block
from hw.ram import Ram

__all__ = ["Counters"]


class Counters(Block):
    """Many wide counters in one memory. Each event is counted in a few bits, which one counter after the other, one a
    cycle, adds to its value in the memory.

    Parameters
    ----------
    count : int
    bits : int
        Of each.

    Members
    -------
    events : In(count)
        A bit a counter: it goes up by one.
    freeze, zero : In(1)
        Count nothing; begin again.
    index : In(ceil_log2(count)), value : Out(bits)
        A counter as it was at most 2 * `count` cycles ago; of one that there is not, any.
    """

    def __init__(self, count, bits=48):
        if not 4 <= count <= 256:
            raise ValueError(f"Counters: count must be 4 to 256, not {count!r}")
        self.count, self.bits = count, bits
        super().__init__({"events": In(count), "freeze": In(1), "zero": In(1), "index": In(ceil_log2(count)),
                          "value": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.values = values = Ram(self.bits, self.count)
        turn, before, zeroing = Signal(range(self.count)), Signal(range(self.count)), Signal(self.count, init=-1)
        pending = Array(Signal(range(self.count + 1), name=f"pending{n}") for n in range(self.count))
        events, more, sum = Signal(self.count), Signal(range(self.count + 1)), Signal(self.bits)
        m.d.comb += [
            events.eq(Mux(self.freeze, 0, self.events)),
            values.read_en.eq(1), values.read_address.eq(turn),
            values.write_en.eq(1), values.write_address.eq(before), values.write_data.eq(sum),
            sum.eq(Mux(zeroing[0], 0, values.read_data + more)),
        ]
        m.d.sync += [
            turn.eq(Mux(turn == self.count - 1, 0, turn + 1)), before.eq(turn), more.eq(pending[turn]),
            zeroing.eq(Mux(self.zero, -1, Cat(zeroing[1:], 0))),
        ]
        for n, each in enumerate(pending):
            m.d.sync += each.eq(Mux(self.zero | zeroing[0], 0, Mux(turn == n, 0, each) + events[n]))
        with m.If(before == self.index):
            m.d.sync += self.value.eq(sum)
        return m
