# SPDX-License-Identifier: Apache-2.0
"""What is to be known of a group's values before they are multiplied."""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.scores import Widths
from hw.attention.elements import bad, exponent, largest
from hw.emit import Block

__all__ = ["Tally"]


class Tally(Block):
    """Finds tokens whose values are no numbers and, if sums are aligned, the largest exponent, of each of two slots.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    valid : In(1), slot : In(1), token : In(range(tokens)), first : In(1)
    i : In(ArrayLayout(width, elements))
        A beat of a token's values, the first of a group or not.
    bads : Out(ArrayLayout(tokens, 2)), tops : Out(ArrayLayout(8, 2))
        Of each slot, from the next cycle on.
    """

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        tokens = self.widths.tokens
        super().__init__({
            "valid": In(1), "slot": In(1), "token": In(range(tokens)), "first": In(1),
            "i": In(data.ArrayLayout(self.widths.fmt.width, self.widths.elements)),
            "bads": Out(data.ArrayLayout(tokens, 2)), "tops": Out(data.ArrayLayout(8, 2))})

    def elaborate(self, platform):
        m, widths, codes = Module(), self.widths, [self.i[n] for n in range(self.widths.elements)]
        is_bad = Cat(bad(widths, code) for code in codes).any()
        top = largest(m, [exponent(m, widths, code, n) for n, code in enumerate(codes)]) if widths.aligned else None
        for slot in range(2):
            with m.If(self.valid & (self.slot == slot)):
                m.d.sync += self.bads[slot].eq(Mux(self.first, 0, self.bads[slot]) | is_bad << self.token)
                if widths.aligned:
                    with m.If(self.first | (top > self.tops[slot])):
                        m.d.sync += self.tops[slot].eq(top)
        return m
