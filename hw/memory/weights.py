# SPDX-License-Identifier: Apache-2.0
"""Weights, read ahead of their use."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden import isa
from golden.transfer import Error
from hw.axi import PAGE, reading
from hw.emit import Block
from hw.fetch import ADDRESS, request, response
from hw.instructions import completion, instruction
from hw.stream import Buffer, DeepQueue, Queue

__all__ = ["STREAM", "Weights"]

STREAM = isa.FORMS[isa.Engine.WEIGHTS][isa.Weights.STREAM]
INSTRUCTIONS = 4    # taken and not yet done
REQUESTS = 4        # taken ahead; what the matmul engine counts on
DEPTHS = range(2, 65537)


class Weights(Block):
    """Reads weights as far ahead as its memory has room and hands them to the matmul engine, all in order.

    Reads follow each other without a gap, also from one instruction to the next, so that the channel is busy for as
    long as there is room. A beat leaves in each cycle while there are any. An instruction is done when all of its data
    have come.

    A request must be for what comes next. If not, it is given as many zeros, and one beat too many, by which the engine
    knows; what it should have asked for is dropped in their place.

    Parameters
    ----------
    channel, port : int
        Bytes of a beat of memory, and of one of weights: powers of two. Instructions are of multiples of the larger.
    prefetch : int
        Bytes of memory.
    burst : int
        Beats of a burst at most. Bursts end at multiples of it.
    beats : int
        Of a request at most.

    Members
    -------
    i : In(stream.Signature(instruction(len(STREAM))))
    done : Out(stream.Signature(completion(Error)))
    memory : Out(reading(ADDRESS - log2(channel), channel))
    request : In(stream.Signature(request(beats, 1)))
    o : Out(stream.Signature(response(8 * port)))
    clear : In(1)
        What is here and what is still to come is dropped, also of instructions that come while it is up; they are done
        nevertheless. Requests get zeros and are told so. Nothing else is taken until all is empty.
    full : Out(1), empty : Out(1)
        In this cycle there is no room for what is to be read, because of what has come; what is asked for is not there.
    """

    def __init__(self, channel, port, prefetch, burst, beats):
        for name, value in {"channel": channel, "port": port, "prefetch": prefetch, "burst": burst}.items():
            if value < 1 or value & (value - 1):
                raise ValueError(f"Weights: {name} must be a power of two, not {value!r}")
        if burst > 256 or burst * channel > PAGE:
            raise ValueError(f"Weights: burst must be {min(256, PAGE // channel)} beats of {channel} bytes at most, "
                             f"not {burst!r}")
        least = max(2 * burst * channel, 2 * port)
        if prefetch < least:
            raise ValueError(f"Weights: prefetch must be at least {least} bytes, two bursts and two beats, "
                             f"not {prefetch!r}")
        if prefetch // max(channel, port) not in DEPTHS:
            raise ValueError(f"Weights: prefetch must be at most {DEPTHS[-1] * max(channel, port)} bytes, "
                             f"not {prefetch!r}")
        if beats < 1:
            raise ValueError(f"Weights: beats must be at least 1, not {beats!r}")
        self.channel, self.port, self.prefetch, self.burst, self.most = channel, port, prefetch, burst, beats
        self.word = max(channel, port)      # of its memory
        super().__init__({
            "i": In(stream.Signature(instruction(len(STREAM)))),
            "done": Out(stream.Signature(completion(Error))),
            "memory": Out(reading(ADDRESS - ceil_log2(channel), channel)),
            "request": In(stream.Signature(request(beats, 1))),
            "o": Out(stream.Signature(response(8 * port))),
            "clear": In(1), "full": Out(1), "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        r, dropping = self.memory.r, Signal()
        count, address = ADDRESS - ceil_log2(self.channel), ADDRESS - ceil_log2(self.port)
        run = data.StructLayout({"address": address, "beats": address})
        m.submodules.coming   = coming   = Queue(count, INSTRUCTIONS)       # beats of instructions to come
        m.submodules.finished = finished = Queue(completion(Error), INSTRUCTIONS)
        m.submodules.runs     = runs     = Queue(run, INSTRUCTIONS)         # what is in memory and to come
        m.submodules.words    = words    = DeepQueue(8 * self.word, self.prefetch // self.word)
        connect(m, finished.o, flipped(self.done))

        # An instruction becomes a run. One that is refused waits until those before it are done.
        begun = Signal(range(INSTRUCTIONS + 1))     # taken and not done
        error, open, refused, taken, free = Signal(Error), Signal(), Signal(), Signal(), Signal()
        source, size = self.i.payload.words
        m.d.comb += [
            error.eq(Mux((source | size)[:ceil_log2(self.word)].any(), Error.ALIGNMENT,
                         Mux(size == 0, Error.DIMENSION, Error.NONE))),
            open.eq(~dropping | self.clear), refused.eq(dropping | (error != Error.NONE)),
            self.i.ready.eq(open & Mux(refused, begun == 0, free & (begun != INSTRUCTIONS) & runs.i.ready)),
            taken.eq(self.i.valid & self.i.ready),
            coming.i.valid.eq(taken & ~refused), coming.i.payload.eq(size >> ceil_log2(self.channel)),
            runs.i.valid.eq(coming.i.valid),
            runs.i.payload.address.eq(source >> ceil_log2(self.port)),
            runs.i.payload.beats.eq(size >> ceil_log2(self.port)),
        ]
        m.d.sync += begun.eq(begun + taken - (self.done.valid & self.done.ready))

        # It is done with its last beat.
        came, failed = Signal(count), Signal()      # of the first of `coming`
        last, ends = Signal(), Signal()
        m.d.comb += [
            last.eq(came + 1 == coming.o.payload),
            ends.eq(r.valid & last & ~dropping),
            coming.o.ready.eq(dropping | ends),
            finished.i.valid.eq(taken & refused | coming.o.valid & coming.o.ready),
            finished.i.payload.error.eq(Mux(dropping, Error.NONE, Mux(
                taken & refused, error, Mux(failed | r.payload.error, Error.BUS, Error.NONE)))),
        ]
        with m.If(dropping):
            m.d.sync += came.eq(0), failed.eq(0)
        with m.Elif(r.valid):
            m.d.sync += came.eq(Mux(last, 0, came + 1)), failed.eq(~last & (failed | r.payload.error))

        leaves = Signal()       # a word of the memory
        m.d.comb += leaves.eq(words.o.valid & words.o.ready)
        due = self._ask(m, coming.i, source >> ceil_log2(self.channel), free, leaves, dropping)
        self._keep(m, words.i, dropping)
        waits = self._serve(m, words.o, runs.o, dropping, open)
        with m.If(self.clear):
            m.d.sync += dropping.eq(1)
        with m.Elif(~(due.any() | coming.o.valid | runs.o.valid | words.o.valid | waits)):
            m.d.sync += dropping.eq(0)
        return m

    def _ask(self, m, run, source, free, leaves, dropping):
        """Ask for the bursts of a run while there is room, and say when the next run may come. Beats due."""
        size = self.prefetch // self.channel
        room, due = Signal(range(size + 1), init=size), Signal(range(size + 1))
        at, left = Signal(len(source)), Signal(len(run.payload))
        gap, beats = Signal(range(self.burst + 1)), Signal(range(self.burst + 1))
        fits, asks = Signal(), Signal()
        m.submodules.bursts = bursts = Buffer(self.memory.ar.payload.shape())
        connect(m, bursts.o, flipped(self.memory.ar))
        m.d.comb += [
            gap.eq(self.burst - at[:ceil_log2(self.burst)]),
            beats.eq(Mux(left < gap, left, gap)),
            fits.eq(beats <= room),
            bursts.i.valid.eq((left != 0) & fits & ~dropping),
            bursts.i.payload.address.eq(at), bursts.i.payload.len.eq(beats - 1),
            asks.eq(bursts.i.valid & bursts.i.ready),
            free.eq((left == 0) | asks & (left == beats)),
            self.full.eq((left != 0) & (beats > room + due) & ~dropping),
            self.memory.r.ready.eq(1),
        ]
        m.d.sync += due.eq(due + Mux(asks, beats, 0) - self.memory.r.valid)
        with m.If(run.valid):
            m.d.sync += at.eq(source), left.eq(run.payload)
        with m.Elif(asks):
            m.d.sync += at.eq(at + beats), left.eq(left - beats)
        with m.If(dropping):
            m.d.sync += left.eq(0), room.eq(size)
        with m.Else():
            m.d.sync += room.eq(room - Mux(asks, beats, 0) + Mux(leaves, self.word // self.channel, 0))
        return due

    def _keep(self, m, word, dropping):
        """Beats of memory become words."""
        r, parts = self.memory.r, self.word // self.channel
        if parts == 1:
            m.d.comb += word.payload.eq(r.payload.data), word.valid.eq(r.valid & ~dropping)
            return
        held, part = Signal(8 * (self.word - self.channel), reset_less=True), Signal(range(parts))
        m.d.comb += word.payload.eq(Cat(held, r.payload.data)), word.valid.eq(r.valid & (part == parts - 1) & ~dropping)
        with m.If(r.valid):
            m.d.sync += held.eq(word.payload[8 * self.channel:]), part.eq(part + 1)
        with m.If(dropping):
            m.d.sync += part.eq(0)

    def _serve(self, m, word, runs, dropping, open):
        """Answer requests with words. Whether any is under way."""
        asked = data.StructLayout({"address": ADDRESS, "beats": range(self.most + 1)})
        m.submodules.requests = requests = Queue(asked, REQUESTS)
        m.submodules.beats = beats = Buffer(self.o.payload.shape())
        connect(m, beats.o, flipped(self.o))
        m.d.comb += [
            requests.i.valid.eq(self.request.valid & open), self.request.ready.eq(requests.i.ready & open),
            *(requests.i.payload[name].eq(self.request.payload[name]) for name in ("address", "beats")),
        ]

        want, more = Signal(ADDRESS), Signal(range(self.most + 1))      # of this request
        wrong, extra = Signal(), Signal()                               # it was not all right; what is more than asked
        here, rest = Signal(len(runs.payload.address)), Signal(len(runs.payload.beats))     # of this run
        amiss, given, moves, ends, empties = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            given.eq((more != 0) & (dropping | word.valid)),
            amiss.eq(wrong | dropping | (want != here << ceil_log2(self.port))),
            beats.i.valid.eq(given | extra),
            beats.i.payload.data.eq(Mux(amiss | extra, 0, self._piece(m, word.payload, moves, empties, dropping))),
            beats.i.payload.last.eq(extra | (more == 1) & ~amiss),
            moves.eq(given & beats.i.ready & ~dropping),
            word.ready.eq(dropping | moves & empties),
            ends.eq((more == 0) & ~extra | beats.i.ready & beats.i.valid & beats.i.payload.last),
            requests.o.ready.eq(ends),
            self.empty.eq((more != 0) & ~given),
        ]
        with m.If(ends):
            m.d.sync += more.eq(Mux(requests.o.valid, requests.o.payload.beats, 0))
            m.d.sync += want.eq(requests.o.payload.address), wrong.eq(0), extra.eq(0)
        with m.Elif(given & beats.i.ready):
            m.d.sync += want.eq(want + self.port), more.eq(more - 1), wrong.eq(amiss), extra.eq(more == 1)

        with m.If(dropping | (rest == 0) | moves & (rest == 1)):
            m.d.comb += runs.ready.eq(1)
            m.d.sync += here.eq(runs.payload.address), rest.eq(Mux(runs.valid & ~dropping, runs.payload.beats, 0))
        with m.Elif(moves):
            m.d.sync += here.eq(here + 1), rest.eq(rest - 1)
        return requests.o.valid | (more != 0) | extra

    def _piece(self, m, word, moves, empties, dropping):
        """The beat of a word that is next; whether it is the last of it goes to `empties`."""
        pieces = self.word // self.port
        if pieces == 1:
            m.d.comb += empties.eq(1)
            return word
        piece = Signal(range(pieces))
        m.d.comb += empties.eq(piece == pieces - 1)
        m.d.sync += piece.eq(Mux(dropping, 0, piece + moves))
        return word.word_select(piece, 8 * self.port)
