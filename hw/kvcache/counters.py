# SPDX-License-Identifier: Apache-2.0
"""What the KV-cache controller counts."""

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hw.emit import Block

__all__ = ["Counters"]

DIGIT = 16      # bits that a carry runs through in a cycle


class Counters(Block):
    """Counters. What is added shows two cycles later, once all carries have `settled`.

    Parameters
    ----------
    names : tuple of (str, int, int)
        By index: the counter's name, the bits of what is added to it at a time, and what it begins with. Without
        such bits it is none, and its value 0.
    bits : int
        Of each.

    Members
    -------
    add : In
        How much each counter goes up in this cycle.
    index : In
    value : Out(64)
        Of the counter at `index`, in the same cycle.
    settled : Out(1)
    commands : Out(64)
        The counter of that name.
    """

    def __init__(self, names, bits=64):
        self.names, self.bits = names, bits
        super().__init__({
            "add": In(data.StructLayout({name: bits for name, bits, _ in names if bits})),
            "index": In(range(len(names))),
            "value": Out(64),
            "settled": Out(1),
            "commands": Out(64),
        })

    def elaborate(self, platform):
        m = Module()

        added, values, carries = Signal.like(self.add), {}, []
        m.d.sync += added.eq(self.add)
        for name, bits, init in self.names:
            digits, carry = [], 0
            for low in range(0, self.bits if bits else 0, DIGIT):
                size = min(DIGIT, self.bits - low)
                digit = Signal(size, name=f"{name}_{low}", init=init >> low & (1 << size) - 1)
                more, total = added[name][low:low + size], Signal(size + 1, name=f"{name}_{low}_total")
                m.d.comb += total.eq(digit + more + carry)
                with m.If((more != 0) | carry):
                    m.d.sync += digit.eq(total)
                digits.append(digit)
                carry = Signal(name=f"{name}_{low}_carry")
                m.d.sync += carry.eq(total[-1])
                carries.append(carry)
            values[name] = Cat(digits) if bits else 0
        m.d.comb += [
            self.value.eq(Array(values.values())[self.index]), self.settled.eq(~Cat(carries).any()),
            self.commands.eq(values["commands"])]

        return m
