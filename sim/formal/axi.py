# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.axi`: the rules of AXI4, as far as ports can keep them.

Bursts stay within 4 KiB as they end at multiples of `longest` beats; what waits does not change; W follows
AW, burst by burst; each id is answered in order; and R and B never wait.
"""

from amaranth.hdl import Cat, Mux, Signal

from hw.axi import SLVERR
from sim.formal.contract import Contract

__all__ = ["BurstsRules", "PortRules", "ReadsRules", "WritesRules"]


class Axi(Contract):
    """What several of them share."""

    def within(self, payload, beats, longest):
        """A burst has as many beats as it may, and none past a multiple of `longest`."""
        return (beats != 0) & (payload.address % longest + beats <= longest)

    def owed(self, asked, beats, came, most, name):
        """How many beats are still to come, once some are asked for."""
        owed = Signal(range(most + 1), name=name)
        self.m.d.sync += owed.eq(owed + Mux(asked, beats, 0) - came)
        return owed


class BurstsRules(Axi):
    """The bursts of a run are all of it, in order, each as long as it can be."""

    def rules(self, m, block):
        i, o = block.i, block.o
        held, left = Signal(i.payload.shape()), Signal.like(i.payload.beats)
        at = Signal.like(i.payload.address)
        with m.If(self.moves(i)):
            m.d.sync += held.eq(i.payload), left.eq(i.payload.beats), at.eq(i.payload.address)
        with m.Elif(self.moves(o)):
            m.d.sync += left.eq(left - o.payload.beats), at.eq(at + o.payload.beats)
        ends = o.payload.beats == left

        self.require("i holds", self.steady(i))
        self.require("a run has beats", ~i.valid | (i.payload.beats != 0))
        self.promise("o holds", self.steady(o))
        self.promise("a run is taken when the one before it ends", ~i.ready | (left == 0) | self.moves(o) & ends)
        self.promise("bursts are what is left of the run",
                     ~o.valid | (o.payload.address == at) & (o.payload.beats <= left))
        self.promise("what is left is on offer", o.valid == (left != 0))
        self.promise("no burst goes past a multiple", ~o.valid | self.within(o.payload, o.payload.beats, block.longest))
        self.promise("each is as long as it can be", ~o.valid | ends
                     | ((o.payload.address + o.payload.beats) % block.longest == 0))
        self.promise("the last one says so", ~o.valid | (
            (o.payload.final == (held.final & ends)) & (o.payload.tag == held.tag)))
        self.reach("three bursts of a run", self.moves(o) & ends & (held.beats > block.longest + 1)
                   & (held.address % block.longest == block.longest - 1))


class ReadsRules(Axi):
    """Nothing is asked for that has no place, so whatever comes is taken."""

    def rules(self, m, block):
        i, o, ar, r = block.i, block.o, block.memory.ar, block.memory.r
        asked, beats = self.moves(ar), Signal(range(block.longest + 1))
        m.d.comb += beats.eq(ar.payload.len + 1)
        owed = self.owed(asked, beats, self.moves(r), block.depth + 1, "owed")
        held = self.owed(asked, beats, self.moves(o), block.depth + 1, "held")

        self.require("i holds", self.steady(i))
        self.require("a run has beats", ~i.valid | (i.payload.beats != 0))
        self.require("no beat that was not asked for", ~r.valid | (owed != 0))
        self.promise("ar holds", self.steady(ar))
        self.promise("no burst goes past a multiple", ~ar.valid | self.within(ar.payload, beats, block.longest))
        self.promise("what is asked for has a place", held <= block.depth)
        self.promise("r never waits", ~r.valid | r.ready)
        self.promise("o holds", self.steady(o))
        self.promise("what has come is on offer", ~o.valid | (held != owed))
        self.reach("full, then empty", self.after(held == block.depth) & (held == 0))


class WritesRules(Axi):
    """W follows AW at once, as many beats as it says; a run is done with its last response."""

    def rules(self, m, block):
        i, data, done = block.i, block.data, block.done
        aw, w, b = block.memory.aw, block.memory.w, block.memory.b
        begins, left, beats = self.moves(aw), Signal(range(block.longest + 1)), Signal(range(block.longest + 1))
        m.d.comb += beats.eq(aw.payload.len + 1)
        with m.If(begins):
            m.d.sync += left.eq(beats)
        with m.Elif(self.moves(w)):
            m.d.sync += left.eq(left - 1)
        ends = self.moves(w) & w.payload.last
        waiting = self.owed(begins, 1, b.valid, block.outstanding + 1, "waiting")
        complete = self.owed(ends, 1, b.valid, block.outstanding + 1, "complete")

        # Any one final run is followed until its last burst is answered.
        given, sent, finals = self.moves(i), self.moves(w), Signal(range(2 * block.outstanding + 4))
        unsent = self.owed(given, i.payload.beats, sent, 2 * block.most + 1, "unsent")
        m.d.sync += finals.eq(finals + (given & i.payload.final) - done.valid)
        follow, followed, tag = self.any(1, "follow"), Signal(), Signal(block.tag)
        ahead, rest, answers = Signal.like(finals), Signal.like(unsent), Signal.like(waiting)
        last_sent = followed & sent & (rest == 1)
        with m.If(given & i.payload.final & follow & ~followed):
            m.d.sync += [followed.eq(1), tag.eq(i.payload.tag), ahead.eq(finals - done.valid),
                         rest.eq(unsent + i.payload.beats - sent), answers.eq(0)]
        with m.Elif(followed):
            m.d.sync += rest.eq(rest - (sent & (rest != 0))), ahead.eq(ahead - done.valid)
            m.d.sync += answers.eq(Mux(last_sent, complete + 1 - b.valid, answers - (b.valid & (answers != 0))))
            with m.If(done.valid & (ahead == 0)):
                m.d.sync += followed.eq(0)
        turn = followed & (ahead == 0)

        self.require("i holds", self.steady(i))
        self.require("a run has beats", ~i.valid | (i.payload.beats != 0))
        self.require("data hold", self.steady(data))
        self.require("no response before the data", ~b.valid | (complete != 0))
        self.promise("aw holds", self.steady(aw))
        self.promise("no burst goes past a multiple", ~aw.valid | self.within(aw.payload, beats, block.longest))
        self.promise("w holds", self.steady(w))
        self.promise("a burst begins when the one before it has ended", ~aw.valid | (left == 0))
        self.promise("w is there from the cycle after aw on", w.valid == (left != 0))
        self.promise("the last beat says so", ~w.valid | (w.payload.last == (left == 1)))
        self.promise("b never waits", b.ready)
        self.promise("not too many wait for a response", waiting <= block.outstanding)
        self.promise("a run is done with the response to its last burst, under its tag",
                     ~(turn & done.valid) | b.valid & (rest == 0) & (answers == 1) & (done.tag == tag))
        self.promise("and then it is", ~(followed & b.valid & (rest == 0) & (answers == 1)) | done.valid & turn)
        self.promise("nothing is done that was not asked for", ~done.valid | (finals != 0))
        self.reach("a burst of the longest", ends & (left == 1) & self.after(left == block.longest))
        self.reach("a run is done while another waits", turn & done.valid & (waiting > 1))


class PortRules(Axi):
    """Each master has its own, in order, and the port's rules hold even when the memory has died."""

    def rules(self, m, block):
        axi, dead = block.axi, block.dead
        reads, writes = (block.read0, block.read1), (block.write0, block.write1)

        def steady(way, *names):
            waiting, kept = Signal(), [Signal.like(getattr(axi, way + name)) for name in names]
            valid, ready = (getattr(axi, way + name) for name in ("valid", "ready"))
            now = [getattr(axi, way + name) for name in names]
            m.d.sync += waiting.eq(valid & ~ready), Cat(kept).eq(Cat(now))
            return ~waiting | valid & (Cat(kept) == Cat(now))

        for way, names in {"ar": ("id", "addr", "len"), "aw": ("id", "addr", "len"),
                           "w": ("data", "strb", "last")}.items():
            self.promise(f"{way} holds", steady(way, *names))
        self.promise("r and b never wait", axi.rready & axi.bready)

        # What is owed to whom; of the memory, whatever the port tells its masters
        for n, (ar, r) in enumerate((each.ar, each.r) for each in reads):
            owed = self.owed(self.moves(ar), ar.payload.len + 1, r.valid, block.depth + 8, f"owed{n}")
            theirs = self.owed(axi.arvalid & axi.arready & (axi.arid == n), axi.arlen + 1,
                               axi.rvalid & (axi.rid == n), block.depth + 8, f"theirs{n}")
            self.require(f"ar{n} holds", self.steady(ar))
            self.require(f"master {n} has place for what it asks for",
                         ~ar.valid | (owed + ar.payload.len + 1 <= block.depth))
            self.require(f"no beat for master {n} that was not asked for",
                         ~(axi.rvalid & (axi.rid == n)) | (theirs != 0))
            self.promise(f"master {n} gets what it asked for and no more", ~r.valid | (owed != 0))
            self.promise(f"master {n} gets its id's beats", dead | (r.valid == (axi.rvalid & (axi.rid == n))))
            self.promise(f"master {n} is told of errors", ~r.valid | dead | (
                (r.payload.data == axi.rdata) & (r.payload.error == (axi.rresp >= SLVERR))))
            self.promise(f"a dead memory's beats for master {n} come at once, as errors",
                         ~dead | (owed == 0) | r.valid & r.payload.error)
            self.promise(f"master {n} can ask a dead memory", ~dead | ar.ready)
            self.reach(f"a beat for master {n} after death", dead & r.valid)

        left, owner = Signal(range(block.depth + 1)), Signal()      # of the burst whose data the port is sending
        waits, passes = Signal(), axi.wvalid & axi.wready
        begins = axi.awvalid & ~waits                               # whether or not the memory takes its address
        m.d.sync += waits.eq(axi.awvalid & ~axi.awready)
        with m.If(begins):
            m.d.sync += left.eq(axi.awlen + 1), owner.eq(axi.awid)
        with m.Elif(passes):
            m.d.sync += left.eq(left - 1)
        self.promise("w follows its aw", dead | ~axi.wvalid | (left != 0))
        self.promise("one burst's data before the next burst", dead | ~begins | (left == 0))
        self.promise("the last beat says so", dead | ~axi.wvalid | (axi.wlast == (left == 1)))
        for n, (aw, w, b) in enumerate((each.aw, each.w, each.b) for each in writes):
            own = Signal(range(block.depth + 1), name=f"left{n}")
            with m.If(self.moves(aw)):
                m.d.sync += own.eq(aw.payload.len + 1)
            with m.Elif(self.moves(w)):
                m.d.sync += own.eq(own - 1)
            owed = self.owed(self.moves(aw), 1, b.valid, 3, f"bursts{n}")
            theirs = self.owed(axi.wvalid & axi.wready & axi.wlast & (owner == n), 1,
                               axi.bvalid & (axi.bid == n), 3, f"complete{n}")
            self.require(f"aw{n} holds", self.steady(aw))
            self.require(f"w{n} holds", self.steady(w))
            self.require(f"master {n} sends data of its burst, then asks for the next",
                         (~w.valid | (own != 0) & (w.payload.last == (own == 1))) & (~aw.valid | (own == 0)))
            self.require(f"master {n} waits for few, of few beats",
                         ~aw.valid | (owed < 2) & (aw.payload.len < block.depth))
            self.require(f"no response to master {n} before its data", ~(axi.bvalid & (axi.bid == n)) | (theirs != 0))
            self.promise(f"master {n} gets its responses and no more", ~b.valid | (owed != 0))
            self.promise(f"master {n} sends while it is its turn", dead | ~(axi.wvalid & (owner == n)) | w.valid & (
                (w.payload.data == axi.wdata) & (w.payload.strobe == axi.wstrb)))
            self.promise(f"master {n} waits for nobody to give its data", dead | ~w.valid | axi.wvalid & (owner == n))
            self.promise(f"a dead memory's responses to master {n} come at once, as errors",
                         ~dead | (owed == 0) | b.valid & b.payload.error)
            self.reach(f"a response to master {n}", ~dead & b.valid)
