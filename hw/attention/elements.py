# SPDX-License-Identifier: Apache-2.0
"""Codes of keys and values as the multipliers take them."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.scores import Widths
from hw.arith.largest import largest_of
from hw.arith.pipeline import register
from hw.arith.shift import saturated
from hw.emit import Block

__all__ = ["Elements", "bad", "element", "exponent"]


def element(kv):
    """A lane's significand and sign; `places`, by which its product is shifted, come a cycle later."""
    widths = Widths(kv)
    return data.StructLayout({"significand": widths.significand, "sign": 1, "places": widths.places})


def bad(widths, code):
    """Whether a code is no number."""
    return code[widths.fmt.mantissa:-1].all() if widths.aligned else code[:-1].all()


def exponent(m, widths, code, n):
    """The exponent of a code; what is no number has that of the smallest."""
    field = code[widths.fmt.mantissa:-1]
    found, none = Signal(len(field), name=f"exponent{n}"), bad(widths, code) | ~field.any()
    m.d.comb += found.eq(Mux(none, 1, field) if widths.aligned else Mux(none, 0, field - 1))
    return found


class Elements(Block):
    """Significands, signs, and how far products are to be shifted, of a beat of keys or two columns of values.

    What is no number counts as zero. Exact sums shift to the left, by an element's exponent. Aligned ones shift to the
    right, by what that is less than the largest of the beat, or of the group. Latency 0 cycles, or 1 if aligned.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    i : In(ArrayLayout(width, elements))
    grouped : In(1), group_top : In(8)
        If aligned: values, and the largest exponent of their group.
    o : Out(ArrayLayout(element(kv), elements))
    top : Out(8)
        If aligned, the largest exponent, with `o`.
    """

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        size = self.widths.elements
        super().__init__({
            "i": In(data.ArrayLayout(self.widths.fmt.width, size)), "grouped": In(1), "group_top": In(8),
            "o": Out(data.ArrayLayout(element(kv), size)), "top": Out(8)})

    @property
    def latency(self):
        return int(self.widths.aligned)

    def elaborate(self, platform):
        m, widths = Module(), self.widths
        fmt, exponents = widths.fmt, []
        for n in range(widths.elements):
            code, o = self.i[n], self.o[n]
            significand, sign = Signal(widths.significand, name=f"significand{n}"), code[-1]
            m.d.comb += significand.eq(Mux(bad(widths, code), 0, Cat(code[:fmt.mantissa], code[fmt.mantissa:-1].any())))
            exponents.append(exponent(m, widths, code, n))
            if widths.aligned:
                significand, sign = register(m, significand, f"kept{n}"), register(m, sign, f"sign{n}")
            m.d.comb += o.significand.eq(significand), o.sign.eq(sign)

        if not widths.aligned:
            for n, places in enumerate(exponents):
                m.d.comb += self.o[n].places.eq(register(m, places, f"places{n}"))
            return m
        m.d.comb += self.top.eq(register(m, Mux(self.grouped, self.group_top, largest_of(m, exponents)), "top"))
        for n, each in enumerate(exponents):
            below = Signal(8, name=f"below{n}")
            m.d.comb += below.eq(self.top - register(m, each, f"exponent{n}_kept"))
            m.d.comb += self.o[n].places.eq(register(m, saturated(below, widths.places), f"places{n}"))
        return m
