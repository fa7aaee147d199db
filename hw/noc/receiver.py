# SPDX-License-Identifier: Apache-2.0
"""The way out of the network: a class's packets, one after the other."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.packet import EXTRA, LENGTH, Error
from hw.emit import Block
from hw.noc.link import HEADER, flit
from hw.noc.sender import FAULT
from hw.stream import DeepQueue, Queue

__all__ = ["Receiver", "Replies", "parity", "word"]


def word(bits):
    """A word of a packet, the `first` of which is its header.

    `error`: this word or one before it is damaged, or the packet's length is not what its header says. So that of the
    `last` one is of the whole packet.
    """
    return data.StructLayout({"data": bits, "first": 1, "last": 1, "error": 1})


def parity(flit, vc):
    """0 if a flit on virtual channel `vc` is sound."""
    return Value.cast(flit).xor() ^ Const(vc.bit_count() & 1, 1)


class Receiver(Block):
    """Buffers the flits of one class's virtual channels and delivers packets in the order of their heads.

    A flit a cycle, latency 1. A packet with a damaged head is dropped whole, and so are flits that belong to
    no packet; damage behind a head is marked. A packet is as long as its header says, unless it ends before, so that
    one that has lost its end takes nothing of the next.

    Parameters
    ----------
    bits, depth : int
        Data of a flit; flits of the buffer of a virtual channel.
    vcs : tuple of int
        Numbers of the virtual channels.

    Members
    -------
    flit : In(flit(bits))
    valid, credit : In and Out(vcs)
        As of `Link`.
    o : Out(stream.Signature(word(bits)))
    dropped : Out(range(vcs + 1))
        Flits that are dropped, now.
    fault : Out(FAULT)
        What is wrong, now.
    """

    def __init__(self, bits, depth, vcs):
        self.bits, self.depth, self.vcs = bits, depth, vcs
        super().__init__({
            "flit": In(flit(bits)), "valid": In(len(vcs)), "credit": Out(len(vcs)),
            "o": Out(stream.Signature(word(bits))),
            "dropped": Out(range(len(vcs) + 1)),
            "fault": Out(FAULT),
        })

    def elaborate(self, platform):
        m, count = Module(), len(self.vcs)
        stamp = Signal(ceil_log2(count * self.depth) + 1)       # numbers packets
        coming = Signal(count)                                  # one has begun to come, and not ended
        item = data.StructLayout({"flit": flit(self.bits), **({"stamp": len(stamp)} if count > 1 else {})})
        queues = [Queue(item, self.depth) for _ in self.vcs]
        owner, begun = Signal(count), Signal()                  # of the packet that is being delivered
        there, head, odd, lost, full = (Signal(count, name=name) for name in ("there", "head", "odd", "lost", "full"))
        for n, (vc, queue) in enumerate(zip(self.vcs, queues, strict=True)):
            m.submodules[f"queue{vc}"] = queue
            front = queue.o.payload.flit
            m.d.comb += [
                queue.i.payload.flit.eq(self.flit), queue.i.valid.eq(self.valid[n]),
                full[n].eq(~queue.i.ready),
                there[n].eq(queue.o.valid), head[n].eq(there[n] & front.head), odd[n].eq(parity(front, vc)),
                lost[n].eq(there[n] & ~front.head & ~(owner[n] & begun)),
            ]
            if count > 1:
                m.d.comb += queue.i.payload.stamp.eq(stamp)
                with m.If(self.valid[n]):
                    m.d.sync += coming[n].eq((self.flit.head | coming[n]) & ~self.flit.tail)
        if count > 1:       # No packet goes past the end that is seen here, so each number has its turn.
            with m.If(self.flit.head & (self.valid & ~coming & ~full).any()):
                m.d.sync += stamp.eq(stamp + 1)

        # Whose turn it is
        turn, chosen, begins, damaged = Signal(count), Signal(self.flit.shape()), Signal(), Signal()
        before = {}
        for n in range(count):
            for u in range(n):
                since = queues[n].o.payload.stamp - queues[u].o.payload.stamp
                before[u, n] = ~since[len(stamp) - 1]
                before[n, u] = ~before[u, n]
        for n in range(count):
            older = [head[u] & before[u, n] for u in range(count) if u != n]
            first = head[n] & ~Cat(older).any() & ~lost.any()
            m.d.comb += turn[n].eq(Mux(owner.any(), owner[n], first))
        m.d.comb += [
            chosen.eq(reduce(or_, (Mux(turn[n], Value.cast(queues[n].o.payload.flit), 0) for n in range(count)))),
            begins.eq(~begun), damaged.eq((turn & odd).any()),
        ]

        # What leaves
        header = data.View(HEADER, chosen.data[:EXTRA])
        left, due, spoiled = Signal(LENGTH), Signal(LENGTH), Signal()
        wrong, moves, drops = Signal(), Signal(), Signal(count)
        source = Signal(data.StructLayout({"x": 4, "y": 4, "tag": 8}), reset_less=True)
        out = self.o.payload
        m.d.comb += [
            due.eq(Mux(begins, header.length, left)),       # flits that should follow
            wrong.eq((chosen.tail != (due == 0)) | chosen.head & begun),
            self.o.valid.eq((turn & there).any() & ~(begins & damaged)),
            out.data.eq(chosen.data), out.first.eq(begins), out.last.eq(chosen.tail | (due == 0)),
            out.error.eq(spoiled & begun | damaged | wrong),
            moves.eq(self.o.valid & self.o.ready),
            drops.eq(lost | Mux(begins & damaged, turn, 0)),
            self.dropped.eq(sum(drops[1:], drops[0])),
        ]
        for n, queue in enumerate(queues):
            m.d.comb += queue.o.ready.eq(drops[n] | turn[n] & self.o.ready)
            m.d.sync += self.credit[n].eq(queue.o.valid & queue.o.ready)
        with m.If(self.o.valid):
            m.d.sync += owner.eq(Mux(moves & out.last, 0, turn))
        with m.If(moves):
            m.d.sync += begun.eq(~out.last), left.eq(due - 1), spoiled.eq(out.error)
        with m.If(moves & begins):
            m.d.sync += source.x.eq(header.src_x), source.y.eq(header.src_y), source.tag.eq(header.tag)

        with m.If((self.valid & full).any()):
            m.d.comb += self.fault.code.eq(Error.OVERFLOW)
        with m.Elif(lost.any()):
            m.d.comb += self.fault.code.eq(Error.FRAME)
        with m.Elif(drops.any()):
            m.d.comb += self.fault.code.eq(Error.PARITY)
        with m.Elif(moves & (damaged | wrong)):
            m.d.comb += [
                self.fault.code.eq(Mux(damaged, Error.PAYLOAD, Error.FRAME)),
                self.fault.x.eq(Mux(begins, header.src_x, source.x)),
                self.fault.y.eq(Mux(begins, header.src_y, source.y)),
                self.fault.tag.eq(Mux(begins, header.tag, source.tag)),
            ]
        return m


class Replies(Block):
    """Holds what comes in reply, and counts what there is place for. A word a cycle, latency 1.

    Requests take their place before they leave, so what comes is taken at once, whether the node looks at it
    or not: replies never hold up the network, and requests that wait for replies wait in vain for nobody.
    A reply is as many flits as its request has reserved; should there be more, they wait like anything else.

    Parameters
    ----------
    shape : ShapeLike
        Of a word.
    size : int
        Words.

    Members
    -------
    i, o : In and Out(stream.Signature(shape))
    dropped : In(n)
        Words that will not come.
    reserve : In(LENGTH)
        Words whose place is taken, now; no more than `room`.
    room : Out(LENGTH)
        Place that nobody has taken.
    """

    def __init__(self, shape, size, dropped):
        self.shape, self.size, self.most = shape, size, dropped
        super().__init__({
            "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
            "dropped": In(range(dropped + 1)), "reserve": In(LENGTH), "room": Out(LENGTH, init=size),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = DeepQueue(self.shape, max(self.size, 2))
        back = Signal(LENGTH + 1)
        m.d.comb += [
            queue.i.payload.eq(self.i.payload), queue.i.valid.eq(self.i.valid), self.i.ready.eq(queue.i.ready),
            self.o.payload.eq(queue.o.payload), self.o.valid.eq(queue.o.valid), queue.o.ready.eq(self.o.ready),
            back.eq(self.room + self.dropped + (self.o.valid & self.o.ready)),
        ]
        m.d.sync += self.room.eq(Mux(back > self.size, self.size, back) - self.reserve)
        return m
