# SPDX-License-Identifier: Apache-2.0
"""Contract of a board's memory: AXI4's rules for who answers, and bytes that are read as they were written last."""

from amaranth.hdl import Cat, Mux, Signal
from amaranth.utils import ceil_log2

from hw.board.memory import DECERR, Memory
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["QUICK", "MemoryRules"]

BEATS = 3       # of a burst at most, here
PAYLOADS = {"ar": ("id", "addr", "len"), "aw": ("id", "addr", "len"), "w": ("data", "strb", "last"),
            "r": ("id", "data", "resp", "last"), "b": ("id", "resp")}


class MemoryRules(Contract):
    """Each burst gets its beats, or its response, in order; any one byte is read as it was written last."""

    def rules(self, m, block):
        axi, bits = block.axi, ceil_log2(block.beat)
        address = self.some(range(block.size), "address")
        self.word, self.lane = address[bits:], address[:bits]
        value, known, changes, fresh = Signal(8), Signal(), Signal(), Signal(8)     # the byte there
        with m.If(changes):
            m.d.sync += value.eq(fresh), known.eq(1)

        for way, names in PAYLOADS.items():
            rule = self.promise if way in "rb" else self.require
            rule(f"{way} holds", self._holds(m, way, [getattr(axi, way + name) for name in names]))
        for way in "ar", "aw":
            self.require(f"bursts are short on {way}", getattr(axi, f"{way}len") < BEATS)
        self.require("a host stays within the memory", (block.read.payload < block.size) & (
            ~block.write.valid | (block.write.payload.address < block.size)))
        self.require("the byte is in the memory", address < block.size)
        self.promise("who goes beyond the memory is told of", block.beyond == Cat(
            self._moves(way) & self._beyond(way) for way in ("ar", "aw")).any())

        self._write(m, changes, fresh)
        self._read(m, value, known, changes)
        self._host(m, address, value, known)

    def _holds(self, m, way, payload):
        valid, ready = (getattr(self.block.axi, way + name) for name in ("valid", "ready"))
        waits, kept = Signal(), Signal(sum(map(len, payload)))
        m.d.sync += waits.eq(valid & ~ready), kept.eq(Cat(payload))
        return ~waits | valid & (kept == Cat(payload))

    def _moves(self, way):
        return getattr(self.block.axi, f"{way}valid") & getattr(self.block.axi, f"{way}ready")

    def _word(self, way):
        return getattr(self.block.axi, f"{way}addr")[ceil_log2(self.block.beat):]

    def _beyond(self, way):
        return self._word(way) + getattr(self.block.axi, f"{way}len") >= self.block.depth

    def _write(self, m, changes, fresh):
        """A burst at a time, then its response."""
        axi, host = self.block.axi, self.block.write
        left, at, id, beyond = Signal(range(BEATS + 1)), Signal(len(self.word)), Signal.like(axi.awid), Signal()
        waits, told, failed = Signal(), Signal.like(id), Signal()       # a response
        with m.If(self._moves("aw")):
            m.d.sync += left.eq(axi.awlen + 1), at.eq(self._word("aw")), id.eq(axi.awid), beyond.eq(self._beyond("aw"))
        with m.Elif(self._moves("w")):
            m.d.sync += left.eq(left - 1), at.eq(at + 1)
        with m.If(self._moves("w") & (left == 1)):
            m.d.sync += waits.eq(1), told.eq(id), failed.eq(beyond)
        with m.Elif(axi.bready):
            m.d.sync += waits.eq(0)
        mine, own = Signal(), Signal()
        m.d.comb += [
            mine.eq(self._moves("w") & ~beyond & (at == self.word) & axi.wstrb.bit_select(self.lane, 1)),
            own.eq(host.valid & (host.payload.address == Cat(self.lane, self.word))),
            changes.eq(mine | own), fresh.eq(Mux(own, host.payload.data, axi.wdata.word_select(self.lane, 8))),
        ]
        self.promise("a burst begins when the one before it has its data",
                     ~axi.awready | (left == 0) | self._moves("w") & (left == 1))
        self.promise("data are of a burst", ~axi.wready | (left != 0))
        self.promise("a burst is answered in the cycle after its last beat", axi.bvalid == waits)
        self.promise("with its id, and whether it was beyond", ~waits | (
            (axi.bid == told) & (axi.bresp == Mux(failed, DECERR, 0))))
        self.promise("data wait for a host or a response alone",
                     (left == 0) | axi.wready | host.valid | (left == 1) & waits & ~axi.bready)
        self.reach("a burst is written", waits & ~failed & (told == 1))

    def _read(self, m, value, known, changes):
        """Any one burst is followed."""
        axi = self.block.axi
        asks, gets, beats = self._moves("ar"), self._moves("r"), Signal(range(BEATS + 1))
        owed, ahead, follow, followed = Signal(5), Signal(5), self.any(1, "follow"), Signal()
        left, at, id, beyond = Signal.like(beats), Signal(len(self.word)), Signal.like(axi.arid), Signal()
        settled, turn = Signal(), Signal()
        m.d.comb += beats.eq(axi.arlen + 1), turn.eq(followed & (ahead == 0))
        m.d.sync += owed.eq(owed + Mux(asks, beats, 0) - gets)
        with m.If(asks & follow & ~followed):
            m.d.sync += [followed.eq(1), ahead.eq(owed - gets), left.eq(beats), at.eq(self._word("ar")),
                         id.eq(axi.arid), beyond.eq(self._beyond("ar")), settled.eq(1)]
        with m.Elif(followed):
            m.d.sync += settled.eq(settled & ~changes), ahead.eq(ahead - (gets & ~turn))
            with m.If(gets & turn):
                m.d.sync += left.eq(left - 1), at.eq(at + 1), followed.eq(left != 1)
        quiet = Signal(3)
        m.d.sync += quiet.eq(Mux((owed == 0) | axi.rvalid | self.moves(self.block.read), 0, quiet + (quiet != 7)))
        self.promise("no beat that was not asked for", ~axi.rvalid | (owed != 0))
        self.promise("what is owed comes", quiet <= 2)
        self.promise("beats have their burst's id, and whether it is beyond", ~(turn & axi.rvalid) | (
            (axi.rid == id) & (axi.rresp == Mux(beyond, DECERR, 0))))
        self.promise("the last of them says so", ~(turn & axi.rvalid) | (axi.rlast == (left == 1)))
        self.promise("a byte that is settled is as it was written last",
                     ~(turn & axi.rvalid & ~beyond & settled & known & (at == self.word))
                     | (axi.rdata.word_select(self.lane, 8) == value))
        self.reach("the last beat of several, with the byte",
                   turn & gets & known & settled & (left == 1) & (at == self.word) & (id == 1) & self.after(left == 3))

    def _host(self, m, address, value, known):
        read, found = self.block.read, self.block.found
        asked, mine, byte = Signal(), Signal(), Signal(8)
        with m.If(self.moves(read)):
            m.d.sync += asked.eq(1), mine.eq(known & (read.payload == address)), byte.eq(value)
        with m.Elif(self.moves(found)):
            m.d.sync += asked.eq(0)
        self.promise("found holds", self.steady(found))
        self.promise("a host gets a byte for each that it asks for", (~found.valid | asked) & (~read.ready | ~asked))
        self.promise("the one there", ~(found.valid & mine) | (found.payload == byte))
        self.reach("a byte for the host", found.valid & mine & (byte == 0x5A))


QUICK = [Task(Memory(12, 2, 5, 1), MemoryRules)]
