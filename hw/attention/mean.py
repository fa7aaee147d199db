# SPDX-License-Identifier: Apache-2.0
"""A column of values, weighed by one query."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from golden.scores import QUOTIENT, Widths
from hw.arith.fp32 import normalize
from hw.arith.pipeline import register
from hw.arith.shift import shift_right
from hw.attention.inverse import division
from hw.attention.ports import EXPONENT
from hw.attention.weights import joint
from hw.emit import Block

__all__ = ["Mean", "partial"]



def partial(kv):
    """The sum of all groups so far, in units of 2**`exponent`."""
    widths = Widths(kv)
    return data.StructLayout({"value": signed(widths.sum - widths.drop + widths.growth), "exponent": EXPONENT})


class Mean(Block):
    """Joins the sum of a group to those before; divides what has come of them, in FP32. Free-running.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    sum : In(signed(sum)), top : In(8), joint : In(joint()), before : In(partial(kv))
        Of the group, and of all before.
    after : Out(partial(kv))
        Two cycles later.
    division : In(division())
        Three cycles later.
    o : Out(32)
        Five cycles later.
    """

    joined, divided, latency = 2, 3, 5

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        super().__init__({
            "sum": In(signed(self.widths.sum)), "top": In(8), "joint": In(joint()), "before": In(partial(kv)),
            "after": Out(partial(kv)), "division": In(division()), "o": Out(32)})

    def elaborate(self, platform):
        m, old, new = Module(), self.before, self.after

        # Whichever has the smaller exponent will have to shift.
        width = len(new.value)
        more, exponent, places = Signal(signed(width)), Signal(EXPONENT), Signal(signed(len(old.exponent) + 1))
        alone, grows = Signal(), Signal()
        m.d.comb += [
            more.eq(Mux(self.joint.some, self.sum >> self.widths.drop, 0)),
            exponent.eq(self.joint.shared + self.top),
            alone.eq(~self.joint.before), grows.eq(self.joint.some & (alone | (exponent > old.exponent))),
            places.eq(Mux(grows, exponent - old.exponent, old.exponent - exponent)),
        ]
        kept = Mux(alone, 0, old.value)
        big = register(m, Mux(grows, more, kept).as_signed(), "big")
        small = register(m, Mux(grows, kept, more).as_signed(), "small")
        places = register(m, places[:6] | places[6:].any().replicate(6), "places")
        exponent = register(m, Mux(grows, exponent, old.exponent), "exponent1")
        less = shift_right(m, small, places, "less")
        m.d.sync += new.value.eq(big + less), new.exponent.eq(exponent)

        # Sign and magnitude, its highest one in the highest place
        sign, magnitude = new.value[-1], Signal(max(width, QUOTIENT))
        m.d.comb += magnitude[-width:].eq(Mux(sign, -new.value, new.value))
        steps = [1 << n for n in reversed(range((len(magnitude) - 1).bit_length()))]
        value, shifts = normalize(m, magnitude, steps, Const(0, 1))
        high, place = register(m, value[-QUOTIENT:], "high"), register(m, width - 1 - shifts, "place")
        sign, exponent = register(m, sign, "sign"), register(m, new.exponent, "exponent2")

        # Divided
        by, quotient, product = self.division, Signal(signed(len(old.exponent) + 2)), Signal(QUOTIENT + len(self.division.factor))
        m.d.comb += product.eq(high * by.factor)
        m.d.sync += quotient.eq(place + exponent + by.exponent)
        product = register(m, product[2 * QUOTIENT - 2 - FP32.mantissa:2 * QUOTIENT], "product")
        sign, nan = register(m, sign, "sign2"), register(m, by.nan, "nan")
        none = register(m, by.none | ~high[-1], "none")

        # In FP32, cut off
        over, field = product[-1], Signal(signed(len(quotient) + 1))
        fraction = Mux(over, product[1:-1], product[:-2])
        m.d.comb += field.eq(quotient + over)
        infinite, zero = field >= 255, none | (field <= 0)
        code = Mux(zero, 0, Mux(infinite, FP32.inf, Cat(fraction, field[:8])))
        m.d.sync += self.o.eq(Mux(nan, FP32.nan, Cat(code[:31], sign & ~none)))
        return m
