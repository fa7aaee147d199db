# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.noc`: nothing lost, doubled or mixed, and everybody's turn comes.

A router is proven with neighbours whose flits are sound and who keep to their credits; their data, routes,
lengths, gaps and stalls are any. What happens to one flit happens to each: so one is marked, any one, by a bit
that no other has.
"""

from amaranth.hdl import Cat, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import data

from golden.packet import FORKS, TURNS, Error, Port
from hw.noc.arbiter import Arbiter
from hw.noc.lane import Slots
from hw.noc.link import HEADER, Traffic, flit
from hw.noc.multicast import Fork
from hw.noc.output import BUCKETS, Credits, Output
from hw.noc.reduce import GROUP
from hw.noc.router import Router
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["QUICK", "TASKS", "ArbiterRules", "CreditsRules", "ForkRules", "RouterRules", "SlotsRules"]

MARKS = FIRST, SECOND = 50, 51      # bits of data that mark a flit and a later one


class ArbiterRules(Contract):
    """One grant if there is a request, and nobody overtakes another twice."""

    def rules(self, m, block):
        request, grant = block.request, block.grant
        waiting = [self.some(block.count, name) for name in ("waiting", "other")]
        for one in waiting:
            self.require("a choice is one", _one(one))
        waits = (request & ~grant & waiting[0]).any()
        overtakes = waits & block.done & (grant & waiting[1]).any()
        overtaken = Signal()
        m.d.sync += overtaken.eq(waits & (overtaken | overtakes))
        self.promise("nothing is granted that is not requested", (grant & ~request) == 0)
        self.promise("something is granted if anything is requested", grant.any() == request.any())
        self.promise("one at most is granted", _none_or_one(grant))
        turns = Signal(range(block.count + 1))
        m.d.sync += turns.eq(Mux(waits, turns + (block.done & (turns < block.count)), 0))
        self.promise("nobody is overtaken twice by another", ~(overtaken & overtakes))
        self.promise("nobody waits for more than a turn of each other", turns < block.count)
        self.reach("overtaken, then granted", overtaken & (grant & waiting[0]).any())


class SlotsRules(Contract):
    """A queue; any one flit is followed."""

    def rules(self, m, block):
        used, front = block.used, block.o
        push, pop, level = Signal(), Signal(), Signal(range(block.depth + 1))
        m.d.comb += push.eq(block.push & (level != block.depth)), pop.eq(block.pop)
        m.d.sync += level.eq(level + push - pop)
        began, inside = Signal(), Signal()      # a packet that comes in, a packet that goes out
        with m.If(push):
            m.d.sync += began.eq(~block.i.tail)
        m.d.sync += inside.eq(block.inside)
        self.require("pops only with a flit there", ~block.pop | (level != 0))
        self.require("packets come whole", ~push | (block.i.head == ~began))
        self.require("inside is between head and tail", block.inside == Mux(pop, ~front.tail, inside))

        follow = self.any(1, "follow")
        item, ahead, followed = Signal(block.shape), Signal.like(level), Signal()
        route, routed = Signal.like(Value.cast(front.route)), Signal()      # of the last head before it
        before, known = Signal.like(route), Signal()                        # of the last head so far
        with m.If(push & block.i.head):
            m.d.sync += before.eq(block.i.route), known.eq(1)
        with m.If(push & follow & ~followed):
            m.d.sync += [followed.eq(1), item.eq(block.i), ahead.eq(level - pop),
                         route.eq(Mux(block.i.head, block.i.route, before)), routed.eq(known | block.i.head)]
        with m.Elif(pop & followed):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += followed.eq(0)

        here = Signal()
        m.d.comb += here.eq(followed & (ahead == 0))
        self.promise("a bit for each flit", used == (1 << level) - 1)
        for name in ("data", "head", "tail", "parity"):
            self.promise(f"each comes out unchanged, in its turn: {name}",
                         ~here | (getattr(front, name) == getattr(item, name)))
        self.promise("its route is that of its head", ~(here & routed) | (front.route == route))
        self.reach("full, then empty", self.after(level == block.depth) & (level == 0))
        self.reach("a body keeps the route of its head", here & routed & ~item.head & (item.route != route))


class ForkRules(Contract):
    """Each flit leaves once by each of its outputs, and none before its packet has them all, taken in order."""

    def rules(self, m, block):
        route, there, tail = Signal(5), Signal(), Signal()
        begun, gone = Signal(), Signal(5)       # a packet whose head was there; outputs that a flit has left by
        goes = block.grant & ~block.hold
        going = block.taken | block.drop
        m.d.sync += [route.eq(block.route), there.eq(block.there & ~going), tail.eq(block.tail),
                     gone.eq(Mux(going, 0, gone | goes))]
        with m.If(block.there):
            m.d.sync += begun.eq(~(going & (block.tail | block.drop)))
        self.require("a flit waits", ~there | block.there & (block.tail == tail))
        self.require("its packet keeps its route", ~begun | (block.route == route))
        self.require("a route somewhere", block.route != 0)
        self.require("granted is what it wants", (block.grant & ~block.wants) == 0)
        self.require("dropped at once, if at all", ~block.drop | block.there & ~begun)

        before, taken = 0, []
        for port in FORKS[block.order]:
            taken.append(~block.owns[port] | ((block.route & before & ~block.owns) == 0))
            before |= 1 << port
        self.promise("none twice", (goes & gone) == 0)
        self.promise("taken when it left by all", ~block.taken | ((gone | goes) == block.route))
        self.promise("nothing goes before all are its own",
                     (goes == 0) | block.drop | ((block.route & ~(block.owns | block.grant)) == 0))
        self.promise("outputs are taken in order", Cat(taken).all())
        self.promise("only its own are taken", (block.owns & ~block.route) == 0)
        self.promise("a claim is kept", (block.claim & ~(block.hold & block.grant)) == 0)
        self.promise("none is its own between packets", begun | (block.owns == 0))
        self.promise("asks for what is next", ~block.there | block.taken | (block.wants != 0))
        self.reach("a flit leaves in two cycles", block.taken & (gone != 0))
        self.reach("a claim, then a head", block.taken & begun & (block.claim == 0) & (block.owns != block.route))


class CreditsRules(Contract):
    """Counts what is in the buffer, and knows the buckets of all of it."""

    def rules(self, m, block):
        level, inside, claimed = Signal(range(block.depth + 1)), Signal(), Signal()
        self.require("sends only with a credit", ~block.send | (level != block.depth))
        self.require("claims what is free", ~block.claim | ~inside & ~block.send)
        self.require("credits are for flits sent", ~block.credit | (level != 0))
        self.require("a head has a bucket, and a body none",
                     ~block.send | Mux(inside & ~claimed, block.bucket == 0, _one(block.bucket)))
        m.d.sync += level.eq(level + block.send - block.credit)
        with m.If(block.send | block.claim):
            m.d.sync += inside.eq(block.claim | ~block.tail)
        m.d.sync += claimed.eq(block.claim | claimed & ~block.send)

        follow, bucket, current = self.any(1, "follow"), Signal(BUCKETS), Signal(BUCKETS)
        ahead, followed = Signal.like(level), Signal()
        with m.If(block.send & block.bucket.any()):
            m.d.sync += current.eq(block.bucket)
        with m.If(block.send & follow & ~followed):
            m.d.sync += [followed.eq(1), ahead.eq(level - block.credit),
                         bucket.eq(Mux(block.bucket.any(), block.bucket, current))]
        with m.Elif(block.credit & followed):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += followed.eq(0)
        stays = followed & ~(block.credit & (ahead == 0))
        self.promise("a bit for each flit", block.used == (1 << level) - 1)
        self.promise("busy from head to tail", block.busy == inside)
        self.promise("the bucket of each flit is known", ~stays | ((block.buckets & bucket) == bucket))
        self.promise("nothing, no bucket", block.left.any() | (block.buckets == 0))
        self.reach("two buckets", followed & ~_none_or_one(block.buckets))


class OutputRules(Contract):
    """A virtual channel is one packet's at a time, flows keep to one, and everybody's turn comes."""

    def rules(self, m, block):
        depth, vcs, count = block.depth, range(block.vcs), len(block.candidates)
        level, left = ([Signal(range(depth + 1), name=f"{name}{w}") for w in vcs] for name in ("level", "left"))
        goes = block.grant & ~block.hold
        on = [Signal(block.vcs, name=f"on{n}") for n in range(count)]       # the virtual channel of its packet
        starts = Signal(count)
        for w in vcs:
            m.d.comb += left[w].eq(level[w] - block.credit[w])
            m.d.sync += level[w].eq(left[w] + block.valid[w])
            self.require(f"credits are for flits sent, {w}", ~block.credit[w] | (level[w] != 0))
            self.promise(f"sent with a credit, {w}", ~block.valid[w] | (level[w] != depth))
            self.promise(f"a bit for each flit, {w}", block.used[w] == (1 << level[w]) - 1)
            self.promise(f"busy with one packet, or none, {w}", Mux(
                block.busy[w], _one(Cat(each[w] for each in on)), ~Cat(each[w] for each in on).any()))

        may = []        # whether a candidate can go on, or begin
        for n, own in enumerate(block.candidates):
            each, numbers = block.channels[own]
            wants, active, ends = block.wants[n], on[n].any(), goes[n] & block.tail[n]
            m.d.comb += starts[n].eq(~active & (goes[n] | block.claim[n]))
            with m.If(ends):
                m.d.sync += on[n].eq(0)
            with m.Elif(starts[n]):
                m.d.sync += on[n].eq(block.choice[n])
            self.require(f"owns what it has begun on, {n}", ~wants | (block.owns[n] == active))
            self.require(f"stays there, {n}", ~active | (block.channel[n] == on[n]))
            self.require(f"goes on when it has begun, {n}", ~active | ~block.hold[n])
            self.require(f"claims what it is granted, {n}", ~block.claim[n] | (
                block.grant[n] & block.hold[n] & ~active if each.multicast else 0))
            self.require(f"has a length, {n}", _one(block.need[n]) if each.multicast
                         else block.need[n] == 1 << depth - 1)
            room = Cat(~(block.need[n][k] & (left[w] > k)) for k in range(depth) for w in numbers).all()
            given = Mux(active, on[n], block.choice[n])
            self.promise(f"on what it has been given, {n}", ~goes[n] | (block.valid == given))
            self.promise(f"on a virtual channel of its class, {n}", ~(block.grant[n] | active) | (
                _one(given) & ((given & ~sum(1 << w for w in numbers)) == 0)))
            self.promise(f"begins where nobody is, {n}",
                         ~starts[n] | ((given & Cat(Cat(other[w] for other in on).any() for w in vcs)) == 0))
            if each.multicast:
                self.promise(f"begins with room for all of it, {n}", ~(block.grant[n] & ~active) | room)
            ready = Cat(on[n][w] & (level[w] != depth) for w in numbers).any()
            if block.ordered and len(numbers) > 1:
                self.require(f"has a bucket, {n}", ~wants | Mux(active, block.bucket[n] == 0, _one(block.bucket[n])))
            else:
                ready |= ~active & room & Cat(~block.busy[w] & (level[w] != depth) for w in numbers).any()
            may.append(wants & ready)

        self.promise("grants what is wanted", (block.grant & ~block.wants) == 0)
        self.promise("one at most is granted", _none_or_one(block.grant))
        self.promise("a flit is on one virtual channel at most", _none_or_one(block.valid))
        self.promise("sends what is granted, unless that must not go", block.valid.any() == goes.any())
        self.promise("somebody goes if anybody may", ~Cat(may).any() | block.grant.any())
        most = len(block.inputs) * max(map(len, block.inputs))
        who, turns = self.some(range(max(count, 2)), "who"), Signal(range(most + 1))
        waits = Cat(may[n] & ~block.grant[n] & (who == n) for n in range(count)).any()
        with m.If(~waits):
            m.d.sync += turns.eq(0)
        with m.Elif((block.grant & block.tail).any()):
            m.d.sync += turns.eq(turns + (turns < most))
        self.promise("nobody who may go waits for more than a turn of each other", turns < most)
        self.reach("all others first", (turns == count - 1) & Cat(
            block.grant[n] & (who == n) for n in range(count)).any())

        # Of one bucket: which of the flits in the buffers are of it, from the oldest?
        home, head = self.some(range(BUCKETS), "home"), (starts & goes).any()
        bucket = Cat(Mux(block.grant[n], block.bucket[n].bit_select(home, 1), 0) for n in range(count)).any()
        flying = []
        for w in vcs:
            mine, packet = Signal(depth + 1, name=f"mine{w}"), Signal(name=f"packet{w}")
            stays, now = Mux(block.credit[w], mine >> 1, mine)[:depth], Mux(head, bucket, packet)
            with m.If(block.valid[w]):
                m.d.sync += packet.eq(now)
            m.d.sync += mine.eq(stays | Mux(block.valid[w] & now, 1 << left[w], 0))
            flying.append(stays.any())
        for w, (each, numbers) in enumerate(block.channels):
            if block.ordered and each.vcs > 1:
                self.promise(f"none of its bucket is behind another, {w}", ~(block.valid[w] & head & bucket) | ~Cat(
                    flying[u] for u in numbers if u != w).any())

class Thin(Slots):
    """Stands in for a buffer: of data it keeps some bits and the parity of all; the others may be anything.

    All bits of a flit go through a buffer alike, so it may do all that the buffer may.

    Parameters
    ----------
    shape, depth
        As of `Slots`.
    seen, zero : tuple of int
        Bits of data that are kept, and those that are never set.
    """

    def __init__(self, shape, depth, seen, zero):
        super().__init__(shape, depth)
        self.seen, self.zero = seen, zero

    def elaborate(self, platform):
        m, i, o = Module(), self.i, self.o
        shape = data.StructLayout({**self.shape.members, "data": len(self.seen)})
        m.submodules.slots = slots = Slots(shape, self.depth)
        free = Signal.like(o.data)
        m.submodules.free = Instance("anyseq", p_WIDTH=len(free), o_Y=free)
        kept = dict(zip(self.seen, slots.o.data, strict=True)) | dict.fromkeys(self.zero, Const(0))
        m.d.comb += [
            slots.i.data.eq(Cat(i.data[n] for n in self.seen)), slots.i.route.eq(i.route),
            slots.i.head.eq(i.head), slots.i.tail.eq(i.tail),
            slots.i.parity.eq(i.data.xor() ^ i.head ^ i.tail ^ i.parity),
            o.data.eq(Cat(kept.get(n, bit) for n, bit in enumerate(free))), o.route.eq(slots.o.route),
            o.head.eq(slots.o.head), o.tail.eq(slots.o.tail),
            o.parity.eq(o.data.xor() ^ o.head ^ o.tail ^ slots.o.parity),
            slots.push.eq(self.push), slots.inside.eq(self.inside), slots.pop.eq(self.pop), self.used.eq(slots.used),
        ]
        return m


def thin(seen=(), zero=()):
    """What stands in for the buffers of a router. The marks are always seen."""
    seen = FIRST, SECOND, *seen
    return {Slots: lambda slots: slots if slots.shape["data"].width == len(seen)
            else Thin(slots.shape, slots.depth, seen, tuple(zero))}


class _Flow:
    """What passes over a link, for one virtual channel."""

    def __init__(self, contract, link, vc, depth, name):
        m = contract.m
        self.link, self.vc, self.depth, self.name = link, vc, depth, name
        self.sent, self.credit = Signal(name=f"{name}_sent"), Signal(name=f"{name}_credit")
        self.level, self.left = (Signal(range(depth + 1), name=f"{name}_{what}") for what in ("level", "left"))
        self.inside = Signal(name=f"{name}_inside")
        m.d.comb += self.sent.eq(link.valid[vc]), self.credit.eq(link.credit[vc])
        m.d.comb += self.left.eq(self.level - self.credit)
        m.d.sync += self.level.eq(self.left + self.sent)
        with m.If(self.sent):
            m.d.sync += self.inside.eq(~link.flit.tail)
        self.begins = self.sent & link.flit.head
        self.framed = ~self.sent | (link.flit.head == ~self.inside)
        self.sound = ~self.sent | ~(Value.cast(link.flit).xor() ^ (vc.bit_count() & 1))
        self.credited = ~self.sent | (self.level != depth)
        self.owed = ~self.credit | (self.level != 0)

    def to(self, m, home):
        """Which packets go to node `home`: whether this one does; and whether flits of such are in the buffer."""
        mine, packet = Signal(self.depth + 1, name=f"{self.name}_mine"), Signal(name=f"{self.name}_packet")
        now, stays = Signal(name=f"{self.name}_now"), Signal(self.depth, name=f"{self.name}_stays")
        m.d.comb += now.eq(Mux(self.link.flit.head, self.link.flit.data[:len(home)] == home, packet))
        m.d.comb += stays.eq(Mux(self.credit, mine >> 1, mine))
        with m.If(self.sent):
            m.d.sync += packet.eq(now)
        m.d.sync += mine.eq(stays | Mux(self.sent & now, 1 << self.left, 0))
        return now, stays.any()

    def marked(self, mark):
        """Whether the marked flit passes."""
        return self.sent & self.link.flit.data[mark]

    def follow(self, m, mark):
        """Whether the marked flit leaves the buffer behind the link now."""
        name = f"{self.name}_{mark}"
        there, ahead, goes = Signal(name=f"{name}_there"), Signal.like(self.level, name=f"{name}_ahead"), Signal(
            name=f"{name}_goes")
        m.d.comb += goes.eq(there & self.credit & (ahead == 0))
        with m.If(self.marked(mark)):
            m.d.sync += there.eq(1), ahead.eq(self.left)
        with m.Elif(self.credit):
            m.d.sync += there.eq(there & ~goes), ahead.eq(ahead - 1)
        return goes


class RouterRules(Contract):
    """A router between neighbours that keep the rules keeps them, and what goes in comes out.

    Two flits are marked: any two that come in by one virtual channel. In classes of several, flows keep their order:
    for while there are packets to `home`, any node, in the buffer behind one channel, none begins on another. So one
    that comes finds those before it in its own buffer, or gone; and what is gone has left.
    """

    def rules(self, m, block):
        self.require("it is somewhere", (block.x == self.some(4, "x")) & (block.y == self.some(4, "y")))
        self.require("the error is not cleared", ~block.clear)
        self.entry, self.lane, self.home = self.some(3, "entry"), self.some(2, "lane"), self.some(8, "home")
        way, came, left, out = ({mark: Signal(width, name=f"{name}{mark}") for mark in MARKS} for name, width in (
            ("way", 5), ("came", 1), ("left", 5), ("out", 5)))
        inputs = [self._input(m, block, port, vc, way) for port in block.ports for vc in range(block.vcs)]
        outputs = [self._output(m, block, port, vc) for port in block.ports for vc in range(block.vcs)]
        for flow in outputs:
            if len(flow.numbers) > 1 and flow.port != Port.L:       # nodes see to the order by themselves
                others = [other.homes for other in outputs
                          if other.port == flow.port and other.vc != flow.vc and other.vc in flow.numbers]
                self.promise(f"a flow is on one virtual channel at a time, {flow.name}",
                             ~(flow.begins & flow.home) | ~Cat(others).any())

        for mark, name in (FIRST, "flit"), (SECOND, "later flit"):
            comes = Cat(flow.marked(mark) for flow in inputs).any()
            goes = Cat(flow.follow(m, mark) for flow in inputs).any()
            m.d.comb += [left[mark][port].eq(Cat(flow.marked(mark) for flow in outputs if flow.port == port).any())
                         for port in block.ports]
            m.d.sync += came[mark].eq(came[mark] | comes), out[mark].eq(out[mark] | left[mark])
            self.require(f"there is one {name}", ~comes | ~came[mark])
            if mark == SECOND:
                self.require("the later one comes later", ~comes | came[FIRST])
            self.promise(f"no {name} comes from nothing", (left[mark] == 0) | came[mark])
            self.promise(f"no {name} leaves twice by an output", (left[mark] & out[mark]) == 0)
            self.promise(f"no {name} leaves where it must not", (left[mark] & ~way[mark]) == 0)
            self.promise(f"no {name} is lost", ~goes | ((left[mark] | out[mark]) == way[mark]))
        self.promise("no flit overtakes another on its way", (left[SECOND] & way[FIRST] & ~out[FIRST]) == 0)
        self.promise("nothing is dropped", block.error.code == Error.NONE)

        # When packets are there as far as they have begun, and all buffers behind are empty, something goes.
        limit = len(block.ports) + 1 if any(each.multicast for each in block.traffic) else 1
        standing = Signal(range(limit + 2))
        late = Cat(flow.inside & (flow.left == 0) for flow in inputs).any()
        ready = Cat(flow.left != 0 for flow in inputs).any() & ~late
        stands = ready & Cat((flow.level == 0) & ~flow.sent for flow in outputs).all()
        m.d.sync += standing.eq(Mux(stands, standing + (standing <= limit), 0))
        self.promise("packets do not wait for each other", standing <= limit)
        self.reach("both through", (out[FIRST] == way[FIRST]) & (left[SECOND] == way[SECOND]) & (
            way[FIRST] == way[SECOND]) & left[SECOND].any())
        self.reach("through the switch", out[FIRST].any() & left[SECOND].any() & (way[FIRST] != way[SECOND]))
        if any(each.multicast for each in block.traffic):
            self.reach("by one output, then by another", self.after((left[FIRST] != 0) & (left[FIRST] != way[FIRST]))
                       & (out[FIRST] == way[FIRST]))

    def _input(self, m, block, port, vc, way):
        """A virtual channel of an input."""
        each, numbers = block.channels[vc]
        name, link = f"{port.name}{vc}", block.link(port, "i")
        flow = _Flow(self, link, vc, block.depth, f"i_{name}")
        legal = sum(1 << out for out in TURNS[each.order][port] if out in block.ports)
        route, header = link.flit.route, data.View(HEADER, link.flit.data[:64])
        exists = ((route & ~legal) == 0) & (route.any() if each.multicast else _one(route))
        if vc == 0:
            self.require(f"one valid flit at {port.name}", _none_or_one(link.valid))
        self.require(f"framed, {name}", flow.framed)
        self.require(f"of even parity, {name}", flow.sound)
        self.require(f"with a credit, {name}", flow.credited)
        self.require(f"a way that exists, {name}", ~flow.sent | Mux(link.flit.head, exists, route == 0))
        if each.multicast:
            self.require(f"no longer than a buffer, {name}",
                         ~(flow.sent & link.flit.head) | (header.length < block.depth))
        self.promise(f"credits are for flits received, {name}", flow.owed)
        asked = (block.probe.port == port) & (block.probe.vc == vc)
        self.promise(f"each slot is a flit or a credit, {name}", ~asked | (
            sum(block.state.buffered, Const(0)) == flow.left))

        kept = Signal(5, name=f"way_{name}")
        current = Mux(link.flit.head, route, kept)
        with m.If(flow.sent):
            m.d.sync += kept.eq(current)
        for mark in MARKS:
            marked = flow.marked(mark)
            self.require(f"marks are at one input, {name}, {mark}",
                         ~marked | (self.entry == port) & (self.lane == vc))
            with m.If(marked):
                m.d.sync += way[mark].eq(current)
        return flow

    def _output(self, m, block, port, vc):
        """A virtual channel of an output."""
        each, numbers = block.channels[vc]
        name, link = f"{port.name}{vc}", block.link(port, "o")
        flow = _Flow(self, link, vc, block.depth, f"o_{name}")
        flow.port, flow.numbers = port, numbers
        flow.home, flow.homes = flow.to(m, self.home)
        if vc == 0:
            self.promise(f"one valid flit at {port.name}", _none_or_one(link.valid))
        self.require(f"credits are for flits sent, {name}", flow.owed)
        self.promise(f"sent packets are not mixed, {name}", flow.framed)
        self.promise(f"sent flits are of even parity, {name}", flow.sound)
        self.promise(f"sent with a credit, {name}", flow.credited)
        if each.multicast:
            length = data.View(HEADER, link.flit.data[:64]).length
            self.promise(f"a multicast begins with room for all of it, {name}",
                         ~flow.sent | ~link.flit.head | (flow.left + length < block.depth))
        return flow


class SumsRules(Contract):
    """Reductions of one group in a router: each flit that leaves is made of one of each input, in their order.

    All packets are of one length, and come by the inputs of the group alone. As in `ReduceRules` an operand of odd
    parity, at most one, tells which result it is part of.
    """

    def rules(self, m, block):
        place, vc = [1 << port for port in block.ports], block.sums
        age, entry = Signal(2), self.some(len(Value.cast(block.write.entry)), "entry")
        group, length = GROUP(entry), self.some(2, "length")
        m.d.sync += age.eq(age + (age < 2))
        self.require("it is somewhere", (block.x == self.some(4, "x")) & (block.y == self.some(4, "y")))
        self.require("the error is not cleared", ~block.clear)
        self.require("the group is known", (block.write.en == (age == 0)) & (Value.cast(block.write.entry) == entry)
                     & (block.write.group == 0))
        self.require("it is one that may be", group.inputs.any() & ((group.inputs & ~sum(place)) == 0)
                     & Cat(group.output == port for port in block.ports).any())
        sound = ~self.after(block.error.code != Error.NONE) & (block.error.code == Error.NONE)

        origin, outputs = self.some(5, "origin"), []
        for port in block.ports:
            link = block.link(port, "o")
            flow = _Flow(self, link, vc, block.depth, f"o_{port.name}")
            flow.here = group.output == port
            outputs.append(flow)
            self.require(f"credits are for flits sent, {port.name}", flow.owed)
            self.promise(f"sent packets are not mixed, {port.name}", flow.framed)
            self.promise(f"sent with a credit, {port.name}", flow.credited)
            self.promise(f"to where the group says, {port.name}", ~(sound & flow.sent) | flow.here)
            self.promise(f"the next router asks its own group, {port.name}", ~flow.sent | (link.flit.route == 0))
        left = Signal()
        m.d.comb += left.eq(Cat(flow.sent for flow in outputs).any())

        ahead, followed, done = Signal(4), Signal(), Signal()
        expected = followed & (ahead == 0)
        with m.If(left):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(expected):
                m.d.sync += followed.eq(0), done.eq(1)
        ready = []
        for port in block.ports:
            link, mine, name = block.link(port, "i"), group.inputs[port], port.name
            flow = _Flow(self, link, vc, block.depth, f"i_{name}")
            inside, due = Signal(4, name=f"inside_{name}"), Signal(2, name=f"due_{name}")
            header, odd = data.View(HEADER, link.flit.data[:64]), Signal(name=f"odd_{name}")
            m.d.comb += odd.eq(flow.sent & ~flow.sound)
            with m.If(flow.sent):
                m.d.sync += due.eq(Mux(link.flit.head, length, due - 1))
            with m.If(mine):
                m.d.sync += inside.eq(inside + flow.sent - left)
            self.require(f"framed, {name}", flow.framed & (~flow.sent | (link.flit.tail == Mux(
                link.flit.head, length == 0, due == 1))))
            self.require(f"with a credit, {name}", flow.credited)
            self.require(f"of the group, {name}", ~flow.sent | mine & age[1] & (link.flit.route == 0) & (
                ~link.flit.head | (header.tag == 0) & (header.length == length)))
            self.require(f"one body is odd, {name}", ~odd | (origin == 1 << port) & ~link.flit.head & ~followed & ~done)
            with m.If(odd):
                m.d.sync += ahead.eq(inside - left), followed.eq(1)
            self.promise(f"credits are for flits received, {name}", flow.owed)
            asked = (block.probe.port == port) & (block.probe.vc == vc)
            self.promise(f"each slot is a flit or a credit, {name}", ~asked | (
                sum(block.state.buffered, Const(0)) == flow.left))
            watched, most = sound & mine, 2 * (len(block.ports) - 1)
            self.promise(f"no result without its operand, {name}", ~(watched & left) | (inside != 0))
            self.promise(f"no operand is lost, {name}", ~watched | (inside >= flow.left))
            self.promise(f"no operand is forgotten, {name}", ~watched | (inside <= flow.left + most))
            ready.append(~mine | (flow.left != 0))
        found = Cat(flow.sent & ~flow.sound for flow in outputs).any()
        self.promise("an operand is part of its own result and of no other", ~(sound & left) | (found == expected))

        limit = 2 * len(block.ports) + 1
        standing, ready = Signal(range(limit + 2)), sound & Cat(ready).all() & Cat(
            flow.level == 0 for flow in outputs).all()
        m.d.sync += standing.eq(Mux(ready & ~left, standing + (standing <= limit), 0))
        self.promise("what is there is added and goes", standing <= limit)
        self.reach("a result of all inputs", sound & left & (group.inputs == sum(place)))
        self.reach("the odd one leaves", sound & done)


def _one(bits):
    return Cat(bits == 1 << n for n in range(len(bits))).any()


def _none_or_one(bits):
    return (bits == 0) | _one(bits)


CAST, SUM, TWO = Traffic(multicast=True), Traffic(reduce=True), Traffic(2)
PLAIN = thin()
CASTS = thin((40, 41), range(42, 48))                                   # length
SUMS = thin((32, 33, 40, 41), (*range(34, 40), *range(42, 48)))         # tag and length
FLOWS = thin((0, 1, 2, 4, 5, 6))                                        # destination

QUICK = [
    Task(Arbiter(4), ArbiterRules),
    Task(Slots(flit(1), 2), SlotsRules, label="buffer of 2"),
    Task(Slots(flit(1), 4), SlotsRules, label="buffer of 4"),
    Task(Credits(4, ordered=True), CreditsRules),
    Task(Fork("xy"), ForkRules),
    Task(Fork("yx"), ForkRules),
    Task(Output((TWO,), 2, ((0, 1), (0, 1)), True), OutputRules, label="output, a class of 2 VCs"),
    Task(Output((Traffic(), CAST), 3, ((0, 1), (0, 1), (1,)), True), OutputRules, label="output, one of multicasts"),
    Task(Router("ES", 64, 2, (Traffic(),)), RouterRules, instead=PLAIN, label="router ES, 1 VC"),
]

TASKS = [
    Task(Output((TWO, CAST), 4, ((0, 1, 2), (0, 1, 2), (0, 1)), True), OutputRules, depth=12, patience=120,
         label="output, 3 VCs in 2 classes"),
    Task(Router("ES", 64, 2, (Traffic(),), registered=True), RouterRules, depth=10, patience=60, cover=0,
         instead=PLAIN, label="router ES, 1 VC, registered"),
    Task(Router("NESW", 64, 2, (Traffic(),)), RouterRules, depth=10, patience=600, cover=0, instead=PLAIN,
         label="router NESW, 1 VC"),
    Task(Router("ES", 64, 2, (TWO,)), RouterRules, depth=10, patience=300, instead=FLOWS,
         label="router ES, a class of 2 VCs"),
    Task(Router("ES", 64, 2, (CAST,)), RouterRules, instead=CASTS, label="router ES, multicasts"),
    Task(Router("ES", 64, 3, (Traffic(order="yx"), CAST)), RouterRules, depth=10, patience=300, cover=0,
         instead=CASTS, label="router ES, 1 VC and multicasts"),
    Task(Router("NESW", 64, 2, (CAST,)), RouterRules, depth=12, patience=900, cover=0, instead=CASTS,
         label="router NESW, multicasts"),
    Task(Router("W", 64, 2, (SUM,), groups=2, patience=64), SumsRules, depth=12, patience=300, cut=("combine",),
         instead=SUMS, label="router W, reductions"),
]
