# SPDX-License-Identifier: Apache-2.0
"""Elementary functions as the chip computes them, on arrays of FP32 codes (uint32), by the rules of `golden.fp32`.

Each is a table and a quadratic (`golden.tables`), rounded once to 24 bits: relative error below 2**-20.
Sigmoid and SiLU are made of them and of FP32 operations.
"""

import numpy as np

from golden import fp32
from golden.formats import FP32
from golden.tables import INDEX, LIFT, PLACES, SQUARE, SQUARED, WHOLE, table

__all__ = ["exp2", "reciprocal", "rsqrt", "sigmoid", "silu", "whole"]

LOG2E = np.uint32(0x3FB8AA3B)       # 1 / ln 2


def exp2(codes, offset=0):
    """2 ** (x + `offset`), the sum exact.

    x counts in units of 2**-23; what is below is cut off, and from 2**16 on nothing is told apart. NaN of NaN, 0 below
    2**-126, Inf from 2**128 on.
    """
    x, fixed = fp32.flush(codes), _fixed(codes)
    whole, fraction = (fixed >> FP32.mantissa) + offset, fixed & (1 << FP32.mantissa) - 1
    result = _code(_evaluate("exp2", fraction), whole, np.uint32(0))
    result = np.where(x & ~fp32.SIGN == fp32.INF, np.where(x == fp32.INF, fp32.INF, np.uint32(0)), result)
    return np.where(_nan(x), fp32.NAN, result)


def whole(codes):
    """The largest integer that x is not below, x seen as `exp2` does: from -2**16 to 2**16."""
    return _fixed(codes) >> FP32.mantissa


def reciprocal(codes):
    """1 / x. Inf of 0, 0 of Inf, both with x's sign."""
    x = fp32.flush(codes)
    exponent, significand = _fields(x)
    sign = x & fp32.SIGN
    result = _code(_evaluate("reciprocal", significand & (1 << FP32.mantissa) - 1), FP32.bias - 1 - exponent, sign)
    result = np.where(x == sign, fp32.INF | sign, np.where(x & ~fp32.SIGN == fp32.INF, sign, result))
    return np.where(_nan(x), fp32.NAN, result)


def rsqrt(codes):
    """1 / sqrt(x). Inf of 0 with its sign, 0 of Inf, NaN of what is below 0."""
    x = fp32.flush(codes)
    exponent, significand = _fields(x)
    binade, fraction = exponent - FP32.bias, significand & (1 << FP32.mantissa) - 1
    odd = binade & 1 == 1
    value = np.where(odd, _evaluate("rsqrt_odd", fraction), _evaluate("rsqrt", fraction))
    result = _code(value, -1 - (binade >> 1), np.uint32(0))
    zero = x & ~fp32.SIGN == 0
    result = np.where(zero, fp32.INF | x, np.where(x == fp32.INF, 0, result))
    return np.where(_nan(x) | (x & fp32.SIGN != 0) & ~zero, fp32.NAN, result).astype(np.uint32)


def sigmoid(codes):
    """1 / (1 + e**-x)."""
    return fp32.mul(_lifted(codes), np.uint32((FP32.bias - LIFT) << FP32.mantissa))


def silu(codes):
    """x / (1 + e**-x): x times the lifted sigmoid, scaled back in the same rounding."""
    return fp32.mul(codes, _lifted(codes), -LIFT)


def _lifted(codes):
    """2**LIFT / (1 + e**-x)."""
    power = exp2(fp32.mul(codes, LOG2E | fp32.SIGN), -LIFT)
    return reciprocal(fp32.add(power, np.uint32((FP32.bias - LIFT) << FP32.mantissa)))


def _fixed(codes):
    """x in units of 2**-23, rounded towards zero, up to 2**16: int64."""
    x = fp32.flush(codes)
    exponent, significand = _fields(x)
    places = np.clip(exponent - FP32.bias, -25, WHOLE)
    fixed = np.where(places >= 0, significand << np.maximum(places, 0), significand >> np.maximum(-places, 0))
    fixed = np.minimum(fixed, 1 << WHOLE + FP32.mantissa)
    return np.where(x & fp32.SIGN, -fixed, fixed)


def _evaluate(name, fraction):
    """The function of `fraction` / 2**23, in units of 2**-23, rounded: int64."""
    a, b, c = (np.array(column, np.int64)[fraction >> INDEX] for column in zip(*table(name), strict=True))
    u = fraction & (1 << INDEX) - 1
    square = (u >> INDEX - SQUARE) ** 2 >> 2 * SQUARE - SQUARED
    total = (a << INDEX) + b * u + (c * square << INDEX - SQUARED)
    drop = PLACES - FP32.mantissa + INDEX
    return total + (1 << drop - 1) >> drop


def _code(value, binade, sign):
    """The code of `value` / 2**23 * 2**`binade`, for values from 1 to 2."""
    value = np.maximum(value, 1 << FP32.mantissa)           # as rounding may leave a bit less than 1
    binade = binade + (value >> FP32.mantissa + 1)
    field = np.clip(binade + FP32.bias, 0, 255)
    code = np.where(field == 0, 0, np.where(field == 255, fp32.INF, field << FP32.mantissa | value & 0x7FFFFF))
    return code.astype(np.uint32) | sign


def _fields(x):
    """Exponent fields and significands with the hidden bit, which is 0 in a zero: int64."""
    exponent = (x >> np.uint32(FP32.mantissa) & np.uint32(0xFF)).astype(np.int64)
    significand = (x & np.uint32(0x7FFFFF)).astype(np.int64)
    return exponent, np.where(exponent == 0, 0, significand | 1 << FP32.mantissa)


def _nan(x):
    return x & ~fp32.SIGN > fp32.INF
