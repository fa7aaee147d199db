# SPDX-License-Identifier: Apache-2.0
"""The engine LOAD."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.transfer import Error
from hw.axi import Reads, reading
from hw.emit import Block
from hw.fetch import ADDRESS, request, response, write
from hw.instructions import completion, instruction
from hw.memory.rows import GATHER, Rows, check, row
from hw.stream import DeepQueue

__all__ = ["Load"]


class Load(Block):
    """Copies rows from memory to the scratchpad, or those of a table that indices in the scratchpad name.

    Rows are whole beats: what does not fill its last one is filled with the bytes that follow in memory. They follow
    each other without a gap, and an instruction's reads come right after those of the one before. One is done when
    all of it is in the scratchpad.

    Parameters
    ----------
    beat : int
        Bytes of a beat of memory, which addresses, pitches and steps are multiples of.
    size : int
        Bytes of the scratchpad.
    longest : int
        Beats of a burst.
    depth : int
        Beats under way or waiting: a burst and the memory's latency for one a cycle.

    Members
    -------
    i : In(stream.Signature(instruction(len(GATHER))))
    done : Out(stream.Signature(completion(Error)))
    index_request : Out(stream.Signature(request(1, 1))), index : In(stream.Signature(response(32)))
    memory : Out(reading(ADDRESS - ceil_log2(beat), beat))
    write : Out(stream.Signature(write(beat)))
    """

    def __init__(self, beat, size, longest, depth):
        check("Load", beat, size, longest)
        if not longest <= depth <= 4096:
            raise ValueError(f"Load: depth must be {longest} to 4096 beats, not {depth!r}")
        self.beat, self.most, self.longest, self.depth = beat, size // beat, longest, depth
        super().__init__({
            "i": In(stream.Signature(instruction(len(GATHER)))), "done": Out(stream.Signature(completion(Error))),
            "index_request": Out(stream.Signature(request(1, 1))), "index": In(stream.Signature(response(32))),
            "memory": Out(reading(ADDRESS - ceil_log2(beat), beat)),
            "write": Out(stream.Signature(write(beat))),
        })

    def elaborate(self, platform):
        m = Module()
        shift = ceil_log2(self.beat)
        m.submodules.rows = rows = Rows(self.beat, self.most, gathers=True)
        m.submodules.reads = reads = Reads(ADDRESS - shift, self.beat, self.most, self.longest, self.depth)
        m.submodules.places = places = DeepQueue(row(self.beat, self.most), self.depth)     # of rows on their way
        connect(m, flipped(self.i), rows.i)
        connect(m, rows.index_request, flipped(self.index_request))
        connect(m, flipped(self.index), rows.index)
        connect(m, reads.memory, flipped(self.memory))

        # A row is asked for when its place is noted.
        asked, empty = rows.o.payload, Signal()
        m.d.comb += [
            empty.eq(asked.error != Error.NONE),
            reads.i.valid.eq(rows.o.valid & places.i.ready & ~empty),
            reads.i.payload.address.eq(asked.source), reads.i.payload.beats.eq(asked.beats),
            places.i.valid.eq(rows.o.valid & (reads.i.ready | empty)), places.i.payload.eq(asked),
            rows.o.ready.eq(places.i.ready & (reads.i.ready | empty)),
        ]

        # Its beats go there.
        to, left, ends, error = Signal(ADDRESS - shift), Signal(range(self.most + 1)), Signal(), Signal(Error)
        moves, free = Signal(), Signal()
        m.d.comb += [
            self.write.valid.eq(reads.o.valid & (left != 0)), reads.o.ready.eq(self.write.ready & (left != 0)),
            self.write.payload.address.eq(to << shift),
            self.write.payload.data.eq(reads.o.payload.data), self.write.payload.count.eq(self.beat),
            moves.eq(self.write.valid & self.write.ready),
            self.done.valid.eq((left == 0) & ends), self.done.payload.error.eq(error),
            free.eq(((left == 0) | (left == 1) & moves) & ~ends | self.done.valid & self.done.ready),
            places.o.ready.eq(free),
        ]
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += ends.eq(0), error.eq(Error.NONE)
        with m.If(self.done.valid | (error == Error.NONE)):         # the first stays
            with m.If(moves & reads.o.payload.error):
                m.d.sync += error.eq(Error.BUS)
            with m.Elif(free & places.o.valid):
                m.d.sync += error.eq(places.o.payload.error)
        with m.If(moves):
            m.d.sync += to.eq(to + 1), left.eq(left - 1)
        with m.If(free & places.o.valid):
            m.d.sync += to.eq(places.o.payload.target), left.eq(places.o.payload.beats), ends.eq(places.o.payload.ends)
        return m
