# SPDX-License-Identifier: Apache-2.0
"""Carry-save addition: many rows of bits become two, without carry propagation."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib.wiring import In, Out

from hw.emit import Block

__all__ = ["CarrySave", "Row", "add", "compress", "multiply"]


class CarrySave(Block):
    """One row of full adders: three words become two with the same sum.

    Combinational. Synthesis recipes recognise it and may put the library's full-adder cells in its
    place, which is why it is a block of its own.

    Parameters
    ----------
    width : int
        Bits per word.

    Members
    -------
    a, b, c : In(width)
    s : Out(width)
        Sum bits, `a ^ b ^ c`.
    k : Out(width)
        Carry bits; bit n has weight 2**(n + 1).
    """

    def __init__(self, width):
        if width < 1:
            raise ValueError(f"CarrySave: width must be at least 1, not {width!r}")
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "c": In(width), "s": Out(width), "k": Out(width)})

    def elaborate(self, platform):
        m = Module()
        a, b, c = self.a, self.b, self.c
        m.d.comb += [
            self.s.eq(a ^ b ^ c),
            self.k.eq((a & b) | (a & c) | (b & c)),
        ]
        return m


@dataclass(frozen=True)
class Row:
    """An unsigned addend whose bit 0 has weight 2**low."""

    bits: Value
    low: int = 0

    @property
    def high(self):
        return self.low + len(self.bits)

    def cut(self, low, high):
        """The bits from weight `low` up to `high`, zero where the row has none."""
        body = self.bits[max(low - self.low, 0):max(high - self.low, 0)]
        below = Const(0, min(max(self.low - low, 0), high - low))
        above = Const(0, max(high - max(self.high, low), 0))
        return Cat(below, body, above)[:high - low]


def compress(m, rows, *, width, ones=(), name="csa"):
    """Reduce `rows` to two with the same sum modulo 2**width, in a Wallace tree of `CarrySave`.

    Parameters
    ----------
    m : Module
        Receives the adders as submodules `<name><n>`.
    rows : list of Row
    width : int
        Weights at or above 2**width are dropped.
    ones : list of (Value, int)
        Single bits and the power of two each is worth. They ride in the empty lowest place of a
        carry word where one of the right weight comes free, and form further rows where none does.

    Returns
    -------
    list of Row
        At most two.
    """
    rows, waiting, count = list(rows), {}, 0
    for bit, low in ones:
        waiting.setdefault(low, []).append(bit)
    while len(rows) > 2 or any(waiting.values()):
        rows.sort(key=lambda row: (row.low, row.high))
        level, rest = [], rows
        while len(rest) >= 3:
            trio, rest = rest[:3], rest[3:]
            low, high = min(r.low for r in trio), min(max(r.high for r in trio), width)
            adder = CarrySave(high - low)
            m.submodules[f"{name}{count}"] = adder
            count += 1
            for port, row in zip((adder.a, adder.b, adder.c), trio, strict=True):
                m.d.comb += port.eq(row.cut(low, high))
            level.append(Row(adder.s, low))
            free = waiting.get(low)
            carry = adder.k[:max(min(len(adder.k), width - low - 1), 0)]
            level.append(Row(Cat(free.pop(), carry), low) if free else Row(carry, low + 1))
        if len(rows) < 3:       # no adder left to carry the remaining bits: give them rows of their own
            level += _gather(waiting)
        rows = level + rest
    return rows


def _gather(waiting):
    """Rows made of single bits, one bit of each weight a row."""
    rows = []
    while any(waiting.values()):
        bits = {low: free.pop() for low, free in waiting.items() if free}
        low, high = min(bits), max(bits) + 1
        rows.append(Row(Cat(bits.get(n, Const(0, 1)) for n in range(low, high)), low))
    return rows


def add(m, rows, *, width, carry=None, name="sum"):
    """The sum of at most two rows (and a carry bit of weight 1) modulo 2**width, by carry propagation."""
    total = Signal(width, name=name)
    words = [row.cut(0, width) for row in rows]
    m.d.comb += total.eq(sum(words, Const(0, 1) if carry is None else carry))
    return total

def multiply(m, a, b, name):
    """`a * b`, unsigned, one row after the other: in full adders this is the smallest for a few bits."""
    total = a & b[0].replicate(len(a))
    for n in range(1, len(b)):
        row = Signal(len(a) + 1, name=f"{name}{n}")         # the bits below are final
        m.d.comb += row.eq(total[n:] + (a & b[n].replicate(len(a))))
        total = Cat(total[:n], row)
    return total
