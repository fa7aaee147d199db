# SPDX-License-Identifier: Apache-2.0
"""The memory of programs."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.isa import BYTES
from hw.axi import reading
from hw.emit import Block
from hw.fetch import ADDRESS
from hw.ram import Ram

__all__ = ["Program"]

AHEAD = 64      # beats that are asked for and have not come


class Program(Block):
    """Reads an image and keeps it. Its words come out two cycles after they are asked for.

    Each beat has its place, so R never waits. Bursts are of an instruction, or of a beat if that is more.

    Parameters
    ----------
    instructions : int
        Room.
    beat : int
        Bytes.

    Members
    -------
    start : In(struct(valid, address, count))
        Read as many instructions from a byte address on, which must be `aligned`; not while `busy`.
    aligned : Out(1)
        `start.address` is where an image can begin.
    busy : Out(1)
    halt, clear : In(1)
        Ask for no more; and what is under way will not come.
    error, error_pc : Out
        A beat was in error, and in which instruction the first such is.
    moves : Out(1)
        A beat has come.
    read_en, pc, n : In
        Word `n` of instruction `pc`.
    word : Out(32)
    memory : Out(reading(ADDRESS - ceil_log2(beat), beat))
    """

    def __init__(self, instructions, beat):
        if beat not in (8, 16, 32, 64, 128):
            raise ValueError(f"Program: beat must be a power of two from 8 to 128 bytes, not {beat!r}")
        if instructions < 4 or instructions & (instructions - 1):
            raise ValueError(f"Program: instructions must be a power of two from 4 on, not {instructions!r}")
        self.instructions, self.beat = instructions, beat
        self.unit = max(beat, BYTES)
        super().__init__({
            "start": In(data.StructLayout({"valid": 1, "address": ADDRESS, "count": range(instructions + 1)})),
            "aligned": Out(1), "busy": Out(1), "halt": In(1), "clear": In(1),
            "error": Out(1), "error_pc": Out(range(instructions)), "moves": Out(1),
            "read_en": In(1), "pc": In(range(instructions)), "n": In(4), "word": Out(32),
            "memory": Out(reading(ADDRESS - ceil_log2(beat), beat)),
        })

    def elaborate(self, platform):
        m = Module()
        ar, r, start = self.memory.ar, self.memory.r, self.start
        per, packed = self.unit // self.beat, self.unit // BYTES    # beats of a burst, instructions of it
        rows = self.instructions * BYTES // self.beat
        m.submodules.ram = ram = Ram(8 * self.beat, rows)

        place = Signal(ADDRESS - ceil_log2(self.unit), reset_less=True)
        left = Signal(range(-(-self.instructions // packed) + 1))       # bursts to ask for
        owed, row = Signal(range(AHEAD + 1)), Signal(range(rows), reset_less=True)
        asks = Signal()
        m.d.comb += [
            self.aligned.eq(start.address[:ceil_log2(self.unit)] == 0),
            ar.valid.eq((left != 0) & (owed <= AHEAD - per)),
            ar.payload.address.eq(Cat(Const(0, ceil_log2(per)), place)), ar.payload.len.eq(per - 1),
            asks.eq(ar.valid & ar.ready),
            r.ready.eq(1), self.moves.eq(r.valid),
            self.busy.eq((left != 0) | (owed != 0)),
            ram.write_en.eq(r.valid), ram.write_address.eq(row), ram.write_data.eq(r.payload.data),
        ]
        m.d.sync += owed.eq(owed + Mux(asks, per, 0) - r.valid)
        with m.If(asks):
            m.d.sync += place.eq(place + 1), left.eq(left - 1)
        with m.If(r.valid):
            m.d.sync += row.eq(row + 1), self.error.eq(self.error | r.payload.error)
            with m.If(r.payload.error & ~self.error):
                m.d.sync += self.error_pc.eq(Cat(Const(0, ceil_log2(packed)), row) >> ceil_log2(per))
        with m.If(start.valid):
            m.d.sync += [place.eq(start.address >> ceil_log2(self.unit)), row.eq(0), self.error.eq(0),
                         left.eq((start.count + packed - 1) >> ceil_log2(packed))]
        with m.If(self.halt):
            m.d.sync += left.eq(ar.valid & ~ar.ready)
        with m.If(self.clear):
            m.d.sync += left.eq(0), owed.eq(0)

        at, words = Cat(self.n, self.pc), self.beat // 4
        lane = Signal(range(words))
        m.d.comb += ram.read_en.eq(self.read_en), ram.read_address.eq(at >> ceil_log2(words))
        m.d.sync += lane.eq(at[:ceil_log2(words)]), self.word.eq(ram.read_data.word_select(lane, 32))
        return m
