# SPDX-License-Identifier: Apache-2.0
"""`golden.functions` against float64, and the block against it."""

import numpy as np
import pytest

from golden import fp32, functions
from golden.formats import BF16, encode
from golden.tables import FUNCTIONS, PIECES, PLACES, table
from hw.arith.functions import Functions
from sim.lanes import Lanes
from sim.run import simulate

BF16_CODES = np.arange(1 << 16, dtype=np.uint32) << 16
NORMAL = 2.0**-126
FLOAT64 = {
    functions.exp2: np.exp2, functions.reciprocal: lambda x: 1 / x, functions.rsqrt: lambda x: 1 / np.sqrt(x),
    functions.sigmoid: lambda x: 1 / (1 + np.exp(-x)), functions.silu: lambda x: x / (1 + np.exp(-x)),
}
cases = pytest.mark.parametrize("function", FLOAT64, ids=lambda function: function.__name__)


def values(codes):
    return codes.view(np.float32).astype(np.float64)


@cases
@np.errstate(all="ignore")
def test_all_bf16_numbers(function):
    """At most one last place off in BF16, and that in one of 5,000; exact where the issue is 1 / x or 1 / sqrt(x)."""
    x = values(fp32.flush(BF16_CODES))
    due = FLOAT64[function](x)
    expected = encode(BF16, np.where(np.abs(due) < NORMAL, np.copysign(0, due), due)).astype(int)
    found = fp32.to_format(BF16, function(BF16_CODES)).astype(int)
    compared = ~np.isnan(due)
    off = np.abs(found - expected)[compared]
    if function in (functions.reciprocal, functions.rsqrt, functions.exp2):
        assert not off.any()
    assert off.max() <= 1 and (off > 0).sum() <= 10
    assert (found[~compared] == BF16.nan).all()


@cases
@np.errstate(all="ignore")
def test_fp32_numbers(function):
    """Within 2**-20, where that is a normal number; and what rounding x times 1 / ln 2 may cost."""
    rng = np.random.default_rng(5)
    codes = np.concatenate([rng.uniform(-100, 100, 300_000), rng.uniform(-1, 1, 100_000)]).astype(np.float32)
    codes = codes.view(np.uint32) & (0x7FFFFFFF if function is functions.rsqrt else 0xFFFFFFFF)
    due = FLOAT64[function](values(codes))
    found = values(function(codes))
    normal = (np.abs(due) > 2 * NORMAL) & np.isfinite(due) & (np.abs(due) < 2.0**127)
    assert normal.mean() > 0.5
    cost = np.abs(values(codes)) * 2.0**-23 if function in (functions.sigmoid, functions.silu) else 0
    assert (np.abs(found / due - 1) < 2.0**-20 + cost)[normal].all()
    assert (np.abs(found[~normal & np.isfinite(due)]) < 4 * NORMAL).all()


def test_powers_of_two_are_exact():
    exponents = np.arange(-126, 127)
    powers = np.ldexp(1.0, exponents).astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(values(functions.reciprocal(powers)), np.ldexp(1.0, -exponents))
    np.testing.assert_array_equal(values(functions.rsqrt(powers[::2])), np.ldexp(1.0, -exponents[::2] // 2))
    whole = exponents.astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(values(functions.exp2(whole)), np.ldexp(1.0, exponents))


def test_offsets_are_exact():
    codes = np.random.default_rng(6).uniform(-20, 20, 10_000).astype(np.float32).view(np.uint32)
    for offset in (-32, 7, 100):
        np.testing.assert_array_equal(values(functions.exp2(codes, offset)),
                                      np.ldexp(values(functions.exp2(codes)), offset))


def test_special_values():
    nan, inf, zero, minus = fp32.NAN, fp32.INF, np.uint32(0), np.uint32(0x80000000)
    one = np.uint32(0x3F800000)
    for function in FLOAT64:
        assert function(np.uint32(0xFFC12345)) == nan
    assert functions.exp2(inf) == inf and functions.exp2(inf | minus) == zero and functions.exp2(minus) == one
    assert functions.reciprocal(minus) == inf | minus and functions.reciprocal(inf | minus) == minus
    assert functions.rsqrt(minus) == inf | minus and functions.rsqrt(inf) == zero
    assert functions.rsqrt(one | minus) == nan
    assert functions.sigmoid(inf) == one and functions.sigmoid(inf | minus) == zero
    assert functions.silu(inf) == inf and functions.silu(inf | minus) == nan and functions.silu(minus) == minus


@pytest.mark.parametrize("name", FUNCTIONS)
@np.errstate(all="ignore")
def test_tables(name):
    """The quadratics, before any rounding, are within 2**-21 of the functions."""
    due = {"exp2": np.exp2, "reciprocal": lambda g: 2 / (1 + g), "rsqrt": lambda g: 2 / np.sqrt(1 + g),
           "rsqrt_odd": lambda g: 2 / np.sqrt(2 + 2 * g)}[name]
    u = np.linspace(0, 1, 101)
    for piece, (a, b, c) in enumerate(table(name)):
        assert np.abs((a + b * u + c * u * u) / 2**PLACES - due((piece + u) / PIECES)).max() < 2.0**-21


def test_functions():
    assert simulate(Lanes(Functions), "sim.benches.functions", x_initial="unique") == 3
