# SPDX-License-Identifier: Apache-2.0
"""Elementary functions of FP32 numbers."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import enum
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from golden.tables import INDEX, PLACES, SQUARE, SQUARED, WHOLE, table
from hw.arith.formats import Float
from hw.arith.pipeline import register
from hw.emit import Block

__all__ = ["Functions", "Kind"]

NAN, INF = Const(FP32.nan, 31), Const(FP32.inf, 31)


class Kind(enum.Enum, shape=2):
    """A function of `golden.functions`."""

    EXP2 = 0
    RECIPROCAL = 1
    RSQRT = 2


class Functions(Block):
    """`o = f(i)` by the rules of `golden.functions`. Latency 4 cycles.

    The fraction chooses a row of a table by its highest bits, the rest goes through a quadratic; the exponent goes
    its own way. Only exp2 has to shift before that, and none after.

    Parameters
    ----------
    kinds : tuple of Kind
        The functions that it has.
    late : bool
        `offset` comes 3 cycles after `i`, so that it may depend on `whole`.

    Members
    -------
    i : In(32)
    kind : In(Kind)
        If there are several.
    offset : In(signed(WHOLE + 1))
        With exp2: what it adds to `i`.
    whole : Out(signed(WHOLE + 2))
        With `late`: the integer part of what `i` was a cycle ago.
    o : Out(32)
    """

    latency = 4

    def __init__(self, kinds=tuple(Kind), late=False):
        self.kinds, self.late = kinds, late
        super().__init__({
            "i": In(32), **({"kind": In(Kind)} if len(kinds) > 1 else {}),
            **({"offset": In(signed(WHOLE + 1))} if Kind.EXP2 in kinds else {}),
            **({"whole": Out(signed(WHOLE + 2))} if late else {}), "o": Out(32),
        })

    def _is(self, kind):
        """Whether that is the function in question."""
        return self.kind == kind if kind in self.kinds and len(self.kinds) > 1 else Const(kind in self.kinds, 1)

    def elaborate(self, platform):
        m = Module()
        x = Float(FP32)(self.i)
        exp2, rsqrt = Signal(), Signal()
        zero, top, nan = Signal(), Signal(), Signal()
        m.d.comb += [
            exp2.eq(self._is(Kind.EXP2)), rsqrt.eq(self._is(Kind.RSQRT)),
            zero.eq(~x.exponent.any()), top.eq(x.exponent.all()), nan.eq(x.is_nan | rsqrt & x.sign & ~zero),
        ]

        # Stage 1: fraction and exponent of the result; which of the tables.
        fixed, odd = self._fixed(m, x, zero) if Kind.EXP2 in self.kinds else Const(0, 41), ~x.exponent[0]
        now, later = (0, self.offset) if self.late else (self.offset if Kind.EXP2 in self.kinds else 0, 0)
        whole, inverse, binade = Signal(signed(WHOLE + 3)), Signal(signed(9)), Signal(signed(WHOLE + 3))
        m.d.comb += [
            whole.eq(fixed[23:].as_signed() + now), inverse.eq(FP32.bias - 1 - x.exponent),
            binade.eq(Mux(exp2, whole, Mux(rsqrt, inverse >> 1, inverse))),
        ]
        fraction = register(m, Mux(exp2, fixed[:23], x.mantissa), "fraction")
        which = Mux(rsqrt, Cat(odd, 1), Cat(~exp2, 0))
        which = register(m, which, "which") if self.kinds not in ((Kind.EXP2,), (Kind.RECIPROCAL,)) else which
        binade = register(m, binade, "binade1")
        if self.late:
            m.d.comb += self.whole.eq(binade)
        sign = register(m, x.sign & ~exp2 & (~rsqrt | zero), "sign1")
        infinite = register(m, Mux(exp2, top & ~x.sign, zero), "infinite1")
        none = register(m, Mux(exp2, top & x.sign, top), "none1")
        nan = register(m, nan, "nan1")

        # Stage 2: the table's row, the square.
        index, u = fraction[INDEX:], fraction[:INDEX]
        high, square = u[-SQUARE:], Signal(2 * SQUARE)
        rows = Array(Const(_row(*row), sum(WIDTHS)) for name in NAMES for row in table(name))[Cat(index, which)]
        m.d.comb += square.eq(high * high)
        row, square = register(m, rows, "row"), register(m, square[-SQUARED:], "square")
        u, falls = register(m, u, "u2"), register(m, which.any(), "falls")
        binade, sign, infinite, none, nan = (
            register(m, value, f"{name}2") for name, value in
            (("binade", binade), ("sign", sign), ("infinite", infinite), ("none", none), ("nan", nan)))

        # Stage 3: the products.
        a, b, c = row[:WIDTHS[0]], row[WIDTHS[0]:-WIDTHS[2]], row[-WIDTHS[2]:]
        first = register(m, b * u, "first")
        second = register(m, Cat(Const(0, INDEX), a) + (c * square << INDEX - SQUARED), "second")
        falls = register(m, falls, "falls3")
        binade, sign, infinite, none, nan = (
            register(m, value, f"{name}3") for name, value in
            (("binade", binade), ("sign", sign), ("infinite", infinite), ("none", none), ("nan", nan)))

        # Stage 4: the sum, rounded; a little less than 1 is 1.
        total, value = Signal(len(second) + 1), Signal(25)
        drop = PLACES - FP32.mantissa + INDEX
        exponent = Signal(signed(WHOLE + 5))
        m.d.comb += [
            total.eq(second + Mux(falls, -first, first) + (1 << drop - 1)),
            value.eq(total[drop:]),
            exponent.eq(binade + later + FP32.bias + value[24]),
        ]
        mantissa = value[:23] & value[23:].any().replicate(23)
        past, below = exponent >= 255, exponent <= 0
        code = Mux(nan, NAN, Mux(none, 0, Mux(infinite | past, INF, Mux(below, 0, Cat(mantissa, exponent[:8])))))
        m.d.comb += self.o.eq(register(m, Cat(code, sign & ~nan), "code"))
        return m

    def _fixed(self, m, x, zero):
        """The operand of exp2 in units of 2**-23, rounded towards zero, then negated if need be."""
        left, right = Signal(signed(9)), Signal(signed(9))
        m.d.comb += left.eq(x.exponent - FP32.bias), right.eq(FP32.bias - x.exponent)
        significand = Cat(x.mantissa, ~zero)
        width = WHOLE + 1 + FP32.mantissa
        up, down, magnitude, fixed = Signal(width), Signal(24), Signal(width), Signal(width + 1)
        m.d.comb += [
            up.eq(Mux(left >= WHOLE, 1 << width - 1, significand << left[:4])),
            down.eq(Mux(right[5:].any(), 0, significand >> right[:5])),
            magnitude.eq(Mux(left < 0, down, up)),
            fixed.eq(Mux(x.sign, -magnitude, magnitude)),
        ]
        return fixed


NAMES = "exp2", "reciprocal", "rsqrt", "rsqrt_odd"
WIDTHS = tuple(max(abs(row[n]).bit_length() for name in NAMES for row in table(name)) for n in range(3))


def _row(a, b, c):
    """A row of a table as it is stored: magnitudes, as the sign of b is that of the function."""
    return a | abs(b) << WIDTHS[0] | c << WIDTHS[0] + WIDTHS[1]
