# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.attention.queries.Queries`: every word of a load has its place, and stays there until its release."""

from amaranth.hdl import Array, Cat, Mux, Signal

from golden.config import KvCache
from golden.formats import FP32
from hw.arith.formats import Float
from hw.attention.queries import Queries
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["TASKS", "QueriesRules"]


class QueriesRules(Contract):
    """Any element of any row is followed from its way in until its slot is released.

    Control does not look at numbers, so all that come are in one binade, or not finite.
    """

    def rules(self, m, block):
        kv, widths, group, loads, i, full = block.kv, block.widths, block.group, block.loads, block.i, block.full
        lanes, operand, size, chunks = kv.lanes, widths.operand, widths.elements, kv.head_dim // kv.lanes

        # The next word's slot and place.
        left, row, at, slot = Signal(range(group + 1)), Signal(range(group)), Signal(range(chunks)), Signal(init=1)
        takes, ends, starts = Signal(), Signal(), Signal()
        counts = Array(Signal(range(group + 1), name=f"count{n}") for n in range(2))
        m.d.comb += takes.eq(self.moves(i)), ends.eq(takes & (at == chunks - 1)), starts.eq(self.moves(loads))
        with m.If(takes):
            m.d.sync += at.eq(Mux(ends, 0, at + 1)), row.eq(row + ends), left.eq(left - ends)
        with m.If(starts):
            m.d.sync += left.eq(loads.payload), row.eq(0), slot.eq(~slot), counts[~slot].eq(loads.payload)

        # Slots that are taken, and those that are complete, so long after the last word.
        older, taken, complete, gone = Signal(), Signal(2), Signal(2), Signal(2)
        ended, way = Signal(2), Signal(2 * (chunks + 2))
        m.d.comb += gone.eq(block.release << older), ended.eq(Mux(ends & (left == 1), Mux(slot, 2, 1), 0))
        m.d.sync += older.eq(older ^ block.release), way.eq(Cat(ended, way))
        m.d.sync += taken.eq(taken & ~gone | Mux(starts, Mux(slot, 1, 2), 0)), complete.eq(complete & ~gone | way[-2:])

        # What is followed: an element, and what its row has.
        follow, followed, open, shown = self.any(1, "follow"), Signal(), Signal(), Signal()
        lane = self.any(range(lanes), "lane")
        x, kept, value = Signal(Float(FP32)), Signal(operand), Signal(operand + 1)
        m.d.comb += x.eq(i.payload.word_select(lane, 32)), kept.eq(x.mantissa[-operand:])
        magnitude = (1 << operand - 1) + (kept >> 1) + (kept[0] & ~kept[1:].all())
        own_slot, own_row, place = Signal(), Signal.like(row), Signal(range(max(kv.head_dim, kv.row_beats * size)))
        exponents = [i.payload.word_select(n, 32)[FP32.mantissa:-1] for n in range(lanes)]
        has, now, own = Signal(2), Signal(2), Signal(2)        # numbers; what is not finite
        m.d.comb += now.eq(Mux(at == 0, 0, has) | Cat(Cat(x == FP32.bias for x in exponents).any(),
                                                      Cat(x == 0xFF for x in exponents).any()))
        with m.If(takes):
            m.d.sync += has.eq(now), open.eq(open & ~ends)
        with m.If(takes & open):
            m.d.sync += own.eq(now)
        with m.If(takes & follow & ~followed & ~shown):
            m.d.sync += [
                followed.eq(1), open.eq(~ends), own.eq(now), own_slot.eq(slot), own_row.eq(row),
                place.eq(at * lanes + lane), value.eq(Mux(x.exponent.all(), 0, magnitude) | x.sign << operand),
            ]
        with m.Elif(followed & gone.bit_select(own_slot, 1)):
            m.d.sync += followed.eq(0)
        there = followed & complete.bit_select(own_slot, 1)
        with m.If(block.read_en):
            m.d.sync += shown.eq(there & (block.read_slot == own_slot) & (block.read_beat == place // size))
        found = block.operands.as_value().word_select(own_row * size + place % size, operand + 1)

        self.require("loads hold", self.steady(loads))
        self.require("i holds", self.steady(i))
        self.require("a load has rows, no more than there are queries",
                     ~loads.valid | (loads.payload != 0) & (loads.payload <= group))
        self.require("a slot is released when it is complete", ~(gone & ~complete).any())
        self.require("numbers are in one binade", Cat((x == FP32.bias) | (x == 0xFF) for x in exponents).all())

        self.promise("a load is taken when there is a slot and the last one has come",
                     loads.ready == ((left == 0) & ~taken.all()))
        self.promise("words of a load are taken, and no others", i.ready == (left != 0))
        self.promise("a slot is full so long after its last word, until its release", full == complete)
        self.promise("an element is read from its place", ~shown | (found == value))
        self.promise("a row has its exponent", ~there | (
            block.exponents.as_value().word_select(own_slot * group + own_row, 8) == Mux(own[0], FP32.bias, 0)))
        self.promise("a row is NaN when an element is not finite", ~there | (
            block.nan.as_value().bit_select(own_slot * group + own_row, 1) == own[1]))
        self.promise("rows that are not given are not NaN", Cat(
            ~full[n] | (q < counts[n]) | ~block.nan.as_value()[n * group + q]
            for n in range(2) for q in range(group)).all())
        self.reach("both slots full", full.all())
        self.reach("a read of a full slot while the other is filled", shown & takes & followed & (own_row != 0))


TASKS = [
    Task(Queries(KvCache(format=format, beat=8, head_dim=8, lanes=lanes), 2), QueriesRules, depth=20, patience=60,
         cover=cover) for format, lanes, cover in (("fp8", 4, 18), ("bf16", 2, 26))]
