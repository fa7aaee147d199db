# SPDX-License-Identifier: Apache-2.0
"""One query's weights: powers of two of its scores, and their sum."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from golden.scores import FRACTION, SHARE, WHOLE, Widths
from golden.tables import CHOICE, chords
from hw.arith.pipeline import register
from hw.arith.shift import saturated, shift_right
from hw.attention.ports import EXPONENT, SCORE
from hw.attention.scores import largest
from hw.emit import Block

__all__ = ["LATENCY", "Weight", "total_bits"]

LATENCY = 2         # from a score to its weight


def total_bits(kv):
    """Bits of the sum of all powers of a sequence."""
    widths = Widths(kv)
    return widths.operand + SHARE + widths.tokens.bit_length() + widths.growth


class Weight(Block):
    """A weight for each score, relative to the largest of its group, and what all of them sum up to.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    score : In(SCORE), v_scale : In(8), seen : In(1), first : In(1)
        A token's, the first of a group or not.
    opens : In(1), sinks : In(1)
        The score is that with which a head begins, if it `sinks`.
    group : In(largest())
        Of the tokens' group; steady.
    joins : In(1)
        All tokens of the group are in its sum; it joins the total.
    operand : Out(operand)
        `LATENCY` cycles after the score; zero of a token that is not seen.
    attends : Out(1)
        Likewise: whether it is.
    total : Out(total_bits(kv)), exponent : Out(signed(WHOLE))
        0 as long as there is nothing.
    """

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        super().__init__({
            "score": In(SCORE), "v_scale": In(8), "seen": In(1), "first": In(1), "opens": In(1), "sinks": In(1),
            "group": In(largest()), "joins": In(1),
            "operand": Out(self.widths.operand), "attends": Out(1),
            "total": Out(total_bits(kv)), "exponent": Out(signed(WHOLE))})

    def elaborate(self, platform):
        m, bits = Module(), self.widths.operand

        # A row of the table
        rows = chords("exp2", bits + 1)
        below = Array(Const(row, bits + 3) for row in rows[:-1])
        rises = Array(Const(after - row, bits) for row, after in zip(rows, rows[1:], strict=False))
        fraction, whole, shared = self.score[:FRACTION], Signal(signed(WHOLE)), Signal(EXPONENT)
        m.d.comb += whole.eq(self.score >> FRACTION), shared.eq(whole + self.v_scale)
        index, low = fraction[-CHOICE:], register(m, fraction[:-CHOICE], "low")
        base, rise = register(m, below[index], "base"), register(m, rises[index], "rise")
        whole, shared = register(m, whole, "whole1"), register(m, shared, "shared1")
        seen, first, opens = (register(m, each, f"{name}1") for name, each in (
            ("seen", self.seen), ("first", self.first), ("opens", self.opens)))

        # The power of two, and how far it is below the largest
        line, rounded = Signal(bits + 3 + len(low)), Signal(bits + 1)
        below_shared, below_top = Signal(signed(WHOLE + 2)), Signal(signed(WHOLE + 1))
        m.d.comb += [
            line.eq((base << len(low)) + rise * low), rounded.eq((line[len(low) + 1:] + 1) >> 1),
            below_shared.eq(self.group.shared - shared), below_top.eq(self.group.top - whole),
        ]
        power = register(m, rounded[:bits] | rounded[bits].replicate(bits), "power")
        operand_places = register(m, saturated(below_shared, 4), "operand_places")
        share_places = register(m, saturated(below_top, 5), "share_places")
        seen, first, opens, whole = (register(m, each, f"{name}2") for name, each in (
            ("seen", seen), ("first", first), ("opens", opens), ("whole", whole)))

        # As an operand, rounded; and in the sum
        share = Signal(bits + SHARE + self.widths.tokens.bit_length())
        half = shift_right(m, Cat(Const(0, 1), power, Const(0, 1)).as_signed(), operand_places, "half")
        part = shift_right(m, Cat(Const(0, SHARE + 1), power, Const(0, 1)).as_signed(), share_places, "part")
        m.d.comb += [
            self.operand.eq(Mux(seen, (half[:-1] + 1) >> 1, 0)), self.attends.eq(seen),
        ]
        m.d.sync += share.eq(Mux(first, 0, share) + Mux(seen, part[1:-1], 0) + (seen & part[0]))

        # What is smaller shifts to the exponent of the other.
        known, grows, places = Signal(), Signal(), Signal(signed(WHOLE + 1))
        big, small = Signal(len(self.total)), Signal(len(self.total) + 1)
        m.d.comb += [
            grows.eq(~known | (self.group.top > self.exponent)),
            places.eq(Mux(grows, self.group.top - self.exponent, self.exponent - self.group.top)),
            big.eq(Mux(grows, share, self.total)),
            small.eq(Mux(grows, self.total, share)),
        ]
        less = shift_right(m, Cat(Const(0, 1), small).as_signed(), saturated(places, 6), "less")
        with m.If(self.joins & self.group.some):
            m.d.sync += known.eq(1), self.total.eq(big + less[1:] + less[0])
            with m.If(grows):
                m.d.sync += self.exponent.eq(self.group.top)
        with m.If(opens):
            m.d.sync += known.eq(self.sinks)
            m.d.sync += self.total.eq(Mux(self.sinks, power << SHARE, 0)), self.exponent.eq(Mux(self.sinks, whole, 0))
        return m
