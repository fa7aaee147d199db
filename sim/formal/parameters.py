# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.matmul.parameters.Parameters`: what a block was given, it finds while it needs it."""

from amaranth.hdl import Array, Cat, Mux, Signal

from hw.matmul.parameters import KINDS
from hw.matmul.ports import Error
from sim.formal.contract import Contract

__all__ = ["ParametersRules"]

C = KINDS.index("c")


class ParametersRules(Contract):
    """Each block asks for what it wants, once, and is handed on in its turn with all of it.

    Any one beat is followed from its request to its memory or to C, and a scale or bias in it must be
    there for reading from when its block is on offer until the block is released. One bit of it stands
    for all: no property tells them apart.
    """

    def rules(self, m, block):
        config, i, o, c = block.config, block.i, block.o, block.c
        request, beats, given, how = block.request, block.beats, i.payload, i.payload.finish
        take, arrives, leaves = self.moves(beats), self.moves(i), self.moves(o)
        empty = how.error != Error.NONE

        # What the block at hand has asked for, of what it wants.
        wanted, asked, kind, size = Signal(4), Signal(4), Signal(2), Signal(range(2 * config.acc_rows * config.turns))
        turns, runs = Signal(range(config.turns + 1)), Signal(range(block.run + 1))
        m.d.comb += [
            wanted.eq(Mux(empty, 0, Cat(how.row_scaled, how.column_scaled, how.biased, how.accumulate))),
            turns.eq((how.cols + config.drain - 1) // config.drain),
            runs.eq((how.rows + config.drain - 1) // config.drain),
            size.eq(request.payload.beats * request.payload.rows),
        ]
        for n in reversed(range(4)):
            with m.If((wanted & ~asked)[n]):
                m.d.comb += kind.eq(n)
        asks = self.moves(request)
        with m.If(arrives):
            m.d.sync += asked.eq(0)
        with m.Elif(asks):
            m.d.sync += asked.eq(asked | (1 << kind))

        # Beats that were asked for, blocks inside, blocks with results that are in use.
        owed, inside, users = Signal(range(64)), Signal(range(8)), Signal(range(4))
        used = leaves & (o.payload.block.error == Error.NONE)
        m.d.sync += [
            owed.eq(owed + Mux(asks, size, 0) - take), inside.eq(inside + arrives - leaves),
            users.eq(users + used - block.release),
        ]

        # Any block on its way through.
        follow, followed, ahead, kept = self.any(1, "follow"), Signal(), Signal.like(inside), Signal(how.shape())
        with m.If(arrives & follow & ~followed):
            m.d.sync += followed.eq(1), kept.eq(how), ahead.eq(inside - leaves)
        with m.Elif(followed & leaves):
            m.d.sync += ahead.eq(ahead - 1), followed.eq(ahead != 0)

        # Any beat: asked for, come, and if it is a scale or bias, on offer or in use until released.
        pick, index = self.any(1, "pick"), self.any(range(block.longest), "index")
        row = self.some(range(config.acc_rows), "row")
        asking, coming, present, using = Signal(), Signal(), Signal(), Signal()
        what, which, until, before, older = (Signal(2), Signal.like(index), Signal.like(owed), Signal.like(inside),
                                             Signal.like(users))
        bit, half, spoiled, mine = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            asking.eq(asks & pick & ~coming & ~present & ~using & (index < request.payload.beats)),
            mine.eq((coming | present) & (before == 0) & (inside != 0) & o.valid & (what != C)),
        ]
        with m.If(asking):
            m.d.sync += [
                coming.eq(1), what.eq(kind), which.eq(index), until.eq(owed - take + index),
                before.eq(inside - leaves),
            ]
        with m.If(coming & take):
            m.d.sync += until.eq(until - 1)
            with m.If(until == 0):
                m.d.sync += coming.eq(0), present.eq(what != C), spoiled.eq(beats.payload.bad)
                m.d.sync += bit.eq(beats.payload.data.word_select(Mux(what == 0, row % config.drain, 0), 32)[0])
        with m.If((coming | present) & leaves):
            m.d.sync += before.eq(before - 1)
        with m.If(mine & leaves):
            m.d.sync += present.eq(0), using.eq(1), half.eq(o.payload.half), older.eq(users - block.release)
        with m.If(using & block.release):
            m.d.sync += older.eq(older - 1), using.eq(older != 0)

        # Reading it.
        there, side = mine | using, Mux(mine, o.payload.half, half)
        reads = Array([
            (block.row_read.half == side) & (block.row_read.row == row) & (row // config.drain == which),
            (block.column_read.half == side) & (block.column_read.turn == which),
            (block.bias_read.half == side) & (block.bias_read.turn == which),
            0])
        found = Array([block.row_scale[0], block.column_scales[0], block.bias[0], 0])
        reading, expected = Signal(), Signal()
        m.d.sync += reading.eq(there & reads[what]), expected.eq(bit)

        stuck, bad = Signal(range(4)), Signal()
        m.d.sync += stuck.eq(Mux((inside != 0) & (owed == 0) & (users != 2) & ~o.valid, stuck + (stuck != 3), 0))
        with m.If(leaves):
            m.d.sync += bad.eq(0)
        with m.Elif(take & beats.payload.bad):
            m.d.sync += bad.eq(1)

        self.require("i holds", self.steady(i))
        self.require("beats hold", self.steady(beats))
        self.require("a block has rows and columns or an error", ~i.valid | empty | (
            (how.rows != 0) & (how.rows <= config.acc_rows) & (how.cols != 0) & (how.cols <= config.cols)))
        self.require("beats were asked for", ~beats.valid | (owed != 0))
        self.require("what is released was in use", ~block.release | (users != 0))

        self.promise("request holds", self.steady(request))
        self.promise("o holds", self.steady(o))
        self.promise("C holds", self.steady(c))
        self.promise("a block asks for what it wants, in order", ~request.valid | i.valid & (wanted & ~asked).any() & (
            request.payload.address == Array(given[name] for name in KINDS)[kind]) & (
            request.payload.beats == Mux(kind == 0, runs, turns)) & (
            request.payload.rows == Mux(kind == C, how.rows, 1)) & (request.payload.stride == given.c_pitch))
        self.promise("a block goes on when it has asked for all", ~arrives | (wanted == asked))
        self.promise("blocks leave in order, unchanged",
                     ~(followed & o.valid & (ahead == 0)) | (o.payload.block == kept))
        self.promise("no block from nothing", ~o.valid | (inside != 0))
        self.promise("a block leaves with all its scales", ~mine | present)
        self.promise("a block says whether something did not come", ~o.valid | (bad | ~o.payload.bad) & (
            ~mine | ~spoiled | o.payload.bad))
        self.promise("a scale can be read as long as its block needs it", ~reading | (found[what] == expected))
        self.promise("at most two blocks in use", users <= 2)
        self.promise("beats of C go to C, and no others", ~(coming & take & (until == 0)) | (
            block.c_arrives == (what == C)))
        self.promise("nothing arrives at C but beats", ~block.c_arrives | take)
        self.promise("no beat is taken that was not asked for", ~take | (owed != 0))
        self.promise("a block that has all leaves", stuck < 3)
        self.reach("both halves in use", users == 2)
        self.reach("a row scale is read while the next block has its own", reading & (what == 0) & using & o.valid)
        self.reach("a bad scale", mine & spoiled)
