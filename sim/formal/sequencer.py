# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.matmul.sequencer`: each beat to its columns, each row once, and nothing overwritten."""

from amaranth.hdl import Cat, Const, Mux, Signal

from golden.families import FORMAT_CODES
from hw.arith.aligned import LEAD
from hw.matmul.accumulator import settling
from hw.matmul.walker import aligned, scale_beats
from hw.matmul.walker import mx as mx_field
from sim.formal.contract import Contract

__all__ = ["LoaderRules", "SequencerRules"]


class LoaderRules(Contract):
    """A tile's beats fill its columns in order, and stay until the array has taken them."""

    def rules(self, m, block):
        tile, beats, cols, mx = block.tile, block.beats, block.config.cols, block.config.mx
        given, kind = tile.payload, block.tile.payload.aligned if aligned(block.config) else Const(0)
        take, beat, last = self.moves(beats), Signal(range(cols + 1)), Signal()
        scale, scales = Signal(range(scale_beats(block.config) + 1)), given.scales if mx else Const(0)
        scaling, begun = Signal(), Signal()     # this beat is of scales; some beat of this tile was taken
        paired = (given.format == FORMAT_CODES["e2m1"]) | kind
        m.d.comb += scaling.eq(scale != scales), last.eq(~scaling & (beat + 1 == given.beats))
        with m.If(take):
            m.d.sync += begun.eq(~last), beat.eq(Mux(last, 0, beat + ~scaling)), scale.eq(Mux(last, 0, scale + scaling))

        last_kind, rested = Signal(), Signal(range(LEAD + 2), init=LEAD + 1)
        m.d.sync += rested.eq(Mux(take | block.swap, 0, rested + (rested != LEAD + 1)))
        with m.If(take):
            m.d.sync += last_kind.eq(kind)
        apart = (kind == last_kind) | (rested >= LEAD) & ~block.swap    # kinds of sums do not meet in the array

        complete, short = Signal(), Signal()    # a whole tile is in the shadow weights; some of it did not come
        with m.If(block.swap):
            m.d.sync += complete.eq(0)
        with m.If(take):
            m.d.sync += complete.eq(last), short.eq(beats.payload.bad | short & begun)

        self.require("tile holds", self.steady(tile))
        self.require("beats hold", self.steady(beats))
        self.require("a tile has beats", ~tile.valid | (given.beats != 0) & (
            given.beats <= Mux(paired, cols // 2, cols)) & (scales <= scale_beats(block.config)))
        self.require("the last beat of a tile alone may be bad", ~(beats.valid & beats.payload.bad) | last)
        self.require("a complete tile is taken or none", ~block.swap | block.full)

        columns = [Mux(paired, beat == col // 2, beat == col) for col in range(cols)]
        self.promise("each beat goes to its columns, once", block.columns == Mux(take & ~scaling, Cat(columns), 0))
        if mx:
            tiles = Signal.like(block.set)
            m.d.sync += tiles.eq(tiles + (take & last))
            self.promise("each beat of scales goes to its place, once",
                         block.scales == Mux(take & scaling, 1 << scale, 0))
            self.promise("each tile has its own set of scales", block.set == tiles)
        self.promise("beats arrive as they came", ~take | (
            (block.codes == beats.payload.data) & (block.format == given.format)))
        self.promise("no beat without a tile", ~take | tile.valid)
        self.promise("a tile ends with its last beat", self.moves(tile) == take & last)
        self.promise("a complete tile is not touched until it is taken", ~take | ~complete | block.swap)
        self.promise("full tells of a complete tile", block.full == complete)
        self.promise("bad tells of a beat that did not come", ~complete | (block.bad == short))
        self.promise("never waits for nothing", ~(tile.valid & (~complete | block.swap) & apart) | beats.ready)
        if aligned(block.config):
            self.promise("beats of another kind keep their distance", ~take | apart)
            self.promise("the kind of beats is known", block.aligned == Mux(take, kind, last_kind))
            self.reach("both kinds", take & (kind != last_kind) & self.after(complete))
        self.reach("a beat in the cycle of the swap", block.swap & take)
        self.reach("a bad tile", complete & short)
        if mx:
            self.reach("a tile with scales after one without", take & last & (scales != 0) & (tiles != 0))

    def visible(self, block):
        beat = block.columns.any() | (block.scales.any() if block.config.mx else 0)
        return {"codes": beat, "format": beat, "bad": block.full}


class SequencerRules(Contract):
    """The rows of each tile once and in order, at a distance that the accumulators allow, and no row of a
    block over one that the drain has not read. One row of the accumulators, any, is followed.
    """

    def rules(self, m, block):
        tile, rows, wave, acc_rows = block.tile, block.rows, block.wave, block.config.acc_rows
        swap, given, mx = block.swap, tile.payload, block.config.mx
        scaling, take = Signal(), Signal()
        m.d.comb += take.eq(self.moves(rows) & ~scaling)
        held, current = Signal(given.shape()), Signal(given.shape())
        left, entered, rest = Signal(range(acc_rows + 1)), Signal(range(acc_rows + 1)), Signal(range(acc_rows + 1))
        m.d.comb += current.eq(Mux(swap, given, held)), rest.eq(Mux(swap, given.rows, left))
        m.d.sync += left.eq(rest - take), entered.eq(Mux(swap, 0, entered) + take), held.eq(current)
        completes = take & current.last & (rest == 1)

        # Blocks: tiles of the same rows, the first `first`, the last `last`.
        within, block_rows = Signal(), Signal.like(given.rows)
        with m.If(swap):
            m.d.sync += within.eq(~given.last), block_rows.eq(given.rows)

        # The drain reads rows that have entered in a last pass, in order, block after block.
        complete, oldest, newer = Signal(range(4)), Signal.like(left), Signal.like(left)
        m.d.sync += complete.eq(complete + completes - block.release)
        with m.If(completes):
            m.d.sync += newer.eq(current.rows)
        with m.If(block.release):
            m.d.sync += oldest.eq(Mux(complete == 1, current.rows, newer))
        with m.Elif(completes & (complete == 0)):
            m.d.sync += oldest.eq(current.rows)
        drained, reads, released = Signal.like(block.drained), Signal(range(acc_rows + 1)), Signal()
        m.d.sync += drained.eq(block.drained), released.eq(block.release)
        m.d.comb += reads.eq(Mux(complete != 0, oldest, Mux(held.last & (left != 0), entered, 0)))

        # One row of the completed ones, and of the growing ones.
        row = self.some(range(acc_rows), "row")
        unread, age = Signal(), Signal(range(block.spacing + 1), init=block.spacing)
        passed = (drained == row) & (released | (block.drained != row))
        hit = wave.valid & (wave.row == row)
        m.d.sync += unread.eq(unread & ~passed | hit & wave.last)
        m.d.sync += age.eq(Mux(hit, 1, age + (age != block.spacing)))
        kinds = [*mx_field(block.config), *aligned(block.config)]
        longest = max(settling(block.config) - 1 if kinds else 0, block.spacing)
        rested = Signal(range(longest + 1), init=longest)
        m.d.sync += rested.eq(Mux(take, 0, rested + (rested != longest)))

        # What did not come since the block began.
        missing, spoiled, parity, unscaled = Signal(), Signal(), Signal(init=1), Signal()
        m.d.comb += missing.eq(Mux(swap & given.first, 0, spoiled) | swap & (block.bad_weights | unscaled)
                               | take & rows.payload.bad)
        m.d.sync += spoiled.eq(missing), parity.eq(parity ^ (swap & given.first))

        full = Signal()
        m.d.sync += full.eq(block.full & ~swap)
        self.require("tile holds", self.steady(tile))
        self.require("rows hold", self.steady(rows))
        self.require("full until the swap", ~full | block.full)
        self.require("a tile has rows", ~tile.valid | (given.rows != 0) & (given.rows <= acc_rows))
        self.require("tiles come in blocks", ~tile.valid | (given.first != within) & (
            given.first | (given.rows == block_rows)))
        self.require("the drain reads in order", Mux(
            released, block.drained == 0, (block.drained == drained) | (block.drained == drained + 1)))
        self.require("the drain reads what has entered", (block.drained <= reads) & (
            (complete == 0) | (block.drained < oldest)))
        self.require("the drain releases what it has read",
                     ~block.release | (complete != 0) & (block.drained + 1 == oldest))

        self.promise("a tile begins when the one before has entered", ~swap | tile.valid & block.full & (left == 0))
        self.promise("tiles are taken once", self.moves(tile) == swap)
        self.promise("each row of a tile enters once, in order", (wave.valid == take) & (~take | (rest != 0) & (
            wave.row == Mux(swap, 0, entered))))
        self.promise("rows enter as they came, in the manner of their tile", ~take | (
            (block.codes == rows.payload.data) & (block.format == current.format) & (block.count == current.count)
            & (wave.first == current.first) & (wave.last == current.last)))
        self.promise("blocks alternate in parity", ~wave.valid | (wave.parity == parity ^ (swap & given.first)))
        self.promise("no row is added to before it has rested", ~hit | (age == block.spacing))
        self.promise("no completed row is overwritten before it is read", ~(hit & wave.last) | ~(unread & ~passed))
        self.promise("at most two completed blocks", complete <= 2)
        self.promise("bad tells of what did not come since the block began", ~take | (block.bad == missing))
        self.promise("a tile that can begin does", ~(
            tile.valid & block.full & (left == 0) & (rested == longest) & ~scaling) | swap)
        self.promise("a row that can enter does",
                     ~((swap | (left != 0)) & (~current.last | (complete == 0))) | rows.ready)
        if kinds:
            others = Signal()                   # the last row was of another kind
            held_kinds = [Signal(name=f"held_{kind}") for kind in kinds]
            m.d.comb += others.eq(Cat(current[kind] != was for kind, was in zip(kinds, held_kinds, strict=True)).any())
            with m.If(take):
                m.d.sync += (was.eq(current[kind]) for kind, was in zip(kinds, held_kinds, strict=True))
            self.promise("array and accumulators rest between rows of different kinds",
                         ~(take & others) | (rested >= settling(block.config) - 1))
            self.promise("rows say of what kind they are", ~take | Cat(
                wave[kind] == current[kind] for kind in kinds).all())
            self.reach("rows of different kinds", take & others & (left == 0))
        if mx:
            self._scales(m, block, current, left, take, hit, row, scaling, unscaled)
        self.reach("a row over one that has just been read", hit & wave.last & passed & unread)
        self.reach("two completed blocks", complete == 2)
        if block.spacing <= acc_rows:
            self.reach("a tile on the heels of another", swap & (rested == 0))

    def visible(self, block):
        return {name: block.wave.valid for name in ("codes", "format", "count", "wave", "bad")}

    def _scales(self, m, block, current, left, take, hit, row, scaling, unscaled):
        """MX: the scales of a tile's rows come ahead of them, and leave beside them."""
        given, swap = block.tile.payload, block.swap
        size = block.config.row_bits // 8       # scales of a beat
        beat = Signal(range(-(-block.config.acc_rows // size) + 1))
        m.d.comb += scaling.eq(block.tile.valid & given.mx & (left == 0) & (beat * size < given.rows))
        scale, hit_before = Signal(8), Signal()
        with m.If(self.moves(block.rows) & scaling):
            m.d.sync += beat.eq(beat + 1), unscaled.eq(unscaled | block.rows.payload.bad)
            with m.If(row // size == beat):
                m.d.sync += scale.eq(block.rows.payload.data.word_select(row % size, 8))
        with m.If(swap):
            m.d.sync += beat.eq(0), unscaled.eq(0)
        m.d.sync += hit_before.eq(hit & current.mx)
        tiles = Signal.like(block.wave.set, init=-1)
        m.d.sync += tiles.eq(tiles + swap)
        self.promise("scales come before their rows", ~swap | ~scaling)
        self.promise("scales are taken as they come", ~scaling | block.rows.ready)
        self.promise("each row leaves with its scale", ~hit_before | (block.scale == scale))
        self.promise("each tile has its own set of scales", ~take | (block.wave.set == (tiles + swap)[:len(tiles)]))
        self.reach("scales for several rows", hit_before & (block.scale != 0) & (row != 0))
