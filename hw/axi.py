# SPDX-License-Identifier: Apache-2.0
"""AXI4 (Arm IHI 0022): runs of beats, the bursts they are cut into, and a port that two masters share.

Inside, addresses count beats, all bursts are of type INCR and all beats full. Those signals of the standard
that would be constant and whose default fits (lock, cache, prot, qos, region, user) are left out.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hw.emit import Block
from hw.stream import DeepQueue, Queue

__all__ = ["Axi4", "Bursts", "Port", "Reads", "Writes", "read_beat", "reading", "run", "watch", "write_beat",
           "writing"]

PAGE = 4096
INCR = 1
SLVERR = 2          # this and DECERR, above it, are errors
OUTSTANDING = 16


class Axi4(wiring.Signature):
    """An AXI4 port as its master has it.

    Parameters
    ----------
    address_bits, beat, id_bits : int
        Of the address; bytes of a beat, a power of two; of an id.
    """

    def __init__(self, *, address_bits, beat, id_bits):
        self.address_bits, self.beat, self.id_bits = address_bits, beat, id_bits
        members = {}
        for way in "aw", "ar":
            members |= {f"{way}id": Out(id_bits), f"{way}addr": Out(address_bits), f"{way}len": Out(8),
                        f"{way}size": Out(3), f"{way}burst": Out(2), f"{way}valid": Out(1), f"{way}ready": In(1)}
        super().__init__(members | {
            "wdata": Out(8 * beat), "wstrb": Out(beat), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
            "bid": In(id_bits), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "rid": In(id_bits), "rdata": In(8 * beat), "rresp": In(2), "rlast": In(1), "rvalid": In(1),
            "rready": Out(1),
        })


def run(address, most, tag=0):
    """Beats at consecutive addresses, up to `most`; `final` and `tag` are for whom the end of it concerns."""
    return data.StructLayout({"address": address, "beats": range(most + 1), "final": 1, "tag": tag})


def request(address):
    """A burst of `len` + 1 beats."""
    return data.StructLayout({"address": address, "len": 8})


def read_beat(beat):
    return data.StructLayout({"data": 8 * beat, "error": 1})


def write_beat(beat):
    return data.StructLayout({"data": 8 * beat, "strobe": beat})


def reading(address, beat):
    """What one that reads has to do with a port."""
    return wiring.Signature({
        "ar": Out(stream.Signature(request(address))),
        "r": In(stream.Signature(read_beat(beat))),
    })


def writing(address, beat):
    """What one that writes has to do with a port."""
    return wiring.Signature({
        "aw": Out(stream.Signature(request(address))),
        "w": Out(stream.Signature(data.StructLayout({**write_beat(beat).members, "last": 1}))),
        "b": In(stream.Signature(data.StructLayout({"error": 1}))),
    })


def watch(m, port, name, owed, heard):
    """Give a memory up when it has been silent for `port.patience` cycles: `port.dead` goes up."""
    silent = Signal(range(port.patience + 1), name=f"{name}_silent")
    m.d.sync += silent.eq(Mux(owed & ~heard, silent + 1, 0))
    with m.If(silent == port.patience):
        m.d.sync += port.dead.eq(1)


class Bursts(Block):
    """Cuts runs into bursts that end at multiples of `longest` beats. A burst a cycle, latency 1.

    Parameters
    ----------
    address : int
        Bits of a beat's address.
    most : int
        Beats of a run.
    longest : int
        A power of two, at most 256, and at most 4 KiB of beats: so no burst crosses one.
    tag : int
        Bits that go along with a run.

    Members
    -------
    i : In(stream.Signature(run(address, most, tag)))
    o : Out(stream.Signature(run(address, longest, tag)))
        `final` of the last burst of a run that is.
    """

    def __init__(self, address, most, longest, tag):
        self.longest = longest
        super().__init__({
            "i": In(stream.Signature(run(address, most, tag))),
            "o": Out(stream.Signature(run(address, longest, tag))),
        })

    def elaborate(self, platform):
        m = Module()
        held = Signal(self.i.payload.shape(), reset_less=True)
        busy, ends = Signal(), Signal()
        room, beats = Signal(range(self.longest + 1)), Signal(range(self.longest + 1))
        m.d.comb += [
            room.eq(self.longest - held.address[:ceil_log2(self.longest)]),
            ends.eq(held.beats <= room),
            beats.eq(Mux(ends, held.beats, room)),
            self.o.valid.eq(busy),
            self.o.payload.address.eq(held.address),
            self.o.payload.beats.eq(beats),
            self.o.payload.final.eq(held.final & ends),
            self.o.payload.tag.eq(held.tag),
            self.i.ready.eq(~busy | self.o.ready & ends),
        ]
        with m.If(self.i.ready):
            m.d.sync += busy.eq(self.i.valid), held.eq(self.i.payload)
        with m.Elif(self.o.ready):
            m.d.sync += held.address.eq(held.address + beats), held.beats.eq(held.beats - beats)
        return m


class Reads(Block):
    """Reads runs, their beats in order. What has no place to be kept is not asked for, so R never waits.

    Parameters
    ----------
    address, most, longest : int
        As of `Bursts`.
    beat : int
        Bytes.
    depth : int
        Beats that are kept or under way; two bursts and the memory's latency for one a cycle.

    Members
    -------
    i : In(stream.Signature(run(address, most)))
    o : Out(stream.Signature(read_beat(beat)))
    memory : Out(reading(address, beat))
    """

    def __init__(self, address, beat, most, longest, depth):
        self.address, self.beat, self.most, self.longest, self.depth = address, beat, most, longest, depth
        super().__init__({
            "i": In(stream.Signature(run(address, most))),
            "o": Out(stream.Signature(read_beat(beat))),
            "memory": Out(reading(address, beat)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.bursts = bursts = Bursts(self.address, self.most, self.longest, 0)
        m.submodules.queue = queue = DeepQueue(read_beat(self.beat), self.depth)
        connect(m, flipped(self.i), bursts.i)
        connect(m, flipped(self.memory.r), queue.i)
        connect(m, queue.o, flipped(self.o))

        burst, ar, room = bursts.o, self.memory.ar, Signal(range(self.depth + 1), init=self.depth)
        fits, asks = Signal(), Signal()
        m.d.comb += [
            fits.eq(burst.payload.beats <= room),
            ar.valid.eq(burst.valid & fits),
            ar.payload.address.eq(burst.payload.address),
            ar.payload.len.eq(burst.payload.beats - 1),
            burst.ready.eq(ar.ready & fits),
            asks.eq(ar.valid & ar.ready),
        ]
        m.d.sync += room.eq(room - Mux(asks, burst.payload.beats, 0) + (self.o.valid & self.o.ready))
        return m


class Writes(Block):
    """Writes runs. A burst begins when all of its data are there, so W never waits.

    Parameters
    ----------
    address, most, longest, tag : int
        As of `Bursts`.
    beat : int
        Bytes.
    outstanding : int
        Bursts that wait for their response.

    Members
    -------
    i : In(stream.Signature(run(address, most, tag)))
    data : In(stream.Signature(write_beat(beat)))
    memory : Out(writing(address, beat))
    done : Out(struct(valid, tag, error))
        A run that was `final`, and all before it, are in memory; `error` if that failed anywhere since the
        `final` one before.
    """

    def __init__(self, address, beat, most, longest, tag, outstanding=OUTSTANDING):
        self.address, self.beat, self.most, self.longest, self.tag = address, beat, most, longest, tag
        self.outstanding = outstanding
        super().__init__({
            "i": In(stream.Signature(run(address, most, tag))),
            "data": In(stream.Signature(write_beat(beat))),
            "memory": Out(writing(address, beat)),
            "done": Out(data.StructLayout({"valid": 1, "tag": tag, "error": 1})),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.bursts = bursts = Bursts(self.address, self.most, self.longest, self.tag)
        m.submodules.queue = queue = DeepQueue(write_beat(self.beat), 2 * self.longest)
        m.submodules.waiting = waiting = Queue(data.StructLayout({"tag": self.tag, "final": 1}), self.outstanding)
        connect(m, flipped(self.i), bursts.i)
        connect(m, flipped(self.data), queue.i)

        aw, w, b = self.memory.aw, self.memory.w, self.memory.b
        burst, kept = bursts.o, Signal(range(2 * self.longest + 2))     # beats in the queue
        left, ready = Signal(range(self.longest + 1)), Signal()         # beats of this burst to come
        m.d.comb += [
            ready.eq((left == 0) & (burst.payload.beats <= kept) & waiting.i.ready),
            aw.valid.eq(burst.valid & ready),
            aw.payload.address.eq(burst.payload.address),
            aw.payload.len.eq(burst.payload.beats - 1),
            burst.ready.eq(aw.ready & ready),
            waiting.i.valid.eq(aw.valid & aw.ready),
            waiting.i.payload.tag.eq(burst.payload.tag), waiting.i.payload.final.eq(burst.payload.final),
            w.valid.eq(left != 0),
            w.payload.data.eq(queue.o.payload.data), w.payload.strobe.eq(queue.o.payload.strobe),
            w.payload.last.eq(left == 1),
            queue.o.ready.eq(w.valid & w.ready),
        ]
        m.d.sync += kept.eq(kept + (queue.i.valid & queue.i.ready) - queue.o.ready)
        with m.If(waiting.i.valid):
            m.d.sync += left.eq(burst.payload.beats)
        with m.Elif(queue.o.ready):
            m.d.sync += left.eq(left - 1)

        failed = Signal()
        m.d.comb += [
            b.ready.eq(1), waiting.o.ready.eq(b.valid),
            self.done.valid.eq(b.valid & waiting.o.payload.final),
            self.done.tag.eq(waiting.o.payload.tag),
            self.done.error.eq(failed | b.payload.error),
        ]
        with m.If(b.valid):
            m.d.sync += failed.eq(~waiting.o.payload.final & self.done.error)
        return m


class Port(Block):
    """An AXI4 port for a master in the foreground, 0, and one in the background, 1; these are their ids.

    While the foreground reads, the background gets one beat in `SHARE`. They write in turn, a burst each.
    Nothing is delayed by a cycle, and data do not wait until their address is taken.

    A memory that is owed an answer and gives none for `patience` cycles is given up: `dead` stays up until
    reset, and whatever is asked from then on, and whatever was, is answered at once by errors.

    Parameters
    ----------
    address_bits, beat : int
        Bits of a byte's address, bytes of a beat.
    depth : int
        Beats that a master may ask for before the first of them has come.
    patience : int

    Members
    -------
    read0, read1 : In(reading(address, beat))
    write0, write1 : In(writing(address, beat))
    axi : Out(Axi4(address_bits, beat, id_bits=1))
    dead : Out(1)
    """

    SHARE = 16

    def __init__(self, address_bits, beat, depth, patience):
        self.beat, self.depth, self.patience = beat, depth, patience
        address = address_bits - ceil_log2(beat)
        super().__init__({
            **{f"read{n}": In(reading(address, beat)) for n in range(2)},
            **{f"write{n}": In(writing(address, beat)) for n in range(2)},
            "axi": Out(Axi4(address_bits=address_bits, beat=beat, id_bits=1)),
            "dead": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        axi = self.axi
        for way in "ar", "aw":
            m.d.comb += [getattr(axi, f"{way}size").eq(ceil_log2(self.beat)), getattr(axi, f"{way}burst").eq(INCR)]
        self._read(m)
        self._write(m)
        watch(m, self, "read", axi.arvalid | Cat(self.reading).any(), axi.arvalid & axi.arready | axi.rvalid)
        watch(m, self, "write", axi.awvalid | axi.wvalid | Cat(self.writing).any(),
                    axi.awvalid & axi.awready | axi.wvalid & axi.wready | axi.bvalid)
        return m

    def _choose(self, m, way, requests, second):
        """Pass one of two requests on; `second` says which. It is taken at once, and waits here: so data need not wait
        until their address is taken, which they may not. The one that passes."""
        axi, dead = self.axi, self.dead
        valid, ready = (getattr(axi, f"{way}{name}") for name in ("valid", "ready"))
        shown = Signal(data.StructLayout({"request": requests[0].payload.shape(), "id": 1}), name=f"{way}_shown")
        kept, waits = Signal.like(shown, name=f"{way}_kept", reset_less=True), Signal(name=f"{way}_waits")
        payload, asked = (Mux(second, getattr(requests[1], name), getattr(requests[0], name))
                          for name in ("payload", "valid"))
        m.d.comb += [
            shown.eq(Mux(waits, kept, Cat(payload, second))), valid.eq(waits | asked & ~dead),
            getattr(axi, f"{way}id").eq(shown.id), getattr(axi, f"{way}len").eq(shown.request.len),
            getattr(axi, f"{way}addr").eq(Cat(Const(0, ceil_log2(self.beat)), shown.request.address)),
        ]
        m.d.sync += waits.eq(valid & ~ready), kept.eq(shown)
        passes = []
        for n, one in enumerate(requests):
            m.d.comb += one.ready.eq(dead | ~waits & (second == n))
            passes.append(one.valid & one.ready)
        return passes

    def _read(self, m):
        axi, first, second = self.axi, self.read0, self.read1
        self.reading = [Signal(range(self.depth + 2), name=f"reading{n}") for n in range(2)]    # beats under way
        debt = Signal(range(self.SHARE * self.depth + 1))       # cycles that the background has to wait
        passes = self._choose(m, "ar", (first.ar, second.ar), second.ar.valid & (debt == 0))
        with m.If(passes[1]):
            m.d.sync += debt.eq(self.SHARE * (second.ar.payload.len + 1))
        with m.Elif(~first.ar.valid & (self.reading[0] == 0)):
            m.d.sync += debt.eq(0)
        with m.Elif(debt != 0):
            m.d.sync += debt.eq(debt - 1)
        m.d.comb += axi.rready.eq(1)
        for n, (ar, r) in enumerate(((first.ar, first.r), (second.ar, second.r))):
            m.d.comb += [
                r.valid.eq(Mux(self.dead, self.reading[n] != 0, axi.rvalid & (axi.rid == n))),
                r.payload.data.eq(axi.rdata), r.payload.error.eq(self.dead | axi.rresp[1]),
            ]
            m.d.sync += self.reading[n].eq(self.reading[n] + Mux(passes[n], ar.payload.len + 1, 0) - r.valid)

    def _write(self, m):
        axi, first, second = self.axi, self.write0, self.write1
        self.writing = [Signal(range(OUTSTANDING + 2), name=f"writing{n}") for n in range(2)]   # bursts under way
        busy, owner, turn = Signal(), Signal(), Signal()
        aws = []
        for n, aw in enumerate((first.aw, second.aw)):       # none while another's data are to come
            free = stream.Signature(aw.payload.shape()).create(path=("aw", f"free{n}"))
            m.d.comb += [free.valid.eq(aw.valid & (~busy | self.dead)), free.payload.eq(aw.payload),
                         aw.ready.eq(free.ready & (~busy | self.dead))]
            aws.append(free)
        passes = self._choose(m, "aw", aws, second.aw.valid & (turn | ~first.aw.valid))
        w = Mux(owner, second.w.payload, first.w.payload)
        kept, given = Signal(1 + len(w), reset_less=True), Signal(1 + len(w))
        m.d.comb += given.eq(Mux(self.dead, kept, Cat(busy & Mux(owner, second.w.valid, first.w.valid), w)))
        m.d.sync += kept.eq(Cat(axi.wvalid & ~axi.wready, given[1:]))
        m.d.comb += [axi.wvalid.eq(given[0]), Cat(axi.wdata, axi.wstrb, axi.wlast).eq(given[1:]), axi.bready.eq(1)]
        with m.If(passes[0] | passes[1]):
            m.d.sync += busy.eq(1), owner.eq(passes[1]), turn.eq(passes[0])
        with m.Elif(axi.wvalid & axi.wready & axi.wlast):
            m.d.sync += busy.eq(0)
        for n, (w, b) in enumerate(((first.w, first.b), (second.w, second.b))):
            m.d.comb += [
                w.ready.eq(self.dead | busy & (owner == n) & axi.wready),
                b.valid.eq(Mux(self.dead, self.writing[n] != 0, axi.bvalid & (axi.bid == n))),
                b.payload.error.eq(self.dead | axi.bresp[1]),
            ]
            m.d.sync += self.writing[n].eq(self.writing[n] + passes[n] - b.valid)
