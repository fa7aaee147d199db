# SPDX-License-Identifier: Apache-2.0
"""From what is known of a row at its end to what its elements are multiplied by, and to the scale beside them."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.families import FORMAT_CODES
from golden.formats import E8M0, FORMATS, FP32, decode, encode
from golden.isa import LENGTH, ROWS, Quantize
from hw.arith.fp32 import Add, Multiply
from hw.arith.functions import Functions, Kind
from hw.arith.pipeline import register
from hw.emit import Block
from hw.stream import DeepQueue
from hw.vector.reduce import INTEGER, delayed, partial

__all__ = ["Scalars", "constants", "scaling", "unit"]

ONE, MINUS_ZERO, NORMAL = 0x3F800000, 0x80000000, 0x00800000
QUANTIZED = {name: [int(encode(FP32, value)) for value in (1 / decode(FORMATS[name], FORMATS[name].max),
                                                           decode(FORMATS[name], FORMATS[name].max))]
             for name in ("e4m3", "e5m2", "int8", "e2m1")}
"""FP32 codes of 1 / max and of max."""


def constants():
    """Of an instruction with sums: for each of its rows, 1 / sqrt(sum * alpha + beta), or with `softmax` 1 / sum."""
    return data.StructLayout({"alpha": 32, "beta": 32, "softmax": 1, "rows": ROWS})


def unit():
    """The end of a row or block: its largest element, and what is wanted. `reduced`: its row has a sum."""
    return data.StructLayout({"value": 32, "place": LENGTH, "quantize": 2, "format": 3, "top_k": 1, "reduced": 1,
                              "row": 1})


def scaling():
    """Of a row or block: elements that count 2**most are multiplied by `factor`; `code` is written beside them.

    Of `TOP_K`: `code` and `factor` are value and place.
    """
    return data.StructLayout({"factor": 32, "code": 32, "most": INTEGER})


class Scalars(Block):
    """Finishes rows and blocks, one a cycle, in free-running pipelines between queues that have room for all.

    Parameters
    ----------
    units : int
        Rows and blocks that can be under way.

    Members
    -------
    constants : In(stream.Signature(constants()))
    sum : In(partial()), summed : In(1)
        A row's sum.
    unit : In(unit()), ended : In(1)
        A row or block has ended.
    o : Out(stream.Signature(scaling()))
    """

    def __init__(self, units):
        self.units = units
        super().__init__({
            "constants": In(stream.Signature(constants())),
            "sum": In(partial()), "summed": In(1), "unit": In(unit()), "ended": In(1),
            "o": Out(stream.Signature(scaling())),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.shares = shares = DeepQueue(data.StructLayout({"share": 32, "most": INTEGER}), self.units)
        m.submodules.pending = pending = DeepQueue(unit(), self.units)
        m.submodules.factors = factors = DeepQueue(scaling(), self.units)
        m.d.comb += pending.i.payload.eq(self.unit), pending.i.valid.eq(self.ended)
        connect(m, factors.o, flipped(self.o))
        self._share(m, shares.i)
        self._scale(m, pending.o, shares.o, factors.i)
        return m

    def _share(self, m, o):
        """From the sum of a row to its share: what all elements are multiplied by."""
        m.submodules.mean, m.submodules.more = mean, more = Multiply(), Add()
        m.submodules.function = function = Functions((Kind.RECIPROCAL, Kind.RSQRT))
        given, rows = self.constants.payload, Signal(ROWS)
        m.d.comb += self.constants.ready.eq(self.summed & (rows + 1 == given.rows))
        with m.If(self.summed):
            m.d.sync += rows.eq(Mux(self.constants.ready, 0, rows + 1))

        softmax = register(m, given.softmax, "softmax")
        beta = register(m, Mux(given.softmax, MINUS_ZERO, given.beta), "beta")
        m.d.comb += [
            mean.a.eq(register(m, self.sum.sum, "sum")),
            mean.b.eq(register(m, Mux(given.softmax, ONE, given.alpha), "alpha")),
            more.a.eq(mean.o), more.b.eq(delayed(m, beta, mean.latency, "beta")),
            function.i.eq(more.o),
        ]
        softmax = delayed(m, softmax, mean.latency + more.latency, "softmax_early")
        m.d.comb += function.kind.eq(Mux(softmax, Kind.RECIPROCAL, Kind.RSQRT))
        softmax = delayed(m, softmax, function.latency, "softmax_late")
        cycles = 1 + mean.latency + more.latency + function.latency
        m.d.comb += [
            o.valid.eq(delayed(m, self.summed, cycles, "summed")),
            o.payload.share.eq(Mux(softmax & (function.o == FP32.inf), 0, function.o)),
            o.payload.most.eq(delayed(m, self.sum.most, cycles, "most")),
        ]

    def _scale(self, m, units, shares, o):
        """From a row's or block's largest magnitude to its scale, see `golden.vector.scale_rows` and `scale_blocks`."""
        given, go = units.payload, Signal()
        m.d.comb += [
            go.eq(units.valid & (shares.valid | ~given.reduced)),
            units.ready.eq(go),
            shares.ready.eq(go & given.reduced & given.row),
        ]

        # What the magnitude is multiplied by; what depends on the format.
        inverse, top = Signal(32), Signal(FP32.width)
        with m.Switch(given.format):
            for name, codes in QUANTIZED.items():
                with m.Case(FORMAT_CODES[name]):
                    m.d.comb += inverse.eq(codes[0]), top.eq(codes[1])
        share, most = Signal(32), Signal(INTEGER)
        m.d.comb += share.eq(ONE)
        with m.If(given.reduced):
            m.d.comb += share.eq(shares.payload.share), most.eq(shares.payload.most)
        beside = data.StructLayout({"valid": 1, "unit": unit(), "share": 32, "most": INTEGER, "top": 32})
        stage = Signal(beside)
        m.d.sync += [
            stage.valid.eq(go), stage.unit.eq(given), stage.share.eq(share), stage.most.eq(most), stage.top.eq(top),
        ]
        m.submodules.largest = largest = Multiply()
        m.d.comb += [
            largest.a.eq(stage.unit.value),
            largest.b.eq(register(m, Mux(given.quantize == Quantize.ROW, inverse, share), "by")),
        ]
        stage = delayed(m, stage, largest.latency, "largest")

        # The scale of a row, and its reciprocal.
        m.submodules.inverse, m.submodules.stored = inverse, stored = Functions((Kind.RECIPROCAL,)), Multiply()
        magnitude, scale = largest.o, Signal(32)
        m.d.comb += scale.eq(Mux(
            ~stage.unit.value[23:31].any(), ONE, Mux(magnitude[23:31].any(), magnitude, NORMAL)))
        scale = register(m, scale, "scale")
        m.d.comb += [
            inverse.i.eq(scale), stored.a.eq(scale), stored.b.eq(register(m, stage.share, "share_of_scale")),
        ]

        # The scale of a block, and the share over it.
        field, code, nan = magnitude[23:31], Signal(8), Signal()
        exponent, factor = Signal(signed(10)), Signal(32)
        above = (stage.unit.quantize == Quantize.MX_CEIL) & (magnitude[:23] > stage.top[:23])
        m.d.comb += exponent.eq(field - stage.top[23:31] + E8M0.bias + above), nan.eq(field.all())
        m.d.comb += code.eq(Mux(nan, E8M0.nan, Mux((exponent < 0) | ~field.any(), 0, exponent[:8])))
        code, nan, share = register(m, code, "code"), register(m, nan, "nan"), register(m, stage.share, "share")
        stage = delayed(m, stage, 1, "scaled")
        over = Signal(signed(10))
        m.d.comb += [
            over.eq(share[23:31] + E8M0.bias - code),
            factor.eq(Mux(nan, FP32.nan, Mux((over <= 0) | ~share[23:31].any(), 0, Cat(
                share[:23], Mux(over > 254, 254, over[:8]))))),
        ]

        # All that there may be, at the same time.
        factor = delayed(m, factor, inverse.latency, "factor")
        code = delayed(m, code, inverse.latency, "code_late")
        scale = delayed(m, stored.o, inverse.latency - stored.latency, "stored")
        stage = delayed(m, stage, inverse.latency, "late")
        m.d.comb += [
            o.valid.eq(stage.valid), o.payload.most.eq(stage.most),
            o.payload.factor.eq(factor), o.payload.code.eq(code),
        ]
        with m.If(stage.unit.top_k):
            m.d.comb += o.payload.factor.eq(stage.unit.place), o.payload.code.eq(stage.unit.value)
        with m.Elif(stage.unit.quantize == Quantize.NONE):
            m.d.comb += o.payload.factor.eq(stage.share)
        with m.Elif(stage.unit.quantize == Quantize.ROW):
            m.d.comb += o.payload.factor.eq(inverse.o), o.payload.code.eq(scale)
