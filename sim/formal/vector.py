# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.vector`: each instruction is told to everybody once, its beats find room, and it completes."""

from amaranth.hdl import Cat, Mux, Signal

from golden.config import Vector
from golden.families import FORMAT_CODES
from golden.formats import E8M0, FORMATS, MX_BLOCK
from golden.isa import Operation, Quantize, Second
from hw.vector.back import Back
from hw.vector.engine import Engine
from hw.vector.issue import Issue
from hw.vector.ports import Error
from hw.vector.walker import Walker
from hw.vector.writer import Writer
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["TASKS", "BackRules", "EngineRules", "IssueRules", "WalkerRules", "WriterRules"]

CONFIG = Vector(lanes=4, row_max=32)
LOW = 5


class WalkerRules(Contract):
    """Whoever takes part in an instruction hears of it as often as it should, in its own time."""

    def rules(self, m, block):
        i, given = block.i, block.i.payload
        names = "x", "y", "work", "constants", "places"
        sound, again = Signal(), Signal()
        is_ = {each: given.operation == each for each in Operation}
        m.d.comb += [
            sound.eq(block.places.payload.error == Error.NONE),
            again.eq(is_[Operation.TOP_K] & (given.k > 1)),
        ]
        due = {
            "x": Mux(sound, Mux(again, given.rows, 1), 0),
            "y": Mux(sound & (given.second != Second.ABSENT), Mux(again, given.rows, 1), 0),
            "work": sound, "constants": sound & (is_[Operation.RMS_NORM] | is_[Operation.SOFTMAX]), "places": 1,
        }
        heard = {name: Signal(17, name=f"heard_{name}") for name in names}
        after = {name: heard[name] + self.moves(getattr(block, name)) for name in names}
        done = Signal()
        m.d.comb += done.eq(Cat(after[name] == due[name] for name in names).all())

        self.require("i holds", self.steady(i))
        for name in names:
            port = getattr(block, name)
            m.d.sync += heard[name].eq(Mux(self.moves(i), 0, after[name]))
            self.promise(f"{name} holds", self.steady(port))
            self.promise(f"{name} is told as often as it should", ~port.valid | i.valid & (heard[name] < due[name]))
        self.promise("an instruction goes when all have heard of it", ~self.moves(i) | done)
        self.promise("nobody is kept waiting", ~i.valid | i.ready | done
                     | Cat(getattr(block, name).valid for name in names).any())

        # Requests: rows one after the other; as many words as hold a row's elements.
        for name in "xy":
            port, at = getattr(block, name), Signal(32, name=f"expected_{name}")
            payload, length = port.payload, Signal(21, name=f"length_{name}")
            m.d.comb += length.eq(Mux((given.second == Second.ROW) & (name == "y"), 1, given.length))
            with m.If(self.moves(port)):
                m.d.sync += at.eq(payload.address + given[f"{name}_pitch"])
            self.promise(f"{name} asks for its rows", ~port.valid | (
                payload.rows == Mux(again, given.k, given.rows)) & (
                payload.stride == Mux(again, 0, given[f"{name}_pitch"])) & (
                payload.address == Mux(heard[name] == 0, given[name], at)))
            bits, scales = 32 * block.config.lanes, (given.second == Second.BLOCK) & (name == "y")
            held = {format: (bits // FORMATS[format].width, ~scales & (given[f"{name}_format"] == number))
                    for format, number in FORMAT_CODES.items()}     # elements of a word
            if name == "y":
                held["scales"] = bits // E8M0.width * MX_BLOCK, scales
            for format, (fill, asked) in held.items():
                enough = (payload.beats * fill >= length) & (payload.beats * fill < length + fill)
                self.promise(f"{name} asks for whole words of {format}", ~port.valid | ~asked | enough)

        # All else that they are told.
        def passes_on(port, *fields):
            return Cat(port.payload[name] == given[name] for name in fields).all()

        work, lanes = block.work.payload, block.config.lanes
        self.promise("work has all of a row in its beats, as often as it should", ~block.work.valid | (
            work.beats * lanes == given.length + lanes - 1 - work.rest) & (work.rest < lanes) & (
            work.passes == Mux(again, given.k, 1)))
        self.promise("work is of its instruction", ~block.work.valid | passes_on(
            block.work, "operation", "second", "quantize", "x_format", "y_format", "result_format", "alpha", "beta",
            "rows"))
        self.promise("constants are of its instruction", ~block.constants.valid | passes_on(
            block.constants, "alpha", "beta", "rows") & (
            block.constants.payload.softmax == is_[Operation.SOFTMAX]))
        self.promise("places are of its instruction", ~block.places.valid | passes_on(
            block.places, "tag", "result", "result_pitch", "scalars", "scalars_pitch") & (
            block.places.payload.blocks == given.quantize[1]))
        whole = is_[Operation.RMS_NORM] | is_[Operation.SOFTMAX] | (given.quantize == Quantize.ROW)
        self.promise("no row is too long, empty or none", ~(i.valid & sound) | (given.rows != 0) & (
            given.length != 0) & (~whole | (given.length <= block.config.row_max)))
        self.reach("a row several times", self.moves(i) & again & (given.rows == 2))
        self.reach("refused", self.moves(i) & ~sound)


class IssueRules(Contract):
    """Beats come row by row, pass by pass; never more of them than there is room for."""

    def rules(self, m, block):
        work, o, config = block.work, block.o, block.config
        tail, top_k = o.tail, o.operation == Operation.TOP_K
        kept, units = Signal(range(config.depth + 2)), Signal(range(config.units + 2))
        comes, unit_comes = o.valid & (~top_k | tail.unit), o.valid & tail.scaled & tail.unit
        m.d.sync += kept.eq(kept + comes - block.kept_leaves), units.eq(units + unit_comes - block.unit_leaves)

        # Where we are.
        number, turn, row, last = Signal(3), Signal(3), Signal(3), Signal(work.payload.shape())
        ends, ends_row, ends_all = Signal(), Signal(), Signal()
        m.d.sync += last.eq(work.payload)
        m.d.comb += [
            ends.eq(number + 1 == last.beats), ends_row.eq(ends & (turn + 1 == last.passes)),
            ends_all.eq(ends_row & (row + 1 == last.rows)),
        ]
        with m.If(o.valid):
            m.d.sync += number.eq(Mux(ends, 0, number + 1)), turn.eq(Mux(ends_row, 0, turn + ends))
            m.d.sync += row.eq(Mux(ends_all, 0, row + ends_row))
        since = Signal(range(block.settle + 1), init=block.settle)       # cycles since the last beat of a pass
        m.d.sync += since.eq(Mux(o.valid & ends, 1, since + (since != block.settle)))

        self.require("work holds", self.steady(work))
        payload = work.payload
        self.require("work is short", ~work.valid | (payload.beats != 0) & (payload.beats <= 3) & (
            payload.rows != 0) & (payload.rows <= 2) & (payload.passes != 0) & (payload.passes <= 2) & (
            payload.rest < config.lanes))
        self.require("x holds", self.steady(block.x))
        self.require("y holds", self.steady(block.y))
        self.require("nothing leaves that is not there", ~(block.kept_leaves & (kept == 0)) & ~(
            block.unit_leaves & (units == 0)))
        self.promise("there is room for all beats", kept <= config.depth)
        self.promise("there is room for all units", units <= config.units)
        moved = Signal()
        m.d.sync += moved.eq(self.moves(work))
        self.promise("work is done with its last beat", moved == (o.valid & ends_all))
        self.promise("ends are where they should be", ~o.valid | (tail.row == ends_row) & (tail.end == ends_all) & (
            ~ends | tail.unit) & (tail.count == Mux(ends, last.rest + 1, config.lanes)))
        self.promise("passes keep their distance", ~(o.valid & o.again & (number == 0)) | (since == block.settle))
        self.reach("second pass of a second row", o.valid & ends_all & o.again & (row != 0))


class BackRules(Contract):
    """Each row leaves its elements, and the codes beside them; nothing is stuck. Elements may be any."""

    def rules(self, m, block):
        beats, scalings, o = block.beats, block.scalings, block.o
        tail, word = beats.payload.tail, o.payload
        taken, given = self.moves(beats), self.moves(o)
        rows, codes, ends = (Signal(range(64), name=f"open_{name}") for name in ("rows", "codes", "ends"))
        row_in, row_out = taken & tail.row & (tail.count != 0), given & word.row & ~word.codes
        codes_in, codes_out = taken & tail.row & tail.coded, given & word.row & word.codes
        end_in, end_out = taken & tail.end, given & word.end
        m.d.sync += rows.eq(rows + row_in - row_out), codes.eq(codes + codes_in - codes_out)
        m.d.sync += ends.eq(ends + end_in - end_out)
        only, scales = self.some(1, "only"), Signal(range(64), name="open_scales")     # only scales of blocks
        scale_in, scale_out = taken & tail.unit & tail.coded, given & word.codes
        m.d.sync += scales.eq(scales + scale_in - scale_out)

        # Any one end: what is to leave before it.
        follow, followed = self.any(1, "follow"), Signal()
        ahead, left_rows, left_codes = Signal.like(ends), Signal.like(rows), Signal.like(codes)
        with m.If(end_in & follow & ~followed):
            m.d.sync += [
                followed.eq(1), ahead.eq(ends - end_out),
                left_rows.eq(rows + row_in - row_out), left_codes.eq(codes + codes_in - codes_out),
            ]
        with m.Elif(followed):
            m.d.sync += followed.eq(~(end_out & (ahead == 0))), ahead.eq(ahead - end_out)
            m.d.sync += left_rows.eq(left_rows - row_out), left_codes.eq(left_codes - codes_out)
        idle = Signal(range(12))        # cycles in which nothing came, and nothing left though it could
        m.d.sync += idle.eq(Mux(o.ready & ~o.valid & ~taken, idle + (idle != 11), 0))

        self.require("beats hold", self.steady(beats))
        self.require("scalings hold", self.steady(scalings))
        self.require("codes need scales, rows end units", ~beats.valid | (~tail.coded | tail.scaled) & (
            ~tail.row | tail.unit) & (~tail.end | tail.row) & (tail.coded | (tail.count != 0)) & (
            tail.coded == ((tail.quantize != Quantize.NONE) | (tail.count == 0))))
        self.require("formats exist", ~beats.valid | (tail.format <= max(FORMAT_CODES.values())) & (
            tail.count <= block.lanes))
        self.require("only scales of blocks, then", ~beats.valid | ~only | ~tail.coded | tail.quantize[1])
        before, amid = Signal(tail.shape()), Signal(2)      # in the midst of an instruction, of a row
        with m.If(taken):
            m.d.sync += before.eq(tail), amid.eq(Cat(~tail.end, ~tail.row))
        self.require("an instruction is of one kind", ~(beats.valid & amid[0]) | Cat(
            before[name] == tail[name] for name in ("format", "quantize", "scaled", "coded")).all() & (
            (before.count == 0) == (tail.count == 0)))
        self.require("only the last beat of a row is short", ~(beats.valid & amid[1]) | (before.count == 0) | (
            before.count == block.lanes))
        self.promise("o holds", self.steady(o))
        self.promise("rows of elements leave once", ~row_out | (rows != 0))
        self.promise("rows of codes leave once", ~codes_out | (codes != 0))
        self.promise("the end leaves once", ~end_out | (ends != 0))
        self.promise("the end is last", ~(followed & end_out & (ahead == 0)) | (left_rows == row_out) & (
            left_codes == codes_out))
        self.promise("words have bytes, as many as fit", ~o.valid | (word.bytes != 0) & (
            word.bytes <= 4 * block.lanes))
        self.promise("scales of blocks leave one by one", ~(only & o.valid & word.codes) | (word.bytes == 1) & (
            scales != 0))
        self.promise("none of them stays", ~only | (idle != 11) | (scales == 0))
        self.promise("scales are used with the last of their beats",
                     self.moves(scalings) == (taken & tail.scaled & tail.unit))
        self.promise("a beat does not wait for nothing", ~(beats.valid & (idle == 11) & (
            scalings.valid | ~tail.scaled)) | taken)
        self.promise("what has ended leaves", (idle != 11) | (rows + codes + ends == 0))
        self.reach("elements, then codes", codes_out & self.after(row_out))


class WriterRules(Contract):
    """Each instruction completes once, in order, after its last word; words go where they belong.

    What is a matter of 32-bit sums is proven for ever by the lowest bits; all bits up to a depth.
    """

    def rules(self, m, block):
        places, words, results, completions = block.places, block.words, block.results, block.completions
        given, word, done = places.payload, words.payload, completions.payload
        sent, sound = self.moves(results), given.error == Error.NONE
        begun, begins, rows = Signal(), Signal(), Signal(2)     # the instruction in hand; of each kind a row has left
        m.d.comb += begins.eq(places.valid & sound & ~begun & ~completions.valid)
        m.d.sync += begun.eq((begun | begins) & ~self.moves(places))
        for n, name in enumerate(("result", "scalars")):
            row, at = (Signal(32, name=f"{name}_{part}") for part in ("row", "at"))
            blocks, pitch = given.blocks if n else 0, given[f"{name}_pitch"]
            with m.If(begins):
                m.d.sync += row.eq(given[name]), at.eq(given[name]), rows[n].eq(0)
            with m.Elif(sent & (word.codes == n)):
                m.d.sync += at.eq(at + Mux(blocks, pitch, 4 * block.lanes))
                with m.If(word.row):
                    following = row + Mux(blocks, 1, pitch)
                    m.d.sync += row.eq(following), at.eq(following), rows[n].eq(1)
            for bits, which in ((32, ""), (LOW, f", by the lowest {LOW} bits")):
                self.promise(f"words of {name} go where they belong{which}", ~results.valid | (word.codes != n) | (
                    results.payload.address[:bits] == at[:bits]))
        nans, last = Signal(32), Signal(done.shape())
        m.d.sync += nans.eq(Mux(begins, 0, nans + Mux(sent, word.nans, 0)))
        finished = Signal()                 # an instruction is done with; its completion is on offer
        with m.If(self.moves(places)):
            m.d.sync += [
                finished.eq(1), last.tag.eq(given.tag),
                last.error.eq(Mux(sound & word.bad, Error.RESPONSE, given.error)),
                last.nans.eq(Mux(sound, nans + word.nans, 0)),
            ]
        with m.Elif(self.moves(completions)):
            m.d.sync += finished.eq(0)

        self.require("places hold", self.steady(places))
        self.require("words hold", self.steady(words))
        self.promise("results hold", self.steady(results))
        self.promise("completions hold", self.steady(completions))
        self.promise("words pass as results", self.moves(words) == sent)
        self.promise("results are of an instruction in hand", ~results.valid | places.valid & sound & (
            results.payload.tag == given.tag) & (results.payload.last == word.end))
        self.promise("an instruction ends with its last word, or at once",
                     ~self.moves(places) | Mux(sound, sent & word.end, ~sent))
        self.promise("after the last word it ends", ~(sent & word.end) | self.moves(places))
        self.promise("completions say how it went", completions.valid == finished)
        self.promise("and of which", ~completions.valid | (done.tag == last.tag) & (done.error == last.error))
        for bits, which in ((32, ""), (LOW, f", by the lowest {LOW} bits")):
            self.promise(f"and how many results are NaN{which}", ~completions.valid | (
                done.nans[:bits] == last.nans[:bits]))
        self.reach("two rows of both", sent & word.end & word.codes & rows.all())
        self.reach("a refusal after an instruction", self.moves(places) & ~sound & self.after(self.moves(places)))


class EngineRules(Contract):
    """The rules of streams, and completions that match the instructions; whatever comes back from memory."""

    def rules(self, m, block):
        instructions, completions = block.instructions, block.completions
        accepted, ended = self.moves(instructions), self.moves(completions)
        open = Signal(range(32))
        m.d.sync += open.eq(open + accepted - ended)
        follow, followed, ahead = self.any(1, "follow"), Signal(), Signal.like(open)
        tag, bad = Signal(8), Signal()
        given = instructions.payload
        with m.If(accepted & follow & ~followed):
            m.d.sync += followed.eq(1), tag.eq(given.tag), ahead.eq(open - ended), bad.eq(
                (given.rows == 0) | (given.length == 0))
        with m.Elif(followed & ended):
            m.d.sync += ahead.eq(ahead - 1), followed.eq(ahead != 0)
        turn = followed & (ahead == 0)

        for name in ("instructions", "x", "y"):
            self.require(f"{name} hold", self.steady(getattr(block, name)))
        for name in ("x_request", "y_request", "results", "completions"):
            self.promise(f"{name} hold", self.steady(getattr(block, name)))
        self.promise("no completion without an instruction", ~completions.valid | (open != 0))
        self.promise("no result without an instruction", ~block.results.valid | (open != 0))
        self.promise("instructions complete in order",
                     ~(turn & completions.valid) | (completions.payload.tag == tag))
        self.promise("what is refused says so, and has no results", ~(turn & bad) | ~block.results.valid & (
            ~completions.valid | (completions.payload.error != Error.NONE)))


TASKS = [
    Task(Writer(2), WriterRules, depth=5, patience=90),
    Task(Walker(CONFIG), WalkerRules, depth=12, patience=60),
    Task(Issue(CONFIG, 3), IssueRules, depth=20, patience=60),
    Task(Back(2), BackRules, depth=12, patience=60, cut=("finish*",)),
    Task(Engine(Vector(lanes=2, row_max=32)), EngineRules, depth=8, cover=0, cut=("multiply*", "add", "functions*")),
]
