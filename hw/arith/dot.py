# SPDX-License-Identifier: Apache-2.0
"""The exact multi-lane dot product, one datapath a family.

Operands arrive decoded: the edge of an array turns codes into lanes once, with a datapath's `decode`
and `recode`, so that no processing element repeats the work. A lane's product joins one carry-save tree
together with the partial sum from above, and a single carry-propagating addition ends the chain. Nothing
is rounded.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.families import FAMILIES, FORMAT_CODES
from hw.arith.aligned import Uni
from hw.arith.compress import Row, add, compress, multiply
from hw.arith.shift import shift_left
from hw.emit import Block

__all__ = ["Dot", "datapath"]


class Dot(Block):
    """`o = i + sum(a[n] * w[n])` on the family's fixed-point grid, biased.

    Each lane adds `datapath(family).bias` to the sum, in exchange for sign bits that need no
    extension; whoever starts a chain of dots starts it at minus the biases of all its lanes.
    Latency 2 cycles from `a` and `w`, 1 cycle from `i`; one dot product a cycle.

    Parameters
    ----------
    family : str
        A key of `golden.families.FAMILIES`.
    lanes : int
        Products a cycle.
    width : int
        Bits of the partial sums; sums are modulo 2**width.

    Members
    -------
    a : In(datapath(family).activations(lanes))
    w : In(datapath(family).weights(lanes))
    i : In(width)
        Partial sum from above, needed one cycle after `a` and `w`.
    o : Out(width)
    """

    latency = 2

    def __init__(self, family, lanes, width):
        self.datapath, self.lanes, self.width = datapath(family), lanes, width
        super().__init__({
            "a": In(self.datapath.activations(lanes)),
            "w": In(self.datapath.weights(lanes)),
            "i": In(width),
            "o": Out(width),
        })

    def elaborate(self, platform):
        m = Module()

        rows, ones = [], []
        for n in range(self.lanes):
            lane_rows, lane_ones = self.datapath.product(m, self.a[n], self.w[n], n)
            rows += lane_rows
            ones += lane_ones
        *ones, (last, _) = ones                     # one bit of weight 1 enters as the final carry
        pair = compress(m, rows, width=self.width, ones=ones)
        tree = [Row(Signal(len(row.bits), name=f"tree{n}", reset_less=True), row.low)
                for n, row in enumerate(pair)]
        carry = Signal(reset_less=True)
        m.d.sync += [held.bits.eq(row.bits) for held, row in zip(tree, pair, strict=True)]
        m.d.sync += carry.eq(last)

        pair = compress(m, [*tree, Row(self.i)], width=self.width, name="chain")
        m.d.sync += self.o.eq(add(m, pair, width=self.width, carry=carry))

        return m


class _Exact:
    """What passes between an array's edge and its elements: lanes of their own, in one piece.

    A family adds the shapes `activation` and `weight` of a lane, its `bias`, and `product`.
    """

    lead, kinds = 0, 1

    @classmethod
    def activations(cls, lanes):
        return data.ArrayLayout(cls.activation, lanes)

    @classmethod
    def weights(cls, lanes):
        return data.ArrayLayout(cls.weight, lanes)

    @staticmethod
    def partial(width):
        return width

    @staticmethod
    def parts(weights):
        return [weights]

    @staticmethod
    def dot(family, lanes, width):
        return Dot(family, lanes, width)


class _Fp8(_Exact):
    """E4M3 times E4M3, exact: 8-bit product shifted into 36 bits of 2**-18."""

    activation = data.StructLayout({"significand": 4, "exponent": 4, "sign": 1})
    weight = unsigned(8)            # the E4M3 code itself is the densest form to store
    bias = 1 << 36

    @staticmethod
    def decode(m, code, format, name):
        """An activation's lane, and whether it is NaN."""
        hidden = Signal(name=f"{name}_hidden")
        m.d.comb += hidden.eq(code[3:7].any())
        return Cat(code[:3], hidden, code[3] | ~hidden, code[4:8]), code[:7].all()

    @staticmethod
    def recode(m, wide, narrow, format, name):
        """A weight as it is stored, and whether it is NaN; E2M1 is a subset of E4M3."""
        small, short = Signal(name=f"{name}_small"), Signal(8, name=f"{name}_short")
        m.d.comb += [
            small.eq(~narrow[1:3].any()),                   # +-0 or +-0.5
            short.eq(Cat(Const(0, 2), narrow[0] & ~small,
                         Mux(small, Mux(narrow[0], 6, 0), narrow[1:3] + 6)[:4], narrow[3])),
        ]
        is_short = format == FORMAT_CODES["e2m1"]
        return Mux(is_short, short, wide), wide[:7].all() & ~is_short

    @staticmethod
    def product(m, a, w, n):
        """Rows and single bits of lane `n`: the product's magnitude in ones' complement."""
        hidden, sign = Signal(name=f"hidden{n}"), Signal(name=f"sign{n}")
        product, shift = Signal(8, name=f"product{n}"), Signal(5, name=f"shift{n}")
        m.d.comb += [
            hidden.eq(w[3:7].any()),
            sign.eq(a.sign ^ w[7]),
            product.eq(multiply(m, a.significand, Cat(w[0:3], hidden), f"product{n}_")),
            shift.eq(a.exponent + Cat(w[3] | ~hidden, w[4:7])),
        ]
        body = shift_left(m, product ^ sign.replicate(8), shift, sign, f"shifted{n}_")
        return [Row(Cat(body[2:38], ~sign))], [(sign, 0)]       # exponents start at 1 each


class _Fp4(_Exact):
    """E2M1 times E2M1, exact: 4-bit product shifted into 8 bits of 2**-2."""

    activation = data.StructLayout({"significand": 2, "exponent": 2, "sign": 1})
    weight = unsigned(4)
    bias = 1 << 8

    @staticmethod
    def decode(m, code, format, name):
        """An activation's lane; there is no NaN."""
        hidden = Signal(name=f"{name}_hidden")
        m.d.comb += hidden.eq(code[1:3].any())
        return Cat(code[0], hidden, code[1] | ~hidden, code[2:4]), Const(0, 1)

    @staticmethod
    def recode(m, wide, narrow, format, name):
        """A weight as it is stored."""
        return narrow, Const(0, 1)

    @staticmethod
    def product(m, a, w, n):
        """Rows and single bits of lane `n`."""
        hidden, sign = Signal(name=f"hidden{n}"), Signal(name=f"sign{n}")
        product, shift = Signal(4, name=f"product{n}"), Signal(3, name=f"shift{n}")
        m.d.comb += [
            hidden.eq(w[1:3].any()),
            sign.eq(a.sign ^ w[3]),
            product.eq(multiply(m, a.significand, Cat(w[0], hidden), f"product{n}_")),
            shift.eq(a.exponent + Cat(w[1] | ~hidden, w[2])),
        ]
        body = shift_left(m, product ^ sign.replicate(4), shift, sign, f"shifted{n}_")
        return [Row(Cat(body[2:10], ~sign))], [(sign, 0)]


class _Int8(_Exact):
    """INT8 times INT8: radix-4 Booth digits of the activation select multiples of the weight.

    The digits are made once at the array's edge, so an element pays only for the selection.
    """

    digit = data.StructLayout({"one": 1, "two": 1, "negative": 1})
    activation = data.ArrayLayout(digit, 4)
    weight = unsigned(8)
    bias = sum(1 << (8 + 2 * n) for n in range(4))

    @staticmethod
    def decode(m, code, format, name):
        """An activation's Booth digits, lowest first."""
        digits = []
        for j in range(4):
            low, mid, high = (code[n] if n >= 0 else Const(0, 1) for n in range(2 * j - 1, 2 * j + 2))
            digits.append(Cat(mid ^ low, (mid == low) & (high != mid), high & ~(mid & low)))
        return Cat(digits), Const(0, 1)

    @staticmethod
    def recode(m, wide, narrow, format, name):
        """A weight as it is stored."""
        return wide, Const(0, 1)

    @staticmethod
    def product(m, a, w, n):
        """Rows and single bits of lane `n`: four partial products of 9 bits."""
        rows, ones = [], []
        for j in range(4):
            digit, part = a[j], Signal(9, name=f"part{n}_{j}")
            once, twice = Cat(w, w[7]), Cat(Const(0, 1), w)
            m.d.comb += part.eq((once & digit.one.replicate(9) | twice & digit.two.replicate(9))
                                ^ digit.negative.replicate(9))
            rows.append(Row(Cat(part[:8], ~part[8]), 2 * j))
            ones.append((digit.negative, 2 * j))
        return rows, ones[::-1]


def datapath(family):
    """The datapath of a family, as a class: `_Exact` or `Uni`."""
    try:
        return {"fp8": _Fp8, "fp4": _Fp4, "int8": _Int8, "uni": Uni}[family]
    except KeyError:
        raise ValueError(f"datapath: family must be one of {', '.join(FAMILIES)}, not {family!r}") from None
