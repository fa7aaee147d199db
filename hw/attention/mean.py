# SPDX-License-Identifier: Apache-2.0
"""A column of values, weighed by one query."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from golden.scores import QUOTIENT, Widths
from hw.arith.fp32 import normalize
from hw.arith.pipeline import register
from hw.arith.shift import shift_right
from hw.attention.align import alignment
from hw.attention.inverse import FACTOR
from hw.attention.ports import EXPONENT
from hw.emit import Block

__all__ = ["Mean", "partial"]


def partial(kv):
    """The sum of all groups so far, in units that all columns of a query share."""
    widths = Widths(kv)
    return signed(widths.sum - widths.drop + widths.growth)


class Mean(Block):
    """Joins the sum of a group to those before; divides what has come of them, in FP32. Free-running.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    sum : In(signed(sum)), before : In(partial(kv))
        Of the group, and of all before.
    alignment : In(alignment())
        Steady for all columns of a group.
    after : Out(partial(kv))
        Two cycles later.
    factor : In(FACTOR), exponent : In(EXPONENT), nan : In(1)
        The result is `after` * `factor` * 2**`exponent`, or NaN; steady for all columns of a head.
    o : Out(32)
        Four cycles later.
    """

    joined, latency = 2, 4

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        super().__init__({
            "sum": In(signed(self.widths.sum)), "before": In(partial(kv)), "alignment": In(alignment()),
            "after": Out(partial(kv)),
            "factor": In(FACTOR), "exponent": In(EXPONENT), "nan": In(1), "o": Out(32)})

    def elaborate(self, platform):
        m, how, width = Module(), self.alignment, len(self.after)

        # What has the smaller exponent shifts, and is rounded.
        more, kept = Signal(partial(self.kv)), Signal(partial(self.kv))
        m.d.comb += [
            more.eq(Mux(how.some, self.sum >> self.widths.drop, 0)), kept.eq(Mux(how.before, self.before, 0)),
        ]
        big, small = (register(m, Mux(how.grows, *pair), name) for name, pair in (
            ("big", (more, kept)), ("small", (kept, more))))
        less = shift_right(m, Cat(Const(0, 1), small).as_signed(), how.places, "less")
        m.d.sync += self.after.eq(big + less[1:] + less[0])

        # Sign and magnitude, complemented without adding one; its highest one in the highest place
        sign, magnitude = self.after[-1], Signal(max(width, QUOTIENT))
        m.d.comb += magnitude[-width:].eq(self.after ^ sign.replicate(width))
        steps = [1 << n for n in reversed(range((len(magnitude) - 1).bit_length()))]
        value, shifts = normalize(m, magnitude, steps, Const(0, 1))
        high, place = register(m, value[-QUOTIENT:], "high"), register(m, width - 1 - shifts, "place")
        sign = register(m, sign, "sign")

        # Divided
        quotient = Signal(signed(len(self.exponent) + 1), reset_less=True)
        m.d.sync += quotient.eq(place + self.exponent)
        product = register(m, (high * self.factor)[:2 * QUOTIENT], "product")
        sign, none = register(m, sign, "sign1"), register(m, ~high[-1], "none")

        # In FP32, cut off
        over, field = product[-1], Signal(signed(len(quotient) + 1))
        digits = Mux(over, product[:-1], Cat(Const(0, 1), product[:-2]))
        m.d.comb += field.eq(quotient + over)
        infinite, zero = field >= 255, none | (field <= 0)
        code = Mux(zero, 0, Mux(infinite, FP32.inf, Cat(Const(0, FP32.mantissa - len(digits)), digits, field[:8])))
        m.d.comb += self.o.eq(Mux(self.nan, FP32.nan, Cat(code[:31], sign & ~none)))
        return m
