# SPDX-License-Identifier: Apache-2.0
"""The back of the engine: elements that were kept times their row's factor, rounded, packed into words."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.families import FORMAT_CODES
from golden.formats import FORMATS, FP32
from golden.isa import Quantize
from hw.arith.convert import FromFp32
from hw.arith.fp32 import Multiply
from hw.arith.pipeline import register
from hw.emit import Block
from hw.stream import DeepQueue
from hw.vector.reduce import INTEGER, delayed, lessened
from hw.vector.scalars import scaling

__all__ = ["Back", "Finish", "kept", "tail", "word"]

ONE = 0x3F800000


def tail(lanes):
    """What goes with a beat all the way: `count` elements in `format`, or, of `TOP_K`, none.

    It may end a `unit` that has a factor (`scaled`) and a code beside its elements (`coded`), a `row`, and all rows.
    """
    return data.StructLayout({"count": range(lanes + 1), "format": 3, "quantize": 2, "scaled": 1, "coded": 1,
                              "unit": 1, "row": 1, "end": 1, "bad": 1})


def kept(lanes):
    """A beat that waits for its factor. Its elements count 2**most."""
    return data.StructLayout({"data": data.ArrayLayout(32, lanes), "most": INTEGER, "tail": tail(lanes)})


def word(lanes):
    """`bytes` bytes of results or, with `codes`, of what goes beside them; of the `row` and of all the last ones."""
    return data.StructLayout({"data": 32 * lanes, "bytes": range(4 * lanes + 1), "nans": range(8 * lanes + 1),
                              "codes": 1, "row": 1, "end": 1, "bad": 1})


class Finish(Block):
    """`o = i * factor` in a format. Latency 4 cycles. Each lane has registers for factor and format, which come from
    afar.

    Members
    -------
    i, factor : In(32)
    format : In(3)
        2 cycles after `i`.
    o : Out(32), nan : Out(1)
    """

    latency = 1 + Multiply.latency + FromFp32.latency

    def __init__(self):
        super().__init__({"i": In(32), "factor": In(32), "format": In(3), "o": Out(32), "nan": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.scale = scale = Multiply()
        m.submodules.convert = convert = FromFp32(tuple(FORMATS[name] for name in FORMAT_CODES))
        m.d.comb += [
            scale.a.eq(register(m, self.i, "kept")), scale.b.eq(register(m, self.factor, "times")),
            convert.i.eq(scale.o), convert.format.eq(register(m, self.format, "format_held")),
            self.o.eq(convert.o), self.nan.eq(convert.nan),
        ]
        return m


class Back(Block):
    """Finishes beats, one a cycle. The codes beside them follow, in words of their own, when they fill one or the
    row ends.

    Parameters
    ----------
    lanes : int

    Members
    -------
    beats : In(stream.Signature(kept(lanes)))
    scalings : In(stream.Signature(scaling()))
        One a unit.
    o : Out(stream.Signature(word(lanes)))
    """

    depth = 16      # words that wait, or beats under way that may become one

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__({
            "beats": In(stream.Signature(kept(lanes))), "scalings": In(stream.Signature(scaling())),
            "o": Out(stream.Signature(word(lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = DeepQueue(word(self.lanes), self.depth)
        connect(m, queue.o, flipped(self.o))

        # A beat goes when its factor is there and there is room for a word; so does a word of codes that is due.
        beat, scaling, go, due = self.beats.payload, self.scalings.payload, Signal(), Signal()
        room = Signal(range(self.depth + 1), init=self.depth)
        ends, filled, full = Signal(), Signal(range(4 * self.lanes + 1)), Signal()
        waiting = Signal(tail(self.lanes))              # the beat that the codes are due to
        m.d.comb += [
            go.eq((room != 0) & ~due & self.beats.valid & (self.scalings.valid | ~beat.tail.scaled)),
            ends.eq(go & beat.tail.unit & beat.tail.scaled),
            self.beats.ready.eq(go), self.scalings.ready.eq(ends),
            full.eq(((filled + 1) << _code_size(beat.tail)) == 4 * self.lanes),
        ]
        with m.If(go):
            m.d.sync += waiting.eq(beat.tail)
        with m.If(ends & beat.tail.coded):
            m.d.sync += filled.eq(Mux(full | beat.tail.row, 0, filled + 1)), due.eq(full | beat.tail.row)
        with m.Elif(room != 0):
            m.d.sync += due.eq(0)

        # The factor counts 2**most as the elements do.
        stage = Signal(data.StructLayout({"valid": 1, "codes": 1, "tail": tail(self.lanes), "code": 64}))
        factor = Signal(32)
        scaled = lessened(m, scaling.factor, scaling.most - beat.most, "factor")
        m.d.sync += [
            stage.valid.eq(go | due & (room != 0)), stage.codes.eq(due), stage.tail.eq(Mux(due, waiting, beat.tail)),
            stage.code.eq(Cat(scaling.code, scaling.factor)),
        ]
        m.d.comb += factor.eq(Mux(beat.tail.scaled, scaled, ONE))
        stage = delayed(m, stage, Multiply.latency - 1, "multiplied")
        format, stage = stage.tail.format, delayed(m, stage, 1 + FromFp32.latency, "converted")
        codes, nans = [], []
        for n in range(self.lanes):
            m.submodules[f"finish{n}"] = finish = Finish()
            present = stage.tail.count > n
            m.d.comb += finish.i.eq(beat.data[n]), finish.factor.eq(factor), finish.format.eq(format)
            codes.append(finish.o & present.replicate(32))
            nans.append(finish.nan & present)

        passes = self._pack(m, stage, codes, nans, queue.i)
        free, spared = Signal(), Signal()
        m.d.comb += free.eq(queue.o.valid & queue.o.ready), spared.eq(stage.valid & ~passes)
        m.d.sync += room.eq(room - (go | due & (room != 0)) + free + spared)
        return m

    def _pack(self, m, stage, codes, nans, o):
        """Collect beats, and codes of units, until they fill a word or their row ends."""
        tail, per_word = stage.tail, Signal(range(8))
        held, counted, index = Signal(32 * self.lanes), Signal(range(8 * self.lanes + 1)), Signal(range(8))
        packed, total, elements, passes = Signal(32 * self.lanes), Signal.like(counted), Signal(11), Signal()
        size, here = Signal(range(4 * self.lanes + 1)), Signal(32 * self.lanes)
        some = stage.valid & ~stage.codes & (tail.count != 0)
        m.d.comb += elements.eq(index * self.lanes + tail.count)
        with m.Switch(tail.format):
            for name, number in FORMAT_CODES.items():
                width = FORMATS[name].width
                with m.Case(number):
                    beats = FP32.width // width
                    place = index[:ceil_log2(beats)]
                    m.d.comb += [
                        per_word.eq(beats - 1),
                        here.word_select(place, width * self.lanes).eq(Cat(code[:width] for code in codes)),
                        size.eq(elements * width + 7 >> 3),
                    ]
        m.d.comb += [
            packed.eq(Mux(index == 0, 0, held) | here),
            total.eq(Mux(index == 0, 0, counted) + sum(nans)),
            passes.eq(stage.valid & (stage.codes | (some & ((index == per_word) | tail.row)))),
        ]
        with m.If(some):
            m.d.sync += held.eq(packed), counted.eq(total), index.eq(Mux(passes, 0, index + 1))

        beside, number = Signal(32 * self.lanes), Signal(range(4 * self.lanes + 1))
        with m.If(stage.valid & stage.codes):
            m.d.sync += number.eq(0), beside.eq(0)
        with m.Elif(stage.valid & tail.coded & tail.unit):
            m.d.sync += number.eq(number + 1)
            for log in (3, 2, 0):
                with m.If(_code_size(tail) == log):
                    slots = number[:ceil_log2(4 * self.lanes >> log)]
                    m.d.sync += beside.word_select(slots, 8 << log).eq(stage.code[:8 << log])
        m.d.comb += [
            o.valid.eq(passes), o.payload.codes.eq(stage.codes), o.payload.row.eq(tail.row),
            o.payload.end.eq(tail.end & (stage.codes | ~tail.coded)), o.payload.bad.eq(tail.bad),
            o.payload.data.eq(Mux(stage.codes, beside, packed)),
            o.payload.bytes.eq(Mux(stage.codes, number << _code_size(tail), size)),
            o.payload.nans.eq(Mux(stage.codes, 0, total)),
        ]
        return passes


def _code_size(tail):
    """The power of two of bytes of a unit's code."""
    return Mux(tail.quantize == Quantize.NONE, 3, Mux(tail.quantize == Quantize.ROW, 2, 0))
