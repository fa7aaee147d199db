# SPDX-License-Identifier: Apache-2.0
"""`golden.vector` against float64."""

import numpy as np
import pytest

from golden import fp32, vector
from golden.formats import BF16, E4M3, FP32, decode, encode

LENGTHS = 64, 96, 576, 1000, 2048, 4096
LANES = 4, 16


def codes(values):
    """The BF16 numbers next to some, as FP32 codes: what operands are."""
    return encode(BF16, values).astype(np.uint32) << 16


def values(x):
    return decode(FP32, x)


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
    weight = codes(rng.uniform(0.2, 3, length))
    due = values(x) / np.sqrt((values(x) ** 2).mean(-1, keepdims=True) + 1e-5) * values(weight)
    off = last_places(values(vector.rms_norm(x, weight, 1e-5, lanes)), due)
    assert off.max() <= 1 and (off > 0).mean() < 0.01


@pytest.mark.parametrize("length", [64, 128])
def test_rope(length):
    rng = np.random.default_rng(length)
    x = codes(rng.standard_normal((500, length)))
    angles = rng.uniform(0, 4096, (500, 1)) / 500000 ** (np.arange(length // 2) / (length // 2))
    cosine, sine = (encode(FP32, each(angles)) for each in (np.cos, np.sin))
    low, high = np.split(values(x), 2, -1)
    turned = (low + 1j * high) * np.exp(1j * angles)
    due = np.concatenate([turned.real, turned.imag], -1)
    found = values(vector.rope(x, cosine, sine))
    # Where the two products cancel, nothing but their own last places is left.
    size = np.abs(np.concatenate([low, low], -1)) + np.abs(np.concatenate([high, high], -1))
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
    found = values(vector.softmax(x, 0.125 / np.log(2), lanes))
    large = due > 1e-5
    assert (np.abs(found / due - 1)[large] <= 2.0**-8).all() and last_places(found, due)[large].max() <= 1
    assert (np.abs(found.sum(-1) - 1) <= 2.0**-8).all()
    rounded = decode(BF16, encode(BF16, found))
    assert (np.abs(rounded.sum(-1) - 1) <= 2.0**-8).all()


def test_softmax_of_what_is_masked():
    masked, nan = fp32.INF | fp32.SIGN, fp32.NAN
    x = np.array([[masked] * 6, [masked, 0, 0, masked, 0, 0], [0, 0, nan, 0, 0, 0]], np.uint32)
    found = vector.softmax(x, 1, 4)
    assert not found[0].any()
    np.testing.assert_array_equal(values(found[1]), [0, 0.25, 0.25, 0, 0.25, 0.25])
    assert (found[2] == nan).all()


def test_softmax_of_large_scores():
    """The running maximum is subtracted exactly, so far from zero as near it."""
    near = np.random.default_rng(1).integers(-40, 0, (10, 100)).astype(float)
    for far in (-30000, 1000, 30000):
        np.testing.assert_array_equal(vector.softmax(encode(FP32, near + far), 1, 8),
                                      vector.softmax(encode(FP32, near), 1, 8))


def test_total_is_in_the_order_that_is_documented():
    x = encode(FP32, np.random.default_rng(2).standard_normal((7, 45)))
    def add(*rest):
        return rest[0] if len(rest) == 1 else fp32.add(add(*rest[:len(rest) // 2]), add(*rest[len(rest) // 2:]))
    padded = np.pad(x, [(0, 0), (0, 3)])
    partials = [np.zeros(7, np.uint32)] * 4
    for beat in range(12):
        partials[beat % 4] = fp32.add(partials[beat % 4], add(*padded[:, 4 * beat:4 * beat + 4].T))
    np.testing.assert_array_equal(vector.total(x, 4), add(*partials))


def test_silu_gate():
    rng = np.random.default_rng(3)
    x, gate = codes(rng.standard_normal((2, 10_000)) * 4)
    due = values(x) / (1 + np.exp(-values(x))) * values(gate)
    off = last_places(values(vector.silu_gate(x, gate)), due)
    assert off.max() <= 1 and (off > 0).mean() < 0.005


def test_top_k():
    rng = np.random.default_rng(4)
    x = codes(rng.integers(-20, 20, (50, 200)).astype(float))
    found, places = vector.top_k(x, 8)
    for row, got, where in zip(values(x), values(found), places, strict=True):
        order = sorted(range(200), key=lambda n: (-row[n], n))[:8]
        assert where.tolist() == order and got.tolist() == row[order].tolist()
    x[0, 77] = fp32.NAN
    x[1, [3, 5]] = 0x80000000, 0
    assert vector.top_k(x, 1)[1][0, 0] == 77 and vector.top_k(x[1:2, 3:6:2], 1)[1][0, 0] == 1


def test_quantize_rows():
    rng = np.random.default_rng(5)
    x = codes(rng.standard_normal((200, 128)) * np.exp(rng.uniform(-60, 60, (200, 1))))
    x[0] = 0
    found, scales = vector.quantize_rows(E4M3, x)
    assert not found[0].any() and values(scales)[0] == 1
    assert (np.abs(decode(E4M3, found[1:])).max(-1) >= 416).all()
    error = np.abs(decode(E4M3, found) * values(scales)[:, None] - values(x))
    assert (error <= np.maximum(np.abs(values(x)) * 2.0**-4, values(scales)[:, None] * 2.0**-10) * (1 + 2.0**-12)).all()
