# SPDX-License-Identifier: Apache-2.0
"""Dot products of keys with a query, or of values with powers of two."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.scores import GUARD, Widths
from hw.arith.compress import Row, add, compress, multiply
from hw.arith.pipeline import register
from hw.arith.shift import shift_left, shift_right
from hw.attention.elements import element
from hw.attention.ports import operand
from hw.emit import Block

__all__ = ["DotPair"]


class DotPair(Block):
    """Two dot products, each of half of the lanes. Latency 3 cycles.

    A product's magnitude is shifted and, if it is negative, complemented; all are summed in a carry-save tree. Their
    sign bits make each larger by a power of two, which in all is the highest bit of the sum.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    elements : In(ArrayLayout(element(kv), elements))
    operands : In(ArrayLayout(operand(kv), elements))
    o : Out(ArrayLayout(signed(sum), 2))
    """

    latency = 3

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        size = self.widths.elements
        super().__init__({
            "elements": In(data.ArrayLayout(element(kv), size)), "operands": In(data.ArrayLayout(operand(kv), size)),
            "o": Out(data.ArrayLayout(signed(self.widths.sum), 2))})

    def elaborate(self, platform):
        m, half = Module(), self.widths.tokens
        for n in range(2):
            lanes = [self._lane(m, at) for at in range(n * half, (n + 1) * half)]
            self._sum(m, lanes, n)
        return m

    def _lane(self, m, n):
        """A product's shifted row, and its sign."""
        widths, i, by = self.widths, self.elements[n], self.operands[n]
        product = Signal(widths.operand + widths.significand, name=f"product{n}")
        m.d.comb += product.eq(multiply(m, by.magnitude, i.significand, f"product{n}_"))
        product, sign = register(m, product, f"product{n}_held"), register(m, i.sign ^ by.sign, f"sign{n}")
        body = product ^ sign.replicate(len(product))
        if widths.aligned:
            wide = Signal(signed(widths.product + 1), name=f"wide{n}")
            m.d.comb += wide.eq(Cat(sign.replicate(GUARD), body, sign))
            body = shift_right(m, wide, i.places, f"shifted{n}_")
        else:
            body = shift_left(m, body, i.places, sign, f"shifted{n}_")
        return Cat(body[:widths.product], ~sign), sign

    def _sum(self, m, lanes, n):
        width, (*_, (_, last)) = self.widths.sum, lanes
        ones = [(sign, 0) for _, sign in lanes[:-1]]
        pair = compress(m, [Row(body) for body, _ in lanes], width=width, ones=ones, name=f"tree{n}_")
        pair = [Row(register(m, row.bits, f"pair{n}_{at}"), row.low) for at, row in enumerate(pair)]
        total = add(m, pair, width=width, carry=register(m, last, f"carry{n}"), name=f"total{n}")
        m.d.sync += self.o[n].eq(Cat(total[:-1], ~total[-1]))
