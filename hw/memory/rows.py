# SPDX-License-Identifier: Apache-2.0
"""Instructions that move rows, a row at a time."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.isa import FORMS, Engine, Load
from golden.transfer import Error
from hw.axi import PAGE
from hw.emit import Block
from hw.fetch import ADDRESS, request, response
from hw.instructions import instruction

__all__ = ["COPY", "GATHER", "Rows", "check", "row"]

COPY, GATHER = (FORMS[Engine.LOAD][opcode] for opcode in (Load.COPY, Load.GATHER))
INDEX = 4       # bytes


def row(beat, most):
    """A row of up to `most` beats, whose last has `tail` + 1 bytes; `ends` of its instruction.

    Addresses count beats. A row with an `error` has no beats.
    """
    address = ADDRESS - ceil_log2(beat)
    return data.StructLayout({"source": address, "target": address, "beats": range(most + 1),
                              "tail": ceil_log2(beat), "error": Error, "ends": 1})


class Rows(Block):
    """Checks instructions and names their rows, one a cycle; of one that is refused, a single row that says why.
    An index whose rows would begin beyond all addresses ends its instruction with such a row.

    While the rows of an index are on their way, the address for the next one is found, a bit of the index a cycle.
    An instruction is taken when all its rows have left.

    Parameters
    ----------
    beat : int
        Bytes.
    most : int
        Beats of a row.
    gathers : bool
        There are instructions with indices.

    Members
    -------
    i : In(stream.Signature(instruction(len(GATHER if gathers else COPY))))
    o : Out(stream.Signature(row(beat, most)))
    index_request : Out(stream.Signature(request(1, 1))), index : In(stream.Signature(response(32)))
        If it gathers.
    """

    def __init__(self, beat, most, gathers):
        self.beat, self.most, self.gathers, self.form = beat, most, gathers, GATHER if gathers else COPY
        reader = {"index_request": Out(stream.Signature(request(1, 1))),
                  "index": In(stream.Signature(response(8 * INDEX)))}
        super().__init__({
            "i": In(stream.Signature(instruction(len(self.form)))),
            "o": Out(stream.Signature(row(beat, most))),
            **(reader if gathers else {}),
        })

    def elaborate(self, platform):
        m, shift = Module(), ceil_log2(self.beat)
        self.given = {next(iter(word)): value for word, value in zip(self.form, self.i.payload.words, strict=True)}
        self.start = Signal(ADDRESS + 1)        # of an index's rows; the top bit: beyond all addresses
        self.unread = Signal(32)                # indices, from
        self.place = Signal(ADDRESS)            # on
        given, refused, error = self.given, self._refused(m), Signal(Error)

        # Rows leave, from one start on after the other.
        out, left = self.o.payload, Signal(32)
        source, target = Signal.like(out.source), Signal.like(out.target)
        busy, bad, wrong, last, starts, free = Signal(), Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            wrong.eq((error != Error.NONE) | self.start[ADDRESS]),
            self.o.valid.eq(busy), free.eq(~busy | self.o.ready & (left == 1)),
            out.source.eq(source), out.target.eq(target),
            out.beats.eq(Mux(bad, 0, (given["bytes"] + self.beat - 1) >> shift)), out.tail.eq(given["bytes"] - 1),
            out.error.eq(Mux(bad & (error == Error.NONE), Error.INDEX, error)), out.ends.eq(last & (left == 1)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                busy.eq(left != 1), left.eq(left - 1),
                source.eq(source + (given["source_pitch"] >> shift)),
                target.eq(target + (given["target_pitch"] >> shift)),
            ]
        with m.If(starts):
            m.d.sync += [
                busy.eq(1), left.eq(Mux(wrong, 1, given["rows"])), source.eq(self.start[shift:ADDRESS]),
                bad.eq(wrong), last.eq(wrong | (self.unread == 0)),
            ]

        with m.FSM():
            with m.State("CHECK"):
                m.d.sync += [
                    error.eq(refused), target.eq(given["target"] >> shift), self.start.eq(given["source"]),
                    self.unread.eq(0),
                ]
                with m.If(self.i.valid):
                    m.next = "START"
                    if self.gathers:
                        with m.If((self.i.payload.opcode == Load.GATHER) & (refused == Error.NONE)):
                            m.d.sync += self.unread.eq(given["count"]), self.place.eq(given["index"])
                            m.next = "ASK"
            if self.gathers:
                self._gather(m)
            with m.State("START"):
                m.d.comb += starts.eq(free)
                with m.If(free):
                    m.next = "END"
                    if self.gathers:
                        with m.If(~wrong & (self.unread != 0)):
                            m.next = "ASK"
            with m.State("END"):
                m.d.comb += self.i.ready.eq(~busy)
                with m.If(~busy):
                    m.next = "CHECK"
        return m

    def _refused(self, m):
        """What is wrong with the instruction as a whole."""
        given, beat, refused = self.given, ceil_log2(self.beat), Signal(Error)
        parts = [given[name][:beat] for name in ("source", "source_pitch", "target", "target_pitch")]
        wrong = (given["bytes"] == 0) | (given["rows"] == 0) | (given["bytes"] > self.most * self.beat)
        if self.gathers:
            indexed = self.i.payload.opcode == Load.GATHER
            parts += [Mux(indexed, Cat(given["step"][:beat], given["index"][:2], given["index_pitch"][:2]), 0)]
            wrong |= indexed & (given["count"] == 0)
        with m.If(Cat(parts).any()):
            m.d.comb += refused.eq(Error.ALIGNMENT)
        with m.Elif(wrong):
            m.d.comb += refused.eq(Error.DIMENSION)
        return refused

    def _gather(self, m):
        """Read an index and add it, times the step, to the source."""
        given, start, asked, answer = self.given, self.start, self.index_request, self.index
        index, addend, total = Signal(8 * INDEX), Signal.like(start), Signal(ADDRESS + 1)
        m.d.comb += [
            asked.payload.address.eq(self.place), asked.payload.beats.eq(1), asked.payload.rows.eq(1),
            total.eq(start[:ADDRESS] + addend[:ADDRESS]),
        ]
        with m.State("ASK"):
            m.d.comb += asked.valid.eq(1)
            with m.If(asked.ready):
                m.d.sync += self.place.eq(self.place + given["index_pitch"]), self.unread.eq(self.unread - 1)
                m.next = "READ"
        with m.State("READ"):
            m.d.comb += answer.ready.eq(1)
            m.d.sync += index.eq(answer.payload.data), addend.eq(given["step"]), start.eq(given["source"])
            with m.If(answer.valid):
                m.next = "MULTIPLY"
        with m.State("MULTIPLY"):
            with m.If(index[0]):
                m.d.sync += start.eq(Cat(total[:ADDRESS], total[ADDRESS] | start[ADDRESS] | addend[ADDRESS]))
            m.d.sync += index.eq(index >> 1), addend.eq(Cat(0, addend[:ADDRESS - 1], addend[ADDRESS - 1:].any()))
            with m.If(index == 0):
                m.next = "START"


def check(name, beat, size, longest):
    """Refuse, in an engine's name, what beats, the scratchpad and bursts cannot be."""
    burst = min(256, PAGE // max(beat, 1))
    limits = {"beat": (beat, 2, 128), "size": (size, beat, 1 << 24), "longest": (longest, 1, burst)}
    for what, (value, low, high) in limits.items():
        if not low <= value <= high or value & value - 1:
            raise ValueError(f"{name}: {what} must be a power of two from {low} to {high}, not {value!r}")
