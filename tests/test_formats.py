# SPDX-License-Identifier: Apache-2.0
"""`golden.formats` against ml_dtypes on every code, and against exact rational arithmetic."""

import random
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from amaranth.hdl import Module, Shape, Signal
from amaranth.sim import Simulator

from golden import formats
from golden.formats import BF16, E2M1, E4M3, E5M2, E8M0, FORMATS, FP32, INT8, decode, encode
from hw.arith.formats import Float, shape

PEER = {E4M3: ml_dtypes.float8_e4m3fn, E5M2: ml_dtypes.float8_e5m2, E2M1: ml_dtypes.float4_e2m1fn,
        E8M0: ml_dtypes.float8_e8m0fnu, INT8: np.int8, BF16: ml_dtypes.bfloat16, FP32: np.float32}
FLOATS = [E4M3, E5M2, E2M1, BF16, FP32]
NARROW = [E4M3, E5M2, E2M1, E8M0, BF16]       # the formats ml_dtypes can convert float32 to
every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=repr)


def all_codes(fmt):
    """Every code; for FP32 every upper half with a few lower halves."""
    if fmt is FP32:
        lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
        return (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | lower).ravel()
    return np.arange(1 << fmt.width).astype(fmt.dtype)


def probes(fmt):
    """float32 values: all BF16 and FP16, and around every code and every midpoint of two codes of `fmt`."""
    exact = np.unique(decode(fmt, all_codes(fmt)))
    exact = exact[np.isfinite(exact)]
    exact = np.concatenate([exact, (exact[1:] + exact[:-1]) / 2, [1.5 * exact[-1], 1.03 * exact[-1]]])
    with np.errstate(over="ignore"):
        exact = exact.astype(np.float32)
    halves = np.arange(1 << 16, dtype=np.uint16)
    above, below = (np.nextafter(exact, np.float32(way)) for way in (np.inf, -np.inf))
    return np.concatenate([exact, above, below,
                           halves.view(ml_dtypes.bfloat16).astype(np.float32),
                           halves.view(np.float16).astype(np.float32)])


def nearest(fmt, exact, saturate=True):
    """The value `exact`, a Fraction, rounds to: the definition of rounding, with Python's own half-even."""
    if fmt is INT8:
        return float(max(-127, min(127, round(exact))))
    largest = Fraction(float(decode(fmt, fmt.max)))
    guess = exact.numerator.bit_length() - exact.denominator.bit_length() - 1      # one too low at times
    binade = Fraction(2) ** max(guess, 1 - fmt.bias)
    if abs(exact) >= 2 * binade:
        binade *= 2
    place = binade / 2 ** fmt.mantissa
    rounded = round(exact / place) * place
    if abs(rounded) > largest:
        saturated = fmt is E2M1 or (saturate and fmt in (E4M3, E5M2))
        past = float(largest) if saturated else np.nan if fmt is E4M3 else np.inf
        return float(np.copysign(past, float(rounded)))
    return float(rounded)


@every_format
def test_every_code_decodes_as_in_ml_dtypes(fmt):
    codes = all_codes(fmt)
    with np.errstate(invalid="ignore"):
        theirs = codes.view(PEER[fmt]).astype(np.float64)
    ours = decode(fmt, codes)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours) & (ours == 0), np.signbit(theirs) & (theirs == 0))
    np.testing.assert_array_equal(formats.is_nan(fmt, codes), np.isnan(theirs))
    np.testing.assert_array_equal(formats.is_inf(fmt, codes), np.isinf(theirs))


@every_format
def test_every_code_survives_a_round_trip(fmt):
    codes = all_codes(fmt)
    codes = codes[~formats.is_nan(fmt, codes)]
    back = encode(fmt, decode(fmt, codes), saturate=False)
    assert back.dtype == fmt.dtype
    assert set(codes[back != codes]) == ({0x80} if fmt is INT8 else set())     # -128 is read, never written


@pytest.mark.parametrize("fmt", NARROW, ids=repr)
def test_encode_agrees_with_ml_dtypes(fmt):
    values = probes(fmt)
    values = values[~np.isnan(values)]
    if fmt is E8M0:         # where ml_dtypes does not go to the nearest, see DIFFERENCES
        values = values[(values <= 2.0 ** -127) | (values >= 1.5 * 2.0 ** -127)]
    with np.errstate(over="ignore"):
        theirs = values.astype(PEER[fmt]).view(fmt.dtype)
    theirs = np.where(formats.is_nan(fmt, theirs), fmt.nan or 0, theirs)               # our NaN is canonical
    np.testing.assert_array_equal(encode(fmt, values, saturate=False), theirs)

    largest = decode(fmt, fmt.max)
    if fmt.width == 8:      # E8M0 has no negative numbers to clip to
        clipped = np.clip(values, None if fmt is E8M0 else -largest, largest).astype(np.float32)
        theirs = clipped.astype(PEER[fmt]).view(np.uint8)
        theirs = np.where(formats.is_nan(fmt, theirs), fmt.nan, theirs)
    np.testing.assert_array_equal(encode(fmt, values), theirs)


def test_encode_fp32_agrees_with_numpy():
    rng = np.random.default_rng(1)
    values = rng.standard_normal(100_000) * 2.0 ** rng.integers(-160, 130, 100_000)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(encode(FP32, values), values.astype(np.float32).view(np.uint32))


# Where these rules and ml_dtypes part. Value, our code, our code without saturation, ml_dtypes' code.
DIFFERENCES = [
    (E4M3, 465.0, 0x7E, 0x7F, 0x7F),             # ml_dtypes never saturates OFP8
    (E4M3, -465.0, 0xFE, 0x7F, 0xFF),            # and keeps the sign of a NaN
    (E4M3, np.inf, 0x7E, 0x7F, 0x7F),
    (E4M3, -np.nan, 0x7F, 0x7F, 0xFF),
    (E4M3, 1.1875 - 2.0 ** -50, 0x39, 0x39, 0x3A),      # float64 is rounded twice there, once here
    (E5M2, 61440.0, 0x7B, 0x7C, 0x7C),
    (E5M2, -np.inf, 0xFB, 0xFC, 0xFC),
    (E5M2, -np.nan, 0x7E, 0x7E, 0xFE),
    (E2M1, np.nan, 0x0, 0x0, 0x8),               # NaN becomes +0, not -0
    (E8M0, 1.25 * 2.0 ** -127, 0, 0, 1),
    (E8M0, np.inf, 0xFE, 0xFF, 0xFF),
    (E8M0, 2.0 ** 128, 0xFE, 0xFF, 0xFF),
    (BF16, -np.nan, 0x7FC0, 0x7FC0, 0xFFC0),
]


@pytest.mark.parametrize("fmt, value, ours, unsaturated, theirs", DIFFERENCES)
def test_differences_from_ml_dtypes(fmt, value, ours, unsaturated, theirs):
    assert encode(fmt, value) == ours
    assert encode(fmt, value, saturate=False) == unsaturated
    with np.errstate(over="ignore"):
        assert np.array([value]).astype(PEER[fmt]).view(fmt.dtype)[0] == theirs


@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize("fmt", [*FLOATS, INT8], ids=repr)
def test_encode_is_one_nearest_even_rounding(fmt, saturate):
    rng = random.Random(2)
    low, high = fmt.lsb, int(np.frexp(decode(fmt, fmt.max))[1])
    values = []
    for _ in range(3000):       # from below the smallest to past the largest, with ties and near-ties
        place = rng.randint(low - 2, high)
        kept = rng.getrandbits(fmt.mantissa + 2) * 2.0 ** (place - fmt.mantissa)
        values.append(rng.choice([-1, 1]) * kept * (1 + rng.choice([0, 0, 1, -1, rng.random()]) * 2.0 ** -50))
    result = decode(fmt, encode(fmt, values, saturate=saturate))
    np.testing.assert_array_equal(result, [nearest(fmt, Fraction(value), saturate) for value in values])


@pytest.mark.parametrize("big", [False, True], ids=["int64", "python"])
@pytest.mark.parametrize("fmt", [*FLOATS, INT8], ids=repr)
def test_round_fixed_is_one_nearest_even_rounding(fmt, big):
    rng = random.Random(3)
    integers, lsbs = [], []
    for _ in range(3000):
        length = rng.randint(1, 200 if big else 60)
        integer = rng.getrandbits(length) & -1 << rng.randint(0, length)       # trailing zeros make ties
        integers.append(rng.choice([-1, 1]) * max(integer + rng.choice([-1, 0, 0, 1]), 0))
        lsbs.append(rng.randint(fmt.lsb - length, int(np.frexp(decode(fmt, fmt.max))[1]) + 1 - length))
    codes = formats.round_fixed(fmt, np.array(integers, object if big else np.int64), np.array(lsbs))
    expected = [nearest(fmt, n * Fraction(2) ** lsb) for n, lsb in zip(integers, lsbs, strict=True)]
    np.testing.assert_array_equal(decode(fmt, codes), expected)


def test_round_fixed_at_the_edges():
    extremes = np.array([-1 << 63, (1 << 63) - 1, 0, 1], np.int64)
    codes = formats.round_fixed(FP32, extremes, 0)
    np.testing.assert_array_equal(codes, encode(FP32, [-2.0 ** 63, 2.0 ** 63, 0, 1]))
    assert formats.round_fixed(E4M3, -1, -20) == 0x80           # underflow keeps the sign
    assert formats.round_fixed(INT8, np.array([-1000, 1000, -1]), 0).tolist() == [0x81, 0x7F, 0xFF]


def test_e8m0_rules():
    values = [1, 1.5, np.nextafter(1.5, 0), 2.0 ** -140, 2.0 ** 127, 0, -0.0, -1, np.nan, -np.inf]
    assert encode(E8M0, values).tolist() == [127, 128, 127, 0, 254, 255, 255, 255, 255, 255]


MX = pytest.mark.parametrize("fmt", [E4M3, E5M2, E2M1], ids=repr)


@MX
@pytest.mark.parametrize("rule", ["floor", "ceil"])
def test_mx_scales_follow_their_rule(fmt, rule):
    rng = np.random.default_rng(4)
    values = rng.standard_normal((50, 7 * 32)) * 2.0 ** rng.integers(-20, 20, (50, 1))
    values[0, :32], values[1, 0] = 0, decode(fmt, fmt.max)
    codes, scales = formats.quantize_mx(fmt, values, rule=rule)
    assert codes.shape == values.shape and scales.shape == (50, 7)
    assert scales[0, 0] == 0 and not codes[0, :32].any()

    largest = float(decode(fmt, fmt.max))
    top_binade = 2.0 ** np.floor(np.log2(largest))
    for block, scale in zip(values.reshape(-1, 32)[1:], decode(E8M0, scales).ravel()[1:], strict=True):
        peak = abs(block).max() / scale
        assert top_binade <= peak < 2 * top_binade if rule == "floor" else largest / 2 < peak <= largest
    scaled = values.reshape(-1, 32) / decode(E8M0, scales).reshape(-1, 1)
    np.testing.assert_array_equal(codes.reshape(-1, 32), encode(fmt, scaled))
    np.testing.assert_array_equal(formats.dequantize_mx(fmt, codes, scales).reshape(-1, 32),
                                  decode(fmt, encode(fmt, scaled)) * decode(E8M0, scales).reshape(-1, 1))


@MX
def test_mx_special_blocks(fmt):
    values = np.ones((5, 40))               # a second block of 8
    values[0, 3], values[1, 4], values[2, 5], values[3, 6] = np.nan, -np.inf, 2.0 ** 200, 2.0 ** -140
    values[4] *= 2.0 ** -150
    codes, scales = formats.quantize_mx(fmt, values)
    assert scales[:, 0].tolist()[:3] == [0xFF] * 3 and scales[4].tolist() == [0, 0]
    assert not codes[:3, :32].any()
    assert np.isnan(formats.dequantize_mx(fmt, codes, scales)[:3, :32]).all()
    np.testing.assert_array_equal(formats.dequantize_mx(fmt, codes, scales)[:3, 32:], 1)


def test_mx_refuses():
    with pytest.raises(ValueError, match="rule must be 'floor' or 'ceil', not 'round'"):
        formats.quantize_mx(E4M3, np.ones(32), rule="round")
    with pytest.raises(ValueError, match="element format must be E4M3, E5M2 or E2M1, not INT8"):
        formats.quantize_mx(INT8, np.ones(32))


@pytest.mark.parametrize("fmt", [E4M3, INT8], ids=repr)
def test_scaled_blocks(fmt):
    values = np.random.default_rng(5).standard_normal((300, 200))
    values[:128, 128:] = 0
    codes, scales = formats.quantize_blocks(fmt, values)
    assert codes.shape == (300, 200) and scales.shape == (3, 2) and scales.dtype == np.float32
    assert scales[0, 1] == 1
    for row in range(3):
        for column in range(2):
            where = np.s_[128 * row:128 * row + 128, 128 * column:128 * column + 128]
            scale = np.float64(scales[row, column])
            np.testing.assert_array_equal(codes[where], encode(fmt, values[where] / scale))
            assert abs(decode(fmt, codes[where])).max() in (0, decode(fmt, fmt.max))
    error = abs(formats.dequantize_blocks(fmt, codes, scales) - values).max()
    assert error <= abs(values).max() * (1 / 16 if fmt is E4M3 else 1 / 254)


@pytest.mark.parametrize("fmt", [E4M3, E5M2, E2M1, E8M0, BF16, FP32], ids=repr)
def test_shape_reads_a_number_as_golden_does(fmt):
    codes = all_codes(fmt)
    codes = codes if fmt.width <= 8 else np.concatenate([codes[:200], codes[::257], codes[-200:]])
    m, number = Module(), Signal(Float(fmt))
    parts = {name: Signal(Shape.cast(getattr(number, name).shape()), name=name) for name in (
        "significand", "effective_exponent", "is_nan", "is_inf", "is_zero")}
    for name, part in parts.items():
        m.d.comb += part.eq(getattr(number, name))

    async def check(context):
        for code, value in zip(codes.tolist(), decode(fmt, codes), strict=True):
            context.set(number.as_value(), code)
            part = {name: context.get(signal) for name, signal in parts.items()}
            assert part["is_nan"] == np.isnan(value) and part["is_inf"] == np.isinf(value)
            assert part["is_zero"] == (value == 0)
            if np.isfinite(value):
                place = part["effective_exponent"] - fmt.bias - fmt.mantissa
                assert part["significand"] * 2.0 ** place == abs(value)

    simulator = Simulator(m)
    simulator.add_testbench(check)
    simulator.run()


def test_shapes():
    assert Shape.cast(shape(INT8)) == Shape(8, signed=True)
    assert all(Shape.cast(shape(fmt)).width == fmt.width for fmt in FORMATS.values())
    assert repr(shape(E4M3)) == "Float(E4M3)"
    with pytest.raises(ValueError, match="^Float: int8 is no floating-point format"):
        Float(INT8)
