# SPDX-License-Identifier: Apache-2.0
"""What is to be known of a group's values before they are multiplied."""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.scores import Widths
from hw.arith.largest import largest_of
from hw.arith.pipeline import register
from hw.attention.elements import bad, exponent
from hw.emit import Block

__all__ = ["Tally"]


class Tally(Block):
    """Finds tokens whose values are no numbers and, if sums are aligned, the largest exponent, of each slot.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    valid : In(1), slot : In(range(slots)), token : In(range(tokens)), first : In(1)
    i : In(ArrayLayout(width, elements))
        A beat of a token's values, the first of a group or not.
    bads : Out(ArrayLayout(tokens, slots)), tops : Out(ArrayLayout(8, slots))
        Of each slot, from the next cycle on; tops two cycles later.
    """

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        tokens = self.widths.tokens
        super().__init__({
            "valid": In(1), "slot": In(range(self.widths.slots)), "token": In(range(tokens)), "first": In(1),
            "i": In(data.ArrayLayout(self.widths.fmt.width, self.widths.elements)),
            "bads": Out(data.ArrayLayout(tokens, self.widths.slots)),
            "tops": Out(data.ArrayLayout(8, self.widths.slots))})

    def elaborate(self, platform):
        m, widths, codes = Module(), self.widths, [self.i[n] for n in range(self.widths.elements)]
        is_bad = Cat(bad(widths, code) for code in codes).any()
        for slot, bads in enumerate(self.bads):
            with m.If(self.valid & (self.slot == slot)):
                m.d.sync += bads.eq(Mux(self.first, 0, bads) | is_bad << self.token)
        if widths.aligned:
            top = register(m, largest_of(m, [exponent(m, widths, code, n) for n, code in enumerate(codes)]), "top")
            valid, at, first = (register(m, each, f"{name}_held") for name, each in (
                ("valid", self.valid), ("slot", self.slot), ("first", self.first)))
            for slot, tops in enumerate(self.tops):
                with m.If(valid & (at == slot) & (first | (top > tops))):
                    m.d.sync += tops.eq(top)
        return m
