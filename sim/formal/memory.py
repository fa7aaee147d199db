# SPDX-License-Identifier: Apache-2.0
"""Contracts of the scratchpad, and of what moves rows between it and memory."""

from amaranth.hdl import Array, Cat, Mux, Signal, Value
from amaranth.lib import data
from amaranth.utils import ceil_log2

from golden.isa import Load as Opcode
from golden.transfer import Error
from hw.memory.load import Load
from hw.memory.rows import COPY, Rows
from hw.memory.scratchpad import REQUESTS, Order, Reader, Scratchpad, Writer, place
from hw.memory.store import Store
from sim.formal.contract import Contract
from sim.formal.flow import GoesOn
from sim.formal.prove import Task

__all__ = ["QUICK", "TASKS", "LoadGoesOn", "LoadRules", "OrderRules", "ReaderRules", "RowsRules", "ScratchpadRules",
           "StoreGoesOn", "StoreRules", "WriterRules"]

SMALL = 3       # most rows, beats of a row, and indices, where numbers do not matter


class OrderRules(Contract):
    """All stand in one row, and who has won goes to its end."""

    def rules(self, m, block):
        before, won, count = block.before, block.won, block.count
        ones = range(count)
        pairs = [(a, b) for a in ones for b in ones if a != b]
        after = Signal(data.ArrayLayout(count, count))
        for a, b in pairs:
            m.d.sync += after[a][b].eq(Mux(won[a] == won[b], before[a][b], won[a]))
        begun = self.after(1)
        self.promise("one of two is before the other", Cat(before[a][b] ^ before[b][a] for a, b in pairs).all())
        self.promise("nobody is before itself", ~Cat(before[a][a] for a in ones).any())
        self.promise("there is one order", ~Cat(before[a][b] & before[b][c] & before[c][a]
                                                for a, b in pairs for c in ones if c not in (a, b)).any())
        self.promise("who has won goes behind the others, and nothing else changes",
                     ~begun | (Value.cast(before) == Value.cast(after)))
        self.reach("the last comes first", begun & (before[0] == (1 << count) - 2) & before[1][count - 1])


class Requests(Contract):
    """What a scratchpad owes to a reader."""

    def follow(self, m, port, i, o, size, unit, beats, rows, reach):
        """Follow any one request until its last beat has left.

        Returns whether it is taken now, whether its next beat is on offer, and the address of that within `reach`.
        """
        asked, taken, given, bits = i.payload, self.moves(i), self.moves(o), ceil_log2(reach)
        amount = Signal(range(beats * rows + 1), name=f"amount{port}")
        owed = Signal(range((REQUESTS + 2) * beats * rows), name=f"owed{port}")
        m.d.comb += amount.eq(asked.beats * asked.rows)
        m.d.sync += owed.eq(owed + Mux(taken, amount, 0) - given)

        follow, followed, turn = self.any(1, f"follow{port}"), Signal(), Signal()
        held, left, ahead = Signal(i.payload.shape()), Signal.like(amount), Signal.like(owed)
        at, row, beat = Signal(bits), Signal(bits), Signal(range(beats + 1))
        begins = taken & follow & ~followed
        m.d.comb += turn.eq(followed & (ahead == 0))
        with m.If(begins):
            m.d.sync += [followed.eq(1), held.eq(asked), left.eq(amount), ahead.eq(owed - given), beat.eq(asked.beats),
                         at.eq(asked.address), row.eq(asked.address)]
        with m.Elif(given & turn):
            m.d.sync += left.eq(left - 1), followed.eq(left != 1), at.eq(at + size), beat.eq(beat - 1)
            with m.If(beat == 1):
                m.d.sync += row.eq(row + held.stride), at.eq(row + held.stride), beat.eq(held.beats)
        with m.Elif(given & followed):
            m.d.sync += ahead.eq(ahead - 1)

        self.require(f"request {port} holds", self.steady(i))
        self.require(f"request {port} is for something that there is", ~i.valid | (
            (asked.beats != 0) & (asked.beats <= beats) & (asked.rows != 0) & (asked.rows <= rows)
            & (asked.address < reach) & (asked.address % unit == 0)
            & (asked.stride < reach) & (asked.stride % unit == 0)))
        self.promise(f"response {port} holds", self.steady(o))
        self.promise(f"no beat {port} that was not asked for", ~o.valid | (owed != 0))
        self.promise(f"the last beat {port} says so", ~(turn & o.valid) | (o.payload.last == (left == 1)))
        self.owed = owed
        return begins, turn & o.valid, at

    @staticmethod
    def byte(address, at, data, word):
        """Whether a byte is in the beat from `at` on and in the same word, and the beat's byte there."""
        bits, place = ceil_log2(word), (address - at)[:len(address)]
        return (address[bits:] == at[bits:]) & (place < len(data) // 8), data.word_select(place[:bits], 8)


class ReaderRules(Requests):
    """Beats are the bytes at their addresses, all of them and in order, as long as the banks answer.

    Any one byte is looked at, which does not change.
    """

    def rules(self, m, block):
        i, o, read, total = block.i, block.o, block.read, block.word * block.banks * block.depth
        address, value = self.some(ceil_log2(total), "address"), self.some(8, "value")
        where = data.View(data.StructLayout({**place(block.word, block.banks, block.depth).members, "beyond": 0}),
                          address)
        comes = Signal()
        m.d.sync += comes.eq(read.valid & block.reading & (read.bank == where.bank) & (read.row == where.row))
        self.require("only who asks is granted", ~block.reading | read.valid)
        self.require("a bank gives what is in it", ~comes | (
            Array(block.words[n] for n in range(block.banks))[where.bank].word_select(where.byte, 8) == value))

        _, mine, at = self.follow(m, "", i, o, block.size, block.unit, block.beats, block.rows, total)
        inside, byte = self.byte(address, at, o.payload.data, block.word)
        self.promise("beats are the bytes of their addresses", ~(mine & inside) | (byte == value))

        quiet = Signal(range(8))        # cycles in which nothing is on offer and nobody to blame
        m.d.sync += quiet.eq(Mux((self.owed == 0) | o.valid | read.valid & ~block.reading, 0, quiet + (quiet != 7)))
        self.promise("what is owed comes", quiet <= 4)
        self.reach("the last of several", mine & o.payload.last & inside & self.after(mine & ~inside))


class WriterRules(Contract):
    """Each write comes to its bytes, once, unless it is not sound."""

    def rules(self, m, block):
        i, change, given = block.i, block.change, block.i.payload
        at = data.View(place(block.word, block.banks, block.depth), given.address)
        held, pending = Signal(given.shape()), Signal()
        there = data.View(at.shape(), held.address)
        sound = ~at.beyond.any() & (at.byte + given.count <= block.word) & (given.address % block.unit == 0)
        with m.If(self.moves(i)):
            m.d.sync += pending.eq(sound), held.eq(given)
        with m.Elif(block.writing):
            m.d.sync += pending.eq(0)

        self.require("i holds", self.steady(i))
        self.require("not more than there are", ~i.valid | (given.count <= block.size))
        self.require("only who asks is granted", ~block.writing | change.valid)
        self.promise("fault tells of what is not sound", block.fault == self.moves(i) & ~sound)
        self.promise("what was given is on offer", change.valid == pending)
        self.promise("a place is free, or becomes so", i.ready == (~pending | block.writing))
        self.promise("it goes to its word", ~pending | (change.bank == there.bank) & (change.row == there.row))
        for n in range(block.word):
            covered = (there.byte <= n) & (n < there.byte + held.count)
            self.promise(f"it changes byte {n} if that is its own", ~pending | (change.mask[n] == covered))
            self.promise(f"and to what it says in byte {n}", ~(pending & covered) | (
                change.data.word_select(n, 8) == held.data.word_select((n - there.byte)[:len(there.byte)], 8)))
        self.reach("one after the other", pending & block.writing & self.moves(i) & (held.count == block.size))


class ScratchpadRules(Requests):
    """A byte that a request finds settled is as it was written last, until somebody writes it again.

    Any one byte is looked at, which one of the writers writes.
    """

    def rules(self, m, block):
        bits, writers = ceil_log2(block.size), len(block.writers)
        address, who = self.some(bits, "address"), self.some(range(writers), "who")
        age, known, value = Signal(range(writers + 2)), Signal(), Signal(8)
        wrote = Signal()
        m.d.sync += age.eq(Mux(wrote, 1, Mux(age == writers + 1, age, age + 1)))
        for n, (width, unit) in enumerate(block.writers):
            port = getattr(block, f"write{n}")
            given = port.payload
            last = given.address[:bits] + given.count
            covers = (given.address[:bits] <= address) & (address < last)
            self.require(f"write {n} holds", self.steady(port))
            self.require(f"write {n} is sound", ~port.valid | (given.address < block.size) & (given.count <= width) & (
                given.address % unit == 0) & (given.address % block.word + given.count <= block.word))
            self.require(f"writer {n} writes it only if it does", ~(port.valid & covers) | (who == n))
            with m.If(self.moves(port) & covers):
                m.d.comb += wrote.eq(1)
                byte = (address - given.address)[:ceil_log2(width)]
                m.d.sync += known.eq(1), value.eq(given.data.word_select(byte, 8))
        for n, reader in enumerate(block.readers):
            i, o = getattr(block, f"request{n}"), getattr(block, f"response{n}")
            begins, mine, at = self.follow(m, n, i, o, *reader, block.size)
            settled = Signal(name=f"settled{n}")
            with m.If(begins):
                m.d.sync += settled.eq(known & (age >= writers) & ~wrote)
            with m.Elif(wrote):
                m.d.sync += settled.eq(0)
            inside, byte = self.byte(address, at, o.payload.data, block.word)
            self.promise(f"reader {n} sees what was written", ~(mine & inside & settled) | (byte == value))
            self.reach(f"reader {n} reads it", mine & inside & settled & (value != 0))


class RowsRules(Contract):
    """Of each instruction all rows, in order, or one that says why not; then it is taken."""

    def rules(self, m, block):
        i, o, form = block.i, block.o, block.form
        given = {next(iter(word)): value for word, value in zip(form, i.payload.words, strict=True)}
        shift, row, passes = ceil_log2(block.beat), o.payload, self.moves(o)
        gathers = (i.payload.opcode == Opcode.GATHER) if block.gathers else 0
        count = Mux(gathers, given["count"], 1) if block.gathers else 1
        begun, ended, bad, wrong = Signal(), Signal(), Signal(), Signal(Error)
        number, item, target = Signal(2), Signal(2), Signal.like(row.target)
        source, start = Signal.like(row.source), Signal(36)     # of the next row; of this index's
        first, last = number == 0, Signal()
        m.d.comb += last.eq((number + 1 == given["rows"]) & (item + 1 == count))

        beats = ["source", "source_pitch", "target", "target_pitch"]
        unaligned = Cat(given[name] % block.beat != 0 for name in beats).any()
        empty = (given["bytes"] == 0) | (given["rows"] == 0) | (given["bytes"] > block.most * block.beat)
        m.d.comb += start.eq(given["source"])
        if block.gathers:
            request, index = block.index_request, block.index
            unaligned |= gathers & ((given["step"] % block.beat != 0) | (given["index"] % 4 != 0)
                                    | (given["index_pitch"] % 4 != 0))
            empty |= gathers & (given["count"] == 0)
            asked, read, indices = Signal(3), Signal(3), Array(Signal(2, name=f"index{n}") for n in range(SMALL))
            with m.If(self.moves(request)):
                m.d.sync += asked.eq(asked + 1)
            with m.If(self.moves(index)):
                m.d.sync += read.eq(read + 1), indices[read].eq(index.payload.data)
            with m.If(self.moves(i)):
                m.d.sync += asked.eq(0), read.eq(0)
            m.d.comb += start.eq(given["source"] + Mux(gathers, sum(
                Mux(indices[item][n], given["step"] << n, 0) for n in range(2)), 0))
            self.require("index holds", self.steady(index))
            self.require("indices come as they are asked for", ~index.valid | (asked != read))
            self.require("there are few, and small", (~gathers | (given["count"] <= SMALL)) & (
                index.payload.data <= 3))
            self.require("addresses have few bits that are set", ~Cat(given[name][4:30] for name in (
                *beats, "step", "index", "index_pitch")).any())
            self.promise("index request holds", self.steady(request))
            self.promise("indices are asked for one by one", ~request.valid | i.valid & gathers & (asked == read) & (
                asked < given["count"]) & (request.payload.beats == 1) & (request.payload.rows == 1))
            self.promise("where they are", ~request.valid | (request.payload.address == (given["index"] + sum(
                Mux(asked[n], given["index_pitch"] << n, 0) for n in range(2)))[:32]))
        refused = unaligned | empty
        m.d.comb += bad.eq(refused | start[32:].any())
        m.d.comb += wrong.eq(Mux(unaligned, Error.ALIGNMENT, Mux(empty, Error.DIMENSION, Mux(
            bad, Error.INDEX, Error.NONE))))
        with m.If(passes):
            m.d.sync += [
                number.eq(Mux(number + 1 == given["rows"], 0, number + 1)), ended.eq(bad | last),
                item.eq(item + (number + 1 == given["rows"])), begun.eq(1),
                source.eq(row.source + (given["source_pitch"] >> shift)),
                target.eq(row.target + (given["target_pitch"] >> shift)),
            ]
        with m.If(self.moves(i)):
            m.d.sync += begun.eq(0), ended.eq(0), number.eq(0), item.eq(0)

        self.require("i holds", self.steady(i))
        self.require("rows are few", given["rows"] <= SMALL)
        self.promise("o holds", self.steady(o))
        self.promise("rows are of an instruction", ~o.valid | i.valid & ~ended)
        self.promise("it is taken when all its rows have left", ~i.ready | ended)
        self.promise("the last of them says so", ~o.valid | (row.ends == (bad | last)))
        self.promise("what is wrong with it", ~o.valid | (row.error == wrong))
        self.promise("all of their beats, or none", ~o.valid | (
            row.beats == Mux(bad, 0, (given["bytes"] + block.beat - 1) >> shift)))
        self.promise("and how the last one ends", ~o.valid | bad | (row.tail == (given["bytes"] - 1)[:shift]))
        self.promise("they go from where they should", ~o.valid | bad | (
            row.source == Mux(first, start[shift:32], source)))
        self.promise("to where they should", ~o.valid | bad | (
            row.target == Mux(begun, target, given["target"] >> shift)))
        self.reach("the last of several rows", passes & (number == 2) & row.ends & ~bad)
        self.reach("a refusal", passes & refused)
        if block.gathers:
            self.reach("the last of several indices", passes & gathers & (item == 1) & row.ends & ~bad)
            self.reach("an index too large", passes & ~refused & bad)


class Moves(GoesOn):
    """What both engines have to do with instructions."""

    def instructions(self, m, block):
        """Require small ones and follow one. Whether it is done now, and beats up to then, modulo 64."""
        i, done = block.i, block.done
        given = {next(iter(word)): value for word, value in zip(COPY, i.payload.words, strict=False)}
        taken, under_way = Signal(6), Signal(4)
        beats = (given["bytes"] + block.beat - 1) >> ceil_log2(block.beat)
        unaligned = Cat(given[name] % block.beat != 0
                        for name in ("source", "source_pitch", "target", "target_pitch")).any()
        error = Mux(unaligned, Error.ALIGNMENT, Mux(
            (given["bytes"] == 0) | (given["rows"] == 0), Error.DIMENSION, Error.NONE))
        with m.If(self.moves(i) & (error == Error.NONE)):
            m.d.sync += taken.eq(taken + (beats * given["rows"])[:6])
        m.d.sync += under_way.eq(under_way + self.moves(i) - self.moves(done))
        self.require("i holds", self.steady(i))
        self.require("it moves little", (given["rows"] <= SMALL) & (given["bytes"] <= SMALL * block.beat))
        self.promise("done holds", self.steady(done))
        self.promise("nothing is done that was not taken", ~done.valid | (under_way != 0))

        # Any one is followed.
        follow, followed, ahead = self.any(1, "follow"), Signal(), Signal.like(under_way)
        goal, wrong = Signal.like(taken), Signal(Error)
        with m.If(self.moves(i) & follow & ~followed):
            m.d.sync += [followed.eq(1), ahead.eq(under_way - self.moves(done)), wrong.eq(error),
                         goal.eq(taken + Mux(error == Error.NONE, (beats * given["rows"])[:6], 0))]
        with m.Elif(self.moves(done) & followed):
            m.d.sync += ahead.eq(ahead - 1), followed.eq(ahead != 0)
        mine = done.valid & followed & (ahead == 0)
        self.promise("an error is told of with its instruction", ~mine | Mux(
            wrong != Error.NONE, done.payload.error == wrong,
            (done.payload.error == Error.NONE) | (done.payload.error == Error.BUS)))
        return mine, goal

    def beats(self, m, o, i):
        """Look at any one beat on its way from one stream to another. Beats that have left, modulo 64."""
        number, kept = self.some(6, "number"), Signal(len(o.payload.data))
        came, went, seen = Signal(6), Signal(6), Signal()
        m.d.sync += came.eq(came + self.moves(o)), went.eq(went + self.moves(i))
        with m.If(self.moves(o) & (came == number) & ~seen):
            m.d.sync += kept.eq(o.payload.data), seen.eq(1)
        self.promise("nothing is written that did not come", ~i.valid | (came != went))
        self.promise("beats stay in order", ~(seen & (went == number) & i.valid) | (i.payload.data == kept))
        return went


class Loads(Moves):
    """`Load` between memory and scratchpad."""

    def surroundings(self, m, block):
        """Require that these answer what they are asked. Whether they do so now, if they have to."""
        ar, r, request, index = block.memory.ar, block.memory.r, block.index_request, block.index
        owed, asked = Signal(8), Signal(2)
        m.d.sync += owed.eq(owed + Mux(self.moves(ar), ar.payload.len + 1, 0) - self.moves(r))
        m.d.sync += asked.eq(asked + self.moves(request) - self.moves(index))
        self.require("no beat that was not asked for", ~r.valid | (owed != 0))
        self.require("no index that was not asked for", ~index.valid | (asked != 0) & (index.payload.data <= SMALL))
        self.require("index holds", self.steady(index))
        return ar.ready & request.ready & block.write.ready & ((owed == 0) | r.valid) & ((asked == 0) | index.valid)


class LoadRules(Loads):
    """Each beat that memory gives goes to the scratchpad, once and in order; then its instruction is done."""

    def rules(self, m, block):
        ar, r, write = block.memory.ar, block.memory.r, block.write
        mine, goal = self.instructions(m, block)
        self.require("only copies", block.i.payload.opcode == Opcode.COPY)
        self.surroundings(m, block)
        went = self.beats(m, r, write)
        self.promise("ar holds", self.steady(ar))
        self.promise("r never waits", ~r.valid | r.ready)
        self.promise("write holds", self.steady(write))
        self.promise("beats are whole", ~write.valid | (write.payload.count == block.beat))
        self.promise("done means done", ~mine | (went == goal))
        self.reach("an instruction is done", mine & (goal != 0) & (block.done.payload.error == Error.NONE))
        self.reach("a bus error is told of", mine & (block.done.payload.error == Error.BUS))


class LoadGoesOn(Loads):
    """Instructions come to their ends, if memory and scratchpad answer."""

    within = 8

    def rules(self, m, block):
        i, done = block.i, block.done
        self.require("i holds", self.steady(i))
        answered = self.surroundings(m, block)
        self.goes_on(m, (i.valid | self.open(m, self.moves(i), self.moves(done))) & done.ready & answered,
                     i, done, block.memory.ar, block.memory.r, block.index_request, block.index, block.write)
        self.reach("an instruction is done", self.moves(done) & (done.payload.error == Error.NONE))


class Stores(Moves):
    """`Store` between scratchpad and memory."""

    def surroundings(self, m, block):
        """Require that these answer what they are asked. Whether they do so now, if they have to."""
        request, response, aw, w, b = block.request, block.response, *(
            getattr(block.memory, name) for name in ("aw", "w", "b"))
        owed, lasts, complete = Signal(6), Signal(64), Signal(6)        # beats; responses of memory
        asked = Mux(self.moves(request), request.payload.beats, 0)
        m.d.sync += [
            owed.eq(owed + asked - self.moves(response)),
            lasts.eq((lasts | Mux(asked != 0, (1 << owed << asked) >> 1, 0)) >> self.moves(response)),
            complete.eq(complete + (self.moves(w) & w.payload.last) - b.valid),
        ]
        self.require("response holds", self.steady(response))
        self.require("beats are those asked for", ~response.valid | (owed != 0) & (response.payload.last == lasts[0]))
        self.require("no response before the data", ~b.valid | (complete != 0))
        return request.ready & aw.ready & w.ready & ((owed == 0) | response.valid) & ((complete == 0) | b.valid)


class StoreRules(Stores):
    """Each beat that the scratchpad gives goes to memory, once and in order; then its instruction is done."""

    def rules(self, m, block):
        request, response, w, b = block.request, block.response, block.memory.w, block.memory.b
        mine, goal = self.instructions(m, block)
        self.surroundings(m, block)
        went = self.beats(m, response, w)
        for name in "aw", "w":
            self.promise(f"{name} holds", self.steady(getattr(block.memory, name)))
        self.promise("request holds", self.steady(request))
        self.promise("b never waits", b.ready)
        self.promise("no beat is without bytes", ~w.valid | w.payload.strobe[0])
        self.promise("done means done", ~mine | (went == goal) | ((went - goal)[:6] < 32))
        self.reach("an instruction is done", mine & (goal != 0) & (block.done.payload.error == Error.NONE))
        self.reach("a bus error is told of", mine & (block.done.payload.error == Error.BUS))


class StoreGoesOn(Stores):
    """Instructions come to their ends, if scratchpad and memory answer."""

    within = 8

    def rules(self, m, block):
        i, done = block.i, block.done
        self.require("i holds", self.steady(i))
        self.require("rows are short", i.payload.words[COPY.index({"bytes": 32})] <= SMALL * block.beat)
        answered = self.surroundings(m, block)
        self.goes_on(m, (i.valid | self.open(m, self.moves(i), self.moves(done))) & done.ready & answered,
                     i, done, block.request, block.response, block.memory.aw, block.memory.w, block.memory.b)
        self.reach("an instruction is done", self.moves(done) & (done.payload.error == Error.NONE))


QUICK = [
    Task(Order(3), OrderRules),
    Task(Writer(4, 2, 2, 2, 1), WriterRules),
    Task(Writer(4, 1, 2, 3, 2), WriterRules),
]

TASKS = [
    Task(Reader(2, 2, 2, 1, 1, 2, 2), ReaderRules, depth=12),
    Task(Reader(2, 2, 2, 2, 2, 2, 2), ReaderRules, depth=12),
    Task(Reader(2, 2, 2, 2, 1, 2, 2), ReaderRules, depth=12),
    Task(Scratchpad(16, 2, 2, ((1, 1, 2, 1), (2, 2, 1, 2)), ((2, 1), (1, 1))), ScratchpadRules, depth=11),
    Task(Rows(2, 4, False), RowsRules, depth=16),
    Task(Rows(2, 4, True), RowsRules, depth=16),
    Task(Load(2, 16, 2, 4), LoadRules, depth=16),
    Task(Store(2, 16, 2), StoreRules, depth=16),
    Task(Load(2, 16, 2, 4), LoadGoesOn, depth=20, cover=24, label="LOAD goes on"),
    Task(Store(2, 16, 2), StoreGoesOn, depth=20, cover=24, label="STORE goes on"),
]
