# SPDX-License-Identifier: Apache-2.0
"""What the vector engine computes: rows of FP32 codes (uint32), operation by operation as the hardware rounds.

Rows lie along the last axis. A beat is `lanes` elements of a row; what a last beat lacks counts as +0.

**Order of sums.** Within a beat neighbours are added in pairs, then neighbouring sums, and so on. Beat n goes to
partial sum n mod `PARTIALS`, in order; at the end partial sums are added in pairs as well. Maxima do not depend on it.
"""

from math import inf

import numpy as np

from golden import formats, fp32, functions
from golden.formats import FP32
from golden.tables import WHOLE

__all__ = ["PARTIALS", "code", "quantize_rows", "rms_norm", "rope", "silu_gate", "softmax", "top_k", "total"]

PARTIALS = 4        # as many as an addition takes cycles, and one: a beat a cycle
LOWEST = 1 - (1 << WHOLE)


def code(value):
    """The FP32 code nearest to a number."""
    return fp32.to_format(FP32, formats.encode(FP32, value))


def total(x, lanes):
    """The sum of each row: shape (...)."""
    sums = np.zeros((PARTIALS, *x.shape[:-1]), np.uint32)
    for n, beat in enumerate(_beats(x, lanes)):
        sums[n % PARTIALS] = fp32.add(sums[n % PARTIALS], _pairs(beat))
    return _pairs(np.moveaxis(sums, 0, -1))


def rms_norm(x, weight, eps, lanes):
    """x / sqrt(mean(x**2) + eps) * weight: the mean is the sum times 1 / length, the quotient a product with rsqrt."""
    mean = fp32.mul(total(fp32.mul(x, x), lanes), code(1 / x.shape[-1]))
    return fp32.mul(fp32.mul(x, functions.rsqrt(fp32.add(mean, code(eps)))[..., None]), weight)


def softmax(x, scale, lanes):
    """2 ** (x * scale) over its sum; with `scale` = s / ln 2 that is the softmax of s * x.

    In one pass: the sum is relative to a running maximum, the least integer that no x * scale so far is above. When
    that grows, the sum so far is scaled, exactly. A row of -Inf gives zeros.
    """
    t = fp32.mul(x, code(scale))
    most = np.full(x.shape[:-1], LOWEST)
    sums = np.zeros((PARTIALS, *x.shape[:-1]), np.uint32)
    for n, beat in enumerate(_beats(t, lanes, code(-inf))):
        above = np.maximum(most, _ceiling(beat).max(-1))
        sums = fp32.mul(sums, code(1), np.maximum(most - above, -255))
        most = above
        sums[n % PARTIALS] = fp32.add(sums[n % PARTIALS], _pairs(functions.exp2(beat, -most[..., None])))
    whole = _pairs(np.moveaxis(sums, 0, -1))
    share = np.where(whole == 0, 0, functions.reciprocal(whole)).astype(np.uint32)
    return fp32.mul(functions.exp2(t, -most[..., None]), share[..., None])


def rope(x, cosine, sine):
    """Rotary embedding: element n of the first half of a row turns with element n of the second, as Llama pairs them.

    Parameters
    ----------
    x : shape (..., N)
    cosine, sine : shape (..., N / 2)
    """
    low, high = np.split(x, 2, axis=-1)
    minus = fp32.SIGN
    return np.concatenate([
        fp32.add(fp32.mul(low, cosine), fp32.mul(high, sine) ^ minus),
        fp32.add(fp32.mul(high, cosine), fp32.mul(low, sine)),
    ], axis=-1)


def silu_gate(x, gate):
    """silu(x) * gate."""
    return fp32.mul(functions.silu(x), gate)


def top_k(x, k):
    """The `k` largest of each row and where they are, the largest first; of equal ones the first. NaN is above all.

    Returns
    -------
    values : uint32, shape (..., k)
    places : int64, shape (..., k)
    """
    x = fp32.flush(x)
    nan = x & ~fp32.SIGN > fp32.INF
    rank = np.where(nan, 0xFFFFFFFF, np.where(x & fp32.SIGN, ~x, x | fp32.SIGN)).astype(np.int64)
    places = np.argsort(-rank, axis=-1, kind="stable")[..., :k]
    return np.where(np.take_along_axis(nan, places, -1), fp32.NAN, np.take_along_axis(x, places, -1)), places


def quantize_rows(fmt, x):
    """Rows under a scale each that brings the largest magnitude to `fmt`'s largest.

    The scale is the magnitude times 1 / max, at least 2**-126; of a row of zeros it is 1. Elements are multiplied by
    its reciprocal and rounded once more; they saturate.

    Returns
    -------
    codes : fmt.dtype, shape of `x`
    scales : uint32, shape (...)
    """
    largest = np.maximum.reduce(fp32.flush(x) & ~fp32.SIGN, axis=-1)
    scales = np.maximum(fp32.mul(largest, code(1 / formats.decode(fmt, fmt.max))), fp32.NORMAL)
    scales = np.where(largest == 0, code(1), scales).astype(np.uint32)
    return fp32.to_format(fmt, fp32.mul(x, functions.reciprocal(scales)[..., None])), scales


def _beats(x, lanes, absent=0):
    """The beats of rows, one after the other: (..., lanes)."""
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % lanes)], constant_values=absent)
    return (x[..., first:first + lanes] for first in range(0, x.shape[-1], lanes))


def _pairs(x):
    """The sum of a beat of a power of two of elements."""
    while x.shape[-1] > 1:
        x = fp32.add(x[..., ::2], x[..., 1::2])
    return x[..., 0]


def _ceiling(codes):
    """The least integer that a number is not above, within 2**16; NaN is no number and below all."""
    values = formats.decode(FP32, fp32.flush(codes))
    return np.clip(np.ceil(np.where(np.isnan(values), -inf, values)), LOWEST, -LOWEST).astype(np.int64)
