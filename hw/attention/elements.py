# SPDX-License-Identifier: Apache-2.0
"""Codes of keys and values as the multipliers take them."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.scores import Widths
from hw.arith.pipeline import register
from hw.emit import Block

__all__ = ["PLACES", "Elements", "bad", "element"]

PLACES = 5      # bits of a shift


def element(kv):
    """A lane's significand and sign; `places`, by which its product is shifted, come a cycle later."""
    return data.StructLayout({"significand": Widths(kv).significand, "sign": 1, "places": PLACES})


def bad(widths, code):
    """Whether a code is no number."""
    return code[widths.fmt.mantissa:-1].all() if widths.aligned else code[:-1].all()


class Elements(Block):
    """Significands, signs, and how far products are to be shifted, of a beat or two columns.

    What is no number counts as zero. Exact sums shift to the left, by an element's exponent. Aligned ones shift to the
    right, by what that is less than the largest of each half, or of `both`. Latency 0 cycles, or 1 if aligned.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    i : In(ArrayLayout(width, elements))
    both : In(1)
    o : Out(ArrayLayout(element(kv), elements))
    top : Out(ArrayLayout(8, 2))
        If aligned, the largest exponent of each half, with `o`.
    """

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        size = self.widths.elements
        super().__init__({
            "i": In(data.ArrayLayout(self.widths.fmt.width, size)), "both": In(1),
            "o": Out(data.ArrayLayout(element(kv), size)), "top": Out(data.ArrayLayout(8, 2))})

    @property
    def latency(self):
        return int(self.widths.aligned)

    def elaborate(self, platform):
        m, widths = Module(), self.widths
        fmt, exponents = widths.fmt, []
        for n in range(widths.elements):
            code, o, none = self.i[n], self.o[n], Signal(name=f"none{n}")
            field, hidden = code[fmt.mantissa:-1], Signal(name=f"hidden{n}")
            significand, exponent = Signal(widths.significand, name=f"significand{n}"), Signal(8, name=f"exponent{n}")
            m.d.comb += [
                none.eq(bad(widths, code)), hidden.eq(field.any()),
                significand.eq(Mux(none, 0, Cat(code[:fmt.mantissa], hidden))),
                exponent.eq(Mux(none | ~hidden, 0, field - 1)),
            ]
            if widths.aligned:
                significand, sign = register(m, significand, f"kept{n}"), register(m, code[-1], f"sign{n}")
            else:
                sign = code[-1]
                m.d.comb += o.places.eq(register(m, exponent[:PLACES], f"places{n}"))
            m.d.comb += o.significand.eq(significand), o.sign.eq(sign)
            exponents.append(exponent)
        if widths.aligned:
            self._align(m, exponents)
        return m

    def _align(self, m, exponents):
        half = self.widths.tokens
        tops = [_largest(m, exponents[:half]), _largest(m, exponents[half:])]
        either = _largest(m, tops)
        for n, top in enumerate(tops):
            m.d.comb += self.top[n].eq(register(m, Mux(self.both, either, top), f"top{n}"))
        for n, exponent in enumerate(exponents):
            kept, below = register(m, exponent, f"exponent{n}_kept"), Signal(8, name=f"below{n}")
            m.d.comb += below.eq(self.top[n // half] - kept)
            places = below[:PLACES] | below[PLACES:].any().replicate(PLACES)
            m.d.comb += self.o[n].places.eq(register(m, places, f"places{n}"))


def _largest(m, values):
    """The largest of some values, in a tree."""
    while len(values) > 1:
        pairs, values = [values[n:n + 2] for n in range(0, len(values), 2)], []
        for pair in pairs:
            larger = Signal(8, name="larger")
            m.d.comb += larger.eq(Mux(pair[0] > pair[-1], pair[0], pair[-1]))
            values.append(larger)
    return values[0]
