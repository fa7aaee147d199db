# SPDX-License-Identifier: Apache-2.0
"""The datapath of family `uni`: E4M3 exactly, or wider formats at a quarter rate, aligned (`golden.dot`).

Four lanes of 4x4-bit multipliers make one product of 8-bit significands. Exponents go ahead of the
significands by two cycles: the first adds and compares them, the second takes the largest exponent so
far and what each product has to shift by to be aligned to it.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.families import FORMAT_CODES
from hw.arith.compress import Row, add, compress
from hw.arith.largest import largest_of
from hw.arith.pipeline import register
from hw.arith.shift import saturated, shift_left, shift_right
from hw.emit import Block

__all__ = ["EXACT_TAG", "LEAD", "TAG", "Aligned", "Uni"]

TAG = 9                             # bits of a tag
EXACT_TAG = 288 - 18                # the tag of exact sums, which count units of 2**-18
PLACES = 28                         # by which the product of high halves shifts where its exponent is the largest
LEAD = 2                            # cycles that exponents are ahead of significands
REACH = 6                           # bits of a partial sum's shift; by more it is all sign


class Uni:
    """What passes between an array's edge and its elements in this family."""

    lead = LEAD
    kinds = 2       # of stored weights, which load and swap at times of their own: see `parts`

    @staticmethod
    def activations(lanes):
        """A row's lanes; `aligned` tells of which kind, a cycle before the significands.

        In aligned rows, `exponents` come two cycles before `significands`, 8 bits in each four lanes; in
        exact ones, at the same time, 0 to 14. Of a product's four lanes, two and two have the low and
        the high half of its significand.
        """
        return data.StructLayout({"significands": data.ArrayLayout(4, lanes), "signs": lanes,
                                  "exponents": data.ArrayLayout(4, lanes), "aligned": 1})

    @staticmethod
    def weights(lanes):
        """Stored lanes: the first and third of four have the low half of an 8-bit significand."""
        return data.StructLayout({"significands": data.ArrayLayout(4, lanes), "signs": lanes,
                                  "exponents": data.ArrayLayout(4, lanes)})

    @staticmethod
    def partial(width):
        """A partial sum; its tag comes two cycles before it."""
        return data.StructLayout({"sum": width, "tag": TAG})

    @staticmethod
    def parts(weights):
        """What goes with the significands, and what with the exponents."""
        return [Cat(weights.significands, weights.signs), weights.exponents]

    @staticmethod
    def dot(family, lanes, width):
        return Aligned(family, lanes, width)

    @staticmethod
    def exact_lane(m, code, name):
        """Significand, exponent, sign of an E4M3 code, and whether it is NaN."""
        hidden, exponent = Signal(name=f"{name}_hidden"), Signal(4, name=f"{name}_exponent")
        m.d.comb += hidden.eq(code[3:7].any()), exponent.eq(Mux(hidden, code[3:7] - 1, 0))
        return Cat(code[:3], hidden), exponent, code[7], code[:7].all()

    @staticmethod
    def wide(m, code, format, name):
        """8-bit significand, BF16's exponent (0 for zero), sign of a code, and whether it is NaN or infinite."""
        significand, exponent = Signal(8, name=f"{name}_significand"), Signal(8, name=f"{name}_exponent")
        sign, nan = Signal(name=f"{name}_sign"), Signal(name=f"{name}_nan")

        def fields(mantissa, bits, special):
            fraction, field = code[:mantissa], code[mantissa:mantissa + bits]
            hidden, some = field.any(), code[:mantissa + bits].any()
            effective = Cat(field[0] | (some & ~hidden), field[1:])
            rebias = (~field[-1] & some).replicate(8 - bits)
            return [
                significand.eq(Cat(Const(0, 7 - mantissa), fraction, hidden)),
                exponent.eq(effective if bits == 8 else Cat(effective[:-1], rebias, effective[-1])),
                sign.eq(code[mantissa + bits]),
                nan.eq(special),
            ]

        with m.Switch(format):
            with m.Case(FORMAT_CODES["bf16"]):
                m.d.comb += fields(7, 8, code[7:15].all())
            with m.Case(FORMAT_CODES["e5m2"]):
                m.d.comb += fields(2, 5, code[2:7].all())
            with m.Default():
                m.d.comb += fields(3, 4, code[:7].all())
        return significand, exponent, sign, nan


class Aligned(Block):
    """`o = i + sum(a[n] * w[n])`, exact, or aligned to the larger of `i`'s tag and the largest exponent.

    One dot product a cycle. Latency 2 cycles from the significands, 1 cycle from `i`.

    Parameters
    ----------
    family : str
        "uni".
    lanes : int
        Products a cycle, a quarter of it where sums are aligned.
    width : int
        Bits of the partial sums.

    Members
    -------
    a : In(Uni.activations(lanes)), w : In(Uni.weights(lanes))
        Exponents and significands each at their time.
    i : In(Uni.partial(width)), o : Out(Uni.partial(width))
        From above and to below.
    """

    latency = 2

    def __init__(self, family, lanes, width):
        self.lanes, self.width = lanes, width
        super().__init__({"a": In(Uni.activations(lanes)), "w": In(Uni.weights(lanes)),
                          "i": In(Uni.partial(width)), "o": Out(Uni.partial(width))})

    def elaborate(self, platform):
        m = Module()
        a, w, groups = self.a, self.w, range(self.lanes // 4)

        # Two cycles ahead: each product's exponent, and the largest.
        exponents = []
        for g in groups:
            exponent = Signal(TAG, name=f"exponent{g}")
            m.d.comb += exponent.eq(Cat(a.exponents[4 * g], a.exponents[4 * g + 1])
                                    + Cat(w.exponents[4 * g], w.exponents[4 * g + 1]))
            exponents.append(exponent)
        largest = register(m, largest_of(m, exponents), "largest")
        exponents = [register(m, exponent, f"exponent{g}_held") for g, exponent in enumerate(exponents)]

        # One cycle ahead: the new tag, how far below it `i` and the products are.
        rises, tag, rise, reach = Signal(), Signal(TAG), Signal(TAG), Signal(REACH)
        m.d.comb += [
            rises.eq(largest > self.i.tag),
            tag.eq(Mux(rises, largest, self.i.tag)),
            rise.eq(largest - self.i.tag),
            reach.eq(Mux(rises & a.aligned, saturated(rise, REACH), 0)),
        ]
        m.d.sync += self.o.tag.eq(tag)
        places, near, far = [], [], []      # of each product, in aligned rows: it shifts so much, or counts as zero
        for g, exponent in enumerate(exponents):
            below, reaches = Signal(TAG, name=f"below{g}"), Signal(name=f"reaches{g}")
            m.d.comb += below.eq(tag - exponent), reaches.eq(below <= PLACES)
            places.append(register(m, (PLACES - below)[:5], f"places{g}"))
            near.append(register(m, a.aligned & reaches, f"near{g}"))
            far.append(register(m, a.aligned & ~reaches, f"far{g}"))
        reach = register(m, reach, "reach_held")

        # Multiply, shift, and reduce to two rows. A negative product is complemented, and its sign bit
        # makes it larger by 2**36, as in the exact families; here each element takes that away itself.
        rows, ones = [], []
        for n in range(self.lanes):
            lacks = 2 - (n & 1) - (n >> 1 & 1)              # of its halves, those that are low
            sign, keep = Signal(name=f"sign{n}"), Signal(name=f"keep{n}")
            shift, product = Signal(5, name=f"shift{n}"), Signal(8, name=f"product{n}")
            g, high = n // 4, Signal(3, name=f"high{n}")
            m.d.comb += [
                sign.eq(a.signs[n] ^ w.signs[n]),
                high.eq(places[g][2:] - lacks),             # by four places each
                keep.eq(~(far[g] | near[g] & (places[g][2:] < lacks)) if lacks else ~far[g]),
                shift.eq(Mux(near[g], Cat(places[g][:2], high), a.exponents[n] + w.exponents[n])),
                product.eq(a.significands[n] * (w.significands[n] & keep.replicate(4))),
            ]
            body = shift_left(m, product ^ sign.replicate(8), shift, sign, f"shifted{n}_")
            rows.append(Row(Cat(body[:36], ~sign)))
            ones.append((sign, 0))
        *ones, (last, _) = ones
        first, *others = compress(m, rows, width=self.width, ones=ones)
        excess = 36 + (self.lanes - 1).bit_length()         # subtract 1 from this bit upwards
        lessened = (first.cut(excess, self.width) - 1)[:self.width - excess]
        pair = [Row(Cat(first.cut(0, excess), lessened)), *others]
        tree = [Row(register(m, row.bits, f"tree{n}"), row.low) for n, row in enumerate(pair)]
        carry, reach = register(m, last, "carry"), register(m, reach, "reach")

        # Add to what comes from above, shifted to the new tag.
        above = shift_right(m, self.i.sum, reach, "above")
        pair = compress(m, [*tree, Row(above)], width=self.width, name="chain")
        m.d.sync += self.o.sum.eq(add(m, pair, width=self.width, carry=carry))
        return m
