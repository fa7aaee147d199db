# SPDX-License-Identifier: Apache-2.0
"""GEMMs with MX scales: the engine against golden, and golden against fractions."""

import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden import matmul as golden
from golden.config import Matmul
from golden.families import FAMILIES
from golden.formats import E2M1, E4M3, E8M0, FORMATS, decode, quantize_mx
from golden.matmul import Gemm
from hw.matmul.ports import Error
from sim.matmul import Job, run

SHAPES = [(1, 1, 1), (8, 8, 32), (1, 20, 190), (9, 17, 33), (20, 9, 70), (2, 3, 64), (17, 30, 64),
          (3, 1, 200)]
ENGINES = [
    {"family": "fp8", "lanes": 16, "rows": 2, "cols": 8, "acc_rows": 8},
    {"family": "fp4", "lanes": 8, "rows": 4, "cols": 4, "drain": 2, "acc_rows": 32},
]
MORE = [
    {"family": "fp4", "lanes": 32, "rows": 1, "cols": 64, "drain": 32},         # scales in two beats
    {"family": "uni", "lanes": 16, "rows": 2, "cols": 4, "drain": 2, "acc_rows": 8},    # three kinds of sums
]


def gemm(rng, shape, a_format, w_format, *, mx=True):
    """A random GEMM; a tenth of the scales are anything, NaN included, the others moderate."""
    m, n, k = shape

    def codes(format, rows):
        fmt = FORMATS[format]
        drawn = rng.integers(0, 1 << fmt.width, (rows, k)).astype(fmt.dtype)
        return np.where(np.isfinite(decode(fmt, drawn)), drawn, 0).astype(fmt.dtype)

    def scales(rows):
        drawn = rng.integers(0, 256, (2, rows, -(-k // 32)), np.uint8)
        return np.where(rng.random(drawn.shape[1:]) < 0.1, drawn[0], 100 + drawn[1] % 50).astype(np.uint8)

    both = {"a_scales": scales(m), "w_scales": scales(n)} if mx else {}
    options = {"c": rng.standard_normal((m, n)).astype(np.float32)} if rng.random() < 0.5 else {}
    return Gemm(codes(a_format, m), codes(w_format, n), a_format, w_format, **both, **options)


@pytest.mark.parametrize("engine", ENGINES + MORE * ("DEEP" in os.environ), ids=str)
def test_ragged_gemms_under_stalls(engine):
    """Bit-exact with and without stalls, GEMMs with scales among others without."""
    config, rng = Matmul(**engine, mx=True), np.random.default_rng(1)
    known = FAMILIES[config.family]
    gemms = []
    for n, shape in enumerate(SHAPES + SHAPES[::-1]):
        formats = known.activations[0], known.weights[n % len(known.weights)]
        gemms.append(gemm(rng, shape, *formats, mx=n % 4 != 1 and known.rate(*formats) == 1))
    for stall in (0, 0.6):
        run(Job(config, gemms, stall=stall, seed=2))
    run(Job(config, gemms, seed=2), x_initial="unique")


@pytest.mark.parametrize("engine", ENGINES + MORE * ("DEEP" in os.environ), ids=str)
def test_cycles_are_as_golden_says(engine):
    """GEMMs with scales and without take exactly the stated cycles."""
    config, rng = Matmul(**engine, mx=True), np.random.default_rng(7)
    known, gemms = FAMILIES[config.family], []
    for n, shape in enumerate([*SHAPES, (40, 12, 96)]):
        formats = known.activations[0], known.weights[n % len(known.weights)]
        given = gemm(rng, shape, *formats, mx=n % 4 != 1 and known.rate(*formats) == 1)
        gemms.append(replace(given, c=None))
    for latency in (1, 5):
        runs, _ = run(Job(config, gemms, queue=False, latency=latency))
        for each, one in zip(gemms, runs, strict=True):
            assert one.cycles == golden.cycles(config, each.shape, a_format=each.a_format, w_format=each.w_format,
                                               mx=each.mx, latency=latency), (each.shape, each.mx)


@pytest.mark.parametrize("port", ["weights", "activations"])
@pytest.mark.parametrize("number, change", [(0, 1), (1, -1)])
def test_responses_of_the_wrong_length(port, number, change):
    """They befall their own command alone, be it scales or what comes after."""
    config, rng = Matmul(**ENGINES[0], mx=True), np.random.default_rng(3)
    gemms = [gemm(rng, (12, 8, 40), "e4m3", "e4m3") for _ in range(3)]
    runs, _ = run(Job(config, gemms, queue=False, stall=0.3, broken={(port, number): change}))
    assert [one.error for one in runs] == [Error.RESPONSE.value, 0, 0]


def test_golden_adds_blocks_in_order():
    """Each block's exact sum is rounded, then added with one rounding more."""
    rng = np.random.default_rng(4)
    given = replace(gemm(rng, (4, 5, 70), "e4m3", "e2m1"), c=None)
    given.a_scales[:], given.w_scales[:] = rng.integers(110, 140, (2, 1, 3), np.uint8)
    y, nans = golden.matmul("fp8", given)
    a, w = decode(E4M3, given.a), decode(E2M1, given.w)
    assert not nans
    for m in range(4):
        for n in range(5):
            total = Fraction(0)
            for block in range(3):
                k = slice(32 * block, 32 * block + 32)
                exact = sum(Fraction(x) * Fraction(z) for x, z in zip(a[m, k], w[n, k], strict=True))
                scale = Fraction(2) ** (int(given.a_scales[m, block]) + int(given.w_scales[n, block]) - 254)
                total = nearest(total + nearest(exact * scale))
            assert Fraction(decode(FORMATS["fp32"], y[m, n]).item()) == total


def test_nan_scales_and_range():
    """A NaN scale spoils its row or column; terms out of range are infinite or zero."""
    a = w = np.full((3, 32), 0x38, np.uint8)                # ones: a sum of 32
    a_scales = np.array([[127], [E8M0.nan], [254]], np.uint8)
    w_scales = np.array([[127], [0], [254]], np.uint8)
    y, nans = golden.matmul("fp8", Gemm(a, w, a_scales=a_scales, w_scales=w_scales))
    values = decode(FORMATS["fp32"], y)
    assert nans == 3 and np.isnan(values[1]).all()
    assert values[0].tolist() == [32, 2.0 ** -122, np.inf] and values[2].tolist() == [np.inf, 32, np.inf]


def test_quantized_values():
    """Real matrices come out as their dequantized product."""
    rng = np.random.default_rng(5)
    (a, a_scales), (w, w_scales) = (quantize_mx(E2M1, rng.standard_normal((rows, 96))) for rows in (3, 4))
    y, _ = golden.matmul("fp4", Gemm(a, w, "e2m1", "e2m1", a_scales=a_scales, w_scales=w_scales))
    exact = (decode(E2M1, a) * np.repeat(decode(E8M0, a_scales), 32, 1)
             @ (decode(E2M1, w) * np.repeat(decode(E8M0, w_scales), 32, 1)).T)
    assert np.allclose(decode(FORMATS["fp32"], y), exact, rtol=1e-5, atol=1e-6)


def test_scales_on_one_side_are_refused():
    with pytest.raises(ValueError, match=r"^Gemm: w_scales must be there on both sides or on neither$"):
        Gemm(np.zeros((1, 1)), np.zeros((1, 1)), a_scales=np.zeros((1, 1)))
    sizes = r"^Gemm: a_scales must be \(M, ceil\(K / 32\)\) = \(1, 2\), not \(1, 1\)$"
    with pytest.raises(ValueError, match=sizes):
        Gemm(np.zeros((1, 33)), np.zeros((1, 33)), a_scales=np.zeros((1, 1)), w_scales=np.zeros((1, 2)))


def nearest(value):
    """`value` rounded to 24 significant bits, ties to even."""
    if not value:
        return value
    exponent = 0
    while abs(value) * Fraction(2) ** -exponent >= 1 << 24:
        exponent += 1
    while abs(value) * Fraction(2) ** -exponent < 1 << 23:
        exponent -= 1
    return round(value * Fraction(2) ** -exponent) * Fraction(2) ** exponent


def test_mx_of_aligned_sums_is_refused():
    rng = np.random.default_rng(6)
    given = gemm(rng, (3, 4, 40), "e5m2", "e4m3")
    with pytest.raises(ValueError, match=r"^matmul: e5m2 x e4m3 in family uni has no MX scales$"):
        golden.matmul("uni", given, (2, 16))
