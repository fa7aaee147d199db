# SPDX-License-Identifier: Apache-2.0
"""Contracts of the control of HEADS: each instruction is done once, in order; all that is announced comes."""

from amaranth.hdl import Array, Mux, Signal

from golden.config import KvCache
from golden.formats import FP32
from golden.paging import Opcode
from hw.tile.heads.control import Control
from hw.tile.heads.passes import Passes
from hw.tile.heads.ports import Kind
from hw.tile.heads.results import PAIR, Results
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["TASKS", "ControlRules", "PassesRules", "ResultsRules"]

LOW = 8         # bits of addresses, in which all places of a small pass differ
STILL = 12      # cycles in which something moves that nobody else holds up


class ControlRules(Contract):
    """Whatever the KV cache answers, an instruction ends once, and each of its passes has its streams."""

    def rules(self, m, block):
        i, commands, completions, passes, orders = (
            block.i, block.commands, block.completions, block.passes, block.orders)
        rows, order, heads = block.request, orders.payload, block.kv.kv_heads
        opcode, status = commands.payload[:8], completions.payload.status
        for name in "i", "completions":
            self.require(f"{name} holds", self.steady(getattr(block, name)))
        self.require("host memory stays where it is", block.hosted == self.some(1, "hosted"))
        for name in "commands", "passes", "orders", "request":
            self.promise(f"{name} holds", self.steady(getattr(block, name)))

        # Commands, one at a time
        asked, writes, streams, begun = (Signal(name=name) for name in ("asked", "writes", "streams", "begun"))
        given, answered = self.moves(commands), self.moves(completions)
        m.d.sync += asked.eq(asked & ~answered | given), begun.eq((begun | block.begins) & ~answered)
        with m.If(given):
            m.d.sync += writes.eq(opcode == Opcode.WRITE), streams.eq(opcode == Opcode.STREAM)
        self.require("completions are of commands", ~completions.valid | asked)
        self.require("a WRITE begins once, unless it is refused", Mux(
            asked & writes, ~(begun & block.begins) & (~completions.valid | (begun == (status == 0))), ~block.begins))
        self.promise("there is one command at a time", ~commands.valid | ~asked)
        self.promise("nothing is swapped without host memory", ~commands.valid | block.hosted | (
            opcode != Opcode.SWAP_OUT) & (opcode != Opcode.SWAP_IN))
        self.promise("completions are taken at once", ~completions.valid | completions.ready)

        # Instructions
        open, ends = Signal(), self.moves(orders) & (order.kind == Kind.END)
        m.d.sync += open.eq(open & ~ends | self.moves(i))
        self.promise("an instruction at a time", ~i.ready | ~open)
        self.promise("what is done is of an instruction", open | ~(
            commands.valid | passes.valid | orders.valid | block.cut | block.mute))

        # Passes and their streams
        under_way, told, served, cuts = (Signal(5, name="under_way"), Signal(name="told"), Signal(name="served"),
                                         Signal(range(heads + 1)))
        launched, cut = self.moves(passes), block.cut & block.cut_taken
        put = self.moves(orders) & (order.kind == Kind.PASS)
        m.d.sync += [
            under_way.eq(under_way + launched - block.ended), told.eq(told & ~put | launched),
            served.eq((served | answered & streams & (status == 0)) & ~launched),
            cuts.eq(Mux(launched, 0, cuts + cut)),
        ]
        self.require("passes end whose streams have", ~block.ended | ~told & (
            (under_way > 1) | (under_way == 1) & (served | (cuts == heads))))
        self.promise("not too many passes are under way", under_way < 15)
        self.promise("a pass is announced, then what is to come of it", (put | ~launched) & (~put | told) | ~told)
        self.promise("a pass has its order before its stream", ~(commands.valid & (opcode == Opcode.STREAM)) | ~told)
        self.promise("only the last pass is cut, and it is muted", ~block.cut | (under_way == 1) & block.mute)
        self.promise("a pass has a stream, or an end of each head's", ~(ends | launched) | served | (
            cuts == heads) | self._none(m, launched, ends))

        # New keys and values
        due = Signal(16)
        m.d.sync += due.eq(due + self.moves(rows) - block.answered)
        self.require("rows come that were asked for", ~block.answered | (due != 0))
        self.promise("rows are asked for before another instruction is taken", ~(rows.valid | (due != 0)) | ~i.ready)

        # Nothing hangs
        stands = Signal(range(STILL + 2))
        moved = self.moves(i) | given | answered | launched | self.moves(orders) | self.moves(rows) | cut
        owed = (asked & ~completions.valid) | (commands.valid & ~commands.ready) | (passes.valid & ~passes.ready) | (
            orders.valid & ~orders.ready) | (rows.valid & ~rows.ready) | (block.cut & ~block.cut_taken) | (
            under_way != 0) | (due != 0)
        m.d.sync += stands.eq(Mux(moved | owed | ~open, 0, stands + (stands <= STILL)))
        self.promise("nothing hangs", stands <= STILL)
        self.reach("an instruction of two passes", launched & self.after(launched))
        self.reach("a stream is refused", ends & self.after(block.cut))

    def _none(self, m, launched, ends):
        """Whether the instruction has had no pass so far."""
        none = Signal(init=1)
        m.d.sync += none.eq(Mux(launched, 0, none | ends))
        return none


class PassesRules(Contract):
    """Each head of a pass is told of and asked for once, with the numbers that it has."""

    def rules(self, m, block):
        i, commands, requests, kv, group = block.i, block.commands, block.requests, block.kv, block.group
        given, told, asked = i.payload, commands.payload, requests.payload
        self.require("i holds", self.steady(i))
        self.require("a pass has queries that there is room for", ~i.valid | (
            given.tokens != 0) & (given.group != 0) & (given.tokens * given.group <= group))
        self.promise("commands hold", self.steady(commands))
        self.promise("requests hold", self.steady(requests))
        counts = [Signal(range(kv.kv_heads + 2), name=f"count{n}") for n in range(2)]
        for name, port, count in zip(("commands", "requests"), (commands, requests), counts, strict=True):
            m.d.sync += count.eq(Mux(self.moves(i), 0, count + self.moves(port)))
            self.promise(f"as many {name} as heads", ~self.moves(i) | (count + self.moves(port) == kv.kv_heads))
        row = kv.head_dim * FP32.width // 8
        self.promise("queries are asked for where they are", ~requests.valid | (asked.rows == given.tokens) & (
            asked.stride == given.pitch) & (asked.beats * kv.lanes == given.group * kv.head_dim) & (
            asked.address == (given.address + counts[1] * given.group * row)[:32]))
        n = self.some(range(group), "query")
        token = Signal(range(group))
        for size in range(1, group + 1):
            with m.If(given.group == size):
                m.d.comb += token.eq(Array(g // size for g in range(group))[n])
        wide = len(told.end[0])
        first = Mux(token > given.lag, token - given.lag, 0)
        self.promise("all of a token's queries see as much", ~commands.valid | (n >= told.queries) | (
            told.end[n] == (given.end + token)[:wide]) & (told.first[n] == first))
        self.promise("streams are as long as the last token sees", ~commands.valid | (
            told.tokens == (given.end + given.tokens - 1)[:wide]))
        self.reach("two passes", self.moves(i) & self.after(self.moves(i)))


class ResultsRules(Contract):
    """What is ordered comes, in order: each result at its place, each end once."""

    def rules(self, m, block):
        i, results, completions, write, done = block.i, block.results, block.completions, block.write, block.done
        kv, order, row = block.kv, i.payload, block.kv.head_dim * FP32.width // 8
        rows, of_pass = order.what.rows, i.valid & (order.kind == Kind.PASS)
        for name in "i", "results", "completions":
            self.require(f"{name} holds", self.steady(getattr(block, name)))
        self.require("orders are such as there are", ~i.valid | (order.kind == Kind.WORD) | (order.kind == Kind.END) | (
            order.kind == Kind.PASS) & (rows.tokens != 0) & (rows.group != 0) & (
            rows.tokens * rows.group <= block.group))
        columns, taken = Signal(range(row // PAIR)), self.moves(results)
        m.d.sync += columns.eq(Mux(taken, Mux(results.payload.last, 0, columns + 1), columns))
        self.require("the last of a head's results, and no other, says so",
                     ~results.valid | (results.payload.last == (columns == row // PAIR - 1)))
        before, begun = Signal(), Signal()
        m.d.sync += before.eq(block.mute), begun.eq((begun | taken) & ~block.ended)
        self.require("a pass is muted before its results come", (block.mute == before) | ~results.valid & ~begun)
        for name in "write", "done":
            self.promise(f"{name} holds", self.steady(getattr(block, name)))

        # Ends
        owed, ends = Signal(), self.moves(i) & (order.kind == Kind.END)
        error = Signal(8)
        m.d.sync += owed.eq(owed & ~self.moves(done) | ends)
        with m.If(ends):
            m.d.sync += error.eq(order.what.end.error)
        self.promise("an end is told once", done.valid == owed)
        self.promise("an error that is known is told", ~done.valid | (error == 0) | (done.payload.error == error))

        # A pass: parts of a head's rows, of each the queries of each token
        part, token, query, head = (Signal(range(limit + 1), name=name) for name, limit in (
            ("part", row // block.size), ("token", block.group), ("query", block.group), ("head", kv.kv_heads)))
        given = self.moves(write) & of_pass
        last_query, last_token = query == rows.group - 1, token == rows.tokens - 1
        last_part = part == row // block.size - 1
        with m.If(given):
            m.d.sync += query.eq(Mux(last_query, 0, query + 1))
            with m.If(last_query):
                m.d.sync += token.eq(Mux(last_token, 0, token + 1))
                with m.If(last_token):
                    m.d.sync += part.eq(Mux(last_part, 0, part + 1))
                    with m.If(last_part):
                        m.d.sync += head.eq(Mux(head == kv.kv_heads - 1, 0, head + 1))
        place = (order.address + token * rows.pitch
                 + (head * rows.group + query) * row + part * block.size)[:LOW]
        self.promise("results are written where they belong", ~(write.valid & of_pass) | (
            write.payload.address[:LOW] == place) & (write.payload.count == block.size))
        whole = last_query & last_token & last_part & (head == kv.kv_heads - 1)
        self.promise("a pass ends with its last result", ~of_pass | (block.ended == self.moves(i)) & (
            block.mute | (block.ended == given & whole)))
        self.promise("nothing else ends", of_pass | ~block.ended)
        self.promise("what is muted is not written", ~(of_pass & block.mute) | ~write.valid)
        self.promise("completions are taken with the last result", ~self.moves(completions) | taken
                     & results.payload.last)
        self.promise("each head's completion is taken", ~(taken & results.payload.last) | self.moves(completions))
        self.reach("a pass, and its end", self.moves(done) & self.after(block.ended))


KV = KvCache(blocks=3, sequences=2, table=2, block_tokens=2, layers=2, kv_heads=2, head_dim=8, beat=8, lanes=4)
GROUP = 2
TASKS = [
    Task(Control(KV, GROUP), ControlRules, depth=18, patience=120, cover=20, label="heads: control"),
    Task(Passes(KV, GROUP), PassesRules, depth=14, patience=60, label="heads: passes"),
    *(Task(Results(KV, GROUP, size), ResultsRules, depth=20, patience=120, cover=24,
           label=f"heads: results, {size} bytes a write") for size in (PAIR, 2 * PAIR)),
]
