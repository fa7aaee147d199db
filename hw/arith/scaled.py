# SPDX-License-Identifier: Apache-2.0
"""Fixed-point sums with an exponent of their own to FP32."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from hw.arith.formats import Float
from hw.arith.fp32 import FromFixed
from hw.arith.pipeline import register
from hw.emit import Block

__all__ = ["FromScaled"]


class FromScaled(Block):
    """`o = i * 2**(lsb + exponent)`, rounded once by the rules of `golden.fp32`. Latency 3 cycles.

    Parameters
    ----------
    width, lsb : int
        As of `FromFixed`.

    Members
    -------
    i : In(signed(width)), exponent : In(signed(10))
    o : Out(32)
    """

    latency = FromFixed.latency + 1

    def __init__(self, width, lsb):
        self.width, self.lsb = width, lsb
        super().__init__({"i": In(signed(width)), "exponent": In(signed(10)), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rounded = rounded = FromFixed(self.width, self.lsb)
        scale = self.exponent
        for n in range(rounded.latency):
            scale = register(m, scale, f"scale{n}")
        unscaled = Float(FP32)(rounded.o)
        some, exponent, infinite, none = Signal(), Signal(signed(11)), Signal(), Signal()
        m.d.comb += [
            rounded.i.eq(self.i),
            some.eq(unscaled.exponent.any()),
            exponent.eq(unscaled.exponent + scale),
            infinite.eq(some & (exponent >= 255)),
            none.eq(~some | (exponent <= 0)),
        ]
        finite = Cat(unscaled.mantissa, exponent[:8]) & ~none.replicate(31)
        magnitude = Mux(infinite, Const(FP32.inf, 31), finite)
        m.d.comb += self.o.eq(register(m, Cat(magnitude, unscaled.sign), "code"))
        return m
