# SPDX-License-Identifier: Apache-2.0
"""FP32 arithmetic by the rules of `golden.fp32`: free-running pipelines, a result every cycle.

Operands have a hidden bit of one throughout: what is wrong about zeros and subnormals then is put right
where the code is put together, together with overflow and the special values.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from hw.arith.compress import Row, add, compress
from hw.arith.formats import Float
from hw.arith.pipeline import register
from hw.emit import Block

__all__ = ["Add", "FromFixed", "Multiply", "Product", "normalize"]

NAN, INF = Const(FP32.nan, 31), Const(FP32.inf, 31)


class FromFixed(Block):
    """`o = i * 2**lsb`, rounded; zero is +0. Latency 2 cycles.

    A negative number is complemented without adding one: the ones' complement, followed by endless ones,
    is the same magnitude, and rounding can tell.

    Parameters
    ----------
    width : int
        Bits of `i`, 2 or more.
    lsb : int
        Exponent of its lowest bit. Every `i` but 0 must be a normal FP32 number.

    Members
    -------
    i : In(signed(width))
    o : Out(32)
    """

    latency = 2

    def __init__(self, width, lsb):
        if width < 2:
            raise ValueError(f"FromFixed: width must be at least 2, not {width!r}")
        if lsb < -126 or lsb + width > 128:
            raise ValueError(f"FromFixed: lsb must be -126 to {128 - width} at width {width}, not {lsb!r}")
        self.width, self.lsb = width, lsb
        super().__init__({"i": In(signed(width)), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        bits = max(self.width - 1, 29)                  # of the magnitude, completed below to FP32's
        top = FP32.bias + self.lsb + self.width - 2     # exponent field if its highest bit is one
        levels = [1 << n for n in reversed(range(bits.bit_length()))]

        # Stage 1: complement, shift by the longer powers of two.
        sign, value = self.i[-1], Signal(bits, name="magnitude")
        padding = sign.replicate(bits + 1 - self.width)
        m.d.comb += value.eq(Cat(padding, self.i[:-1] ^ sign.replicate(self.width - 1)))
        cut = (len(levels) + 1) // 2
        value, shifts = normalize(m, value, levels[:cut], sign)
        count = 25 + 2 * levels[cut] - 1       # bits that the shifts to come can bring in place
        kept = register(m, value[-count:], "kept")
        rest = register(m, (value[:-count] ^ sign.replicate(bits - count)).any(), "rest")
        sign, high_shifts = register(m, sign, "sign"), register(m, shifts, "high_shifts")

        # Stage 2: shift by the shorter ones, round.
        value, shifts = normalize(m, kept, levels[cut:], sign)
        below, guard = value[:-25], value[-25]
        exact, up = Signal(), Signal()
        m.d.comb += [
            exact.eq(~(rest | (below ^ sign.replicate(len(below))).any())),
            up.eq(Mux(exact & (guard ^ sign), value[-24], guard)),       # a tie goes to even
        ]
        exponent, result = Signal(8), Signal(31)
        m.d.comb += [
            exponent.eq(top - Cat(shifts, high_shifts)),
            result.eq(Cat(value[-24:-1], exponent) + up),
        ]
        some = value[-1].replicate(32)                  # a one was found: not zero
        m.d.comb += self.o.eq(register(m, Cat(result, sign) & some, "code"))
        return m


class Product(Block):
    """The product of two significands, given without their hidden bits: `o = (2**23 + a) * (2**23 + b)`. Combinational.

    Radix-4 Booth: two bits of `b` at a time choose 0, 1 or 2 times `a`, of either sign. Thirteen rows
    go through carry-save adders to two, whose sum is the exact product. Flows for FPGAs recognise it and put their
    multipliers in its place, which is why it is a block of its own.

    Members
    -------
    a, b : In(23)
    o : Out(48)
    """

    def __init__(self):
        super().__init__({"a": In(23), "b": In(23), "o": Out(48)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(add(m, compress(m, _booth(m, self.a, self.b), width=48), width=48, name="total"))
        return m


class Multiply(Block):
    """`o = a * b * 2**scale`, rounded once. Latency 2 cycles.

    Parameters
    ----------
    scale : int
        -32 to 0.

    Members
    -------
    a, b : In(32)
    o : Out(32)
    """

    latency = 2

    def __init__(self, scale=0):
        if not -32 <= scale <= 0:
            raise ValueError(f"Multiply: scale must be -32 to 0, not {scale!r}")
        self.scale = scale
        super().__init__({"a": In(32), "b": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        a, b = Float(FP32)(self.a), Float(FP32)(self.b)

        # Stage 1: the product, and all that does not depend on it.
        a_zero, a_top, b_zero, b_top = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            a_zero.eq(~a.exponent.any()), a_top.eq(a.exponent.all()),
            b_zero.eq(~b.exponent.any()), b_top.eq(b.exponent.all()),
        ]
        sign = register(m, a.sign ^ b.sign, "sign")
        nan = register(m, a.is_nan | b.is_nan | (a_top & b_zero) | (a_zero & b_top), "nan")
        infinite = register(m, a_top | b_top, "infinite")
        zero = register(m, a_zero | b_zero, "zero")
        exponents = Signal(10)                          # one more than the sum: the bias is 128 - 1
        m.d.comb += exponents.eq((Cat(Const(1, 1), a.exponent) + Cat(Const(1, 1), b.exponent))[1:])
        exponent = register(m, (exponents - (FP32.bias + 1 - self.scale))[:10].as_signed(), "exponent")
        m.submodules.exact = exact = Product()
        m.d.comb += exact.a.eq(a.mantissa), exact.b.eq(b.mantissa)
        product, rest = register(m, exact.o[22:], "product"), register(m, exact.o[:22].any(), "rest")

        # Stage 2: round. The product is at least 1 and below 4; its guard bit is the significand's lowest.
        high, significand = product[-1], Signal(25)
        up, rounded, final = Signal(), Signal(24), Signal(signed(10))
        m.d.comb += [
            significand.eq(Mux(high, product[1:], product[:-1])),
            up.eq(significand[0] & (significand[1] | (high & product[0]) | rest)),
            rounded.eq(significand[1:-1] + up),
            final.eq(exponent + (high | rounded[-1])),      # never both: rounding cannot reach 4
        ]
        code = _pack(m, rounded[:-1], final, sign, nan=nan, infinite=infinite, zero=zero)
        m.d.comb += self.o.eq(register(m, code, "code"))
        return m


class Add(Block):
    """`o = a + b`. Latency 3 cycles.

    The operand of smaller magnitude is shifted to the exponent of the other, keeping two bits below and
    a third that says whether more was lost; the sum is normalized in two stages, then rounded.

    Members
    -------
    a, b : In(32)
    o : Out(32)
    """

    latency = 3

    def __init__(self):
        super().__init__({"a": In(32), "b": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        a, b = Float(FP32)(self.a), Float(FP32)(self.b)

        # Stage 1: order by magnitude, shift the small one to the exponent of the big one.
        swap, big, small = Signal(), Signal(Float(FP32)), Signal(Float(FP32))
        a_over_b, b_over_a = Signal(signed(9)), Signal(signed(9))               # in exponent
        places, far, present = Signal(8), Signal(), Signal()
        m.d.comb += [
            a_over_b.eq(a.exponent - b.exponent),
            b_over_a.eq(b.exponent - a.exponent),
            places.eq(Mux(a_over_b < 0, b_over_a, a_over_b)),
            far.eq(places[5:].any()),
            swap.eq((a_over_b < 0) | (~(b_over_a < 0) & (a.mantissa < b.mantissa))),
            big.eq(Mux(swap, self.b, self.a)),
            small.eq(Mux(swap, self.a, self.b)),
            present.eq(small.exponent.any()),
        ]
        shifted, lost = Cat(Const(0, 2), small.mantissa, Const(1, 1)), []
        for n in reversed(range(5)):
            before, shifted = shifted, Signal(26, name=f"shifted{1 << n}")
            lost.append(places[n] & before[:1 << n].any())
            m.d.comb += shifted.eq(Mux(places[n], before[1 << n:], before))
        opposite = a.sign ^ b.sign
        sign = register(m, a.sign & b.sign | big.sign & big.exponent.any(), "sign")     # -0 + -0 alone is -0
        nan = register(m, big.is_nan | (a.exponent.all() & b.exponent.all() & opposite), "nan")
        infinite = register(m, big.exponent.all(), "infinite")
        subtract = register(m, opposite, "subtract")
        exponent, mantissa = register(m, big.exponent, "exponent"), register(m, big.mantissa, "mantissa")
        aligned = Cat(Cat(lost).any(), shifted & ~far.replicate(26))            # far: the sum is `big`
        aligned = register(m, aligned & present.replicate(27), "aligned")

        # Stage 2: add or subtract, shift away the longer runs of leading zeros.
        difference, total = Signal(28), Signal(28)
        m.d.comb += [
            difference.eq((Cat(Const(1, 4), mantissa, Const(1, 1)) +            # the lowest bit carries
                           Cat(subtract, aligned ^ subtract.replicate(27)))[1:]),
            total.eq(Cat(difference[:-1], difference[-1] & ~subtract)),
        ]
        total, shifts = normalize(m, total, (16, 8), Const(0, 1))
        total, high_shifts = register(m, total, "total2"), register(m, shifts, "high_shifts")
        sign, exponent = register(m, sign, "sign2"), register(m, exponent, "exponent2")
        nan, infinite = register(m, nan, "nan2"), register(m, infinite, "infinite2")

        # Stage 3: shift away the rest, round.
        total, shifts = normalize(m, total, (4, 2, 1), Const(0, 1))
        up, rounded, final = Signal(), Signal(24), Signal(signed(10))
        m.d.comb += [
            up.eq(total[3] & (total[4] | total[:3].any())),
            rounded.eq(total[4:-1] + up),
            final.eq(exponent + 1 - Cat(shifts, high_shifts) + rounded[-1]),
        ]
        code = _pack(m, rounded[:-1], final, sign & total[-1], nan=nan, infinite=infinite, zero=~total[-1])
        m.d.comb += self.o.eq(register(m, code, "code"))
        return m


def normalize(m, value, steps, fill):
    """Shift left by each of `steps` in turn if that many of the highest bits are zero.

    Returns the value and one bit a step, the last step lowest.
    """
    taken = []
    for step in steps:
        empty, shifted = Signal(name=f"empty{step}"), Signal(len(value), name=f"normal{step}")
        m.d.comb += [
            empty.eq(~value[-step:].any()),
            shifted.eq(Mux(empty, Cat(fill.replicate(step), value[:-step]), value)),
        ]
        value, taken = shifted, [empty, *taken]
    return value, Cat(taken)


def _booth(m, a, b):
    """The rows whose sum, modulo 2**48, is the product of two significands, given without hidden bits.

    A negative row is complemented; the one it lacks enters in the free place below the next row. Its
    sign extends to infinity; the ones that all extensions add up to are in the rows as constants.
    """
    once, twice = Cat(a, Const(1, 2)), Cat(Const(0, 1), a, Const(1, 1))
    recoded, rows, correction = Cat(Const(0, 1), b, Const(1, 1)), [], []
    for n in range(12):
        below, low, negative = recoded[2 * n], recoded[2 * n + 1], recoded[2 * n + 2]
        one, two, row = Signal(name=f"one{n}"), Signal(name=f"two{n}"), Signal(25, name=f"row{n}")
        m.d.comb += [
            one.eq(low ^ below),
            two.eq(Mux(negative, ~(low | below), low & below)),
            row.eq((once & one.replicate(25) | twice & two.replicate(25)) ^ negative.replicate(25)),
        ]
        extension = [~negative, Const(1, 1)] if n else [negative, negative, ~negative]
        rows.append(Row(Cat(correction, row, extension), max(2 * n - 2, 0)))
        correction = [negative, Const(0, 1)]
    return [*rows, Row(Cat(correction, once), 22)]


def _pack(m, mantissa, exponent, sign, *, nan, infinite, zero):
    """The code of these fields, an exponent below 1 or above 254 included, and of special cases."""
    packed = Signal(31, name="packed")
    special, none = Signal(name="special"), Signal(name="none")
    m.d.comb += [
        special.eq(nan | infinite | (~exponent[-1] & (exponent[8] | exponent[:8].all()))),
        none.eq(zero | exponent[-1] | ~exponent[:9].any()),
        packed.eq(Mux(special, Mux(nan, NAN, INF), Cat(mantissa, exponent[:8]) & ~none.replicate(31))),
    ]
    return Cat(packed, sign & ~nan)
