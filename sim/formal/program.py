# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.sequencer`: nothing begins too early, nothing that may begin is forgotten, and no count overflows.

The dispatcher is shown words that need not be those of any program, so that what holds does so for all of them.
"""

from amaranth.hdl import Array, Cat, Instance, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from golden.config import Sequencer as Config
from golden.isa import BYTES, FORMS, WAITS, WORDS, Engine
from golden.registers import State
from hw.emit import Block
from hw.ram import Ram
from hw.sequencer.dispatcher import ENGINES, HEADER, Dispatcher
from hw.sequencer.program import AHEAD, Program
from hw.sequencer.queues import PAIR, SETTLED, Queues
from hw.sequencer.sequencer import Sequencer
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["QUICK", "TASKS", "DispatcherRules", "ProgramRules", "QueuesRules",
           "SequencerRules"]


class Few(Block):
    """A `Ram` of which some words are kept, of these the lowest bits. All else that is read may be anything."""

    def __init__(self, width, depth, kept, bits):
        self.width, self.depth, self.kept, self.bits = width, depth, kept, bits
        super().__init__({name: (In if name != "read_data" else Out)(value.shape())
                          for name, value in ((name, getattr(Ram(width, depth), name)) for name in (
                              "write_en", "write_address", "write_data", "read_en", "read_address", "read_data"))})

    def elaborate(self, platform):
        m = Module()
        anything, known = Signal(self.width), Signal()
        m.submodules += Instance("anyseq", p_WIDTH=self.width, o_Y=anything)
        data = Signal(self.bits)
        m.d.comb += self.read_data.eq(Cat(Mux(known, data, anything), anything[self.bits:]))
        words = {at: Signal(self.bits, name=f"word{at}", reset_less=True) for at in self.kept}
        with m.If(self.read_en):
            m.d.sync += known.eq(0)
        for at, word in words.items():
            with m.If(self.write_en & (self.write_address == at)):
                m.d.sync += word.eq(self.write_data)
            with m.If(self.read_en & (self.read_address == at)):
                m.d.sync += data.eq(word), known.eq(1)
        return m


class ProgramRules(Contract):
    """All beats of an image are asked for, once, and have a place."""

    def rules(self, m, block):
        ar, r, start = block.memory.ar, block.memory.r, block.start
        per, packed = block.unit // block.beat, block.unit // BYTES
        asks = self.moves(ar)
        owed, left = Signal(range(2 * AHEAD)), Signal(range(block.instructions + 1))
        place = Signal.like(ar.payload.address)
        m.d.sync += owed.eq(owed + Mux(asks, per, 0) - r.valid)
        with m.If(asks):
            m.d.sync += left.eq(left - 1), place.eq(place + per)
        with m.If(start.valid):
            m.d.sync += [left.eq((start.count + packed - 1) // packed),
                         place.eq(start.address // block.beat)]
        with m.If(block.halt):
            m.d.sync += left.eq(ar.valid & ~ar.ready)

        self.require("one image at a time", ~start.valid | ~block.busy & ~block.halt)
        self.require("its place is aligned, and there is room", ~start.valid | block.aligned & (start.count != 0)
                     & (start.count <= block.instructions))
        self.require("no beat that was not asked for", ~r.valid | (owed != 0))
        self.require("nothing is lost", ~block.clear)
        self.promise("ar holds", self.steady(ar))
        self.promise("bursts are what is left of the image",
                     ~ar.valid | (left != 0) & (ar.payload.address == place) & (ar.payload.len == per - 1))
        self.promise("what is left is asked for", ar.valid | (left == 0) | (owed > AHEAD - per))
        self.promise("not too many beats are under way", owed <= AHEAD)
        self.promise("r never waits", r.ready)
        self.promise("busy until all has come", block.busy == ((left != 0) | (owed != 0)))
        self.promise("aligned to instructions and beats", block.aligned == (start.address % block.unit == 0))
        self.reach("a second image", self.after(self.after(start.valid)) & start.valid)
        self.reach("halted with beats under way", self.after(block.halt) & (left == 0) & (owed != 0))


class Entering(Contract):
    """How instructions get from the dispatcher into the queues."""

    def entering(self, m, begin, halt, length):
        """Cycles since an instruction has begun to enter, 0 at rest; and whether it is time for one of its words."""
        since, writes = Signal(range(2 * WORDS)), Signal()
        m.d.comb += writes.eq((since > SETTLED) & (since <= SETTLED + length))
        with m.If(begin):
            m.d.sync += since.eq(1)
        with m.Elif((since != 0) & (since < SETTLED + length)):
            m.d.sync += since.eq(since + 1)
        with m.Else():
            m.d.sync += since.eq(0)
        with m.If(halt):
            m.d.sync += since.eq(0)
        return since, writes

    def entered(self, say, m, block, header, engine, opcode, engines, since, writes, length):
        """What the one side promises and the other requires."""
        kept, room, begun = Signal(len(header)), Signal.like(block.room), Signal()
        m.d.sync += kept.eq(header), room.eq(block.room), begun.eq(block.begin)
        say("an instruction at a time", ~block.begin | (since == 0) | (since == SETTLED + length))
        say("its header holds", (since < 2) | (header == kept))
        say("it is one that there is", (since == 0) | (engine < engines) & (length != 0) & (opcode < 8))
        say("its engine had room", ~begun | (since == 0) | room.bit_select(engine, 1))
        say("its words follow", (block.write.en == writes) & (~writes | (block.write.index == since - SETTLED - 1)))


class Surroundings(Entering):
    """What queues require."""

    def rules(self, m, block):
        engines = range(len(block.forms))
        self.outs, self.done = ([getattr(block, f"{kind}{e}") for e in engines] for kind in ("o", "done"))
        length, header = Signal(4), Cat(block.engine, block.opcode, block.waits, block.pc)
        lengths = Array(Array([*map(len, forms), *[0] * 8][:8])[block.opcode] for forms in block.forms)
        m.d.comb += length.eq(lengths[block.engine])
        since, writes = self.entering(m, block.begin, block.drop, length)
        self.entered(self.require, m, block, header, block.engine, block.opcode, len(engines), since, writes, length)
        self.require("no reset", ~block.clear)

        self.flying = [Signal(8, name=f"flying{e}") for e in engines]
        for e, (flying, out, done) in enumerate(zip(self.flying, self.outs, self.done, strict=True)):
            m.d.sync += flying.eq(flying + self.moves(out) - done.valid)
            self.require(f"engine {e} completes what has begun", ~done.valid | (flying != 0))
        self.counted, self.writes = since == SETTLED, writes


class QueuesRules(Surroundings):
    """Any one instruction is followed until it begins."""

    SOON = 12       # cycles from when an instruction may be the head until it is offered

    def rules(self, m, block):
        super().rules(m, block)
        engines, outs, done, flying = range(len(block.forms)), self.outs, self.done, self.flying
        counted, writes, age = self.counted, self.writes, Signal(block.count - 2)
        m.d.sync += age.eq(age + counted)

        # What is where
        waiting = [Signal(8, name=f"waiting{e}") for e in engines]      # dispatched and not begun
        issued = [Signal(8, name=f"issued{e}") for e in engines]
        for e in engines:
            begins, comes = self.moves(outs[e]), counted & (block.engine == e)
            m.d.comb += issued[e].eq(flying[e] + waiting[e])
            m.d.sync += waiting[e].eq(Mux(block.drop, outs[e].valid & ~begins, waiting[e] + comes - begins))
            self.promise(f"o{e} holds", self.steady(outs[e]))
            self.promise(f"engine {e} is offered what was dispatched", ~outs[e].valid | (waiting[e] != 0))
            self.promise(f"not too many for engine {e}", issued[e] <= block.limit)
            self.promise(f"engine {e} has room while there is", block.room[e] | (waiting[e] >= block.queue)
                         | (issued[e] == block.limit) | age.all())
            self.promise(f"it is told what engine {e} has", (block.pending[e] == (issued[e] != 0)) & (
                block.busy[e] == (flying[e] != 0)) & (block.offered[e] == (outs[e].valid | (flying[e] != 0))))

        # One that is followed
        follow, followed, whose = self.any(1, "follow"), Signal(), Signal(range(len(engines)))
        ahead, left = Signal(8), [Signal(8, name=f"left{f}") for f in engines]
        opcode, word, known, pc = Signal(5), Signal(2 * block.count), Signal(), Signal.like(block.pc)
        offers = Array(each.valid for each in outs)[whose]
        begins = Array(self.moves(each) for each in outs)[whose]
        given = Array(Cat(each.payload.opcode, each.payload.words[0][:len(word)]) for each in outs)[whose]
        turn, may, late = Signal(), Signal(), Signal(range(self.SOON + 1))
        mine = Signal()
        m.d.comb += turn.eq(followed & (ahead == 0)), may.eq(turn & ~Cat(left).any())
        for f in engines:
            distance, far = block.waits.word_select(f, WAITS), Signal(8, name=f"far{f}")
            m.d.comb += far.eq(Mux((distance == 0) | (distance > issued[f]), 0, issued[f] + 1 - distance))
            with m.If(counted & follow & ~followed):
                m.d.sync += left[f].eq(Mux(far == 0, 0, far - done[f].valid))
            with m.Elif(left[f] != 0):
                m.d.sync += left[f].eq(left[f] - done[f].valid)
        with m.If(counted & follow & ~followed):
            m.d.sync += [followed.eq(1), mine.eq(1), known.eq(0), whose.eq(block.engine), opcode.eq(block.opcode),
                         pc.eq(block.pc), ahead.eq(Array(waiting)[block.engine] - Array(
                             self.moves(each) for each in outs)[block.engine])]
        with m.Elif(followed & begins):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += followed.eq(0)
        with m.If(mine & writes):
            m.d.sync += mine.eq(0), known.eq(1), word.eq(block.write.data)
        with m.If(block.drop):
            m.d.sync += followed.eq(0), mine.eq(0)
        m.d.sync += late.eq(Mux(may & ~offers, late + (late != self.SOON), 0))
        self.promise("none is offered before what it waits for has completed", ~(turn & offers) | may)
        self.promise("it is offered as it was dispatched", ~(turn & offers) | known & (given == Cat(opcode, word)))
        self.promise("it is offered soon after", late != self.SOON)
        self.reach("it had to wait for another engine", turn & offers & self.after(
            turn & ~offers & (Array(left)[~whose[0]] > 1)))
        self.reach("another was dropped", self.after(self.after(block.drop)) & turn & offers)


class Ages(Contract):
    """Inside of queues: how many instructions are dispatched while any one is behind a head.

    Of those that an engine completes meanwhile all but `limit` are dispatched meanwhile. So the count that the one
    waits for is at most `limit` more than what has completed, and two periods and the longest wait less.
    """

    def rules(self, m, block):
        follow, followed, whose = self.any(1, "follow"), Signal(), Signal(block.turn.shape())
        ahead, age, period = Signal.like(block.level[0]), Signal(block.count), 1 << block.count - 2
        goes = Array(block.goes)[whose]
        with m.If(goes & followed):
            m.d.sync += ahead.eq(ahead - 1), followed.eq(ahead != 0)
        with m.If(block.counted & followed):
            m.d.sync += age.eq(age + 1)
        with m.If(block.counted & follow & ~followed):
            m.d.sync += [followed.eq(1), whose.eq(block.engine), age.eq(0),
                         ahead.eq(Array(block.level)[block.engine] - Array(block.goes)[block.engine])]
        with m.If(block.drop):
            m.d.sync += followed.eq(0)
        old = Array(block.old)[whose]
        self.promise("an instruction has its place", ~followed | (ahead < Array(block.level)[whose]))
        self.promise("if it is not old it came in this period", ~followed | (ahead < old) | (age <= block.age))
        self.promise("if it is old it came in this or the last", ~followed | (age <= block.age + period))
        self.promise("it is no older than two periods", ~followed | (age < 2 * period))


class Aging(Queues):
    """Queues with what is said of their ages inside."""

    @property
    def name(self):
        return "queues_aging"

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.submodules.contract = Ages(self, assume=True)
        return m


class DispatcherRules(Entering):
    """It gives queues what they require, and as long as there is room it comes to an end of whatever it is at."""

    QUIET = 8       # cycles without asking for a word

    def rules(self, m, block):
        length, header = Signal(4), Cat(block.header, block.source)
        with m.Switch(Cat(block.header.engine, block.header.opcode)):
            for engine in ENGINES:
                for opcode, form in FORMS[engine].items():
                    with m.Case(engine | opcode << 3):
                        m.d.comb += length.eq(len(form))
        checks, reads, quiet = Signal(), Signal(range(1 << 8)), Signal(range(self.QUIET + 1))
        since, writes = self.entering(m, block.begin, block.halt, length)

        # A header that comes out of the memory while a program runs is of an instruction that there is.
        coming, comes, now = Signal(), Signal(), Signal(HEADER)
        m.d.sync += coming.eq(block.read_en & (block.n == 0)), comes.eq(coming)
        m.d.comb += now.eq(block.word)
        legal = Cat(now.as_value()[:8] == (engine | opcode << 3)
                    for engine, forms in FORMS.items() for opcode in forms).any()
        self.require("a checked program", ~(block.running & comes) | legal)

        active, all_read = Signal(), Signal()
        m.d.comb += active.eq(checks | block.running), all_read.eq(reads == (block.last + 1) * WORDS)
        last = Signal.like(block.last)
        m.d.sync += last.eq(block.last)
        with m.If(block.start):
            m.d.sync += checks.eq(1), reads.eq(0)
        with m.Elif(checks):
            m.d.sync += reads.eq(reads + block.read_en)
        with m.If(block.running | block.halt):
            m.d.sync += checks.eq(0)
        m.d.sync += quiet.eq(Mux(active & ~block.ended & ~block.halt & ~block.read_en & block.room.all(), quiet + 1, 0))

        self.require("begins at rest", ~block.start | ~active)
        self.require("a fault brings it to rest", ~block.fault.valid | block.halt)
        self.require("registers are preset before a program runs", ~block.preset.en | ~block.running)
        self.require("the program does not change", ~active | (block.last == last))
        self.entered(self.promise, m, block, header, block.header.engine, block.header.opcode, len(ENGINES), since,
                     writes, length)
        self.promise("nothing begins but in a program that runs", ~block.begin | block.running)
        self.promise("nothing is read at rest", ~block.read_en | active)
        self.promise("a program runs when all of it is checked", ~(block.running & checks) | all_read)
        self.promise("no fault but of a program", ~block.fault.valid | active)
        self.promise("it always goes on while there is room", quiet != self.QUIET)
        self.reach("an instruction of the most words", since == SETTLED + max(map(len, FORMS[Engine.LOAD].values())))


class SequencerRules(Contract):
    """What the host sees, whatever the parts do."""

    def rules(self, m, block):
        state, error, patience = block.status.state, block.error, block.config.patience
        idle, draining = state == State.IDLE, state == State.DRAINING
        known, cleared, waits, resumed = Signal.like(error), Signal(), Signal(), Signal()
        m.d.sync += known.eq(error), cleared.eq(block.clear), waits.eq(block.reset), resumed.eq(block.resumed)
        stopped, late = Signal(), Signal(range(patience + 4))
        with m.If(~draining | block.reset):
            m.d.sync += stopped.eq(0), late.eq(0)
        with m.Else():
            m.d.sync += stopped.eq(stopped | block.stop), late.eq(Mux(stopped | block.stop, late + 1, 0))
        restarts = Signal()
        m.d.sync += restarts.eq(block.restart & ~block.reset)
        self.require("start holds", self.steady(block.start))
        self.promise("a restart resets all engines", ~restarts | block.reset)
        self.promise("an error stays until it is cleared", (known.code == 0) | cleared | (error == known))
        self.promise("an idle sequencer has no error", ~idle | (error.code == 0))
        self.promise("a program that ends well has no error", ~block.finished | (error.code == 0) & ~idle)
        self.promise("it starts from rest", block.start.ready == idle & ~block.restart)
        self.promise("engines are reset until all have resumed", ~waits | resumed | block.reset)
        self.promise("a stop ends what drains", late <= patience + 2)
        self.reach("a reset", block.reset)
        self.reach("an end", block.finished)


COUNT, LIMIT, QUEUE = 5, 3, 2
FEW = {Ram: lambda ram: Few(32, ram.depth, tuple(
    entry << 4 | n for entry in range(ram.depth >> 4) for n in (0, WORDS - 1)), PAIR * COUNT + 5)
    if ram.width == 32 else ram}

HOST = Sequencer(Config(instructions=8).model_copy(update={"patience": 3}), 8)
SMALL = ((((32,), (32, 32)), ((32,),)), QUEUE, 4, COUNT, LIMIT)

QUICK = [
    Task(Program(4, 32), ProgramRules),
    Task(Program(4, 128), ProgramRules),
    Task(HOST, SequencerRules, cut=("program_*", "dispatcher_*", "queues_*")),
]

TASKS = [
    Task(Aging(*SMALL), Surroundings, cut=("ram_*",), cover=0),
    Task(Dispatcher(4), DispatcherRules, depth=72, patience=120, cover=45),
    Task(Queues(*SMALL), QueuesRules, depth=24, patience=120, cover=30, instead=FEW),
]
