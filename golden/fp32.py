# SPDX-License-Identifier: Apache-2.0
"""FP32 arithmetic as every FP32 unit of the chip does it, on arrays of uint32 codes.

IEEE 754-2019 binary32, round to nearest, ties to even, but for two rules:

- a subnormal operand is zero of the same sign, and so is a result whose magnitude, rounded to 24 bits
  without regard to the exponent, is below 2**-126;
- every NaN that comes out is 0x7FC00000.
"""

import numpy as np

from golden import formats
from golden.formats import FP32

__all__ = ["add", "flush", "maximum", "mul", "round_fixed", "to_format"]

SIGN = np.uint32(0x80000000)
NAN, INF = np.uint32(FP32.nan), np.uint32(FP32.inf)
NORMAL = np.uint32(0x00800000)      # the smallest normal number
FLOOR = -1024                       # of the exponents of last places: below all that can occur


def flush(codes):
    """`codes` as an FP32 unit sees its operands: subnormals are zeros."""
    codes = np.asarray(codes, dtype=np.uint32)
    return np.where(codes & ~SIGN < NORMAL, codes & SIGN, codes)


def add(a, b):
    """`a` + `b`: uint32, broadcast."""
    a, b = np.broadcast_arrays(flush(a), flush(b))
    swap = (a & ~SIGN) < (b & ~SIGN)
    big, small = np.where(swap, b, a), np.where(swap, a, b)

    # 30 places below the last of `big` hold all of `small`, or enough of it with one bit for the rest.
    big_significand, big_lsb = _significand(big)
    small_significand, small_lsb = _significand(small)
    places = np.minimum(big_lsb - small_lsb, 62).astype(np.uint64)
    top, low = big_significand << np.uint64(30), small_significand << np.uint64(30)
    aligned = low >> places
    aligned = aligned | (aligned << places != low)
    opposite = (a ^ b) & SIGN != 0
    total = np.where(opposite, top - aligned, top + aligned)

    result = _round(big & SIGN != 0, total, big_lsb - 30)
    result = np.where(total == 0, a & b & SIGN, result)
    result = np.where(_is_inf(big), big, result)
    return np.where(_is_nan(a) | _is_nan(b) | (_is_inf(a) & _is_inf(b) & opposite), NAN, result)


def mul(a, b, scale=0):
    """`a` * `b` * 2**`scale`, rounded once: uint32, broadcast."""
    a, b = np.broadcast_arrays(flush(a), flush(b))
    sign = (a ^ b) & SIGN
    (a_significand, a_lsb), (b_significand, b_lsb) = _significand(a), _significand(b)
    result = _round(sign != 0, a_significand * b_significand, a_lsb + b_lsb + scale)
    infinite, zero = _is_inf(a) | _is_inf(b), (a & ~SIGN == 0) | (b & ~SIGN == 0)
    result = np.where(infinite, INF | sign, result)
    return np.where(_is_nan(a) | _is_nan(b) | (infinite & zero), NAN, result)


def maximum(a, b):
    """The larger of `a` and `b`: uint32, broadcast; +0 is larger than -0, and NaN than all."""
    a, b = np.broadcast_arrays(flush(a), flush(b))
    rank_a, rank_b = (np.where(codes & SIGN, ~codes, codes | SIGN) for codes in (a, b))
    return np.where(_is_nan(a) | _is_nan(b), NAN, np.where(rank_a < rank_b, b, a))


def round_fixed(integers, lsb):
    """The exact `integers` * 2**`lsb` in FP32: int64 or Python integers of any size to uint32."""
    return _round(*formats.fixed_parts(integers, lsb))


def to_format(fmt, codes, saturate=True):
    """FP32 `codes` in another format, one rounding; FP32 itself flushes and makes NaN canonical."""
    return formats.encode(fmt, formats.decode(FP32, flush(codes)), saturate=saturate)


def _significand(codes):
    """Integer significands (uint64, hidden bit included) and the exponents of their last places."""
    exponent = (codes >> np.uint32(23) & np.uint32(0xFF)).astype(np.int64)
    fraction = (codes & np.uint32(0x7FFFFF)).astype(np.uint64)
    return np.where(exponent == 0, np.uint64(0), fraction | np.uint64(NORMAL)), exponent - FP32.bias - 23


def _round(sign, magnitude, lsb):
    """Round to 24 bits with unbounded exponent, then flush or overflow, and attach the sign."""
    ordinal = formats.round_ordinal(magnitude, lsb, FP32.mantissa, FLOOR)
    ordinal -= (FP32.lsb - FLOOR) << FP32.mantissa
    codes = np.where(ordinal < NORMAL, 0, np.minimum(ordinal, FP32.inf)).astype(np.uint32)
    return np.where(sign, codes | SIGN, codes)


def _is_nan(codes):
    return codes & ~SIGN > INF


def _is_inf(codes):
    return codes & ~SIGN == INF
