# SPDX-License-Identifier: Apache-2.0
"""Contracts of the chip link: what `Replay` keeps at one side, `Arrivals` hands out once and in order at the other.

Each follows any one flit of any one channel. Together they are the link: a frame that comes through carries, under a
flit's number, what `Replay` gave it (required of `Arrivals`, promised by `Replay`), and a status says of a flit that
it is here only if it is (required of `Replay`, promised by `Arrivals`), or is so old that its numbers say nothing.
"""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hw.emit import Block
from hw.noc.chiplink import Arrivals, Replay, Session
from hw.noc.framing import Deframer, Enframer
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["ArrivalsRules", "Loop", "LoopRules", "QUICK", "ReplayRules", "SessionRules", "TASKS"]


class ReplayRules(Contract):
    """A flit stays, under its number, until the far side says that it has it; then its slot is used again."""

    def rules(self, m, block):
        slots, vcs, place = block.slots, block.vcs, ceil_log2(block.slots)
        channel = self.some(range(vcs), "channel") if vcs > 1 else 0
        number = Signal(block.sequence)

        def mine(vector):
            return vector.bit_select(channel, 1)

        # The channel's account
        base, next, used = (Signal(block.sequence, name=name) for name in ("base", "next", "used"))
        credits = Array(Signal(range(block.depth + 1), init=block.depth, name=f"credits{v}") for v in range(vcs))
        comes, gives = mine(block.i.valid), mine(block.i.credit)
        said = block.ack.status
        ahead, fresh, is_mine = Signal(block.sequence), Signal(), Signal()
        m.d.comb += [
            used.eq(next - base), ahead.eq(said.freed - base), is_mine.eq((said.vc == channel) if vcs > 1 else 1),
            fresh.eq(block.ack.valid & is_mine & (ahead <= used)),
        ]
        m.d.sync += next.eq(next + comes)
        for v, credit in enumerate(credits):
            m.d.sync += credit.eq(credit + block.i.credit[v] - block.i.valid[v])
        with m.If(fresh):
            m.d.sync += base.eq(said.freed)

        # One of its flits: kept until it is known to be there
        follow, kept, item = self.any(1, "follow"), Signal(), Signal(block.width)
        has, covers, taken, taken_mine = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            taken_mine.eq(block.take & ((block.vc == channel) if vcs > 1 else 1)),
            taken.eq(kept & taken_mine & (block.seq == number)),
            covers.eq(fresh & ((ahead > (number - base)[:block.sequence]) | said.map.bit_select(number[:place], 1))),
        ]
        was_taken, ticks, waits = Signal(), Signal(3), Signal(range(slots + 2))
        with m.If(comes & follow & ~kept):
            m.d.sync += kept.eq(1), item.eq(block.i.flit), number.eq(next), has.eq(0), ticks.eq(4), waits.eq(0)
        with m.Elif(kept & covers):
            m.d.sync += kept.eq(0)
        with m.Elif(taken):
            m.d.sync += has.eq(1), ticks.eq(0), waits.eq(0)
        with m.Elif(kept):
            m.d.sync += ticks.eq(Mux((ticks != 4) & block.tick, ticks + 1, ticks))
            m.d.sync += waits.eq(Mux((ticks == 4) & ~mine(block.asks), waits + 1, 0))
        m.d.sync += was_taken.eq(taken)
        with m.If(block.clear):
            m.d.sync += kept.eq(0), was_taken.eq(0), base.eq(0), next.eq(0)

        last, began = Signal(block.sequence), Signal()
        with m.If(block.take):
            m.d.sync += last.eq(block.seq), began.eq(1)

        self.require("flits come as there are credits", ~(block.i.valid & ~self._positive(credits)).any())
        self.require("one at a time", (block.i.valid & (block.i.valid - 1)) == 0)
        self.require("a flit is only said to have arrived when it was sent", ~(kept & ~has & covers))
        self.require("only what asks is taken", ~block.take | block.asks.bit_select(block.vc if vcs > 1 else 0, 1))
        if vcs & (vcs - 1):
            self.require("channels exist", (block.vc < vcs) & (said.vc < vcs))

        self.promise("a flit goes out under its number unchanged, until it has arrived",
                     ~was_taken | (block.data == item))
        self.promise("what has not arrived is open", ~kept | block.open)
        self.promise("what has not arrived asks again", waits <= slots)
        self.promise("numbers are within the window", ~taken_mine | (
            (block.seq - base)[:block.sequence] < used))
        self.promise("no more flits than slots", used <= slots)
        self.promise("credits are conserved", (credits[channel] + gives <= block.depth)
                     & (used + credits[channel] + gives <= slots))
        self.promise("none overruns", ~block.overrun)
        self.promise("what follows is the next", ~(block.follows & began) | (block.seq == (last + 1)[:block.sequence]))
        self.promise("what is learned was open", ~block.learns | block.open)
        self.reach("all slots are in use", used == slots)
        self.reach("a flit is sent three times", self.after(self.after(self.after(taken) & taken) & taken))
        self.reach("numbers begin again", self.after(number > slots) & kept & has & (number == 0))

    @staticmethod
    def _positive(credits):
        return sum(((credit != 0) << v for v, credit in enumerate(credits)), 0)


class ArrivalsRules(Contract):
    """The flits of a channel come out by their numbers, each once, whatever comes in how often and when."""

    def rules(self, m, block):
        slots, vcs, place = block.slots, block.vcs, ceil_log2(block.slots)
        channel = self.some(range(vcs), "channel") if vcs > 1 else 0
        item, flit = self.some(block.width, "item"), block.flit

        # The channel's account
        freed, credits = Signal(block.sequence), Signal(range(block.depth + 1), init=block.depth)
        moved, goes = block.moved.bit_select(channel, 1), block.o.valid.bit_select(channel, 1)
        had = Signal()
        m.d.sync += freed.eq(freed + moved), had.eq(moved)
        m.d.sync += credits.eq(credits + block.o.credit.bit_select(channel, 1) - moved)

        # A frame, and one of the channel's flits, chosen before anything of it can have come
        open, vc, other, touched = Signal(), Signal(range(max(vcs, 2))), Signal(), Signal()
        follow, blank, offset = self.any(1, "follow"), Signal(init=1), self.any(range(slots + 1), "offset")
        followed, came, mine, ahead = Signal(), Signal(), Signal(), Signal(range(slots + 1))
        m.d.comb += mine.eq(flit.valid & followed & ((flit.vc == channel) if vcs > 1 else 1) & (ahead != slots)
                            & (flit.seq == (freed + ahead)[:block.sequence]))
        with m.If(block.end):
            m.d.sync += open.eq(0), other.eq(0), touched.eq(0)
        with m.Elif(flit.valid):
            m.d.sync += open.eq(1), vc.eq(flit.vc), other.eq(other | mine & (flit.data != item))
            m.d.sync += touched.eq(touched | mine)
        with m.If(~followed & follow & (blank & ~flit.valid | (offset == slots)) & (offset <= slots)):
            m.d.sync += followed.eq(1), came.eq(0), ahead.eq(offset - moved), other.eq(0), touched.eq(0)
        with m.Elif(followed):
            m.d.sync += ahead.eq(ahead - moved)
            with m.If(moved & (ahead == 0)):
                m.d.sync += followed.eq(0)
        with m.If(flit.valid):
            m.d.sync += blank.eq(0)
        with m.If(block.clear):
            m.d.sync += followed.eq(0), blank.eq(1), freed.eq(0), came.eq(0), other.eq(0), touched.eq(0)
        with m.If(block.end & block.good & touched & followed & ~block.clear):
            m.d.sync += came.eq(1)
        fair = Signal(range(vcs + 2))
        ready = followed & came & (ahead == 0) & (credits != 0)
        m.d.sync += fair.eq(Mux(ready & ~moved, fair + 1, 0))

        self.require("credits are those of flits", ~((block.o.credit.bit_select(channel, 1) == 1)
                                                     & (credits == block.depth)))
        self.require("flits, then the end", ~(flit.valid & block.end))
        self.require("a frame is of one channel", ~(flit.valid & open) | (flit.vc == vc))
        self.require("good frames carry each flit under its number", ~(block.end & block.good & other))
        self.require("sessions begin between frames", ~block.clear | ~open & ~flit.valid | block.end)
        if vcs & (vcs - 1):
            self.require("channels exist", (block.vc < vcs) & (flit.vc < vcs))

        turn = Signal()
        m.d.sync += turn.eq(followed & moved & (ahead == 0))
        self.promise("a flit that goes is what came", ~turn | (block.o.flit == item))
        self.promise("no flit comes from nothing", ~(followed & moved & (ahead == 0)) | came)
        self.promise("what moves goes in the next cycle", goes == had)
        self.promise("one at a time", (block.o.valid & (block.o.valid - 1)) == 0)
        self.promise("only with credit", ~moved | (credits != 0))
        self.promise("a flit whose turn it is goes", fair <= vcs)
        shown = (block.vc == channel) if vcs > 1 else 1
        self.promise("the status tells how many went", ~shown | (block.status.freed == freed))
        self.promise("and whether a flit is here", ~(shown & followed & (ahead != slots)) | (
            block.status.map.bit_select((freed + ahead)[:place], 1) == came))
        self.reach("one overtakes another", followed & came & (ahead == 1) & ~block.status.map.bit_select(
            freed[:place], 1) & shown)
        self.reach("one comes twice", self.after(came & mine))
        self.reach("one goes", turn)


class SessionRules(Contract):
    """A side is up only with a peer that knows its number, and never changes its peer without beginning anew."""

    def rules(self, m, block):
        hello = block.hello
        was_up, own, peer, restarted, again = (Signal.like(each) for each in (
            block.up, block.own, block.peer, block.restart, block.restart))
        may, age = Signal(), Signal(range(block.settle + 1))
        m.d.sync += [
            was_up.eq(block.up), own.eq(block.own), peer.eq(block.peer), restarted.eq(block.restart), again.eq(1),
            may.eq(hello.valid & hello.heard & (hello.me == block.own) | block.frame & block.heard),
            age.eq(Mux(~block.up, 0, Mux(age == block.settle, age, age + 1))),
        ]
        greeted, name = Signal(), Signal.like(block.peer)       # by whom, last
        with m.If(hello.valid & (~block.up | block.restart)):
            m.d.sync += greeted.eq(1), name.eq(hello.peer)
        self.require("a frame is a hello or not", ~(hello.valid & block.frame))
        self.promise("up, with a peer that is known", ~block.up | block.heard & greeted)
        self.promise("knows whom it has heard", (block.heard == greeted) & (~greeted | (block.peer == name)))
        self.promise("up when the peer knows this side, and only then", ~(again & ~was_up) | (block.up == may))
        self.promise("up stays up", ~(was_up & ~block.up & again) | restarted)
        self.promise("the peer stays as long as a session", ~(was_up & block.up & again) | (peer == block.peer))
        self.promise("each session has another number",
                     ~again | ((block.own != own) == restarted) & (~restarted | (block.own == (own + 1)[:len(own)])))
        self.promise("begins anew when another speaks, or one that takes it for another",
                     ~block.restart | block.up & hello.valid & (age == block.settle) & (
                         (hello.peer != block.peer) | hello.heard & (hello.me != block.own)))
        self.promise("does not miss it", ~(block.up & hello.valid & (age == block.settle) & (
            hello.peer != block.peer)) | block.restart)
        self.reach("down and up again", self.after(restarted) & block.up)


class Loop(Block):
    """What is put in frames, taken out of them again."""

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"byte": 8, "last": 1}))), "seed": In(32), "ready": In(1),
            **{name: Out(1) for name in ("take", "first", "end", "good")}, "byte": Out(8),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.enframer, m.submodules.deframer = enframer, deframer = Enframer(), Deframer()
        connect(m, flipped(self.i), enframer.i)
        m.d.comb += [
            enframer.seed.eq(self.seed), deframer.seed.eq(self.seed), enframer.o.ready.eq(self.ready),
            deframer.i.valid.eq(enframer.o.valid & self.ready), deframer.i.payload.eq(enframer.o.payload),
            *(getattr(self, name).eq(getattr(deframer, name)) for name in ("take", "byte", "first", "end", "good")),
        ]
        return m


class LoopRules(Contract):
    """Whatever a frame holds comes out as it went in, between its begin and its end, and four bytes after it."""

    def rules(self, m, block):
        i, taken, fresh, tail = block.i, self.moves(block.i), Signal(init=1), Signal()
        sent, due, extra = Signal(8), Signal(), Signal(3)
        m.d.sync += due.eq(taken)
        with m.If(block.take):
            m.d.sync += fresh.eq(0)
        with m.If(block.end):
            m.d.sync += fresh.eq(1), extra.eq(0), tail.eq(0)
        with m.Elif(block.take & ~due):
            m.d.sync += extra.eq(extra + 1)
        with m.If(taken):
            m.d.sync += sent.eq(i.payload.byte), tail.eq(i.payload.last)
        self.require("i holds", self.steady(i))
        self.promise("bytes come through", ~due | block.take & (block.byte == sent))
        self.promise("the first of a frame is told", ~block.take | (block.first == fresh))
        self.promise("nothing but the CRC is added", ~block.take | due | tail & (extra < 4))
        self.promise("the end comes after the CRC", ~block.end | tail & (extra == 4))
        self.reach("a good frame", block.good)
        self.reach("two frames", self.after(block.end) & block.end)


QUICK = [
    Task(Session(3), SessionRules),
    Task(Arrivals(1, 2, 1, 2, 3), ArrivalsRules),
    Task(Loop(), LoopRules),
]
TASKS = [
    Task(Replay(1, 2, 1, 2, 3), ReplayRules, cover=40),
    Task(Replay(1, 2, 2, 4, 4), ReplayRules, cover=0),
    Task(Arrivals(1, 2, 2, 4, 4), ArrivalsRules),
]
