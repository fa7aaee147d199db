# SPDX-License-Identifier: Apache-2.0
"""Contracts of attention's control: each command has one head and one end, in order; all counts fit; nothing hangs.

Streams are such as the KV cache gives, of as many blocks as they like, and may end after any beat.
"""

from amaranth.hdl import Mux, Signal

from golden.config import KvCache
from golden.paging import Part
from hw.attention.attention import Attention
from hw.attention.intake import HEADS, RELEASE, Intake
from hw.attention.ports import Error
from hw.attention.weights import waiting
from hw.stream import DeepQueue, RamQueue
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["TASKS", "AttentionEnds", "AttentionRules", "IntakeGoesOn", "IntakeRules", "Unrefused"]

OPEN = 16       # more commands than can be under way
WITHIN = 80     # cycles in which a head ends
WAITS = 2       # cycles that what comes out waits, at most
SOME = 8        # cycles in which what was given comes through queues


class Unrefused(Contract):
    """A queue that never refuses what it is given, as nobody looks at its `ready`; but for that of commands."""

    def rules(self, m, block):
        if block.depth > 2 or isinstance(block, DeepQueue):
            self.require("there is room for what comes", ~block.i.valid | block.i.ready)


class Heads(Contract):
    """Commands, streams and heads."""

    def streams(self, m, kv, beats):
        """Require streams as of the KV cache. Return whether one ends, and with how many values, all of them good."""
        beat, taken, rows = beats.payload, self.moves(beats), Signal(range(2 * kv.table * kv.block_tokens))
        at, scales = Signal(range(kv.row_beats + 1)), Signal(range(kv.scale_beats + 1))
        of_keys, wrong = Signal(), Signal()
        keys, values = (Signal(range(kv.block_tokens + 1), name=name) for name in ("keys", "values"))     # of a block
        is_key, is_value, ends = beat.part == Part.K, beat.part == Part.V, at == kv.row_beats - 1
        begun = at != 0
        self.require("beats hold", self.steady(beats))
        self.require("blocks come as the cache keeps them", ~beats.valid | Mux(
            scales != kv.scale_beats, beat.part == Part.SCALES,
            is_key & (values == 0) & (~begun | of_keys) & (keys != kv.block_tokens)
            | is_value & (keys != values) & (~begun | ~of_keys)))
        with m.If(taken):
            with m.If(beat.last):
                m.d.sync += (each.eq(0) for each in (at, scales, keys, values, rows, wrong))
            with m.Else():
                m.d.sync += wrong.eq(wrong | beat.error), of_keys.eq(is_key)
                with m.If(beat.part == Part.SCALES):
                    m.d.sync += scales.eq(scales + 1)
                with m.Else():
                    m.d.sync += at.eq(Mux(ends, 0, at + 1)), keys.eq(keys + (is_key & ends))
                with m.If(is_value & ends):
                    m.d.sync += values.eq(values + 1), rows.eq(rows + ~rows.all())
                    with m.If(values + 1 == keys):
                        m.d.sync += values.eq(0), keys.eq(0), scales.eq(0)
        return taken & beat.last, rows + (is_value & ends), ~wrong & ~beat.error & is_value & ends


class IntakeRules(Heads):
    """Any command is followed to its head and to its end. All that is counted is counted again, at the ports."""

    def rules(self, m, block):
        kv, group, depth = block.kv, block.queries, waiting(block.kv)
        commands, beats, loads, heads, finals = block.commands, block.beats, block.loads, block.heads, block.finals
        accepted, begun, ended = self.moves(commands), self.moves(heads), self.moves(finals)
        row, values, final = block.row, block.values, finals.payload
        over, count, good = self.streams(m, kv, beats)
        self.require("commands hold", self.steady(commands))
        for name in "loads", "heads", "finals":
            self.promise(f"{name} hold", self.steady(getattr(block, name)))

        # Slots of queries
        loaded, known, later, older = Signal(2), Signal(2), Signal(), Signal()
        gone, given = (Signal(2, name=name) for name in ("gone", "given"))
        m.d.comb += gone.eq(block.release << older), given.eq(self.moves(loads) << later)
        m.d.sync += [
            loaded.eq(loaded & ~gone | given), known.eq(block.full & ~gone), older.eq(older ^ block.release),
            later.eq(later ^ self.moves(loads)),
        ]
        self.require("a slot is loaded when it is free", ~loads.ready | ~loaded.all())
        self.require("a slot is full when it was loaded, until its release",
                     ~(block.full & ~loaded).any() & ~(known & ~block.full).any())
        self.promise("a slot is released when it is full", ~(gone & ~block.full).any())
        self.promise("a load has queries that there is room for",
                     ~loads.valid | (loads.payload != 0) & (loads.payload <= group))

        # Heads
        names = ("to_begin", "to_end", "begins", "ends")
        to_begin, to_end, begins, ends = (Signal(range(OPEN), name=name) for name in names)
        m.d.sync += [
            to_begin.eq(to_begin + accepted - begun), to_end.eq(to_end + accepted - ended),
            begins.eq(begins + begun - block.leaves), ends.eq(ends + ended - block.leaves),
        ]
        self.require("heads are taken when they are there", ~heads.ready | heads.valid)
        self.require("ends are taken when they are there", ~finals.ready | finals.valid)
        self.require("heads leave that have begun and ended", ~block.leaves | (begins != 0) & (ends != 0))
        self.promise("no head without a command", ~heads.valid | (to_begin != 0))
        self.promise("no end without a command", ~finals.valid | (to_end != 0))
        self.promise("a head is on offer before its end is", ~finals.valid | heads.valid | (to_begin < to_end))
        self.promise("never too many heads", (begins <= HEADS) & (ends <= HEADS))
        self.promise("there is room for two commands", commands.ready | (to_end > 1))

        # Tokens whose scores wait, and groups of values
        slots = block.widths.slots
        tokens, groups, slot = Signal(range(2 * depth)), Signal(range(slots + 2)), Signal(range(slots))
        came = row.valid & row.ends | row.closes & (row.count == 0)
        m.d.sync += [
            tokens.eq(tokens + came - block.retired), groups.eq(groups + values.closes - block.freed),
            slot.eq(slot + values.closes),
        ]
        self.require("scores are retired that came", ~block.retired | (tokens != 0))
        self.require("groups are freed that were closed", ~block.freed | (groups != 0))
        self.promise("there is room for scores", tokens <= depth)
        self.promise("there is room for groups", groups <= slots)
        self.promise("values go where there is room", ~values.valid | (groups != slots) & (values.slot == slot))

        # Rows of keys and of values, each of its group; both are closed equally often.
        size = block.widths.tokens
        key, key_at, value, value_at = Signal(range(size)), Signal(range(kv.row_beats)), Signal(range(size)), Signal(
            range(kv.row_beats))
        key_ends, value_ends = row.valid & (key_at == kv.row_beats - 1), values.valid & (value_at == kv.row_beats - 1)
        for at, valid, last in (   # what is left of a row when a stream ends is left out
                (key_at, row.valid, key_ends | row.closes), (value_at, values.valid, value_ends | values.closes)):
            with m.If(valid | last):
                m.d.sync += at.eq(Mux(last, 0, at + 1))
        m.d.sync += key.eq(Mux(row.closes, 0, key + key_ends)), value.eq(Mux(values.closes, 0, value + value_ends))
        closed, last, ahead = Signal(), Signal(), Signal(range(2 * depth))
        m.d.sync += closed.eq(values.closes), ahead.eq(ahead + row.closes - closed)
        with m.If(row.closes):
            m.d.sync += last.eq(row.ends_head)
        whole = last & (ahead == closed)
        self.promise("groups of keys are whole or the last", ~row.closes | (row.count == size) | row.ends_head)
        self.promise("a group has as many keys as it says", ~row.closes | (row.count == key + key_ends))
        self.promise("a group of values is closed when its keys are", (ahead != 0) | ~closed)
        self.promise("no group of keys comes while the last head's values are open",
                     ~(row.valid | row.closes) | ~last | (ahead == 0))

        # One command
        follow, followed = self.any(1, "follow"), Signal()
        command, plain = Signal(commands.payload.shape()), self.some(1, "plain")
        before = {name: Signal(range(OPEN), name=f"before_{name}") for name in ("head", "end", "stream")}
        to_stream, through, sound, refused = Signal(range(OPEN)), Signal(), Signal(), Signal()
        if self.assume:
            self.require("all heads have streams", ~plain | ~commands.valid | (commands.payload.tokens != 0))
        m.d.sync += to_stream.eq(to_stream + accepted - over)
        m.d.comb += refused.eq((command.queries == 0) | (command.queries > group))
        its_head, its_end, its_stream = (followed & (left == 0) for left in before.values())
        with m.If(accepted & follow & ~followed):
            m.d.sync += [
                followed.eq(1), command.eq(commands.payload), before["head"].eq(to_begin - begun),
                before["end"].eq(to_end - ended), before["stream"].eq(to_stream - over), through.eq(0),
            ]
        with m.Elif(followed):
            for moved, left in zip((begun, ended, over), before.values(), strict=True):
                with m.If(moved):
                    m.d.sync += left.eq(Mux(left == 0, OPEN - 1, left - 1))
            with m.If(over & its_stream):
                m.d.sync += through.eq(1), sound.eq(good & (count == command.tokens))
            with m.If(ended & its_end):
                m.d.sync += followed.eq(0)
        head = heads.payload
        self.promise("a head is its command's", ~(heads.valid & its_head) | (head.part == command.part) & (
            head.sink_valid == Mux(refused, 0, command.sink_valid & (1 << command.queries) - 1)))
        self.promise("sinks are its command's", ~(heads.valid & its_head) | (head.sink == command.sink))
        own = finals.valid & its_end
        self.promise("an end is its command's", ~own | (final.tag == command.tag))
        self.promise("no queries are an error, others are none",
                     ~own | (refused == (final.error == Error.COMMAND)))
        self.promise("a head takes one stream", ~(own & plain) | through)
        self.promise("a stream of another length is an error, and so is one that is wrong",
                     ~(own & plain) | (sound & ~refused == (final.error == Error.NONE)))
        self.promise("without tokens there is no other error",
                     ~own | (command.tokens != 0) | refused | (final.error == Error.NONE))

        self.goes_on(m, to_end, owed=(
            heads.valid | finals.valid | loads.valid | (begins != 0) | (ends != 0) | (tokens != 0) | (groups != 0)
            | (loaded & ~block.full).any() | ~beats.valid | self.moves(beats)))
        self.reach("a stream is cut short, and the next head ends well", self.after(
            ended & (final.error == Error.LENGTH)) & ended & (final.error == Error.NONE) & whole)

    def goes_on(self, m, to_end, owed):
        """When nobody else is asked, something moves."""
        stands = Signal(range(RELEASE + 2 * SOME + 2))
        m.d.sync += stands.eq(Mux(owed | (to_end == 0), 0, stands + (stands <= RELEASE + 2 * SOME)))
        self.promise("nothing hangs", stands <= RELEASE + 2 * SOME)


class IntakeGoesOn(IntakeRules):
    """Of these rules, that nothing hangs: what takes more cycles than can be looked at for all."""

    def promise(self, name, holds):
        if name == "nothing hangs":
            super().promise(name, holds)


class AttentionRules(Heads):
    """Any command is followed to its results and to its completion, whatever numbers are."""

    def rules(self, m, block):
        kv, group, columns = block.kv, block.group, block.widths.columns
        commands, results, completions = block.commands, block.results, block.completions
        result, completion = results.payload, completions.payload
        accepted, given, ended = self.moves(commands), self.moves(results), self.moves(completions)
        self.streams(m, kv, block.beats)
        self.require("commands hold", self.steady(commands))
        self.require("queries hold", self.steady(block.queries))
        for name in "results", "completions":
            port, marks = getattr(block, name), Signal(8)
            waiting, kept = Signal(name=f"{name}_waits"), Signal(8, name=f"{name}_tag")
            m.d.comb += marks.eq(port.payload.tag)
            m.d.sync += waiting.eq(port.valid & ~port.ready), kept.eq(marks)
            self.promise(f"{name} are on offer until they are taken", ~waiting | port.valid & (kept == marks))

        to_give, to_end, at = Signal(range(OPEN)), Signal(range(OPEN)), Signal(range(columns))
        last = given & (at == columns - 1)
        m.d.sync += to_give.eq(to_give + accepted - last), to_end.eq(to_end + accepted - ended)
        with m.If(given):
            m.d.sync += at.eq(Mux(last, 0, at + 1))
        self.promise("no result without a command", ~results.valid | (to_give != 0))
        self.promise("no completion without a command", ~completions.valid | (to_end != 0))
        self.promise("the last of a head's results, and no other, says so",
                     ~results.valid | (result.last == (at == columns - 1)))

        follow, followed = self.any(1, "follow"), Signal()
        command, begun, done = Signal(commands.payload.shape()), Signal(), Signal()
        ahead, before = Signal.like(to_give), Signal.like(to_end)
        with m.If(accepted & follow & ~followed):
            m.d.sync += followed.eq(1), command.eq(commands.payload), begun.eq(0), done.eq(0)
            m.d.sync += ahead.eq(to_give - last), before.eq(to_end - ended)
        with m.Elif(followed):
            m.d.sync += ahead.eq(ahead - (last & ~begun)), before.eq(before - (ended & ~done))
            m.d.sync += begun.eq(begun | last & (ahead == 0)), done.eq(done | ended & (before == 0))
            with m.If(begun & done):
                m.d.sync += followed.eq(0)
        own = completions.valid & followed & ~done & (before == 0)
        self.promise("results are their command's",
                     ~(results.valid & followed & ~begun & (ahead == 0)) | (result.tag == command.tag))
        self.promise("completions are their command's", ~own | (completion.tag == command.tag))
        refused = (command.queries == 0) | (command.queries > group)
        self.promise("no queries are an error, others are none",
                     ~own | (refused == (completion.error == Error.COMMAND)))


class AttentionEnds(Heads):
    """Where nobody waits, and streams are no longer than a table, heads end within some cycles, one after the other."""

    def rules(self, m, block):
        results, completions = block.results, block.completions
        accepted, ended, kv = self.moves(block.commands), self.moves(completions), block.kv
        _, count, _ = self.streams(m, kv, block.beats)
        self.require("beats and queries are on offer", block.beats.valid & block.queries.valid)
        self.require("commands hold", self.steady(block.commands))
        self.require("streams fit a table", block.beats.payload.last | (count < kv.table * kv.block_tokens))
        for name, port in ("results", results), ("completions", completions):
            waits = Signal(2, name=f"{name}_waits")
            m.d.sync += waits.eq(Mux(port.valid & ~port.ready, waits + 1, 0))
            self.require(f"{name} are taken within some cycles", port.ready | ~port.valid | (waits != WAITS))
        to_end, lasts = Signal(range(OPEN)), Signal(range(WITHIN + 2))
        m.d.sync += to_end.eq(to_end + accepted - ended)
        m.d.sync += lasts.eq(Mux(ended | (to_end == 0), 0, lasts + (lasts <= WITHIN)))
        self.promise("a head ends within some cycles", lasts <= WITHIN)
        self.reach("two heads end", self.after(ended) & ended)


SMALL = {"beat": 8, "head_dim": 8, "block_tokens": 2, "table": 3}
FP8, BF16 = KvCache(format="fp8", **SMALL), KvCache(format="bf16", lanes=1, **SMALL)
WATCHED = {RamQueue: Unrefused, DeepQueue: Unrefused}
NUMBERS = ("dot_pair_*", "mean_*", "weight_*", "align", "elements_*", "tally_*", "columns_*")
TASKS = [
    *(Task(Intake(kv, 1), IntakeRules, depth=16, patience=60, cover=0, watched=WATCHED,
           label=f"attention: intake, {kv.format}") for kv in (FP8, BF16)),
    Task(Intake(BF16, 2), IntakeGoesOn, depth=42, cover=0, label="attention: intake goes on"),
    *(Task(Attention(kv.model_copy(update={"lanes": 4}), 1), AttentionRules, depth=30, cover=0, cut=NUMBERS,
           watched=WATCHED | {Intake: IntakeRules}, label=f"attention, {kv.format}") for kv in (FP8, BF16)),
    Task(Attention(BF16.model_copy(update={"lanes": 4, "table": 1}), 1), AttentionEnds, depth=86, cover=0, cut=NUMBERS,
         label="attention that nobody waits for"),
]
