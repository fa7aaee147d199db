# SPDX-License-Identifier: Apache-2.0
"""Reciprocals of the sums of all weights."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from golden.scores import QUOTIENT, SHARE, WHOLE, Widths
from golden.tables import CHOICE, chords
from hw.arith.fp32 import normalize
from hw.arith.pipeline import register
from hw.attention.ports import EXPONENT
from hw.attention.weight import total_bits
from hw.emit import Block
from hw.ram import Ram

__all__ = ["FACTOR", "Inverse", "division", "sum_of_all"]

FACTOR = QUOTIENT + 1       # bits of a reciprocal, which may be 1
LOW = QUOTIENT - CHOICE


def division():
    """How sums become results: times `factor` * 2**`exponent`, unless they are `nan`."""
    return data.StructLayout({"factor": FACTOR, "exponent": EXPONENT, "nan": 1})


def sum_of_all():
    """The sum of a query's powers of two, without its sign, and the exponent that a part's results have in common."""
    return data.StructLayout({"total": 31, "exponent": signed(WHOLE)})


class Inverse(Block):
    """Normalizes totals and looks up their reciprocals, a query a cycle.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int

    Members
    -------
    totals : In(ArrayLayout(total_bits(kv), group)), exponents : In(ArrayLayout(signed(WHOLE), group))
    nan : In(group), part : In(1)
    start : In(1), done : Out(1)
        Steady until `done`.
    slot : In(1)
        Where results go.
    read_slot : In(1), read_en : In(1)
    divisions : Out(ArrayLayout(division(), group)), sums : Out(ArrayLayout(sum_of_all(), group))
        A cycle after `read_en`, and until the next.
    """

    def __init__(self, kv, group):
        self.kv, self.queries, self.widths = kv, group, Widths(kv)
        super().__init__({
            "totals": In(data.ArrayLayout(total_bits(kv), group)),
            "exponents": In(data.ArrayLayout(signed(WHOLE), group)), "nan": In(group), "part": In(1),
            "start": In(1), "done": Out(1), "slot": In(1), "read_slot": In(1), "read_en": In(1),
            "divisions": Out(data.ArrayLayout(division(), group)),
            "sums": Out(data.ArrayLayout(sum_of_all(), group))})

    def elaborate(self, platform):
        m, widths, width = Module(), self.widths, total_bits(self.kv)
        query = Signal(range(self.queries + 3))
        m.d.comb += self.done.eq(self.start & (query == self.queries + 2))
        m.d.sync += query.eq(Mux(self.start & ~self.done, query + 1, 0))

        # The highest one and what follows it
        total, top, nan = Signal(max(width, 24)), Signal(signed(WHOLE)), Signal()
        chosen = query[:max((self.queries - 1).bit_length(), 1)]
        m.d.comb += [
            total[-width:].eq(Array(self.totals[g] for g in range(self.queries))[chosen]),
            top.eq(Array(self.exponents[g] for g in range(self.queries))[chosen]),
            nan.eq(Array(self.nan[g] for g in range(self.queries))[chosen]),
        ]
        steps = [1 << n for n in reversed(range((len(total) - 1).bit_length()))]
        value, places = normalize(m, total, steps, Const(0, 1))
        fraction = register(m, value[-24:-1], "fraction")
        high, none = register(m, width - 1 - places, "high"), register(m, ~value[-1], "none")
        top, nan = register(m, top, "top1"), register(m, nan, "nan1")

        # A row of the table; exponents
        rows = chords("reciprocal", FACTOR - 2)
        above = Array(Const(row, FACTOR) for row in rows[:-1])
        falls = Array(Const(row - after, FACTOR - CHOICE) for row, after in zip(rows, rows[1:], strict=False))
        index, low = fraction[-CHOICE:], fraction[-CHOICE - LOW:-CHOICE]
        base, fall, low = (register(m, each, name) for name, each in (
            ("base", above[index]), ("fall", falls[index]), ("low", low)))
        result, exponent, field = Signal(division()), Signal(EXPONENT), Signal(8)
        unit = widths.unit + widths.drop + FP32.bias - 1
        m.d.comb += field.eq(high + (FP32.bias - SHARE - widths.operand + 1))
        m.d.sync += exponent.eq(Mux(self.part, unit - widths.operand + 1, unit + SHARE - high) - top)
        sums = register(m, Cat(Mux(none, 0, Cat(fraction, field)), Mux(none, 0, top)), "sums")
        nan = register(m, nan, "nan2")

        # The reciprocal
        line = Signal(FACTOR + LOW)
        m.d.comb += [
            line.eq((base << LOW) - fall * low + (1 << LOW - 1)),
            result.factor.eq(Mux(self.part, 1 << FACTOR - 1, line >> LOW)), result.exponent.eq(exponent),
            result.nan.eq(nan),
        ]
        for g in range(self.queries):
            m.submodules[f"kept{g}"] = kept = Ram(len(result.as_value()) + len(sums), 2)
            m.d.comb += [
                kept.write_en.eq(self.start & (query == g + 2)), kept.write_address.eq(self.slot),
                kept.write_data.eq(Cat(result, sums)),
                kept.read_en.eq(self.read_en), kept.read_address.eq(self.read_slot),
                Cat(self.divisions[g], self.sums[g]).eq(kept.read_data),
            ]
        return m
