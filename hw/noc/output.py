# SPDX-License-Identifier: Apache-2.0
"""The output of a router: credits, the choice of a virtual channel, and who goes first."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from golden.packet import Port
from hw.emit import Block
from hw.noc.arbiter import Arbiter
from hw.noc.link import channels

__all__ = ["BUCKETS", "Credits", "Output", "bucket"]

BUCKETS = 8


def bucket(order, out, header):
    """The bucket of a packet that leaves by `out`, of plain bits of its destination.

    Once on its second dimension it differs from others in that one alone.
    """
    first, second = ({"x": header.dst_x, "y": header.dst_y}[way] for way in order)
    if order[0] == ("x" if out in (Port.E, Port.W) else "y"):
        return Cat(first[:2], second[0])
    return second[:3]


class Credits(Block):
    """What a sender knows of the buffer behind a virtual channel.

    Parameters
    ----------
    depth : int
        Flits of the buffer.
    ordered : bool
        Whether to remember the buckets of the flits in it.

    Members
    -------
    send : In(1)
    claim : In(1)
        A packet begins, though nothing is sent.
    tail : In(1)
    credit : In(1)
    bucket : In(BUCKETS), if `ordered`
        Of the packet whose head is sent: one bit; none with a body.
    used : Out(depth)
        A bit for each flit that is in the buffer or may be, from the lowest.
    left : Out(depth)
        The same in the next cycle, if nothing is sent.
    buckets : Out(BUCKETS), if `ordered`
        Of these.
    youngest : Out(BUCKETS), if `ordered`
        Of the flit sent last.
    busy : Out(1)
        A packet has begun and not ended.
    """

    def __init__(self, depth, ordered=False):
        self.depth, self.ordered = depth, ordered
        super().__init__({
            "send": In(1), "claim": In(1), "tail": In(1), "credit": In(1),
            "used": Out(depth), "left": Out(depth), "busy": Out(1),
            **({"bucket": In(BUCKETS), "buckets": Out(BUCKETS), "youngest": Out(BUCKETS)} if ordered else {}),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.left.eq(Mux(self.credit, self.used >> 1, self.used))
        m.d.sync += self.used.eq(Mux(self.send, Cat(1, self.left), self.left))
        with m.If(self.send):
            m.d.sync += self.busy.eq(~self.tail)
        with m.If(self.claim):
            m.d.sync += self.busy.eq(1)
        if self.ordered:
            sent = [Signal(range(BUCKETS), name=f"sent{n}", reset_less=True) for n in range(self.depth)]
            number = Cat(Cat(self.bucket[h] for h in range(BUCKETS) if h >> bit & 1).any() for bit in range(3))
            with m.If(self.send):
                m.d.sync += [older.eq(younger) for younger, older in zip(sent, sent[1:], strict=False)]
                with m.If(self.bucket.any()):
                    m.d.sync += sent[0].eq(number)
            m.d.comb += [
                self.youngest.eq(Cat(sent[0] == h for h in range(BUCKETS))),
                self.buckets.eq(Cat(Cat(self.left[n] & (sent[n] == h) for n in range(self.depth)).any()
                                    for h in range(BUCKETS))),
            ]
        return m


class Output(Block):
    """One output of a router. Grants in the cycle of the requests.

    A packet takes any virtual channel of its class that is free, and of these the one whose buffer is
    emptiest. But while a packet of its bucket is in the buffer behind one, it takes no other: so packets
    of a flow stay in order. Nobody takes turns with a packet on its virtual channel, only on the link.

    Parameters
    ----------
    traffic : tuple of Traffic
    depth : int
    inputs : tuple of tuple of int
        Virtual channels of each input that has any with packets for this output: the candidates, in order.
    ordered : bool
        Keep the order; a node sees by itself in which order heads come.

    Members
    -------
    wants : In(candidates)
    owns, hold, claim, tail : In(candidates)
    need : In(depth) each
        As of `Lane`.
    bucket : In(BUCKETS) each
        Of a candidate that owns nothing here, and if it is of an ordered class of several virtual channels: one bit.
    channel : In(vcs) each
        What the candidate's packet has been given, if it owns that: one bit.
    choice : Out(vcs) each
        What a candidate is given; one bit if it is granted.
    grant : Out(candidates)
    valid : Out(vcs)
    credit : In(vcs)
    used : Out(depth) each
    busy : Out(vcs)
    """

    def __init__(self, traffic, depth, inputs, ordered):
        self.traffic, self.depth, self.inputs, self.ordered = traffic, depth, inputs, ordered
        self.channels = channels(traffic)
        self.candidates = [vc for vcs in inputs for vc in vcs]
        self.vcs = len(self.channels)
        count = len(self.candidates)
        super().__init__({
            "wants": In(count), "owns": In(count), "hold": In(count), "claim": In(count), "tail": In(count),
            "need": In(depth).array(count),
            "bucket": In(BUCKETS).array(count), "channel": In(self.vcs).array(count),
            "choice": Out(self.vcs).array(count), "grant": Out(count),
            "valid": Out(self.vcs), "credit": In(self.vcs), "used": Out(depth).array(self.vcs), "busy": Out(self.vcs),
        })

    def elaborate(self, platform):
        m = Module()
        credits, tail, chosen = [], Signal(), Signal(self.vcs)
        m.d.comb += tail.eq((self.grant & self.tail).any())
        for vc, (each, numbers) in enumerate(self.channels):
            one = Credits(self.depth, self.ordered and each.vcs > 1)
            m.submodules[f"credits{vc}"] = one
            credits.append(one)
            claims = [self.claim[n] for n, other in enumerate(self.candidates) if other == vc]
            m.d.comb += [
                one.credit.eq(self.credit[vc]), one.send.eq(self.valid[vc]),
                one.tail.eq(tail), one.claim.eq(Cat(claims).any()),
                self.used[vc].eq(one.used), self.busy[vc].eq(one.busy),
            ]
            if one.ordered:
                m.d.comb += one.bucket.eq(reduce(or_, (Mux(self.grant[n], self.bucket[n], 0)
                                                       for n, other in enumerate(self.candidates) if other in numbers)))

        any_, given = self._begin(m, credits, chosen, tail)
        ask = Signal(len(self.candidates))
        for n, vc in enumerate(self.candidates):
            each, numbers = self.channels[vc]
            begins = self._may(n, any_[vc])
            if each.multicast:
                begins = begins & ~(credits[vc].left & self.need[n]).any()
            goes_on = Cat(self.channel[n][w] & ~credits[w].used[-1] for w in numbers).any()
            m.d.comb += ask[n].eq(self.wants[n] & (begins | self.owns[n] & goes_on))
            for w in numbers[1:]:
                m.d.comb += self.choice[n][w].eq(Mux(self.owns[n], self.channel[n][w], self._may(n, given[w])))
            m.d.comb += self.choice[n][numbers[0]].eq(~Cat(self.choice[n][w] for w in numbers[1:]).any())
        self._arbitrate(m, ask, tail)

        # What is found to be dropped, late, still counts as sent for what may begin in the next cycle.
        for w in range(self.vcs):
            m.d.comb += chosen[w].eq(Cat(self.grant[n] & self.choice[n][w] for n in range(len(self.candidates))).any())
        m.d.comb += self.valid.eq(Mux((self.grant & self.hold).any(), 0, chosen))
        return m

    def _begin(self, m, credits, chosen, tail):
        """By virtual channel: whether a packet of its class may begin, and whether on this one; else on the first.

        In ordered classes by bucket, and registered a cycle ahead.
        """
        any_, given = {}, {}
        for _, numbers in dict.fromkeys(self.channels):
            ordered, open_ = credits[numbers[0]].ordered, {}
            for w in numbers:
                one = credits[w]
                if ordered:
                    closed = Mux(chosen[w], ~tail | one.left[-2], one.busy | one.left[-1])
                    taken = [Mux(chosen[u], credits[u].buckets | credits[u].bucket | credits[u].youngest,
                                 credits[u].buckets) for u in numbers if u != w]
                    open_[w] = _named(m, Mux(closed, 0, ~reduce(or_, taken)), f"open{w}")
                else:
                    open_[w] = _named(m, ~one.busy & ~one.used[-1], f"open{w}")
            domain = m.d.sync if ordered else m.d.comb
            some, first = self._choose(credits, open_)
            any_ |= dict.fromkeys(numbers, Signal(len(some), name=f"some{numbers[0]}", init=-1))
            domain += any_[numbers[0]].eq(some)
            for w in numbers[1:]:
                given[w] = Signal(len(some), name=f"given{w}")
                domain += given[w].eq(first[w])
        return any_, given

    def _choose(self, credits, open_):
        """Of virtual channels that are open: whether there are any, and by number, but for the first, the emptiest."""
        first = {w: open_[w] & ~reduce(or_, (Mux(self._emptier(credits, u, w), open_[u], 0) for u in open_ if u != w))
                 for w in list(open_)[1:]}
        return reduce(or_, open_.values()), first

    def _emptier(self, credits, u, w):
        """Whether the buffer behind `u` has less in it than that behind `w`, or as much, but `u` is the lower."""
        if u > w:
            return ~self._emptier(credits, w, u)
        return ~(credits[u].used & ~credits[w].used).any()

    def _may(self, n, open_):
        """Whether a candidate's packet may begin; `open_` is a bit, or one for each bucket."""
        if len(open_) == 1:
            return open_ & ~self.owns[n]
        return (self.bucket[n] & open_).any()

    def _arbitrate(self, m, ask, done):
        """First among the inputs, then among the virtual channels of each."""
        m.submodules.arbiter = arbiter = Arbiter(len(self.inputs))
        first = 0
        m.d.comb += arbiter.done.eq(done)
        for k, vcs in enumerate(self.inputs):
            m.submodules[f"arbiter{k}"] = one = Arbiter(len(vcs))
            mine = slice(first, first + len(vcs))
            m.d.comb += [
                one.request.eq(ask[mine]), arbiter.request[k].eq(ask[mine].any()),
                one.done.eq(done & arbiter.grant[k]),
                self.grant[mine].eq(Mux(arbiter.grant[k], one.grant, 0)),
            ]
            first += len(vcs)


def _named(m, value, name):
    """The value as a signal, as it is used twice."""
    found = Signal(len(value), name=name)
    m.d.comb += found.eq(value)
    return found
