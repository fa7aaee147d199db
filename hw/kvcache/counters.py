# SPDX-License-Identifier: Apache-2.0
"""What the KV-cache controller counts."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hw.emit import Block

__all__ = ["Counters"]


class Counters(Block):
    """Counters of 64 bits. What is added shows two cycles later, so that no command waits for a long carry.

    Parameters
    ----------
    names : tuple of (str, int)
        By index: the counter's name and the bits of what is added to it at a time, or 0 if it counts nothing.

    Members
    -------
    add : In
        How much each counter goes up in this cycle.
    index : In
    value : Out(64)
        Of the counter at `index`, in the same cycle.
    """

    def __init__(self, names):
        self.names = names
        super().__init__({
            "add": In(data.StructLayout({name: bits for name, bits in names if bits})),
            "index": In(range(len(names))),
            "value": Out(64),
        })

    def elaborate(self, platform):
        m = Module()

        added, values = Signal.like(self.add), []
        m.d.sync += added.eq(self.add)
        for name, bits in self.names:
            value = Signal(64, name=name) if bits else 0
            values.append(value)
            if bits:
                more, low, high = added[name], Signal(33, name=f"{name}_low"), Signal(32, name=f"{name}_high")
                m.d.comb += low.eq(value[:32] + more[:32]), high.eq(value[32:] + more[32:])
                with m.If(more != 0):
                    m.d.sync += value.eq(Cat(low[:32], Mux(low[32], high + 1, high)))   # no carry runs through all
        m.d.comb += self.value.eq(Array(values)[self.index])

        return m
