# SPDX-License-Identifier: Apache-2.0
"""Widths of attention's numbers, which golden and hardware share, and how rows of the KV cache are cut into lanes."""

from dataclasses import dataclass
from functools import cached_property

from golden.config import KV_FORMATS, KvCache
from golden.formats import BF16, E4M3, E8M0

__all__ = ["DOWN", "FRACTION", "GUARD", "QUOTIENT", "SHARE", "WHOLE", "Widths"]

WHOLE, FRACTION = 12, 12        # bits of a score, in powers of two, before and after the point
DOWN = 63 - WHOLE - FRACTION    # places by which a sum can be shifted to become a score; by more it is zero
SHARE = 6                       # places that a power of two keeps below a group's largest for the sum of all
QUOTIENT = 12                   # bits of both factors of a result
GUARD = 8                       # places below the products' last that aligned sums keep
KEPT = 19                       # bits of a product that accumulators keep


@dataclass(frozen=True)
class Widths:
    """Of one KV head.

    Attributes
    ----------
    kv : KvCache
    """

    kv: KvCache

    @property
    def aligned(self):
        """Elements are aligned to the largest exponent of their sum, as exact sums would be too wide."""
        return self.kv.format == "bf16"

    @property
    def fmt(self):
        """The `Format` of keys and values."""
        return BF16 if self.aligned else E4M3

    @property
    def elements(self):
        """Elements of a beat, each with a lane of its own for each query."""
        return self.kv.beat // KV_FORMATS[self.kv.format][0]

    @property
    def tokens(self):
        """Tokens of a group, which are weighed and summed at a time: half as many as there are lanes."""
        return self.elements // 2

    @property
    def slots(self):
        """Groups whose values are gathered at a time. A group of several blocks waits for keys among its values."""
        return 2 if self.tokens <= self.kv.block_tokens else 4

    @property
    def columns(self):
        """Pairs of columns that a row of values has."""
        return -(-self.kv.head_dim // 2)

    @property
    def operand(self):
        """Bits of the magnitude of a query's elements and of powers of two."""
        return 11 if self.aligned else 9

    @property
    def significand(self):
        """Bits of an element's significand."""
        return self.fmt.mantissa + 1

    @property
    def least(self):
        """Exponent of the smallest numbers: their field's, or such that it says by how far products shift."""
        return 1 if self.aligned else 0

    @property
    def places(self):
        """Bits of the number of places by which a product is shifted."""
        return 5 if self.aligned else 4

    @property
    def span(self):
        """Places by which products are shifted: by all exponents, or down from the largest."""
        return GUARD if self.aligned else 14

    @property
    def product(self):
        """Bits of a shifted product's magnitude."""
        return self.operand + self.significand + self.span

    @property
    def sum(self):
        """Bits of a sum over `tokens` lanes, with its sign."""
        return self.product + self.tokens.bit_length()

    @property
    def score(self):
        """Bits of a sum over a row of keys, with its sign."""
        return self.product + (self.elements * self.kv.row_beats - 1).bit_length() + 1

    @property
    def unit(self):
        """Exponent of a sum's last place, without those of operands and scales."""
        return self.fmt.lsb - self.least - (GUARD if self.aligned else E8M0.bias)

    @property
    def drop(self):
        """Last places of a sum over values that its accumulator lacks."""
        return self.product - KEPT

    @cached_property
    def growth(self):
        """Bits that the sum of all groups of a sequence, and of a sink, may have more than the first's."""
        return (self.kv.table * self.kv.block_tokens // self.tokens + 1).bit_length()
