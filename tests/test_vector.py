# SPDX-License-Identifier: Apache-2.0
"""`golden.vector` against float64, and the engine against it."""

import numpy as np
import pytest

from golden import fp32, vector
from golden.formats import BF16, E4M3, E8M0, FORMATS, FP32, INT8, decode, encode, quantize_mx
from golden.isa import Operation, Quantize
from golden.vector import LOG2E, Instruction, execute

LENGTHS = 64, 96, 576, 1000, 2048, 4096
LANES = 4, 16


def codes(values):
    """The BF16 numbers next to some, as FP32 codes: what operands are."""
    return encode(BF16, values).astype(np.uint32) << 16


def values(x):
    return decode(FP32, x)


def run(operation, x, y=None, *, lanes=4, result_format="fp32", **options):
    """The result of an instruction on FP32 codes."""
    return execute(Instruction(operation, "fp32", "fp32", result_format, **options), x, y, lanes=lanes)


def last_places(found, due):
    """How many BF16 numbers what was `found`, rounded, is from the rounded `due`."""
    found, due = (encode(BF16, each).astype(int) for each in (found, due))
    found, due = (np.where(each >> 15, -(each & 0x7FFF), each) for each in (found, due))
    return np.abs(found - due)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("length", LENGTHS)
def test_rms_norm(length, lanes):
    rng = np.random.default_rng(length)
    x = codes(rng.standard_normal((20, length)) * np.exp(rng.uniform(-5, 5, (20, 1))))
    x[:5, ::50] = codes(values(x[:5, ::50]) * 100)
    weight = codes(rng.uniform(0.2, 3, (1, length)))
    due = values(x) / np.sqrt((values(x) ** 2).mean(-1, keepdims=True) + 1e-5) * values(weight)
    found = run(Operation.RMS_NORM, x, weight, lanes=lanes, alpha=1 / length, beta=1e-5).codes
    off = last_places(values(found), due)
    assert off.max() <= 1 and (off > 0).mean() < 0.01


@pytest.mark.parametrize("length", [64, 128])
def test_rope(length):
    rng = np.random.default_rng(length)
    x = codes(rng.standard_normal((500, length)))
    angles = rng.uniform(0, 4096, (500, 1)) / 500000 ** (np.arange(length // 2) / (length // 2))
    low, high = np.split(values(x), 2, -1)
    turned = (low + 1j * high) * np.exp(1j * angles)
    due = vector.pairs(np.concatenate([turned.real, turned.imag], -1))
    table = vector.pairs(np.concatenate([np.cos(angles), np.sin(angles)], -1))
    found = values(run(Operation.ROPE, vector.pairs(x), encode(FP32, table)).codes)
    # Where the two products cancel, nothing but their own last places is left.
    size = np.repeat(np.abs(low) + np.abs(high), 2, -1)
    assert (np.abs(found - due) <= 2.0**-22 * size).all()
    off = last_places(found, due)
    assert (off[np.abs(due) > 2.0**-10 * size] <= 1).all() and (off > 0).mean() < 0.01


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("length", [1, 2, 3, 17, *LENGTHS])
def test_softmax(length, lanes):
    rng = np.random.default_rng(length)
    x = codes(rng.standard_normal((30, length)) * np.exp(rng.uniform(-3, 3.5, (30, 1))) + rng.uniform(-50, 50, (30, 1)))
    due = np.exp(values(x) * 0.125 - (values(x) * 0.125).max(-1, keepdims=True))
    due /= due.sum(-1, keepdims=True)
    found = values(run(Operation.SOFTMAX, x, lanes=lanes, alpha=0.125 * LOG2E).codes)
    large = due > 1e-5
    assert (np.abs(found / due - 1)[large] <= 2.0**-8).all() and last_places(found, due)[large].max() <= 1
    assert (np.abs(found.sum(-1) - 1) <= 2.0**-8).all()
    rounded = decode(BF16, encode(BF16, found))
    assert (np.abs(rounded.sum(-1) - 1) <= 2.0**-8).all()


def test_softmax_of_what_is_masked():
    masked, nan = fp32.INF | fp32.SIGN, fp32.NAN
    x = np.array([[masked] * 6, [masked, 0, 0, masked, 0, 0], [0, 0, nan, 0, 0, 0]], np.uint32)
    found = run(Operation.SOFTMAX, x).codes
    assert not found[0].any()
    np.testing.assert_array_equal(values(found[1]), [0, 0.25, 0.25, 0, 0.25, 0.25])
    assert (found[2] == nan).all()


def test_softmax_of_large_scores():
    """The running maximum is subtracted exactly, so far from zero as near it."""
    near = np.random.default_rng(1).integers(-40, 0, (10, 100)).astype(float)
    for far in (-30000, 1000, 30000):
        np.testing.assert_array_equal(run(Operation.SOFTMAX, encode(FP32, near + far)).codes,
                                      run(Operation.SOFTMAX, encode(FP32, near)).codes)


def test_total_is_in_the_order_that_is_documented():
    x = encode(FP32, np.random.default_rng(2).standard_normal((7, 45)))
    def add(*rest):
        return rest[0] if len(rest) == 1 else fp32.add(add(*rest[:len(rest) // 2]), add(*rest[len(rest) // 2:]))
    padded = np.pad(x, [(0, 0), (0, 3)])
    partials = [np.zeros(7, np.uint32)] * 4
    for beat in range(12):
        partials[beat % 4] = fp32.add(partials[beat % 4], add(*padded[:, 4 * beat:4 * beat + 4].T))
    np.testing.assert_array_equal(vector.total(x, 4), add(*partials))


def test_silu():
    rng = np.random.default_rng(3)
    x, gate = codes(rng.standard_normal((2, 100, 100)) * 4)
    due = values(x) / (1 + np.exp(-values(x))) * values(gate)
    off = last_places(values(run(Operation.SILU, x, gate, alpha=-LOG2E).codes), due)
    assert off.max() <= 1 and (off > 0).mean() < 0.005


def test_sums_and_products():
    """Constants, what y may be, and what its absence means."""
    rng = np.random.default_rng(7)
    x, y = encode(BF16, rng.standard_normal((2, 9, 33)))
    a, b = decode(BF16, x), decode(BF16, y)
    def due(values):
        return encode(BF16, encode(FP32, values).view(np.float32))
    for each, other in ((y, b), (y[:1], b[:1]), (y[:, :1], b[:, :1]), (None, 1)):
        np.testing.assert_array_equal(execute(Instruction(Operation.MUL), x, each, lanes=4).codes, due(a * other))
        np.testing.assert_array_equal(execute(Instruction(Operation.ADD, alpha=2, beta=0.5), x, each, lanes=4).codes,
                                      due(2 * a + other / 2))
    np.testing.assert_array_equal(execute(Instruction(Operation.ADD, alpha=0.25), x, lanes=4).codes, due(a / 4))


@pytest.mark.parametrize("name", ["fp32", "bf16", "e4m3", "e5m2", "int8", "e2m1"])
def test_copies_change_nothing(name):
    """Every code of a format: NaN is canonical, FP32's subnormals are zero."""
    fmt = FORMATS[name]
    x = np.arange(1 << min(fmt.width, 16)).astype(fmt.dtype).reshape(4, -1) << max(fmt.width - 16, 0)
    found = execute(Instruction(Operation.MUL, name, result_format=name), x, lanes=4)
    number = np.isfinite(decode(fmt, x)) & (np.abs(decode(fmt, x)) >= 2.0**-126)
    if fmt is INT8:
        number &= x != 0x80             # saturates to -127, as quantized numbers do
    np.testing.assert_array_equal(found.codes[number], x[number])
    assert found.nans == np.isnan(decode(fmt, x)).sum()


def test_top_k():
    rng = np.random.default_rng(4)
    x = codes(rng.integers(-20, 20, (50, 200)).astype(float))
    def top(x, k):
        found = run(Operation.TOP_K, x, k=k).scalars
        return found[..., 0], found[..., 1]
    found, places = top(x, 8)
    for row, got, where in zip(values(x), values(found), places, strict=True):
        order = sorted(range(200), key=lambda n: (-row[n], n))[:8]
        assert where.tolist() == order and got.tolist() == row[order].tolist()
    x[0, 77] = fp32.NAN
    x[1, [3, 5]] = 0x80000000, 0
    assert top(x, 1)[1][0, 0] == 77 and top(x[1:2, 3:6:2], 1)[1][0, 0] == 1


def test_scaled_rows():
    rng = np.random.default_rng(5)
    x = codes(rng.standard_normal((200, 128)) * np.exp(rng.uniform(-60, 60, (200, 1))))
    x[0] = 0
    found = run(Operation.MUL, x, result_format="e4m3", quantize=Quantize.ROW)
    scales = values(found.scalars)
    assert not found.codes[0].any() and scales[0] == 1
    assert (np.abs(decode(E4M3, found.codes[1:])).max(-1) >= 416).all()
    error = np.abs(decode(E4M3, found.codes) * scales - values(x))
    assert (error <= np.maximum(np.abs(values(x)) * 2.0**-4, scales * 2.0**-10) * (1 + 2.0**-12)).all()


@pytest.mark.parametrize("rule", [Quantize.MX, Quantize.MX_CEIL])
@pytest.mark.parametrize("name", ["e4m3", "e5m2", "e2m1"])
def test_scaled_blocks(name, rule):
    """Equal to the rules of OCP, but for blocks that hold no number, or are too small for FP32."""
    rng = np.random.default_rng(6)
    x = codes(rng.standard_normal((50, 77)) * np.exp(rng.uniform(-60, 60, (50, 1))))
    x[:4, :40] = 0
    found = run(Operation.MUL, x, result_format=name, quantize=rule)
    due, scales = quantize_mx(FORMATS[name], values(x), rule="ceil" if rule == Quantize.MX_CEIL else "floor")
    np.testing.assert_array_equal(found.codes, due)
    np.testing.assert_array_equal(found.scalars, scales)
    x[5, 3], x[6, 40] = fp32.NAN, fp32.INF
    found = run(Operation.MUL, x, result_format=name, quantize=rule)
    assert found.scalars[5, 0] == found.scalars[6, 1] == E8M0.nan and found.nans == 64


@pytest.mark.parametrize("quantize", [Quantize.ROW, Quantize.MX])
def test_norm_and_scale_in_one(quantize):
    """As close to float64 as the norm first and then the scales."""
    rng = np.random.default_rng(8)
    x, weight = codes(rng.standard_normal((40, 256)) * 3), codes(rng.uniform(0.2, 3, (1, 256)))
    due = values(x) / np.sqrt((values(x) ** 2).mean(-1, keepdims=True)) * values(weight)
    found = run(Operation.RMS_NORM, x, weight, alpha=1 / 256, beta=0, result_format="e4m3", quantize=quantize)
    scales = values(found.scalars) if quantize == Quantize.ROW else np.repeat(decode(E8M0, found.scalars), 32, -1)
    error = decode(E4M3, found.codes) * scales - due
    assert np.sqrt((error**2).mean() / (due**2).mean()) < 0.03
