# SPDX-License-Identifier: Apache-2.0
"""Dot products: exact integers on the family's fixed-point grid, or aligned to the largest exponent.

Every operand is an integer times a power of two, so every product is one, and sums of any length and
order are plain integer arithmetic. Rounding happens once, after it, in `golden.matmul`.

E5M2 and BF16 span too many powers of two for that. Their sums are integers with a tag, in units of
2**(tag - 288), where the tag is the largest exponent of any product so far; a product's exponent is the
sum of its operands' as BF16 has them, biased by 127 each, and zero has exponent 0. What joins the sum
first gives up its bits below that unit. The order is that of the array: see `aligned`.
"""

import numpy as np

from golden.families import FAMILIES
from golden.formats import BF16, E2M1, E4M3, FORMATS, decode, encode, is_inf, is_nan

__all__ = ["ALIGNED_LSB", "aligned", "integers", "matmul", "special"]

ALIGNED_LSB = -288      # of the sums of `aligned` with tag 0


def integers(format, codes):
    """Operands as int64, in units of the format's smallest magnitude; NaN and Inf count as zero.

    Parameters
    ----------
    format : str
        A key of `golden.formats.FORMATS`.
    codes : array of unsigned integers
    """
    fmt = FORMATS[format]
    values = np.where(special(format, codes), 0, decode(fmt, codes))
    return np.ldexp(values, -fmt.lsb).astype(np.int64)


def special(format, codes):
    """Which operands are NaN or infinite."""
    fmt = FORMATS[format]
    return is_nan(fmt, codes) | is_inf(fmt, codes)


def matmul(family, a_format, a, w_format, w):
    """`a @ w.T` exactly.

    Parameters
    ----------
    family : str
        A key of `golden.families.FAMILIES`.
    a_format, w_format : str
        Formats that the family multiplies.
    a : array (M, K) of codes
    w : array (N, K) of codes

    Returns
    -------
    sums : array (M, N) of int64
        In units of 2**lsb of the family.
    nans : array (M, N) of bool
        A NaN or an infinity took part: the row of `a` or the row of `w` holds one.

    Raises
    ------
    ValueError
        When a format is not one of the family's, sums would have to be aligned, or shapes do not agree.
    """
    known = FAMILIES[family]
    for name, given, allowed in (("a_format", a_format, known.activations), ("w_format", w_format, known.weights)):
        if given not in allowed:
            raise ValueError(f"matmul: {name} must be one of {', '.join(allowed)} in family {family}, not {given!r}")
    if known.rate(a_format, w_format) > 1:
        raise ValueError(f"matmul: sums of {a_format} x {w_format} are not exact in family {family}; see `aligned`")
    if a.ndim != 2 or w.ndim != 2 or a.shape[1] != w.shape[1]:
        raise ValueError(f"matmul: a and w must be (M, K) and (N, K), not {a.shape} and {w.shape}")
    shift = FORMATS[a_format].lsb + FORMATS[w_format].lsb - known.lsb       # products may lie on a coarser grid
    sums = (integers(a_format, a) @ integers(w_format, w).T) << shift
    return sums, special(a_format, a).any(axis=1)[:, None] | special(w_format, w).any(axis=1)


def aligned(rows, lanes, a_format, a, w_format, w):
    """`a @ w.T` as an array of `rows` x `lanes` multipliers a column adds it up at a quarter rate.

    A tile is `rows * lanes / 4` of K. Its sum grows from row to row of the array, of `lanes / 4` products
    each, and is then added to that of the tiles before. Where a tag rises, the sum under it shifts
    right, rounding down. A product is four of 4-bit halves; each shifts left so that the largest
    exponent's have 20 places below them, and counts as zero where it would have to shift right.

    Parameters
    ----------
    rows, lanes : int
    a_format, w_format, a, w
        As of `matmul`; here one of the formats is among the family's `aligned` ones.

    Returns
    -------
    sums, tags : arrays (M, N) of int64
    nans : array (M, N) of bool
    """
    m, n, k = len(a), len(w), a.shape[1]
    group = lanes // 4
    padding = (0, 0), (0, -k % (rows * group))
    (a_halves, a_exponents), (w_halves, w_exponents) = (
        _fields(format, np.pad(codes, padding)) for format, codes in ((a_format, a), (w_format, w)))

    sums = tags = np.zeros((m, n), np.int64)
    for tile in range(0, k, rows * group):
        inner = tag = np.zeros((m, n), np.int64)
        for first in range(tile, tile + rows * group, group):
            here = slice(first, first + group)
            exponents = a_exponents[:, None, here] + w_exponents[:, here]           # (M, N, group)
            top = np.maximum(tag, exponents.max(axis=2))
            inner = inner >> np.minimum(top - tag, 63)
            for i, a_half in enumerate(a_halves):
                for j, w_half in enumerate(w_halves):
                    shift = 20 + 4 * i + 4 * j - (top[:, :, None] - exponents)
                    product = a_half[:, None, here] * w_half[:, here]
                    inner = inner + np.where(shift < 0, 0, product << np.maximum(shift, 0)).sum(axis=2)
            tag = top
        top = np.maximum(tags, tag)
        sums = (sums >> np.minimum(top - tags, 63)) + (inner >> np.minimum(top - tag, 63))
        tags = top
    return sums, tags, special(a_format, a).any(axis=1)[:, None] | special(w_format, w).any(axis=1)


def _fields(format, codes):
    """Halves of the 8-bit significands, low and high, with their sign; exponents as BF16 has them, 0 for zero."""
    if format == "e2m1":
        format, codes = "e4m3", encode(E4M3, decode(E2M1, codes))
    fmt = FORMATS[format]
    codes = np.where(special(format, codes), 0, codes).astype(np.int64)
    sign = 1 - 2 * (codes >> fmt.width - 1)
    field, fraction = codes >> fmt.mantissa & (1 << fmt.exponent) - 1, codes & (1 << fmt.mantissa) - 1
    significand = (fraction + (np.minimum(field, 1) << fmt.mantissa)) << BF16.mantissa - fmt.mantissa
    exponents = np.where(significand == 0, 0, np.maximum(field, 1) - fmt.bias + BF16.bias)
    return (sign * (significand & 15), sign * (significand >> 4)), exponents
