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
    """Finishes beats, one a cycle. The codes beside them follow, in words of their own: when they fill one or the row
    ends; scales of blocks one by one. Such a word goes along with a beat that completes none.

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

    depth = 16      # words that wait or are under way

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
        beat, scaling, may, go, ends = self.beats.payload, self.scalings.payload, Signal(), Signal(), Signal()
        room, index, completes = Signal(range(self.depth + 1), init=self.depth), Signal(range(8)), Signal()
        due, goes, filled, full = Signal(), Signal(), Signal(range(self.lanes)), Signal()   # of words of codes
        some = beat.tail.count != 0
        m.d.comb += [
            may.eq(room != 0), goes.eq(may & due),
            completes.eq(some & (beat.tail.row | (index == _per_word(m, beat.tail.format)))),
            go.eq(may & ~(due & completes) & self.beats.valid & (self.scalings.valid | ~beat.tail.scaled)),
            ends.eq(go & beat.tail.unit & beat.tail.scaled),
            self.beats.ready.eq(go), self.scalings.ready.eq(ends),
            full.eq(((filled + 1) << _code_size(beat.tail)) == 4 * self.lanes),
        ]
        m.d.sync += room.eq(room - (goes | go & completes) + (queue.o.valid & queue.o.ready))
        with m.If(go & some):
            m.d.sync += index.eq(Mux(completes, 0, index + 1))
        with m.If(ends & beat.tail.coded):
            word_ends = full | beat.tail.row | beat.tail.quantize[1]
            m.d.sync += filled.eq(Mux(word_ends, 0, filled + 1)), due.eq(word_ends)
        with m.Elif(goes):
            m.d.sync += due.eq(0)

        # The factor counts 2**most as the elements do.
        stage = Signal(data.StructLayout({"codes": 1, "beat": 1, "completes": 1, "index": 3, "tail": tail(self.lanes),
                                          "code": 64}))
        factor = Signal(32)
        scaled = lessened(m, scaling.factor, scaling.most - beat.most, "factor")
        m.d.sync += [
            stage.codes.eq(goes), stage.beat.eq(go), stage.completes.eq(go & completes), stage.index.eq(index),
            stage.tail.eq(beat.tail), stage.code.eq(Cat(scaling.code, scaling.factor)),
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
        self._pack(m, stage, codes, nans, queue.i)
        return m

    def _pack(self, m, stage, codes, nans, o):
        """Collect beats, and codes of units, until they fill a word or their row ends."""
        tail, index = stage.tail, stage.index
        held, counted = Signal(32 * self.lanes), Signal(range(8 * self.lanes + 1))
        packed, total, elements = Signal(32 * self.lanes), Signal.like(counted), Signal(11)
        size, here = Signal(range(4 * self.lanes + 1)), Signal(32 * self.lanes)
        m.d.comb += elements.eq(index * self.lanes + tail.count)
        with m.Switch(tail.format):
            for name, number in FORMAT_CODES.items():
                width = FORMATS[name].width
                with m.Case(number):
                    place = index[:ceil_log2(FP32.width // width)]
                    m.d.comb += [
                        here.word_select(place, width * self.lanes).eq(Cat(code[:width] for code in codes)),
                        size.eq(elements * width + 7 >> 3),
                    ]
        m.d.comb += [
            packed.eq(Mux(index == 0, 0, held) | here),
            total.eq(Mux(index == 0, 0, counted) + sum(nans)),
        ]
        with m.If(stage.beat):
            m.d.sync += held.eq(packed), counted.eq(total)

        # A word of codes is that of the last beat that had one.
        beside, last = Signal(32 * self.lanes), Signal(tail.shape())
        number, before = Signal(range(self.lanes + 1)), Signal(range(self.lanes))
        m.d.comb += before.eq(Mux(stage.codes, 0, number))
        with m.If(stage.beat & tail.coded & tail.unit):
            m.d.sync += number.eq(before + 1), last.eq(tail)
            for log in (3, 2):
                with m.If(_code_size(tail) == log):
                    slots = before[:ceil_log2(4 * self.lanes >> log)]
                    m.d.sync += beside.word_select(slots, 8 << log).eq(stage.code[:8 << log])
            with m.If(_code_size(tail) == 0):
                m.d.sync += beside[:8].eq(stage.code[:8])
        with m.Elif(stage.codes):
            m.d.sync += number.eq(0)
        m.d.comb += [
            o.valid.eq(stage.codes | stage.completes), o.payload.codes.eq(stage.codes),
            *(o.payload[name].eq(Mux(stage.codes, last[name], tail[name])) for name in ("row", "bad")),
            o.payload.end.eq(Mux(stage.codes, last.end, tail.end & ~tail.coded)),
            o.payload.data.eq(Mux(stage.codes, beside, packed)),
            o.payload.bytes.eq(Mux(stage.codes, number << _code_size(last), size)),
            o.payload.nans.eq(Mux(stage.codes, 0, total)),
        ]


def _per_word(m, format):
    """Beats of a format that fill a word, less one."""
    found = Signal(range(8))
    with m.Switch(format):
        for name, number in FORMAT_CODES.items():
            with m.Case(number):
                m.d.comb += found.eq(FP32.width // FORMATS[name].width - 1)
    return found


def _code_size(tail):
    """The power of two of bytes of a unit's code."""
    return Mux(tail.quantize == Quantize.NONE, 3, Mux(tail.quantize == Quantize.ROW, 2, 0))
