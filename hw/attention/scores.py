# SPDX-License-Identifier: Apache-2.0
"""Scores: dot products of keys with queries, rounded to fixed point."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from golden.scores import FRACTION, WHOLE, Widths
from hw.arith.pipeline import register
from hw.arith.shift import saturated, shift_right
from hw.attention.ports import EXPONENT, SCORE
from hw.emit import Block

__all__ = ["Scores", "gathered", "largest", "row", "scored"]

MOST = (1 << WHOLE - 1 + FRACTION) - 1
UP = WHOLE + FRACTION       # places by which a sum can be shifted to the left
PLACES = 6                  # bits of a shift


def row(kv, group):
    """A beat of a row of keys, or none: `starts` and `ends` a row.

    With a row comes who has `seen` the token, its scales, and whether it is `bad`. What `closes` a group of `count`
    tokens may be the last of a head, which `ends`; its queries are in `slot`.
    """
    return data.StructLayout({
        "valid": 1, "starts": 1, "ends": 1, "seen": group, "k_scale": 8, "v_scale": 8, "bad": 1,
        "closes": 1, "count": range(Widths(kv).tokens + 1), "ends_head": 1, "slot": 1})


def scored(group):
    """A token's scores, and V's scale."""
    return data.StructLayout({"scores": data.ArrayLayout(SCORE, group), "seen": group, "v_scale": 8})


def largest():
    """A query's largest score in a group, and the largest together with V's scale, whole numbers, if it sees `some`."""
    return data.StructLayout({"top": signed(WHOLE), "shared": EXPONENT, "some": 1})


def gathered(kv, group):
    """A group of `count` tokens; with the last of a head comes which queries are `nan`."""
    query = data.StructLayout({"largest": largest(), "nan": 1})
    return data.StructLayout({"queries": data.ArrayLayout(query, group), "count": range(Widths(kv).tokens + 1),
                              "ends_head": 1})


class Scores(Block):
    """Completes sums over rows of keys and rounds them. Free-running.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int

    Members
    -------
    i : In(row(kv, group))
    sums : In(ArrayLayout(ArrayLayout(signed(sum), 2), group)), top : In(8)
        Of a beat, and if aligned their exponent.
    exponents : In(ArrayLayout(ArrayLayout(8, group), 2)), nan : In(ArrayLayout(group, 2))
        Of the queries of each slot.
    token_valid : Out(1), token : Out(scored(group))
    groupvalid : Out(1), group : Out(gathered(kv, group))
        After its last token, or with it.
    """

    def __init__(self, kv, group):
        self.kv, self.queries, self.widths = kv, group, Widths(kv)
        sums = data.ArrayLayout(signed(self.widths.sum), 2)
        super().__init__({
            "i": In(row(kv, group)), "sums": In(data.ArrayLayout(sums, group)), "top": In(8),
            "exponents": In(data.ArrayLayout(data.ArrayLayout(8, group), 2)),
            "nan": In(data.ArrayLayout(group, 2)),
            "token_valid": Out(1), "token": Out(scored(group)),
            "group_valid": Out(1), "group": Out(gathered(kv, group))})

    def elaborate(self, platform):
        m, widths = Module(), self.widths

        # Both halves; if aligned, how far they have to shift, or all before them, to the larger of their exponents.
        item, joined = self.i, [first + second for first, second in self.sums]
        top, old_places, places = Signal(8), Signal(PLACES), Signal(PLACES)
        if widths.aligned:
            rises, fall = self.top > top, Signal(signed(9))
            m.d.comb += fall.eq(top - self.top)
            with m.If(item.valid):
                m.d.sync += [
                    top.eq(Mux(item.starts | rises, self.top, top)),
                    old_places.eq(Mux(rises, saturated(-fall, PLACES), 0)),
                    places.eq(Mux(item.starts | rises, 0, saturated(fall, PLACES))),
                ]
            joined = [register(m, one, f"joined{g}") for g, one in enumerate(joined)]
            item = register(m, item, "joined_row", reset=True)

        # Over all beats of a row; where its point is.
        totals, lefts, worse = [], [], Signal()
        for g, one in enumerate(joined):
            total, exponent = Signal(signed(widths.score), name=f"total{g}"), Signal(8, name=f"exponent{g}")
            kept, before, up = total, one, Const(0, 1)
            if widths.aligned:
                kept, up = _down(m, total, old_places, f"kept{g}_")
                before, also = _down(m, one, places, f"before{g}_")
                up = also | up & ~item.starts               # never both, as one of them does not shift
            with m.If(item.valid):
                m.d.sync += total.eq(Mux(item.starts, 0, kept) + before + up)
            left = Signal(signed(12), name=f"left{g}")
            m.d.comb += exponent.eq(Mux(item.slot, self.exponents[1][g], self.exponents[0][g]))
            m.d.sync += left.eq(exponent + item.k_scale + top + (
                FRACTION - FP32.bias + 1 - widths.operand + widths.unit))
            totals.append(total)
            lefts.append(left)
        bad = Signal()
        m.d.comb += worse.eq(item.bad | bad & ~item.starts)
        with m.If(item.valid):
            m.d.sync += bad.eq(worse)
        done = register(m, item, "row", reset=True)

        scores = [register(m, self._round(m, total, left, g), f"score{g}")
                  for g, (total, left) in enumerate(zip(totals, lefts, strict=True))]
        bad, done = register(m, bad, "bad_held"), register(m, done, "done", reset=True)
        self._group(m, scores, bad, done)
        return m

    def _round(self, m, total, left, g):
        """`total` * 2**`left`, rounded and saturated: zero if it would have to shift by more than `PLACES` can say."""
        right, few, none = Signal(signed(13), name=f"right{g}"), Signal(name=f"few{g}"), Signal(name=f"none{g}")
        m.d.comb += right.eq(UP - 1 - left), few.eq(right < 0), none.eq(right >= (1 << PLACES) - 1)
        sign, value, lost = total[-1], Cat(Const(0, UP), total), []
        for stage in reversed(range(PLACES)):
            step = 1 << stage
            kept = UP + step            # bits from which the steps to come can still bring
            if len(value) > kept:
                lost.append((value[kept:] ^ sign.replicate(len(value) - kept)).any() & ~right[stage])
            value = Cat(value, sign.replicate(max(kept + step - len(value), 0)))
            shifted = Signal(kept, name=f"shifted{g}_{stage}")
            m.d.comb += shifted.eq(Mux(right[stage], value[step:], value))
            value = shifted
        rounded, over = Signal(signed(UP + 1), name=f"rounded{g}"), Signal(name=f"over{g}")
        m.d.comb += [
            rounded.eq((value.as_signed() + 1) >> 1),
            over.eq(Cat(lost).any() | few & total.any() | (value[-1] ^ sign) | (rounded > MOST) | (rounded < -MOST)),
        ]
        limited = Mux(over, Mux(sign, -MOST, MOST), rounded)
        return Mux(none, 0, limited)[:UP].as_signed()

    def _group(self, m, scores, bad, done):
        """Hand the token on; find the largest scores of its group."""
        token, closed = self.token, self.group
        ends = done.valid & done.ends
        m.d.comb += [
            self.token_valid.eq(ends), token.seen.eq(done.seen), token.v_scale.eq(done.v_scale),
            self.group_valid.eq(done.closes), closed.count.eq(done.count), closed.ends_head.eq(done.ends_head),
        ]
        for g, score in enumerate(scores):
            counts, query = Signal(name=f"counts{g}"), closed.queries[g]
            whole, shared = Signal(signed(WHOLE), name=f"whole{g}"), Signal(EXPONENT, name=f"shared{g}")
            held, nan, worse = Signal(largest(), name=f"held{g}"), Signal(name=f"nan{g}"), Signal(name=f"worse{g}")
            now = query.largest
            m.d.comb += [
                token.scores[g].eq(score), counts.eq(ends & done.seen[g]),
                whole.eq(score >> FRACTION), shared.eq(whole + done.v_scale),
                now.some.eq(held.some | counts),
                now.top.eq(Mux(counts & (~held.some | (whole > held.top)), whole, held.top)),
                now.shared.eq(Mux(counts & (~held.some | (shared > held.shared)), shared, held.shared)),
                worse.eq(nan | counts & bad),
                query.nan.eq(worse | Mux(done.slot, self.nan[1][g], self.nan[0][g])),
            ]
            m.d.sync += [
                held.top.eq(now.top), held.shared.eq(now.shared), held.some.eq(now.some & ~done.closes),
                nan.eq(worse & ~(done.closes & done.ends_head)),
            ]


def _down(m, value, places, name):
    """A value shifted down, and whether it is to be rounded up."""
    shifted = shift_right(m, Cat(Const(0, 1), value).as_signed(), places, name)
    return shifted[1:].as_signed(), shifted[0]
