# SPDX-License-Identifier: Apache-2.0
"""The engine STORE."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.transfer import Error
from hw.axi import Writes, writing
from hw.emit import Block
from hw.fetch import ADDRESS, request, response
from hw.instructions import completion, instruction
from hw.memory.rows import COPY, Rows, check
from hw.stream import Queue

__all__ = ["Store"]

ROWS = 8            # asked for before the first of their beats has come: as many as that takes cycles, and some
INSTRUCTIONS = 4    # under way


class Store(Block):
    """Copies rows from the scratchpad to memory, to the byte.

    They follow each other without a gap, and so do instructions. One is done when memory has answered all its writes.

    Parameters
    ----------
    beat : int
        Bytes of a beat of memory, which addresses and pitches are multiples of.
    size : int
        Bytes of the scratchpad.
    longest : int
        Beats of a burst.

    Members
    -------
    i : In(stream.Signature(instruction(len(COPY))))
    done : Out(stream.Signature(completion(Error)))
    request : Out(stream.Signature(request(size // beat, 1))), response : In(stream.Signature(response(8 * beat)))
    memory : Out(writing(ADDRESS - ceil_log2(beat), beat))
    """

    def __init__(self, beat, size, longest):
        check("Store", beat, size, longest)
        self.beat, self.most, self.longest = beat, size // beat, longest
        super().__init__({
            "i": In(stream.Signature(instruction(len(COPY)))), "done": Out(stream.Signature(completion(Error))),
            "request": Out(stream.Signature(request(self.most, 1))),
            "response": In(stream.Signature(response(8 * beat))),
            "memory": Out(writing(ADDRESS - ceil_log2(beat), beat)),
        })

    def elaborate(self, platform):
        m = Module()
        shift = ceil_log2(self.beat)
        m.submodules.rows = rows = Rows(self.beat, self.most, gathers=False)
        m.submodules.writes = writes = Writes(ADDRESS - shift, self.beat, self.most, self.longest, 0)
        m.submodules.runs = runs = Queue(writes.i.payload.shape(), 2)
        m.submodules.tails = tails = Queue(shift, ROWS)
        m.submodules.owed = owed = Queue(data.StructLayout({"error": Error}), INSTRUCTIONS)
        m.submodules.answered = answered = Queue(data.StructLayout({"error": 1}), INSTRUCTIONS)
        connect(m, flipped(self.i), rows.i)
        connect(m, runs.o, writes.i)
        connect(m, writes.memory, flipped(self.memory))

        # A row is read when there is room to note where it goes.
        asked, empty, room = rows.o.payload, Signal(), Signal()
        m.d.comb += [
            empty.eq(asked.error != Error.NONE), room.eq(runs.i.ready & tails.i.ready & owed.i.ready),
            self.request.valid.eq(rows.o.valid & room & ~empty),
            self.request.payload.address.eq(asked.source << shift),
            self.request.payload.beats.eq(asked.beats), self.request.payload.rows.eq(1),
            rows.o.ready.eq(room & (self.request.ready | empty)),
            runs.i.valid.eq(self.request.valid & self.request.ready), tails.i.valid.eq(runs.i.valid),
            runs.i.payload.address.eq(asked.target), runs.i.payload.beats.eq(asked.beats),
            runs.i.payload.final.eq(asked.ends),
            tails.i.payload.eq(asked.tail),
            owed.i.valid.eq(rows.o.valid & rows.o.ready & asked.ends), owed.i.payload.error.eq(asked.error),
        ]

        # Its last beat is cut.
        source, to = self.response, writes.data
        strobe = Cat(1, *(tails.o.payload >= n for n in range(1, self.beat)))
        m.d.comb += [
            to.valid.eq(source.valid & tails.o.valid), source.ready.eq(to.ready & tails.o.valid),
            to.payload.data.eq(source.payload.data), to.payload.strobe.eq(Mux(source.payload.last, strobe, -1)),
            tails.o.ready.eq(to.valid & to.ready & source.payload.last),
        ]

        # Of instructions that were not refused, memory has the last word.
        refused, settles = owed.o.payload.error != Error.NONE, Signal()
        m.d.comb += [
            answered.i.valid.eq(writes.done.valid), answered.i.payload.error.eq(writes.done.error),
            settles.eq(owed.o.valid & (refused | answered.o.valid) & (~self.done.valid | self.done.ready)),
            owed.o.ready.eq(settles), answered.o.ready.eq(settles & ~refused),
        ]
        with m.If(self.done.ready):
            m.d.sync += self.done.valid.eq(0)
        with m.If(settles):
            m.d.sync += self.done.valid.eq(1), self.done.payload.error.eq(owed.o.payload.error)
            with m.If(~refused & answered.o.payload.error):
                m.d.sync += self.done.payload.error.eq(Error.BUS)
        return m
