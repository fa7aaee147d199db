# SPDX-License-Identifier: Apache-2.0
"""Block memory behind an AXI4 port, and for a host."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.axi import Axi4
from hw.emit import Block
from hw.fetch import ADDRESS
from hw.ram import Ram

__all__ = ["DECERR", "Memory"]

DECERR = 3


class Memory(Block):
    """Answers what a tile's channel asks for, in order: bursts of type INCR whose beats are all full.

    A beat is read and one written in a cycle; a burst's first is there two cycles after it is asked for, and bursts
    follow each other without a pause. Responses come in the cycle after the last beat, which can be read from then on.
    Bursts that go beyond the memory are answered by DECERR, and change nothing.

    A host reads and writes a byte at a time, before all others. It stays within the memory.

    Parameters
    ----------
    size, beat : int
        Bytes of the memory, and of a beat.
    address_bits, id_bits : int

    Members
    -------
    axi : In(Axi4(address_bits, beat, id_bits))
    write : In(stream.Signature(struct(address, data), always_ready=True))
    read : In(stream.Signature(ADDRESS)), found : Out(stream.Signature(8))
    beyond : Out(1)
        A burst goes beyond the memory, in the cycle in which it is asked for.
    """

    def __init__(self, size, beat, address_bits, id_bits):
        if beat < 2 or beat & beat - 1:
            raise ValueError(f"Memory: beat must be a power of two from 2 on, not {beat!r}")
        if size % beat or size < 2 * beat:
            raise ValueError(f"Memory: size must be two beats of {beat} bytes or more, not {size!r}")
        self.size, self.beat, self.depth = size, beat, size // beat
        self.burst = data.StructLayout({"id": id_bits, "word": range(self.depth), "left": range(257), "beyond": 1})
        super().__init__({
            "axi": In(Axi4(address_bits=address_bits, beat=beat, id_bits=id_bits)),
            "write": In(stream.Signature(data.StructLayout({"address": ADDRESS, "data": 8}), always_ready=True)),
            "read": In(stream.Signature(ADDRESS)), "found": Out(stream.Signature(8)), "beyond": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Ram(8 * self.beat, self.depth, 8)
        m.d.comb += self.beyond.eq(self._read(m, words) | self._write(m, words))
        return m

    def _place(self, address):
        """Of a byte: its word, and where in it."""
        bits = ceil_log2(self.beat)
        return address[bits:], address[:bits]

    def _bursts(self, m, way, moves):
        """The burst in hand; whether its last beat is on; whether one that is taken goes beyond the memory."""
        valid, ready, id, address, length = (
            getattr(self.axi, way + name) for name in ("valid", "ready", "id", "addr", "len"))
        burst, last, beyond = Signal(self.burst, name=f"{way}_burst"), Signal(), Signal()
        word, _ = self._place(address)
        m.d.comb += [
            last.eq(burst.left == 1), ready.eq((burst.left == 0) | moves & last),
            beyond.eq(word + length >= self.depth),
        ]
        with m.If(valid & ready):
            m.d.sync += burst.id.eq(id), burst.word.eq(word), burst.left.eq(length + 1), burst.beyond.eq(beyond)
        with m.Elif(moves):
            m.d.sync += burst.word.eq(burst.word + 1), burst.left.eq(burst.left - 1)
        return burst, last, valid & ready & beyond

    def _read(self, m, words):
        axi, room, moves, asks = self.axi, Signal(), Signal(), Signal()
        burst, last, beyond = self._bursts(m, "ar", moves)
        host, own = self._place(self.read.payload)
        found = Signal(data.StructLayout({"valid": 1, "host": 1, "id": len(burst.id), "last": 1, "beyond": 1}))
        place = Signal.like(own, reset_less=True)
        m.d.comb += [
            room.eq(~axi.rvalid | axi.rready),
            self.read.ready.eq(room & ~found.host & ~self.found.valid), asks.eq(self.read.valid & self.read.ready),
            moves.eq((burst.left != 0) & room & ~asks),
            words.read_en.eq(moves | asks), words.read_address.eq(Mux(asks, host, burst.word)),
        ]
        with m.If(room):
            m.d.sync += [
                found.valid.eq(moves), found.host.eq(asks), found.id.eq(burst.id), found.last.eq(last),
                found.beyond.eq(burst.beyond), place.eq(own),
                axi.rvalid.eq(found.valid), axi.rid.eq(found.id), axi.rlast.eq(found.last),
                axi.rresp.eq(Mux(found.beyond, DECERR, 0)), axi.rdata.eq(words.read_data),
            ]
        with m.If(room & found.host):
            m.d.sync += self.found.valid.eq(1), self.found.payload.eq(words.read_data.word_select(place, 8))
        with m.Elif(self.found.ready):
            m.d.sync += self.found.valid.eq(0)
        return beyond

    def _write(self, m, words):
        axi, moves, free = self.axi, Signal(), Signal()
        burst, last, beyond = self._bursts(m, "aw", moves)
        host, own = self._place(self.write.payload.address)
        m.d.comb += [
            free.eq(~axi.bvalid | axi.bready),
            axi.wready.eq((burst.left != 0) & ~self.write.valid & (free | ~last)), moves.eq(axi.wvalid & axi.wready),
        ]
        with m.If(self.write.valid):
            m.d.comb += [
                words.write_en.eq(Const(1) << own), words.write_address.eq(host),
                words.write_data.eq(self.write.payload.data.replicate(self.beat)),
            ]
        with m.Else():
            m.d.comb += [
                words.write_en.eq(Mux(moves & ~burst.beyond, axi.wstrb, 0)), words.write_address.eq(burst.word),
                words.write_data.eq(axi.wdata),
            ]
        with m.If(free):
            m.d.sync += [
                axi.bvalid.eq(moves & last), axi.bid.eq(burst.id), axi.bresp.eq(Mux(burst.beyond, DECERR, 0)),
            ]
        return beyond
