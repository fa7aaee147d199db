# SPDX-License-Identifier: Apache-2.0
"""The tile's way to memory: one AXI4 port for all that read and write."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hw.axi import INCR, PAGE, Axi4, reading, watch, writing
from hw.emit import Block
from hw.fetch import ADDRESS
from hw.stream import Buffer

__all__ = ["IDS", "READS", "WRITES", "Channel", "Turns"]

READS = ("instructions", "kv", "load", "weights")
WRITES = ("kv", "store")
IDS = {"kv": 0, "instructions": 2, "load": 3, "weights": 4, "store": 2}
"""By master; the KV cache has one more."""
ID = 3          # bits of an id


class Turns(Block):
    """Merges streams: the first goes first, but one that `share` items of others have passed is next.

    Latency 1, an item a cycle.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.
    count, share : int
        Nobody waits for ever if `share` is `count` - 1 or more.

    Members
    -------
    i0 ... : In(stream.Signature(shape))
    may : In(count)
        Those that may go in this cycle.
    late : Out(count)
        Those that are next.
    skip : In(1)
        What goes is dropped.
    o : Out(stream.Signature(shape))
    """

    def __init__(self, shape, count, share):
        if count < 2:
            raise ValueError(f"Turns: count must be at least 2, not {count!r}")
        if share < count - 1:
            raise ValueError(f"Turns: share must be at least {count - 1}, not {share!r}")
        self.shape, self.count, self.share = shape, count, share
        super().__init__({
            **{f"i{n}": In(stream.Signature(shape)) for n in range(count)},
            "may": In(count), "late": Out(count), "skip": In(1),
            "o": Out(stream.Signature(shape)),
        })

    @property
    def inputs(self):
        return [getattr(self, f"i{n}") for n in range(self.count)]

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = Buffer(self.shape)
        connect(m, buffer.o, flipped(self.o))
        valid, able, chosen, goes = (Signal(self.count, name=name) for name in ("valid", "able", "chosen", "goes"))
        m.d.comb += [
            valid.eq(Cat(each.valid for each in self.inputs)),
            able.eq(Mux((valid & self.may & self.late).any(), valid & self.may & self.late, valid & self.may)),
            chosen.eq(able & -able),        # the first of them
            goes.eq(Mux(buffer.i.ready | self.skip, chosen, 0)),
            buffer.i.valid.eq(chosen.any() & ~self.skip),
        ]
        for n, each in enumerate(self.inputs):
            passed = Signal(range(self.share + 1), name=f"passed{n}")
            m.d.comb += self.late[n].eq(passed == self.share), each.ready.eq(goes[n])
            m.d.sync += passed.eq(Mux(valid[n] & ~goes[n], passed + (goes.any() & ~self.late[n]), 0))
            with m.If(chosen[n]):
                m.d.comb += buffer.i.payload.eq(each.payload)
        return m


class Channel(Block):
    """An AXI4 port that a tile's masters share. A burst a cycle, a cycle after it is asked for.

    Reads go in the order of `READS`, but who has waited for `SHARE` bursts of others is next. Weights, which can wait,
    are asked for only while fewer than `AHEAD` beats are owed to all together: these keep the memory busy, and more
    would be in the way of others. Writes take turns, a burst each. R and B are passed on in the cycle in which they
    come, and must be taken.

    A memory that is owed an answer and gives none for `patience` cycles is given up: `dead` stays up until reset, and
    whatever is asked from then on, and whatever was, is answered at once by errors. The KV cache is not answered, as
    its own port sees to that.

    Parameters
    ----------
    address_bits, beat : int
        Bits of a byte's address, bytes of a beat. All but the KV cache address the lowest 4 GiB.
    burst : int
        Beats of a burst of weights at most.
    patience : int

    Members
    -------
    instructions, load, weights : In(reading(ADDRESS - log2(beat), beat))
    store : In(writing(ADDRESS - log2(beat), beat))
    kv : In(Axi4(address_bits, beat, id_bits=1))
    axi : Out(Axi4(address_bits, beat, id_bits=3))
    flush : In(1)
        All masters are being reset. What is owed to them is dropped as it comes, and what they owe is written without
        strobes; until that is done they are not heard.
    idle : Out(1)
        Nothing is owed.
    dead : Out(1)
    beats : Out(struct)
        Whose beat moves in this cycle: of those who read, and of those who write.
    """

    SHARE = 8
    AHEAD = 64
    MOST = 512      # beats that are owed to a master that may ask for more; but for the burst of the cycle before
    BURSTS = 32     # bursts whose responses are owed to a master, at most
    LONGEST = 256   # beats of a burst

    def __init__(self, address_bits, beat, burst, patience):
        if beat < 1 or beat > PAGE or beat & (beat - 1):
            raise ValueError(f"Channel: beat must be a power of two of bytes, up to {PAGE}, not {beat!r}")
        if not ADDRESS <= address_bits <= 64:
            raise ValueError(f"Channel: address_bits must be {ADDRESS} to 64, not {address_bits!r}")
        self.longest = min(self.LONGEST, PAGE // beat)
        if not 1 <= burst <= self.longest:
            raise ValueError(f"Channel: burst must be 1 to {self.longest} beats, not {burst!r}")
        if patience < 1:
            raise ValueError(f"Channel: patience must be at least 1 cycle, not {patience!r}")
        self.beat, self.patience, self.ahead = beat, patience, max(self.AHEAD, 2 * burst)
        address = ADDRESS - ceil_log2(beat)
        super().__init__({
            **{name: In(reading(address, beat)) for name in READS if name != "kv"},
            "store": In(writing(address, beat)),
            "kv": In(Axi4(address_bits=address_bits, beat=beat, id_bits=1)),
            "axi": Out(Axi4(address_bits=address_bits, beat=beat, id_bits=ID)),
            "flush": In(1), "idle": Out(1), "dead": Out(1),
            "beats": Out(data.StructLayout({"read": data.StructLayout(dict.fromkeys(READS, 1)),
                                            "written": data.StructLayout(dict.fromkeys(WRITES, 1))})),
        })

    def elaborate(self, platform):
        m = Module()
        axi = self.axi
        self.heard, flushing = Signal(), Signal()       # masters are
        self.left = Signal(range(self.longest + 1))     # beats to come of the burst that is being written
        m.d.comb += self.heard.eq(~(self.flush | flushing))
        m.d.sync += flushing.eq(~(self.heard | self.idle))
        reads, writes = self._read(m), self._write(m)
        m.d.comb += self.idle.eq(~(reads | writes))
        watch(m, self, "read", reads, axi.arvalid & axi.arready | axi.rvalid)
        watch(m, self, "write", axi.awvalid | axi.wvalid | writes & (self.left == 0),
                    axi.awvalid & axi.awready | axi.wvalid & axi.wready | axi.bvalid)
        return m

    def _turns(self, m, way, masters, share):
        """What decides whose burst is next; and of each master whether its burst goes, and how many beats it has."""
        axi = self.axi
        fields = [getattr(axi, way + name) for name in ("id", "addr", "len")]
        m.submodules[way] = turns = Turns(
            data.StructLayout(dict(zip(("id", "address", "len"), map(len, fields), strict=True))), len(masters), share)
        m.d.comb += [
            turns.skip.eq(self.dead), Cat(fields).eq(turns.o.payload),
            getattr(axi, f"{way}valid").eq(turns.o.valid), turns.o.ready.eq(getattr(axi, f"{way}ready")),
            getattr(axi, f"{way}size").eq(ceil_log2(self.beat)), getattr(axi, f"{way}burst").eq(INCR),
        ]
        asked = []
        for name, i in zip(masters, turns.inputs, strict=True):
            if name == "kv":
                valid, ready, *burst = (
                    getattr(self.kv, way + field) for field in ("valid", "ready", "id", "addr", "len"))
            else:
                port = getattr(getattr(self, name), way)
                valid, ready = port.valid, port.ready
                burst = IDS[name], Cat(Const(0, ceil_log2(self.beat)), port.payload.address), port.payload.len
            goes, beats = Signal(name=f"{name}_{way}_goes"), Signal(range(self.longest + 1), name=f"{name}_{way}_beats")
            m.d.comb += [
                i.valid.eq(valid & self.heard), ready.eq(i.ready & self.heard),
                *(i.payload[field].eq(value) for field, value in zip(("id", "address", "len"), burst, strict=True)),
                goes.eq(i.valid & i.ready), beats.eq(burst[-1] + 1),
            ]
            asked.append((goes, beats))
        return turns, asked

    def _read(self, m):
        """Whether beats are owed."""
        axi, kv = self.axi, self.kv
        turns, asked = self._turns(m, "ar", READS, self.SHARE)
        owed = [Signal(range(self.MOST + 2 * self.longest), name=f"{name}_beats") for name in READS]
        more = [Signal(range(self.longest + 1), name=f"{name}_more") for name in READS]     # those of the cycle before
        few = Signal()
        m.d.comb += few.eq(sum(owed) < self.ahead), axi.rready.eq(1)
        for n, name in enumerate(READS):
            may = (few | turns.late[n]) if name == "weights" else 1
            came = self._came(m, name, "r", owed[n] != 0)
            m.d.comb += turns.may[n].eq((owed[n] < self.MOST) & may), self.beats.read[name].eq(came & ~self.dead)
            m.d.sync += more[n].eq(Mux(asked[n][0], asked[n][1], 0)), owed[n].eq(owed[n] + more[n] - came)
            if name == "kv":
                m.d.comb += [kv.rvalid.eq(came & self.heard & ~self.dead), kv.rid.eq(axi.rid), kv.rdata.eq(axi.rdata),
                             kv.rresp.eq(axi.rresp), kv.rlast.eq(axi.rlast)]
            else:
                r = getattr(self, name).r
                m.d.comb += [r.valid.eq(came & self.heard), r.payload.data.eq(axi.rdata),
                             r.payload.error.eq(self.dead | axi.rresp[1])]
        return Cat(owed, more).any()

    def _write(self, m):
        """Whether responses are owed, or data."""
        axi, kv, store, left = self.axi, self.kv, self.store, self.left
        turns, asked = self._turns(m, "aw", WRITES, 1)
        owed = [Signal(range(self.BURSTS + 1), name=f"{name}_bursts") for name in WRITES]
        m.submodules.w = buffer = Buffer(store.w.payload.shape())
        owner = Signal(range(len(WRITES)))
        sends, moves, free = Signal(), Signal(), Signal()
        m.d.comb += [
            sends.eq((left != 0) & (~self.heard | Mux(owner == 0, kv.wvalid | self.dead, store.w.valid))),
            moves.eq(sends & (buffer.i.ready | self.dead)),
            free.eq((left == 0) | moves & (left == 1)),
            buffer.i.valid.eq(sends & ~self.dead),
            buffer.i.payload.data.eq(Mux(owner == 0, kv.wdata, store.w.payload.data)),
            buffer.i.payload.strobe.eq(
                Mux(self.heard, Mux(owner == 0, kv.wstrb, store.w.payload.strobe), 0)),
            buffer.i.payload.last.eq(left == 1),
            Cat(axi.wdata, axi.wstrb, axi.wlast).eq(buffer.o.payload),
            axi.wvalid.eq(buffer.o.valid), buffer.o.ready.eq(axi.wready), axi.bready.eq(1),
        ]
        with m.If(moves):
            m.d.sync += left.eq(left - 1)
        for n, name in enumerate(WRITES):
            mine = (left != 0) & (owner == n)
            came = self._came(m, name, "b", (owed[n] != 0) & ~(self.dead & mine))
            m.d.comb += [
                turns.may[n].eq(free & (owed[n] < self.BURSTS)),
                self.beats.written[name].eq(moves & mine & ~self.dead),
            ]
            goes, beats = asked[n]
            m.d.sync += owed[n].eq(owed[n] + goes - came)
            with m.If(goes):
                m.d.sync += left.eq(beats), owner.eq(n)
            if name == "kv":
                m.d.comb += [kv.wready.eq((moves & mine | self.dead) & self.heard), kv.bid.eq(axi.bid),
                             kv.bvalid.eq(came & self.heard & ~self.dead), kv.bresp.eq(axi.bresp)]
            else:
                m.d.comb += store.w.ready.eq(moves & mine & self.heard)
                m.d.comb += store.b.valid.eq(came & self.heard), store.b.payload.error.eq(self.dead | axi.bresp[1])
        return Cat(owed, left).any()

    def _came(self, m, name, way, owed):
        """Whether one of the answers owed to a master comes in this cycle."""
        id, came = getattr(self.axi, f"{way}id"), Signal(name=f"{name}_{way}_came")
        own = (id >> 1 == 0) if name == "kv" else (id == IDS[name])
        m.d.comb += came.eq(owed & (self.dead | getattr(self.axi, f"{way}valid") & own))
        return came
