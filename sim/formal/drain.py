# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.matmul.drain.Drain`: every sum of a block leaves once, in its place; every command ends."""

from amaranth.hdl import Array, Cat, Mux, Signal

from hw.matmul.drain import Lane
from hw.matmul.ports import Error
from sim.formal.contract import Contract

__all__ = ["DrainRules"]


class DrainRules(Contract):
    """Reads completed rows in order; any one block is followed from its first read to its last result, and
    any one command from its last read to its completion.
    """

    def rules(self, m, block):
        config, i, c, read, at = block.config, block.i, block.c, block.read, Lane(block.config).at
        results, completions, half = block.results, block.completions, i.payload.half
        given, turns = i.payload.block, range(config.turns + 1)
        empty, leaves, sent = given.error != Error.NONE, self.moves(i), self.moves(results)

        # Reads: row after row, turn after turn, of what is complete.
        row, turn = Signal(range(config.acc_rows)), Signal(turns)
        begins, ends_row, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            begins.eq(read.en & (row == 0) & (turn == 0)),
            ends_row.eq((turn + 1) * config.drain >= given.cols),
            ends.eq(read.en & ends_row & (row + 1 == given.rows)),
        ]
        with m.If(read.en):
            m.d.sync += turn.eq(Mux(ends_row, 0, turn + 1)), row.eq(Mux(ends, 0, row + ends_row))
        done = Array(Signal(range(config.acc_rows + 1), name=f"done{n}") for n in range(2))
        for n in range(2):
            m.d.sync += done[n].eq(Mux(ends & (half == n), 0, done[n] + block.done[n]))
        turn = Signal()                         # half of the next block with results
        m.d.sync += turn.eq(turn ^ ends)

        # What has been read and not left, and blocks to complete commands with.
        under_way, open = Signal(range(block.depth + 2)), Signal(range(block.depth + 2))
        m.d.sync += under_way.eq(under_way + read.en - sent)
        completes = self.moves(completions)
        m.d.sync += open.eq(open + (leaves & given.end) - completes)

        # Any block.
        follow, followed, ahead, kept = self.any(1, "follow"), Signal(), Signal.like(under_way), Signal(given.shape())
        out_row, out_turn, out_ends = Signal(range(config.acc_rows)), Signal(turns), Signal()
        mine = followed & (ahead == 0) & results.valid
        left = kept.cols - out_turn * config.drain
        m.d.comb += out_ends.eq((out_row + 1 == kept.rows) & (left <= config.drain))
        with m.If(begins & follow & ~followed):
            m.d.sync += followed.eq(1), kept.eq(given), ahead.eq(under_way - sent), out_row.eq(0), out_turn.eq(0)
        with m.Elif(followed & sent & (ahead != 0)):
            m.d.sync += ahead.eq(ahead - 1)
        with m.Elif(followed & sent):
            m.d.sync += [
                followed.eq(~out_ends), out_row.eq(out_row + (left <= config.drain)),
                out_turn.eq(Mux(left <= config.drain, 0, out_turn + 1)),
            ]

        # Any command, and what went wrong with it.
        pick, picked, before, command, wrong, spoiled = (self.any(1, "pick"), Signal(), Signal.like(open),
                                                         Signal(given.shape()), Signal(), Signal())
        bad_c, worse, finals = Signal(), Signal(), Signal(range(block.depth + 2))
        m.d.comb += worse.eq(wrong | ends & (i.payload.bad | Mux(half, block.bad[1], block.bad[0])))
        m.d.sync += bad_c.eq(bad_c | self.moves(c) & c.payload.bad)
        m.d.sync += wrong.eq(worse & ~(leaves & given.end))
        m.d.sync += finals.eq(finals + (sent & results.payload.last) - (completes & (
            (completions.payload.error == Error.NONE) | (completions.payload.error == Error.RESPONSE))))
        with m.If(leaves & given.end & pick & ~picked):
            m.d.sync += picked.eq(1), command.eq(given), before.eq(open - completes), spoiled.eq(worse)
        with m.Elif(picked & completes):
            m.d.sync += picked.eq(before != 0), before.eq(before - 1)
        ending = picked & (before == 0) & completions.valid

        # C: beats are on offer in the cycle after they arrive, and each read that adds to C takes one.
        arrived, spoken = Signal(range(64)), Signal(range(64))
        m.d.sync += arrived.eq(arrived + block.c_arrives - self.moves(c))
        adds = read.en & given.accumulate
        m.d.sync += spoken.eq(spoken + block.c_arrives - adds)

        def later(value, cycles, name):
            for n in range(cycles):
                held = Signal(value.shape(), name=f"{name}{n}")
                m.d.sync += held.eq(value)
                value = held
            return value

        quiet = Signal(range(at["end"] + 6))
        m.d.sync += quiet.eq(Mux(read.en | completions.valid | (under_way == 0), 0,
                                 quiet + (quiet != at["end"] + 5)))
        waits = Signal(range(4))
        m.d.sync += waits.eq(Mux(i.valid & ~empty & (done[half] > row) & ~read.en & (under_way == 0) & (open == 0) & (
            ~given.accumulate | (spoken != 0)), waits + (waits != 3), 0))

        self.require("i holds", self.steady(i))
        self.require("a block has rows and columns or an error", ~i.valid | empty | (
            (given.rows != 0) & (given.rows <= config.acc_rows) & (given.cols != 0) & (given.cols <= config.cols)))
        self.require("an empty block ends its command", ~(i.valid & empty) | given.end & (
            given.error.as_value() < Error.RESPONSE.value))
        self.require("halves alternate", ~i.valid | empty | (half == turn))
        for n in range(2):
            self.require(f"rows of half {n} are completed once", ~(i.valid & ~empty & (half == n)) | (
                done[n] + block.done[n] <= given.rows))
            self.require(f"no more rows than there are in half {n}", done[n] + block.done[n] <= config.acc_rows)
            self.require(f"half {n} is complete when it is read", ~(block.release[n] & block.done[n]))
        self.require("C comes in the cycle after its arrival", c.valid == (arrived != 0))
        self.require("C has room", spoken <= block.depth + 1)

        self.promise("results hold", self.steady(results))
        self.promise("completions hold", self.steady(completions))
        self.promise("rows and turns are read once, in order", ~read.en | i.valid & ~empty & (
            read.row == row) & (block.turn == turn))
        self.promise("a row is read when it is complete", ~read.en | (done[half] > row))
        self.promise("a block leaves with its last read", ~(i.valid & ~empty) | (i.ready == ends))
        self.promise("a half is released with its last read", block.release == Cat(ends & ~half, ends & half))
        self.promise("scales are read when the lanes need them", (
            Cat(block.row_read.half, block.row_read.row)
            == Cat(*(later(x, at["row"], n) for x, n in ((half, "rh"), (row, "rr"))))) & (
            Cat(block.column_read.half, block.column_read.turn)
            == Cat(*(later(x, at["column"], n) for x, n in ((half, "ch"), (block.turn, "cg"))))) & (
            Cat(block.bias_read.half, block.bias_read.turn)
            == Cat(*(later(x, at["bias"], n) for x, n in ((half, "bh"), (block.turn, "bg"))))))
        self.promise("the scales of a block are given up after their last use",
                     block.finished_with == later(ends, at["bias"], "ends"))
        self.promise("C is there when it is taken", ~c.ready | c.valid)
        self.promise("a read that adds to C has its beat", ~adds | (spoken != 0))
        self.promise("each result in its place", ~mine | (results.payload.row == (kept.row + out_row)[:16]) & (
            results.payload.column == (kept.column + out_turn * config.drain)[:16]) & (
            results.payload.count == Mux(left <= config.drain, left, config.drain)) & (
            results.payload.tag == kept.tag) & (results.payload.last == kept.end & out_ends))
        self.promise("no result that was not read", ~results.valid | (under_way != 0))
        self.promise("no more under way than there is room for", under_way <= block.depth)
        self.promise("what was read comes out", quiet != at["end"] + 5)
        self.promise("what can be read is", waits != 3)
        self.promise("no completion without a command", ~completions.valid | (open != 0))
        self.promise("each command ends once, in order, with its error", ~ending | (
            completions.payload.tag == command.tag) & Mux(
                command.error != Error.NONE, completions.payload.error == command.error,
                (completions.payload.error == Error.NONE) & ~spoiled
                | (completions.payload.error == Error.RESPONSE) & (spoiled | bad_c)))
        self.promise("a command ends after its last result",
                     ~(ending & (command.error == Error.NONE)) | (finals != 0))
        self.promise("at most one last result waits for its completion", finals <= 1)
        self.reach("a row of two turns", followed & read.en & (block.turn == 1))
        self.reach("two commands under way", ending & (open >= 2))
        self.reach("a bad command", picked & spoiled & (command.error == Error.NONE))

    def visible(self, block):
        return {"read": block.read.en, "turn": block.read.en}
