# SPDX-License-Identifier: Apache-2.0
"""`golden.fp32` against numpy and exact rational arithmetic, and the FP32 blocks against it."""

import os
import random
from fractions import Fraction

import numpy as np
import pytest

from golden import fp32
from golden.formats import BF16, E2M1, E4M3, E5M2, FP32, INT8, decode, encode
from hw.arith.fp32 import Add, FromFixed, Multiply
from sim.lanes import Lanes
from sim.operands import CORNERS, ieee, pairs
from sim.run import simulate


def nearest(exact):
    """The FP32 code that a non-zero Fraction rounds to, subnormal results flushed."""
    sign = (exact < 0) << 31
    guess = exact.numerator.bit_length() - exact.denominator.bit_length() - 1      # one too low at times
    binade = guess + (abs(exact) >= Fraction(2) ** (guess + 1))
    significand = round(abs(exact) / Fraction(2) ** (binade - 23))                 # half to even
    if significand == 1 << 24:
        significand, binade = 1 << 23, binade + 1
    if binade < -126:
        return sign
    return sign | (0x7F800000 if binade > 127 else (binade + 127) << 23 | significand & 0x7FFFFF)


def oracle(op, a, b):
    """What `op` of two codes must be, by the rules of `golden.fp32` and exact arithmetic."""
    def unpack(code):
        exponent, fraction = code >> 23 & 0xFF, code & 0x7FFFFF
        value = (0x800000 | fraction) * Fraction(2) ** (exponent - 150) if exponent else Fraction(0)
        return code >> 31, -value if code >> 31 else value, exponent == 255 and fraction != 0, exponent == 255

    (a_sign, x, a_nan, a_big), (b_sign, y, b_nan, b_big) = unpack(a), unpack(b)
    if a_nan or b_nan:
        return 0x7FC00000
    if op is fp32.mul:
        if a_big or b_big:
            return 0x7FC00000 if not x or not y else (a_sign ^ b_sign) << 31 | 0x7F800000
        return nearest(x * y) if x * y else (a_sign ^ b_sign) << 31
    if a_big or b_big:
        return 0x7FC00000 if a_big and b_big and a_sign != b_sign else a if a_big else b
    return nearest(x + y) if x + y else (a_sign & b_sign) << 31


@pytest.mark.parametrize("op", [fp32.add, fp32.mul])
def test_golden_agrees_with_rational_arithmetic(op):
    a, b = pairs(3000, np.random.default_rng(1))
    result = op(a, b)
    assert result.dtype == np.uint32
    for x, y, z in zip(a.tolist(), b.tolist(), result.tolist(), strict=True):
        assert z == oracle(op, x, y), f"{x:08x} {y:08x} {z:08x} {oracle(op, x, y):08x}"


def test_maximum_agrees_with_rational_arithmetic():
    a, b = pairs(3000, np.random.default_rng(3))
    zeros, result = np.array([0, 1 << 31] * 2, dtype=np.uint32), fp32.maximum(a, b)
    assert result.dtype == np.uint32
    for x, y, z in zip(a.tolist(), b.tolist(), result.tolist(), strict=True):
        nan = any(code & 0x7FFFFFFF > 0x7F800000 for code in (x, y))
        x, y = (code if code & 0x7F800000 else code & 1 << 31 for code in (x, y))
        larger = max(x, y, key=lambda code: (code & 0x7FFFFFFF) * (-1 if code >> 31 else 1) - (code >> 31) / 2)
        assert z == (0x7FC00000 if nan else larger), f"{x:08x} {y:08x} {z:08x}"
    assert fp32.maximum(zeros, zeros[::-1]).tolist() == [0] * 4


@pytest.mark.parametrize("scale", [-32, -7, 5])
def test_products_are_scaled_before_rounding(scale):
    a, b = pairs(2000, np.random.default_rng(4))
    for x, y, z in zip(a.tolist(), b.tolist(), fp32.mul(a, b, scale).tolist(), strict=True):
        plain = oracle(fp32.mul, x, y)
        exact = np.array([x, y], np.uint32).view(np.float32)
        if plain & 0x7FFFFFFF < 0x7F800000 and np.isfinite(exact).all() and all(fp32.flush([x, y]) & 0x7FFFFFFF):
            plain = nearest(Fraction(float(exact[0])) * Fraction(float(exact[1])) * Fraction(2) ** scale)
            assert z == plain
        elif plain & 0x7FFFFFFF not in (0, 0x7F800000):
            assert z == plain


@pytest.mark.parametrize("op, name", [(fp32.add, "Add"), (fp32.mul, "Multiply")])
@np.errstate(all="ignore")
def test_golden_agrees_with_the_processor(op, name):
    """More than a million operands, subnormals, specials and ties among them; four million with `DEEP` set."""
    a, b = pairs(1_000_000 if os.environ.get("DEEP") else 250_000, np.random.default_rng(2))
    found = op(a, b)
    np.testing.assert_array_equal(found, ieee(name, a, b))

    x, y, z = (each.view(np.float32).astype(float) for each in (a, b, found))
    off = np.abs((x + y if op is fp32.add else x * y) - z)
    tie = 2 * off == np.spacing(np.abs(found.view(np.float32)))
    subnormal = (np.abs(x) < 2.0**-126) & (x != 0)
    seen = {"ties": tie, "subnormal operands": subnormal, "NaN": np.isnan(z), "infinite": np.isinf(z),
            "flushed": (z == 0) & (off != 0)}
    assert all(kind.sum() > 500 for kind in seen.values()), {name: kind.sum() for name, kind in seen.items()}


def test_flush_boundary():
    half, below_one, smallest, below = 0x3F000000, 0x3F7FFFFF, 0x00800000, 0x007FFFFF
    assert fp32.mul(smallest, half) == 0 and fp32.mul(smallest | 1 << 31, half) == 1 << 31
    assert fp32.mul(0x00800001, below_one) == smallest      # 24 bits round up to 2**-126 from below
    assert fp32.mul(smallest, below_one) == 0               # exact in 24 bits, and below
    assert fp32.add(0x00800001, smallest | 1 << 31) == 0
    assert fp32.add(smallest, 0x00800001 | 1 << 31) == 1 << 31
    assert fp32.add(below, below) == 0 and fp32.add(below | 1 << 31, 0x3F800000) == 0x3F800000


def test_round_fixed():
    rng = random.Random(3)
    integers = [rng.choice([-1, 1]) * (rng.getrandbits(length) & -1 << rng.randint(0, length))
                for length in (rng.randint(1, 60) for _ in range(3000))]
    for lsb in (-18, 0, -140, 100):
        expected = [nearest(n * Fraction(2) ** lsb) if n else 0 for n in integers]
        assert fp32.round_fixed(integers, lsb).tolist() == expected
        longer = np.array([n << 40 | bool(n) for n in integers], object)
        expected = [nearest(n * Fraction(2) ** lsb) if n else 0 for n in longer]
        assert fp32.round_fixed(longer, lsb).tolist() == expected


def test_to_format():
    codes = np.array(CORNERS, np.uint32)
    assert fp32.to_format(FP32, 1) == 0 and fp32.to_format(FP32, 0x80000001) == 1 << 31
    assert fp32.to_format(FP32, 0xFF800001) == 0x7FC00000
    for fmt in (BF16, E4M3, E5M2, E2M1, INT8):
        for saturate in (True, False):
            expected = encode(fmt, decode(FP32, fp32.flush(codes)), saturate=saturate)
            np.testing.assert_array_equal(fp32.to_format(fmt, codes, saturate), expected)
    assert fp32.to_format(BF16, 0x7F7FFFFF) == 0x7F80 and fp32.to_format(E4M3, 0x7F800000) == 0x7E


@pytest.mark.parametrize("block, scale", [(Add, ()), (Multiply, ()), (Multiply, (-32,))])
def test_arithmetic(block, scale):
    env = {"OPERATION": block.__name__, "SCALE": sum(scale)}
    assert simulate(Lanes(block, scale), "sim.benches.fp32", env=env, x_initial="unique") == 2


@pytest.mark.parametrize("width, lsb", [(49, -18), (28, 0), (20, -2), (64, -126), (2, 126)])
def test_from_fixed(width, lsb):
    env = {"OPERATION": "FromFixed", "WIDTH": width, "LSB": lsb}
    assert simulate(Lanes(FromFixed, (width, lsb)), "sim.benches.fp32", env=env, x_initial="unique") == 2


def test_multiply_is_checked():
    with pytest.raises(ValueError, match="^Multiply: scale must be -32 to 0, not 3$"):
        Multiply(3)


def test_from_fixed_is_checked():
    with pytest.raises(ValueError, match="^FromFixed: width must be at least 2, not 1$"):
        FromFixed(1, 0)
    with pytest.raises(ValueError, match="^FromFixed: lsb must be -126 to 79 at width 49, not 80$"):
        FromFixed(49, 80)
