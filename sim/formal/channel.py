# SPDX-License-Identifier: Apache-2.0
"""Contracts of the tile's channel and of its prefetch: everybody's turn comes, and nobody gets what is another's.

The memory answers in any order, but only what it was asked for, until it is given up; from then on it does as it likes.
"""

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value

from golden.transfer import Error
from hw.axi import SLVERR
from hw.memory.channel import IDS, READS, WRITES, Channel, Turns
from hw.memory.weights import INSTRUCTIONS, Weights
from hw.stream import DeepQueue
from sim.formal.axi import Axi
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["QUICK", "TASKS", "ChannelRules", "TurnsRules", "WeightsRules"]


class TurnsRules(Contract):
    """What comes out came in, in that order; the first goes first, and nobody waits for ever."""

    def rules(self, m, block):
        o, count = block.o, block.count
        valid, goes, may, late = (Signal(count, name=name) for name in ("valid", "goes", "may", "late"))
        passed = [Signal(range(block.share + 1), name=f"passed{n}") for n in range(count)]
        m.d.comb += [
            valid.eq(Cat(i.valid for i in block.inputs)), goes.eq(Cat(self.moves(i) for i in block.inputs)),
            may.eq(block.may), late.eq(Cat(each == block.share for each in passed)),
        ]
        for n, each in enumerate(passed):
            m.d.sync += each.eq(Mux(valid[n] & ~goes[n], each + (goes.any() & ~late[n]), 0))
        able = Signal(count)
        m.d.comb += able.eq(valid & may & Mux((valid & may & late).any(), late, ~late))
        first = able & -able

        # Any one item is followed, and how many others one waits for that is next.
        push, pop, level = Signal(), self.moves(o), Signal(range(4))
        item, ahead, follow, followed = Signal(block.shape), Signal(range(4)), self.any(1, "follow"), Signal()
        arriving = Array(Value.cast(i.payload) for i in block.inputs)[sum(Mux(goes[n], n, 0) for n in range(count))]
        m.d.comb += push.eq(goes.any() & ~block.skip)
        m.d.sync += level.eq(level + push - pop)
        with m.If(push & follow & ~followed):
            m.d.sync += followed.eq(1), item.eq(arriving), ahead.eq(level - pop)
        with m.Elif(pop & followed):
            m.d.sync += ahead.eq(ahead - 1), followed.eq(ahead != 0)
        one, waits = self.some(range(count), "one"), Signal(range(count + 2))
        mine = (valid & may & late).bit_select(one, 1)
        m.d.sync += waits.eq(Mux(mine & ~goes.bit_select(one, 1), waits + (goes.any() & (waits <= count)), 0))

        self.require("one is one of them", one < count)
        self.promise("o holds", self.steady(o))
        self.promise("those are late whom others have passed", block.late == late)
        self.promise("who goes is the first of those that are late, or else of all that may", (goes & ~first) == 0)
        self.promise("one goes if there is room", (able == 0) | goes.any() | (level == 2) & ~block.skip)
        self.promise("no item comes from nothing", ~o.valid | (level != 0))
        self.promise("each item comes out unchanged, in its turn",
                     ~(followed & o.valid & (ahead == 0)) | (Value.cast(o.payload) == item))
        self.promise("an item is on offer", o.valid | (level == 0))
        self.promise("who is late waits for each of the others once", waits < count)
        self.reach("one that is late goes before the first", (goes & late).any() & (valid & may & ~late & ~goes)[0])


class ChannelRules(Contract):
    """AXI4's rules, what is owed to whom, and a flush that leaves nothing behind."""

    def rules(self, m, block):
        axi, dead, idle = block.axi, block.dead, block.idle
        self.heard, flushing = Signal(), Signal()
        m.d.comb += self.heard.eq(~(block.flush | flushing))
        m.d.sync += flushing.eq(~(self.heard | idle))
        self.promise("r and b never wait", axi.rready & axi.bready)
        reads, beats = self._reads(m, block)
        writes, bursts = self._writes(m, block)
        theirs, paused = Signal(), Signal()     # it is the memory's turn; it was not in the last cycle of a flush
        m.d.comb += theirs.eq(reads | writes | axi.arvalid | axi.awvalid | axi.wvalid)
        m.d.sync += paused.eq(~(self.heard | theirs | idle))
        self.promise("idle when nothing is owed", dead | (idle == ~(beats | bursts)))
        self.promise("nothing is on its way when all is idle", dead | ~(idle & theirs))
        self.promise("a flush waits for nobody but the memory", dead | self.heard | idle | theirs | ~paused)
        cycles = Signal(range(16))
        m.d.sync += cycles.eq(Mux(dead & ~self.heard & ~idle, cycles + (cycles != 15), 0))
        self.promise("and not for a dead one", cycles < 8)
        self.reach("a flush ends", self.after(flushing & ~idle & reads & writes) & idle & ~dead)

    def _asked(self, name, way):
        """A master's burst: valid, ready, length, and what goes to memory."""
        port = self.block.kv if name == "kv" else getattr(getattr(self.block, name), way)
        if name == "kv":
            valid, ready, id, address, length = (
                getattr(port, way + each) for each in ("valid", "ready", "id", "addr", "len"))
            id = Cat(id, Const(0, 2))
        else:
            valid, ready, id = port.valid, port.ready, Const(IDS[name], 3)
            address, length = port.payload.address, port.payload.len
        self.require(f"bursts of {name} are short on {way}", ~valid | (length < self.block.longest))
        return valid & ready, length, Cat(id, address, length)

    def _belongs(self, name, id):
        return id < 2 if name == "kv" else id == IDS[name]

    def _passes(self, m, way, given, leaving):
        """What is given by any of some goes out on a channel, and does not change while it waits."""
        axi, dead = self.block.axi, self.block.dead
        valid, ready = (getattr(axi, way + each) for each in ("valid", "ready"))
        push, pop, arriving = Signal(), Signal(), Signal.like(leaving)
        for gives, what in given:
            with m.If(gives):
                m.d.comb += push.eq(~dead), arriving.eq(what)
        level, item, ahead, followed = Signal(range(4)), Signal.like(leaving), Signal(range(4)), Signal()
        m.d.comb += pop.eq(valid & ready & ~dead)
        m.d.sync += level.eq(level + push - pop)
        with m.If(push & self.any(1, f"follow_{way}") & ~followed):
            m.d.sync += followed.eq(1), item.eq(arriving), ahead.eq(level - pop)
        with m.Elif(pop & followed):
            m.d.sync += ahead.eq(ahead - 1), followed.eq(ahead != 0)
        waits, kept = Signal(), Signal.like(leaving)
        m.d.sync += waits.eq(valid & ~ready), kept.eq(leaving)
        self.promise(f"{way} holds", ~waits | valid & (kept == leaving))
        self.promise(f"{way} has what was given", dead | (valid == (level != 0)) & (level <= 2))
        self.promise(f"{way} has it unchanged, in order", dead | ~(followed & valid & (ahead == 0)) | (leaving == item))

    def _reads(self, m, block):
        """Whether beats are owed by the memory; and to anybody."""
        axi, dead, heard = block.axi, block.dead, self.heard
        asks = {name: self._asked(name, "ar") for name in READS}
        self._passes(m, "ar", [(goes, what) for goes, _, what in asks.values()], Cat(axi.arid, axi.araddr, axi.arlen))
        rest, due = [], []
        for name, (goes, length, _) in asks.items():
            owed, theirs = (Signal(range(block.MOST + 2 * block.longest), name=f"{name}_{whose}")
                            for whose in ("owed", "theirs"))
            more = Signal(range(block.longest + 1), name=f"{name}_more")        # to be owed from the next cycle on
            own, came = Signal(name=f"{name}_own"), Signal(name=f"{name}_came")
            m.d.comb += own.eq(axi.rvalid & self._belongs(name, axi.rid)), came.eq((owed != 0) & (dead | own))
            m.d.sync += more.eq(Mux(goes, length + 1, 0)), owed.eq(owed + more - came)
            gone = axi.arvalid & axi.arready & self._belongs(name, axi.arid)
            m.d.sync += theirs.eq(theirs + Mux(gone, axi.arlen + 1, 0) - own)
            rest.append(theirs)
            due += [owed, more]
            self.require(f"no beat for {name} that was not asked for", dead | ~own | (theirs != 0))
            self.promise(f"{name} asks for no more than fits", ~goes | (owed < block.MOST))
            self.promise(f"what comes for {name} is owed to it", dead | ~own | (owed != 0))
            self.promise(f"{name} is not heard in a flush", heard | ~goes)
            if name == "kv":
                kv = block.kv
                self.promise("kv gets the beats that are owed to it, of a memory that lives",
                             kv.rvalid == (came & heard & ~dead))
                self.promise("as they come", ~kv.rvalid | (Cat(kv.rid, kv.rdata, kv.rresp, kv.rlast) == Cat(
                    axi.rid[0], axi.rdata, axi.rresp, axi.rlast)))
            else:
                r = getattr(block, name).r
                self.promise(f"{name} gets the beats that are owed to it", r.valid == (came & heard))
                self.promise(f"{name} gets them as they come, and of a dead memory errors", ~r.valid | (
                    dead | (r.payload.data == axi.rdata)) & (r.payload.error == (dead | (axi.rresp >= SLVERR))))
            self.reach(f"many beats for {name}", came & heard & ~dead & (owed == block.MOST + 1))
        self.require("a beat is somebody's", dead | ~axi.rvalid | sum(self._belongs(name, axi.rid) for name in READS))
        return Cat(rest).any(), Cat(due).any()

    def _writes(self, m, block):
        """Whether responses are owed by the memory; and to anybody."""
        axi, kv, store, dead, heard = block.axi, block.kv, block.store, block.dead, self.heard
        asks = {name: self._asked(name, "aw") for name in WRITES}
        self._passes(m, "aw", [(goes, what) for goes, _, what in asks.values()], Cat(axi.awid, axi.awaddr, axi.awlen))
        left, owner, moves = Signal(range(block.longest + 1)), Signal(), Signal()   # of the burst that is written
        words = [Cat(kv.wdata, kv.wstrb), Cat(store.w.payload.data, store.w.payload.strobe)]
        written = [block.beats.written[name] for name in WRITES]
        m.d.comb += moves.eq(Cat(written).any())
        with m.If(moves):
            m.d.sync += left.eq(left - 1)
        for n, (goes, length, _) in enumerate(asks.values()):
            with m.If(goes & ~dead):
                m.d.sync += left.eq(length + 1), owner.eq(n)
        self._passes(m, "w", [
            (moves, Cat(Mux(heard, word, word[:8 * block.beat]), left == 1)) for moves, word in
            zip(written, words, strict=True)], Cat(axi.wdata, axi.wstrb, axi.wlast))
        self.promise("a burst's data come before the next burst",
                     dead | ~Cat(goes for goes, *_ in asks.values()).any() | (left == 0) | moves & (left == 1))

        rest, due, complete = [], [], Signal(range(8))      # bursts whose data the memory has
        m.d.sync += complete.eq(complete + (axi.wvalid & axi.wready & axi.wlast) - axi.bvalid)
        gives = kv.wvalid & kv.wready, self.moves(store.w)
        answers = (kv.bvalid, store.b.valid)
        for n, (name, (goes, _, _)) in enumerate(asks.items()):
            owed, theirs = (
                Signal(range(block.BURSTS + 1), name=f"{name}_bursts_{whose}") for whose in ("owed", "theirs"))
            own = Signal(name=f"{name}_response")
            m.d.comb += own.eq(axi.bvalid & self._belongs(name, axi.bid))
            m.d.sync += owed.eq(owed + goes - (own & (owed != 0)))
            gone = axi.awvalid & axi.awready & (self._belongs("kv", axi.awid) == (name == "kv"))
            m.d.sync += theirs.eq(theirs + gone - own)
            rest.append(theirs)
            due.append(owed)
            self.require(f"no response to {name} before its data", dead | ~own | (theirs != 0) & (complete != 0))
            self.promise(f"{name} asks for no more responses than fit", dead | ~goes | (owed < block.BURSTS))
            self.promise(f"a response to {name} is owed to it", dead | ~own | (owed != 0))
            self.promise(f"{name} gets the responses that are owed to it", dead | (answers[n] == (own & heard)))
            self.promise(f"{name} does not write in a flush", heard | ~(goes | gives[n]))
            self.promise(f"{name} writes when it is its turn",
                         dead | ~written[n] | (left != 0) & (owner == n) & ~(heard & ~gives[n]))
            self.promise(f"what {name} gives is written", dead | ~gives[n] | written[n])
            self.reach(f"a response to {name}", answers[n] & ~dead & (owed == block.BURSTS))
        self.promise("kv gets its responses as they come", ~kv.bvalid | (Cat(kv.bid, kv.bresp) == Cat(
            axi.bid[0], axi.bresp)))
        self.promise("store gets them as they come, and of a dead memory errors",
                     ~store.b.valid | (store.b.payload.error == (dead | (axi.bresp >= SLVERR))))
        self.promise("kv gets no response from a dead memory", ~(dead & kv.bvalid))
        self.require("a response is somebody's",
                     dead | ~axi.bvalid | sum(self._belongs(name, axi.bid) for name in WRITES))
        self._dead(m, block, *asks["store"][:2], gives[1])
        return Cat(rest).any() & (complete != 0), Cat(*due, left).any()

    def _dead(self, m, block, goes, length, gives):
        """What store is owed in its own view, since the last flush."""
        owed, left = Signal(range(block.BURSTS + 1)), Signal(range(block.longest + 1))
        m.d.sync += owed.eq(Mux(block.flush, 0, owed + goes - block.store.b.valid))
        m.d.sync += left.eq(Mux(block.flush, 0, Mux(goes, length + 1, left - gives)))
        self.promise("store gives no more than it asked for", ~gives | (left != 0))
        self.promise("store gets a dead memory's responses at once",
                     ~(block.dead & self.heard) | (block.store.b.valid == (owed != 0) & (left == 0)))


class WeightsRules(Axi):
    """Each instruction is done once its data have come, each request gets its beats, and R never waits."""

    def rules(self, m, block):
        i, done, asked, o, ar, r = block.i, block.done, block.request, block.o, block.memory.ar, block.memory.r
        source, size = i.payload.words
        taken, ends = self.moves(i), self.moves(done)
        due, beats = Signal(range(32)), Signal(range(block.burst + 1))
        m.d.comb += beats.eq(ar.payload.len + 1)
        m.d.sync += due.eq(due + Mux(self.moves(ar), beats, 0) - r.valid)
        cleared = self.after(block.clear) | block.clear

        # Any one instruction is followed, from the way in to its completion.
        under_way, coming = Signal(range(8)), Signal(range(32))     # instructions; beats that are to come for them
        amiss, error = Signal(), Signal(Error)
        m.d.comb += [
            amiss.eq(((source | size) % block.word != 0) | (size == 0)),
            error.eq(Mux((source | size) % block.word != 0, Error.ALIGNMENT, Error.DIMENSION)),
        ]
        m.d.sync += under_way.eq(under_way + taken - ends)
        m.d.sync += coming.eq(coming + Mux(taken & ~amiss, size // block.channel, 0) - r.valid)
        follow, followed, ahead, rest, code = (
            self.any(1, "follow"), Signal(), Signal.like(under_way), Signal.like(coming), Signal(Error))
        with m.If(taken & follow & ~followed):
            m.d.sync += [followed.eq(1), ahead.eq(under_way - ends), code.eq(Mux(amiss, error, Error.NONE)),
                         rest.eq(Mux(amiss, 0, coming + size // block.channel - r.valid))]
        with m.Elif(followed):
            m.d.sync += ahead.eq(ahead - ends), rest.eq(rest - (r.valid & (rest != 0)))
            m.d.sync += followed.eq(~(ends & (ahead == 0)))

        # Any one request, until its last beat.
        waiting, last = Signal(range(16)), self.moves(o) & o.payload.last       # requests
        m.d.sync += waiting.eq(waiting + self.moves(asked) - last)
        watch, watched, first, count, wanted = (
            self.any(1, "watch"), Signal(), Signal.like(waiting), Signal(range(8)), Signal.like(asked.payload.beats))
        mine = watched & (first == 0)
        with m.If(self.moves(asked) & watch & ~watched):
            m.d.sync += watched.eq(1), first.eq(waiting - last), wanted.eq(asked.payload.beats), count.eq(0)
        with m.Elif(watched):
            m.d.sync += first.eq(first - last), watched.eq(~(last & mine))
            with m.If(mine):
                m.d.sync += count.eq(count + self.moves(o))

        self.require("i holds", self.steady(i))
        self.require("instructions are short", ~i.valid | (size <= 2 * block.word))
        self.require("requests hold", self.steady(asked))
        self.require("requests are of beats", ~asked.valid | (asked.payload.beats != 0) & (asked.payload.rows == 1)
                     & (asked.payload.beats <= block.most))
        self.require("no beat that was not asked for", ~r.valid | (due != 0))
        self.promise("ar holds", self.steady(ar))
        self.promise("no burst goes past a multiple", ~ar.valid | self.within(ar.payload, beats, block.burst))
        self.promise("no more is asked for than fits", due <= block.prefetch // block.channel)
        self.promise("r never waits", r.ready)
        self.promise("o holds", self.steady(o))
        self.promise("done holds", self.steady(done))
        self.promise("few instructions are under way", under_way <= INSTRUCTIONS)
        self.promise("nothing is done that was not begun", ~done.valid | (under_way != 0))
        self.promise("an instruction is done when its data have come", cleared | ~(
            followed & done.valid & (ahead == 0)) | (rest == 0))
        self.promise("and says what was wrong with it", cleared | ~(followed & done.valid & (ahead == 0)) | (
            done.payload.error == code) | (code == Error.NONE) & (done.payload.error == Error.BUS))
        self.promise("a request gets its beats, or one more",
                     ~(mine & last) | (count + 1 == wanted) | (count == wanted))
        self.promise("no beat of no request", ~o.valid | (waiting != 0))
        self.reach("beats of a request", mine & last & (wanted == 2) & ~cleared & (o.payload.data != 0))
        self.reach("a request that is told that it was wrong", mine & last & (count == 2) & ~cleared)


class Room(Contract):
    """What comes into the memory of weights has room."""

    def rules(self, m, block):
        self.require("room", ~block.i.valid | block.i.ready)


class TinyChannel(Channel):
    """A channel with the smallest numbers."""

    SHARE, AHEAD, MOST, BURSTS, LONGEST = 3, 1, 2, 2, 2


QUICK = [
    Task(Turns(2, 2, 1), TurnsRules),
    Task(Turns(1, 3, 2), TurnsRules),
]

TASKS = [
    Task(TinyChannel(32, 1, 1, 3), ChannelRules, cover=25),
    Task(Weights(1, 2, 4, 1, 2), WeightsRules, depth=16, patience=300, watched={DeepQueue: Room}),
]
