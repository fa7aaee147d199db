# SPDX-License-Identifier: Apache-2.0
"""The matmul engine against golden, and golden against fractions."""

import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden import matmul as golden
from golden.config import Matmul
from golden.families import FAMILIES, FORMAT_CODES
from golden.formats import FORMATS, FP32, decode
from golden.matmul import Gemm
from hw.matmul.ports import Error
from sim.matmul import Job, run

NANO = {"lanes": 4, "rows": 2, "cols": 8, "acc_rows": 16, "k_max": 512, "mx": False,
        "m_max": 100, "n_max": 200}
ONE_LANE = {"cols": 2, "drain": 1}
DEEP = "DEEP" in os.environ
SHAPES = [(1, 1, 1), (8, 8, 8), (1, 20, 90), (9, 17, 33), (2, 9, 50), (3, 5, 7), (40, 20, 7), (17, 1, 65), (23, 5, 16)]
PORTS = ["commands", "weights", "activations", "parameters", "results", "completions",
         "weights_request", "activations_request", "parameters_request"]


def draw(rng, format, shape, specials=0.0):
    """Random codes, a fraction of them NaN or infinite where the format has such."""
    fmt = FORMATS[format]
    codes = rng.integers(0, 1 << fmt.width, shape).astype(fmt.dtype)
    if fmt.nan is None:
        return codes
    sound = np.where(np.isfinite(decode(fmt, codes)), codes, 0).astype(fmt.dtype)
    return np.where(rng.random(shape) < specials, fmt.dtype.type(fmt.nan), sound)


def gemm(rng, shape, a_format="e4m3", w_format="e4m3", y_format="fp32", *, options=(), specials=0.0):
    """A random GEMM; `options` names the parameters it comes with."""
    m, n, k = shape
    sizes = {"row_scales": (m,), "column_scales": (n,), "bias": (n,), "c": (m, n)}
    values = {name: (rng.standard_normal(sizes[name]) * 2.0 ** rng.integers(-3, 3)).astype(np.float32)
              for name in options}
    return Gemm(draw(rng, a_format, (m, k), specials), draw(rng, w_format, (n, k), specials),
                a_format, w_format, y_format, **values)


def grid(rng, family):
    """GEMMs of all shapes, with formats, options and NaN dealt out among them."""
    known, options = FAMILIES[family], list(golden.PARAMETERS)
    for n, shape in enumerate(SHAPES * (4 if DEEP else 1)):
        yield gemm(rng, shape, known.activations[n % len(known.activations)], known.weights[n % len(known.weights)],
                   golden.RESULT_FORMATS[n % 5], options=[o for i, o in enumerate(options) if n >> i & 1 or n % 5 == 4],
                   specials=0.01 if n % 3 == 2 else 0)


@pytest.mark.parametrize(("family", "columns"), [*((family, {}) for family in FAMILIES), ("fp8", ONE_LANE)])
def test_ragged_gemms_under_stalls(family, columns):
    """Bit-exact at no stall and at heavy stall, with every port seen held back and starved."""
    config = Matmul(family=family, **NANO | columns)
    gemms = list(grid(np.random.default_rng(2), family))
    free, _ = run(Job(config, gemms))
    for stall in (0.5, 0.9) if DEEP else (0.6,):
        stalled, seen = run(Job(config, gemms, stall=stall, seed=3))
        assert all(np.array_equal(one.y, other.y) for one, other in zip(free, stalled, strict=True))
        for port in PORTS:
            assert seen[port, "held back"] and seen[port, "starved"], f"{port} did not stall both ways"


@pytest.mark.parametrize(("family", "columns"), [*((family, {}) for family in FAMILIES), ("fp8", ONE_LANE)])
def test_cycles_are_as_golden_says(family, columns):
    """Every plain GEMM takes exactly the stated cycles, and never more than the bound."""
    config = Matmul(family=family, **NANO | columns)
    rng, known = np.random.default_rng(4), FAMILIES[family]
    gemms = [gemm(rng, shape, known.activations[0], known.weights[n % len(known.weights)])
             for n, shape in enumerate(SHAPES)]
    for latency in (1, 5):
        runs, _ = run(Job(config, gemms, queue=False, latency=latency))
        for each, one in zip(gemms, runs, strict=True):
            assert one.cycles == golden.cycles(config, each.shape, w_format=each.w_format, latency=latency), each.shape


@pytest.mark.parametrize("seed", [1, 2])
def test_random_start(seed):
    """Registers and memories may wake up holding anything."""
    rng = np.random.default_rng(5)
    options = ["row_scales", "bias", "c"]
    gemms = [gemm(rng, (9, 17, 33), options=options), gemm(rng, (3, 5, 7))]
    run(Job(Matmul(**NANO), gemms, seed=seed), x_initial="unique")


def test_refused_commands_disturb_nobody():
    """Each bad command completes with its code; the commands around it are exact."""
    config = Matmul(**NANO)
    rng = np.random.default_rng(6)
    bad = [({"m": 0}, Error.DIMENSION), ({"n": 0}, Error.DIMENSION), ({"k": 0}, Error.DIMENSION),
           ({"m": 101}, Error.DIMENSION), ({"n": 201}, Error.DIMENSION), ({"k": 513}, Error.DEPTH),
           ({"a_format": FORMAT_CODES["int8"]}, Error.FORMAT), ({"w_format": 7}, Error.FORMAT),
           ({"y_format": FORMAT_CODES["e2m1"]}, Error.FORMAT)]
    gemms = [gemm(rng, (3, 9, 17)) for _ in range(2 * len(bad) + 1)]
    commands = {2 * n + 1: fields for n, (fields, _) in enumerate(bad)}
    for stall in (0, 0.5):
        runs, _ = run(Job(config, gemms, stall=stall, commands=commands))
        assert [one.error for one in runs[1::2]] == [code.value for _, code in bad]
        assert not any(one.error for one in runs[::2])


@pytest.mark.parametrize("port", ["weights", "activations", "parameters"])
@pytest.mark.parametrize("change", [-1, 2])
def test_responses_of_the_wrong_length(port, change):
    """The command concerned reports it; the next ones are exact."""
    config = Matmul(**NANO)
    rng = np.random.default_rng(7)
    gemms = [gemm(rng, (12, 9, 40), options=list(golden.PARAMETERS)) for _ in range(4)]
    for stall in (0, 0.4):
        runs, _ = run(Job(config, gemms, stall=stall, queue=False, broken={(port, 2): change}))
        assert [one.error for one in runs] == [Error.RESPONSE.value, 0, 0, 0]


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if name != "uni"])
def test_order_and_shape_change_no_bit(family):
    """Permuting K, or another array, gives the same results."""
    rng, known = np.random.default_rng(8), FAMILIES[family]
    given = gemm(rng, (9, 17, 60), known.activations[0], known.weights[0])
    order = rng.permutation(60)
    permuted = replace(given, a=given.a[:, order], w=given.w[:, order])
    one, other = run(Job(Matmul(family=family, **NANO), [given, permuted]))[0]
    wide = {**NANO, "lanes": 2, "rows": 4, "cols": 4, "acc_rows": 4}
    third, = run(Job(Matmul(family=family, **wide), [given]))[0]
    assert np.array_equal(one.y, other.y) and np.array_equal(one.y, third.y)


def test_zeros_keep_their_signs():
    """A sum of nothing is +0, negative after a negative scale, and stays so where nothing is added to it."""
    rng = np.random.default_rng(10)
    gemms = [gemm(rng, (4, 9, 20), y_format=y_format, options=options) for y_format in golden.RESULT_FORMATS
             for options in ((), ("row_scales",), ("row_scales", "bias"), ("column_scales", "c"))]
    for each in gemms:
        each.a[:] = 0
        for zeros in (each.bias, each.c):
            if zeros is not None:
                zeros[..., ::2] = -0.0
    runs, _ = run(Job(Matmul(**NANO), gemms))
    plain, scaled, biased, _ = (np.signbit(one.y.view(np.float32)) for one in runs[:4])
    negative = gemms[1].row_scales[:, None] < 0
    assert not plain.any() and negative.any() and (scaled == negative).all()
    assert (biased[:, ::2] == (gemms[2].row_scales[:, None] < 0)).all()


def test_golden_rounds_where_it_says():
    """Each step of the drain against fractions, rounded to nearest even once."""
    rng = np.random.default_rng(9)
    given = gemm(rng, (4, 5, 100), options=list(golden.PARAMETERS))
    y, _ = golden.matmul("fp8", given)
    a, w = decode(FORMATS["e4m3"], given.a), decode(FORMATS["e4m3"], given.w)
    for m in range(4):
        for n in range(5):
            t = nearest(sum(Fraction(x) * Fraction(z) for x, z in zip(a[m], w[n], strict=True)))
            t = nearest(t * Fraction(float(given.row_scales[m])))
            t = nearest(t * Fraction(float(given.column_scales[n])))
            t = nearest(t + Fraction(float(given.bias[n])))
            t = nearest(t + Fraction(float(given.c[m, n])))
            assert Fraction(decode(FP32, y[m, n]).item()) == t


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


@pytest.mark.parametrize(("family", "a_format", "w_format", "mx"), [
    ("fp8", "e4m3", "e4m3", False), ("fp8", "e4m3", "e2m1", False), ("fp8", "e4m3", "e2m1", True),
    ("fp4", "e2m1", "e2m1", True), ("int8", "int8", "int8", False), ("uni", "bf16", "bf16", False)])
@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (12, 64), (5, 100)])
def test_images_of_weights_read_back(family, a_format, w_format, mx, shape):
    config, rng = Matmul(family=family, lanes=8, rows=4, cols=6, mx=mx), np.random.default_rng(shape)
    codes = draw(rng, w_format, shape)
    scales = rng.integers(0, 255, (shape[0], -(-shape[1] // 32))).astype(np.uint8) if mx else None
    image = golden.weight_image(config, w_format, codes, scales, a_format)
    assert len(image) == golden.weight_bytes(config, w_format, *shape, mx, a_format)
    found = golden.weights(config, w_format, np.frombuffer(image, np.uint8), *shape, mx, a_format)
    np.testing.assert_array_equal(found[0], codes)
    assert (found[1] is None) == (scales is None) and (scales is None or (found[1] == scales).all())
