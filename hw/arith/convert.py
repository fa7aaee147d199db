# SPDX-License-Identifier: Apache-2.0
"""FP32 to other formats, one rounding, as `golden.fp32.to_format` defines it; and back, which is exact."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from golden.formats import E8M0, FP32, INT8
from hw.arith.formats import Float
from hw.arith.fp32 import normalize
from hw.arith.pipeline import register
from hw.emit import Block

__all__ = ["FromFp32", "ToFp32"]

KEPT = 8        # significand bits of the widest format that is rounded to


class FromFp32(Block):
    """`o` is `i` in the format chosen; OFP8, FP4 and INT8 saturate. Latency 1 cycle.

    All formats share one right shift, which brings the place to round at to a fixed bit, and one
    addition of exponent, kept bits and rounding bit.

    Parameters
    ----------
    formats : tuple of Format
        Any but E8M0.

    Members
    -------
    i : In(32)
        FP32; a subnormal counts as zero.
    format : In(range(len(formats)))
        Index in `formats`.
    o : Out(32)
        The code, zeros above it.
    nan : Out(1)
        `i` was a NaN, which FP4 and INT8 turn into +0.
    """

    latency = 1

    def __init__(self, formats):
        if not formats or E8M0 in formats:
            raise ValueError(f"FromFp32: formats must be one or more of all but E8M0, not {formats!r}")
        self.formats = tuple(formats)
        choice = range(max(len(formats), 2))
        super().__init__({"i": In(32), "format": In(choice), "o": Out(32), "nan": Out(1)})

    def elaborate(self, platform):
        m = Module()
        i, flushed = Float(FP32)(self.i), Signal(Float(FP32))
        normal, nan = Signal(), Signal()
        m.d.comb += [
            normal.eq(i.hidden),
            nan.eq(i.is_nan),
            flushed.eq(self.i & Cat(normal.replicate(31), 1)),
        ]

        # What a format prescribes: exponent field of its smallest normal numbers, places to drop there.
        lowest, drop = Signal(8), Signal(4)
        for fmt in _each(m, self.format, self.formats):
            if fmt is not FP32:
                m.d.comb += lowest.eq(FP32.bias + fmt.lsb + fmt.mantissa), drop.eq(KEPT - 1 - fmt.mantissa)

        # Shift until the kept bits are in place with one guard bit below, more where the result is subnormal.
        binade, deficit = Signal(signed(9)), Signal(signed(9))
        subnormal, places = Signal(), Signal(9)
        m.d.comb += [
            binade.eq(i.exponent - lowest),
            deficit.eq(lowest - i.exponent),
            subnormal.eq(binade < 0),
            places.eq(drop + Mux(subnormal, deficit[:8], 0)),
        ]
        shifted, lost = Cat(flushed.mantissa[-KEPT:], normal), [flushed.mantissa[:-KEPT].any()]
        for n in reversed(range(4)):
            before, shifted = shifted, Signal(KEPT + 1, name=f"shifted{1 << n}")
            lost.append(places[n] & before[:1 << n].any())
            m.d.comb += shifted.eq(Mux(places[n], before[1 << n:], before))
        far, up = Signal(), Signal()
        m.d.comb += [
            far.eq(places[4:].any()),
            up.eq(shifted[0] & (shifted[1] | Cat(lost).any()) & ~far),
        ]
        kept = shifted[1:] & ~far.replicate(KEPT)

        # Exponent above mantissa, plus the rounding bit.
        exponent, past, ordinal = Signal(15), Signal(), Signal(16)
        for fmt in _each(m, self.format, self.formats):
            if fmt is not FP32:
                m.d.comb += [
                    exponent.eq(binade[:fmt.exponent] << fmt.mantissa),
                    past.eq(binade[fmt.exponent:].any() & ~subnormal),
                ]
        m.d.comb += ordinal.eq(Mux(subnormal, 0, exponent) + kept + up)

        code = Signal(32)
        for fmt in _each(m, self.format, self.formats):
            rounded = Signal(fmt.width, name=fmt.name)
            limited = Mux(past | (ordinal[:9] > fmt.max), fmt.max, ordinal) if fmt.width <= 8 else ordinal
            m.d.comb += rounded.eq(limited)
            if fmt is FP32:
                m.d.comb += code.eq(flushed)
            elif fmt is INT8:
                m.d.comb += code.eq(Mux(i.sign, -rounded, rounded)[:8])
            else:
                m.d.comb += code.eq(Cat(rounded[:-1], i.sign))
            with m.If(nan):
                m.d.comb += code.eq(fmt.nan or 0)

        m.d.comb += self.o.eq(register(m, code, "result")), self.nan.eq(register(m, nan, "flag"))
        return m


class ToFp32(Block):
    """`o` is `i` in FP32. No latency.

    All short formats have a significand of 8 bits, its highest bit a one unless the number is subnormal, and are
    normalized alike.

    Parameters
    ----------
    formats : tuple of Format
        Any but E8M0.

    Members
    -------
    i : In(32)
        The code, whatever above it.
    format : In(range(len(formats)))
        Index in `formats`.
    o : Out(32)
        A subnormal of FP32 or BF16 comes out as one.
    """

    def __init__(self, formats):
        if not formats or E8M0 in formats:
            raise ValueError(f"ToFp32: formats must be one or more of all but E8M0, not {formats!r}")
        self.formats = tuple(formats)
        super().__init__({"i": In(32), "format": In(range(max(len(formats), 2))), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        significand, exponent, sign = Signal(8), Signal(8), Signal()
        special, top = Signal(), Signal(31)             # infinite or NaN, as this code
        for fmt in _each(m, self.format, self.formats):
            code = self.i[:fmt.width]
            if fmt is INT8:
                m.d.comb += significand.eq(Mux(sign, -code, code)), exponent.eq(FP32.bias + 7), sign.eq(code[-1])
            elif fmt.width <= 8:
                x = Float(fmt)(code)
                m.d.comb += [
                    significand.eq(Cat(Const(0, 7 - fmt.mantissa), x.significand)), sign.eq(x.sign),
                    exponent.eq(x.effective_exponent + (FP32.bias - fmt.bias)),
                    special.eq(x.is_nan | x.is_inf), top.eq(Mux(x.is_nan, FP32.nan, FP32.inf)),
                ]
            else:
                m.d.comb += special.eq(1), Cat(top, sign).eq(code << 32 - fmt.width)
        normal, places = normalize(m, significand, (4, 2, 1), Const(0, 1))
        number = Cat(Const(0, 16), normal[:7], exponent - places)[:31] & normal[-1].replicate(31)
        m.d.comb += self.o.eq(Cat(Mux(special, top, number), sign))
        return m


def _each(m, choice, formats):
    """Every format, in a case of its own of a switch on `choice`."""
    with m.Switch(choice):
        for index, fmt in enumerate(formats):
            with m.Case(index) if index < len(formats) - 1 else m.Default():
                yield fmt
