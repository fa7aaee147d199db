# SPDX-License-Identifier: Apache-2.0
"""Two numbers made one: what a reduction does at each of its steps."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from golden.packet import Reduction
from hw.arith.formats import Float
from hw.arith.fp32 import normalize
from hw.emit import Block

__all__ = ["Combine"]

NAN, INF = Const(FP32.nan, 32), Const(FP32.inf, 31)


class Combine(Block):
    """`o` is the sum of `a` and `b`, or the larger of them, as INT32 or by the rules of `golden.fp32`. Latency 2
    cycles in which `go` lets it move.

    A sum in FP32 goes two ways, so that none has to shift far both before and after the addition. Numbers whose
    exponents differ by one at most may cancel, and are exact if they do: they are subtracted in the first stage
    and normalized in the second. All others are aligned in the first, added and rounded in the second. What
    needs neither is ready after the first stage and is passed by.

    Members
    -------
    a, b : In(32)
    op : In(Reduction)
    keep : In(2)
        One of the two goes through as it is: `a` or, with the upper bit, `b`.
    go : In(2)
        Each stage takes what is before it.
    o : Out(32)
    """

    latency = 2

    def __init__(self):
        super().__init__({"a": In(32), "b": In(32), "op": In(2), "keep": In(2), "go": In(2), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        a, b = Float(FP32)(self.a), Float(FP32)(self.b)
        plain, other = Signal(), Signal(32)
        m.d.comb += [
            plain.eq(self.keep.any() | (self.op != Reduction.SUM_FP32)),
            other.eq(self._other(m)),
        ]

        # By exponent: `big` and `small`.
        less, swap, opposite = Signal(), Signal(), Signal()
        big, small = Signal(Float(FP32)), Signal(Float(FP32))
        a_over_b, b_over_a = Signal(signed(9)), Signal(signed(9))
        places = Signal(8)
        m.d.comb += [
            a_over_b.eq(a.exponent - b.exponent), b_over_a.eq(b.exponent - a.exponent), less.eq(a_over_b < 0),
            places.eq(Mux(less, b_over_a, a_over_b)),
            swap.eq(less | (~(b_over_a < 0) & (a.mantissa < b.mantissa))),      # by magnitude
            big.eq(Mux(less, self.b, self.a)), small.eq(Mux(less, self.a, self.b)),
            opposite.eq(a.sign ^ b.sign),
        ]
        shifted, lost = Cat(Const(0, 2), small.mantissa, Const(1, 1)), []
        for n in reversed(range(5)):
            before, shifted = shifted, Signal(26, name=f"shifted{1 << n}")
            lost.append(places[n] & before[:1 << n].any())
            m.d.comb += shifted.eq(Mux(places[n], before[1 << n:], before))
        beyond = Signal()
        m.d.comb += beyond.eq(places[5:].any())

        # Those close to each other.
        high, low, apart, difference = Signal(23), Signal(23), Signal(), Signal(25)
        m.d.comb += [
            high.eq(Mux(swap, b.mantissa, a.mantissa)), low.eq(Mux(swap, a.mantissa, b.mantissa)),
            apart.eq(a.exponent[0] ^ b.exponent[0]),
            difference.eq(Cat(Const(0, 1), high, Const(1, 1))
                          - Mux(apart, Cat(low, Const(1, 1)), Cat(Const(0, 1), low, Const(1, 1)))),
        ]

        # What is ready.
        a_nan, b_nan, nan, infinite, none, lone = (Signal(name=name) for name in (
            "a_nan", "b_nan", "nan", "infinite", "none", "lone"))
        m.d.comb += [
            a_nan.eq(a.is_nan), b_nan.eq(b.is_nan),
            nan.eq(a_nan | b_nan | (a.exponent.all() & b.exponent.all() & opposite)),
            infinite.eq(a.exponent.all() | b.exponent.all()),
            none.eq(~(a.exponent.any() | b.exponent.any())),
            lone.eq(~(a.exponent.any() & b.exponent.any())),
        ]
        sign = Mux(none, a.sign & b.sign, Mux(swap, b.sign, a.sign))
        sum_code = Mux(nan, NAN, Cat(big.as_value()[:-1] & ~none.replicate(31), sign))

        def keep(value, name):
            held = Signal(len(value), name=name, reset_less=True)
            with m.If(self.go[0]):
                m.d.sync += held.eq(value)
            return held

        ready = keep(plain | nan | infinite | lone, "ready")
        code = keep(Mux(plain, other, sum_code), "code")
        subtract, close = keep(opposite, "subtract"), keep(opposite & ~places[1:].any(), "close")
        aligned = keep(Cat(Cat(lost).any() | beyond, shifted & ~beyond.replicate(26)), "aligned")
        exact = keep(difference, "exact")

        # Second stage.
        result = Signal(32)
        exponent = code[23:31]
        m.d.comb += result.eq(Mux(ready, code, Cat(
            Mux(close & ~exact[-1], self._normalized(m, exact, exponent), self._rounded(m, code, aligned, subtract)),
            code[31] & ~(close & ~exact.any()))))
        with m.If(self.go[1]):
            m.d.sync += self.o.eq(result)
        return m

    def _other(self, m):
        """All but a sum in FP32."""
        larger, floating = self.op[1], self.op[0]
        second, total = Signal(32), Signal(33)
        a_nan, b_nan, less, picked = Signal(), Signal(), Signal(), Signal(Float(FP32))
        a, b = Float(FP32)(self.a), Float(FP32)(self.b)
        m.d.comb += [
            second.eq(self.b ^ larger.replicate(32)),
            total.eq((Cat(Const(1, 1), self.a) + Cat(larger, second))[1:]),       # the lowest bit carries
            less.eq(Mux(a.sign ^ b.sign, a.sign, ~total[-1])),
            picked.eq(Mux(less ^ (floating & a.sign & b.sign), self.b, self.a)),
            a_nan.eq(a.is_nan), b_nan.eq(b.is_nan),
        ]
        flushed = Cat(picked.as_value()[:-1] & (picked.exponent.any() | ~floating).replicate(31), picked.sign)
        result = Mux(larger, Mux(floating & (a_nan | b_nan), NAN, flushed), total[:-1])
        return Mux(self.keep[1], self.b, Mux(self.keep[0], self.a, result))

    def _normalized(self, m, exact, exponent):
        """31 bits of a difference that is exact."""
        value, shifts = normalize(m, exact, (16, 8, 4, 2, 1), Const(0, 1))
        left = Signal(signed(9))
        m.d.comb += left.eq(exponent - shifts)
        return Cat(value[1:-1], left[:8]) & (value[-1] & (left > 0)).replicate(31)

    def _rounded(self, m, code, aligned, subtract):
        """31 bits of a sum, one place up or down at most."""
        total, significand = Signal(28), Signal(26)     # with guard and rest
        exponent, up, sum = Signal(8), Signal(), Signal(31)
        difference = Signal(28)
        m.d.comb += [
            difference.eq((Cat(Const(1, 4), code[:23], Const(1, 1))             # the lowest bit carries
                           + Cat(subtract, aligned ^ subtract.replicate(27)))[1:]),
            total.eq(Cat(difference[:-1], difference[-1] & ~subtract)),
        ]
        with m.If(total[27]):
            m.d.comb += significand.eq(Cat(total[:3].any(), total[3:])), exponent.eq(code[23:31] + 1)
        with m.Elif(total[26]):
            m.d.comb += significand.eq(Cat(total[:2].any(), total[2:])), exponent.eq(code[23:31])
        with m.Else():
            m.d.comb += significand.eq(total), exponent.eq(code[23:31] - 1)
        m.d.comb += [
            up.eq(significand[1] & (significand[0] | significand[2])),
            sum.eq(Cat(significand[2:-1], exponent) + up),
        ]
        return Mux(exponent.all(), INF, sum)
