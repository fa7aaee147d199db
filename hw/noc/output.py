# SPDX-License-Identifier: Apache-2.0
"""The output of a router: credits, the choice of a virtual channel, and who goes first."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
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
    tail : In(1)
    bucket : In(BUCKETS), if `ordered`
        Of the packet of a head that is sent; one bit.
    head : In(1), if `ordered`
    credit : In(1)
    used : Out(depth)
        A bit for each flit that is in the buffer or may be, from the lowest.
    busy : Out(1)
        A packet has begun and not ended.
    later : Out(struct(used, busy, buckets))
        The same in the next cycle, and the buckets of these flits.
    """

    def __init__(self, depth, ordered=False):
        self.depth, self.ordered = depth, ordered
        super().__init__({
            "send": In(1), "tail": In(1), "credit": In(1),
            **({"head": In(1), "bucket": In(BUCKETS)} if ordered else {}),
            "used": Out(depth), "busy": Out(1),
            "later": Out(data.StructLayout({"used": depth, "busy": 1, **({"buckets": BUCKETS} if ordered else {})})),
        })

    def elaborate(self, platform):
        m = Module()
        left, later = Signal(self.depth), self.later        # of the flits known so far
        m.d.comb += [
            left.eq(Mux(self.credit, self.used >> 1, self.used)),
            later.used.eq(Mux(self.send, Cat(1, left), left)),
            later.busy.eq(Mux(self.send, ~self.tail, self.busy)),
        ]
        m.d.sync += self.used.eq(later.used), self.busy.eq(later.busy)
        if self.ordered:
            # From the youngest: the first is also the bucket of the packet that goes on.
            sent = [Signal(range(BUCKETS), name=f"sent{n}", reset_less=True) for n in range(self.depth)]
            number = Cat(Cat(self.bucket[h] for h in range(BUCKETS) if h >> bit & 1).any() for bit in range(3))
            with m.If(self.send):
                m.d.sync += [older.eq(younger) for younger, older in zip(sent, sent[1:], strict=False)]
            with m.If(self.send & self.head):
                m.d.sync += sent[0].eq(number)
            for h in range(BUCKETS):
                here = Cat(left[n] & (sent[n] == h) for n in range(self.depth)).any()
                goes = self.send & Mux(self.head, self.bucket[h], sent[0] == h)
                m.d.comb += later.buckets[h].eq(here | goes)
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
    inside, tail, drop : In(candidates)
        As of `Lane`.
    bucket : In(BUCKETS) each
        Of a candidate that is not inside, and if it is of an ordered class of several virtual channels: one bit.
    channel : In(vcs) each
        What the candidate's packet has been given, if it is inside: one bit.
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
            "wants": In(count), "inside": In(count), "tail": In(count), "drop": In(count),
            "bucket": In(BUCKETS).array(count), "channel": In(self.vcs).array(count),
            "choice": Out(self.vcs).array(count), "grant": Out(count),
            "valid": Out(self.vcs), "credit": In(self.vcs), "used": Out(depth).array(self.vcs), "busy": Out(self.vcs),
        })

    def elaborate(self, platform):
        m = Module()
        credits = []
        for vc, (each, numbers) in enumerate(self.channels):
            one = Credits(self.depth, self.ordered and each.vcs > 1)
            m.submodules[f"credits{vc}"] = one
            credits.append(one)
            m.d.comb += [
                one.credit.eq(self.credit[vc]), one.send.eq(self.valid[vc]),
                one.tail.eq((self.grant & self.tail).any()),
                self.used[vc].eq(one.used), self.busy[vc].eq(one.busy),
            ]
            if one.ordered:
                m.d.comb += [
                    one.head.eq((self.grant & ~self.inside).any()),
                    one.bucket.eq(reduce(or_, (Mux(self.grant[n], self.bucket[n], 0)
                                               for n, other in enumerate(self.candidates) if other in numbers))),
                ]

        any_, given = self._begin(m, credits)
        ask = Signal(len(self.candidates))
        for n, vc in enumerate(self.candidates):
            each, numbers = self.channels[vc]
            begins = self._may(n, any_[vc])
            goes_on = Cat(self.channel[n][w] & ~credits[w].used[-1] for w in numbers).any()
            m.d.comb += ask[n].eq(self.wants[n] & (begins | self.inside[n] & goes_on))
            for w in numbers[1:]:
                m.d.comb += self.choice[n][w].eq(Mux(self.inside[n], self.channel[n][w], self._may(n, given[w])))
            m.d.comb += self.choice[n][numbers[0]].eq(~Cat(self.choice[n][w] for w in numbers[1:]).any())
        self._arbitrate(m, ask)

        goes = self.grant & ~self.drop
        for w in range(self.vcs):
            m.d.comb += self.valid[w].eq(Cat(goes[n] & self.choice[n][w] for n in range(len(self.candidates))).any())
        return m

    def _begin(self, m, credits):
        """By virtual channel: whether a packet of its class may begin, and whether on this one; else on the first.

        In ordered classes by bucket, and registered a cycle ahead.
        """
        any_, given = {}, {}
        for _, numbers in dict.fromkeys(self.channels):
            ordered = credits[numbers[0]].ordered
            open_ = {}
            for w in numbers:
                state = credits[w].later if ordered else credits[w]
                elsewhere = [credits[u].later.buckets for u in numbers if u != w] if ordered else []
                open_[w] = Signal(BUCKETS if ordered else 1, name=f"open{w}")
                m.d.comb += open_[w].eq(Mux(state.busy | state.used[-1], 0, ~reduce(or_, elsewhere, 0)))
            domain = m.d.sync if ordered else m.d.comb
            some = Signal.like(open_[numbers[0]], name=f"some{numbers[0]}", init=-1)
            domain += some.eq(reduce(or_, open_.values()))
            any_ |= {w: some for w in numbers}
            for w in numbers[1:]:
                before = [Mux(self._emptier(credits, u, w), open_[u], 0) for u in numbers if u != w]
                given[w] = Signal.like(some, name=f"given{w}", init=0)
                domain += given[w].eq(open_[w] & ~reduce(or_, before))
        return any_, given

    def _emptier(self, credits, u, w):
        """Whether the buffer behind `u` has less in it than that behind `w`, or as much, but `u` is the lower."""
        if u > w:
            return ~self._emptier(credits, w, u)
        return ~(credits[u].used & ~credits[w].used).any()

    def _may(self, n, open_):
        """Whether a candidate's packet may begin; `open_` is a bit, or one for each bucket."""
        if len(open_) == 1:
            return open_ & ~self.inside[n]
        return (self.bucket[n] & open_).any()

    def _arbitrate(self, m, ask):
        """First among the inputs, then among the virtual channels of each."""
        m.submodules.arbiter = arbiter = Arbiter(len(self.inputs))
        done, first = Signal(), 0
        m.d.comb += done.eq((self.grant & self.tail).any()), arbiter.done.eq(done)
        for k, vcs in enumerate(self.inputs):
            m.submodules[f"arbiter{k}"] = one = Arbiter(len(vcs))
            mine = slice(first, first + len(vcs))
            m.d.comb += [
                one.request.eq(ask[mine]), arbiter.request[k].eq(ask[mine].any()),
                one.done.eq(done & arbiter.grant[k]),
                self.grant[mine].eq(Mux(arbiter.grant[k], one.grant, 0)),
            ]
            first += len(vcs)

