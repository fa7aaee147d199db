# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.noc`: nothing lost, doubled or mixed, and everybody's turn comes.

A router is proven with neighbours whose flits are sound and who keep to their credits; their data, routes,
lengths, gaps and stalls are any. What happens to one flit happens to each: so one is marked, any one, by a bit
that no other has.
"""

from amaranth.hdl import Cat, Mux, Signal, Value

from golden.packet import TURNS, Error
from hw.noc.arbiter import Arbiter
from hw.noc.lane import Slots
from hw.noc.link import Traffic, flit
from hw.noc.output import BUCKETS, Credits
from hw.noc.router import Router
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["QUICK", "TASKS", "ArbiterRules", "CreditsRules", "RouterRules", "SlotsRules"]

FIRST, SECOND = 50, 51      # bits of data that mark a flit and a later one


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
        self.promise("nobody is overtaken twice by another", ~(overtaken & overtakes))
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


class CreditsRules(Contract):
    """Counts what is in the buffer, and knows the buckets of all of it."""

    def rules(self, m, block):
        level, inside = Signal(range(block.depth + 1)), Signal()
        self.require("sends only with a credit", ~block.send | (level != block.depth))
        self.require("credits are for flits sent", ~block.credit | (level != 0))
        self.require("a head has a bucket, and a body none",
                     ~block.send | Mux(inside, block.bucket == 0, _one(block.bucket)))
        m.d.sync += level.eq(level + block.send - block.credit)
        with m.If(block.send):
            m.d.sync += inside.eq(~block.tail)

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


class _Flow:
    """What passes over a link, for one virtual channel."""

    def __init__(self, contract, link, vc, depth, name):
        m = contract.m
        self.sent, self.inside = Signal(name=f"{name}_sent"), Signal(name=f"{name}_inside")
        self.level = Signal(range(depth + 1), name=f"{name}_level")
        m.d.comb += self.sent.eq(link.valid[vc])
        m.d.sync += self.level.eq(self.level + self.sent - link.credit[vc])
        with m.If(self.sent):
            m.d.sync += self.inside.eq(~link.flit.tail)
        self.framed = ~self.sent | (link.flit.head == ~self.inside)
        self.sound = ~self.sent | ~(Value.cast(link.flit).xor() ^ (vc.bit_count() & 1))
        self.credited = ~self.sent | (self.level != depth)
        self.owed = ~link.credit[vc] | (self.level != 0)


class RouterRules(Contract):
    """A router between neighbours that keep the rules keeps them, and what goes in comes out."""

    def rules(self, m, block):
        marks, outs, freed = {FIRST: [], SECOND: []}, {FIRST: [], SECOND: []}, []
        self.require("it is somewhere", (block.x == self.some(4, "x")) & (block.y == self.some(4, "y")))
        self.require("the error is not cleared", ~block.clear)
        entry = self.some(3, "entry")
        lane = self.some(max(block.vcs - 1, 1).bit_length(), "lane")
        way = {FIRST: Signal(5, name="way1"), SECOND: Signal(5, name="way2")}
        for port in block.ports:
            link = block.link(port, "i")
            self.require(f"one valid flit at {port.name}", _none_or_one(link.valid))
            for vc, (each, _) in enumerate(block.channels):
                name = f"{port.name}{vc}"
                flow = _Flow(self, link, vc, block.depth, f"i_{name}")
                legal = [out for out in TURNS[each.order][port] if out in block.ports]
                mask = sum(1 << out for out in legal)
                route = link.flit.route
                self.require(f"framed, {name}", flow.framed)
                self.require(f"of even parity, {name}", flow.sound)
                self.require(f"with a credit, {name}", flow.credited)
                self.require(f"a way that exists, {name}",
                             ~flow.sent | Mux(link.flit.head, _one(route & mask) & ((route & ~mask) == 0), route == 0))
                self.promise(f"credits are for flits received, {name}", flow.owed)
                asked = (block.probe.port == port) & (block.probe.vc == vc)
                held = sum((block.state.buffered[n] for n in range(block.depth)), link.credit[vc])
                self.promise(f"each slot is a flit or a credit, {name}", ~asked | (held == flow.level))
                current = Signal(5, name=f"way_{name}")
                with m.If(flow.sent & link.flit.head):
                    m.d.sync += current.eq(route)
                for mark, found in marks.items():
                    marked = flow.sent & link.flit.data[mark]
                    found.append(marked)
                    self.require(f"marks are at one input, {name}, {mark}",
                                 ~marked | (entry == port) & (lane == vc))
                    ahead = Signal.like(flow.level, name=f"ahead_{name}_{mark}")
                    there = Signal(name=f"there_{name}_{mark}")
                    with m.If(marked):
                        m.d.sync += way[mark].eq(Mux(link.flit.head, route, current))
                        m.d.sync += ahead.eq(flow.level - link.credit[vc]), there.eq(1)
                    with m.Elif(link.credit[vc]):
                        m.d.sync += ahead.eq(ahead - 1), there.eq(there & (ahead != 0))
                    freed.append((mark, name, there & link.credit[vc] & (ahead == 0)))

        for port in block.ports:
            link = block.link(port, "o")
            self.promise(f"one valid flit at {port.name}", _none_or_one(link.valid))
            for vc in range(block.vcs):
                name = f"{port.name}{vc}"
                flow = _Flow(self, link, vc, block.depth, f"o_{name}")
                self.require(f"credits are for flits sent, {name}", flow.owed)
                self.promise(f"sent packets are not mixed, {name}", flow.framed)
                self.promise(f"sent flits are of even parity, {name}", flow.sound)
                self.promise(f"sent with a credit, {name}", flow.credited)
                for mark, found in outs.items():
                    marked = flow.sent & link.flit.data[mark]
                    found.append(marked)
                    self.promise(f"it leaves where it must, {name}, {mark}",
                                 ~marked | (way[mark][port] & _one(way[mark])))

        came, left = {}, {}
        for mark in marks:
            came[mark], left[mark] = Signal(name=f"came{mark}"), Signal(name=f"left{mark}")
            m.d.comb += [came[mark].eq(Cat(marks[mark]).any()), left[mark].eq(Cat(outs[mark]).any())]
        in_, out = ({mark: self.after(events[mark]) for mark in marks} for events in (came, left))
        self.require("the mark is one", ~(in_[FIRST] & came[FIRST]) & ~(in_[SECOND] & came[SECOND]))
        self.require("the second comes later", ~came[SECOND] | in_[FIRST])
        for mark, name in (FIRST, "flit"), (SECOND, "later flit"):
            self.promise(f"no {name} from nothing", ~left[mark] | in_[mark])
            self.promise(f"no {name} twice", ~(left[mark] & out[mark]))
        for mark, name, now in freed:
            self.promise(f"no flit is lost, {name}, {mark}", ~now | out[mark])
        same = way[FIRST] == way[SECOND]
        self.promise("no flit overtakes another on its way", ~(left[SECOND] & same) | out[FIRST])
        self.promise("nothing is dropped", block.error.code == Error.NONE)
        self.reach("both through", out[FIRST] & left[SECOND] & same)
        self.reach("through the switch", out[FIRST] & left[SECOND] & ~same)


def _one(bits):
    return Cat(bits == 1 << n for n in range(len(bits))).any()


def _none_or_one(bits):
    return (bits == 0) | _one(bits)


QUICK = [
    Task(Arbiter(4), ArbiterRules),
    Task(Slots(flit(1), 2), SlotsRules),
    Task(Slots(flit(1), 4), SlotsRules),
    Task(Credits(4, ordered=True), CreditsRules),
]

TASKS = [
    *QUICK,
    Task(Router("ES", 64, 2, (Traffic(),)), RouterRules, depth=12),
    Task(Router("ES", 64, 2, (Traffic(2),)), RouterRules, depth=10),
]
