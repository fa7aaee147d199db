# SPDX-License-Identifier: Apache-2.0
"""The systolic array against golden, and golden against plain Python integers and fractions."""

import os
from fractions import Fraction

import numpy as np
import pytest

from golden import dot
from golden.families import FAMILIES
from golden.formats import BF16, FORMATS, decode, encode
from hw.emit import Verilog
from hw.flow import asic
from hw.matmul.array import Array
from hw.matmul.pe import PE
from sim.run import simulate

DEEP = "DEEP" in os.environ
SHAPES = [(4, 2, 8, 4), (8, 3, 4, 2), *[(4, 1, 4, 1)] * DEEP]       # lanes, rows, columns, groups


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_array(family, shape):
    lanes, rows, cols, groups = shape
    env = {"FAMILY": family, "LANES": lanes, "ROWS": rows, "COLS": cols, "GROUPS": groups,
           "TILES": 480 if FAMILIES[family].aligned and cols == 8 else 40}
    assert simulate(Array(family, lanes, rows, cols, groups), "sim.benches.array", seed=1, env=env) == 2


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_golden_is_the_exact_sum(family):
    rng = np.random.default_rng(1)
    for a_format in family.activations:
        for w_format in family.weights:
            if family.rate(a_format, w_format) > 1:
                continue
            a, w = (rng.integers(0, 1 << FORMATS[name].width, (5, 33), np.uint8) for name in (a_format, w_format))
            sums, nans = dot.matmul(family.name, a_format, a, w_format, w)
            for m in range(5):
                for n in range(5):
                    values = decode(FORMATS[a_format], a[m]), decode(FORMATS[w_format], w[n])
                    assert nans[m, n] == (not np.isfinite(values).all())
                    if not nans[m, n]:
                        exact = sum(Fraction(x) * Fraction(y) for x, y in zip(*values, strict=True))
                        assert exact == Fraction(int(sums[m, n])) * Fraction(2) ** family.lsb
                        assert abs(sums[m, n]) <= 33 * family.peak


def test_formats_of_another_family_are_refused():
    with pytest.raises(ValueError, match=r"^matmul: a_format must be one of e4m3 in family fp8, not 'int8'$"):
        dot.matmul("fp8", "int8", np.zeros((1, 1), np.uint8), "e4m3", np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_output_of_an_element_is_a_register(family):
    """So that a column's path is one element's, however many there are."""
    element = PE(family, 4, FAMILIES[family].sum_bits(8))
    unit, = asic.synthesize(Verilog(element).text, element.name).units
    drivers = {bit: cell["type"] for cell in unit.netlist["cells"].values()
               for port, bits in cell["connections"].items() if port == "Q" for bit in bits}
    for name, port in unit.netlist["ports"].items():
        if port["direction"] == "output":
            assert all("DFF" in drivers.get(bit, "") for bit in port["bits"]), name


UNI = FAMILIES["uni"]
ALIGNED = [(a, w) for a in UNI.activations for w in UNI.weights if UNI.rate(a, w) > 1]


@pytest.mark.parametrize("formats", ALIGNED, ids="x".join)
def test_aligned_sums_are_close(formats):
    """A product loses less than 256 units of the final tag, however far the exponents are apart."""
    rng = np.random.default_rng(2)
    values = []
    for format in formats:
        fmt = FORMATS[format]
        codes = rng.integers(0, 1 << fmt.width, (6, 70)).astype(fmt.dtype)
        values.append(np.where(dot.special(format, codes), 0, codes).astype(fmt.dtype))
    a, w = values
    for rows, lanes in (2, 16), (3, 4), (1, 64):
        sums, tags, nans = dot.aligned(rows, lanes, formats[0], a, formats[1], w)
        assert not nans.any()
        for m in range(6):
            for n in range(6):
                exact = product(formats, a[m], w[n])
                unit = Fraction(2) ** int(tags[m, n] + dot.ALIGNED_LSB)
                assert abs(int(sums[m, n]) * unit - exact) <= 256 * 70 * unit
                assert abs(int(sums[m, n])) < UNI.peak * 70


@pytest.mark.parametrize("formats", [("e5m2", "e5m2"), ("e4m3", "e5m2"), ("e5m2", "e4m3")], ids="x".join)
def test_aligned_products_are_exact(formats):
    """Every product of 8-bit operands alone in its sum."""
    codes = [np.arange(256, dtype=np.uint8)[~dot.special(format, np.arange(256))] for format in formats]
    a, w = (np.pad(each[:, None], ((0, 0), (0, 7))) for each in codes)
    sums, tags, _ = dot.aligned(2, 16, formats[0], a, formats[1], w)
    values = np.outer(*(decode(FORMATS[format], each) for format, each in zip(formats, codes, strict=True)))
    assert np.array_equal(np.ldexp(sums.astype(float), tags + dot.ALIGNED_LSB), values)


@pytest.mark.parametrize("k", [128, 1024])
def test_aligned_sums_are_accurate(k):
    """After rounding to FP32, BF16 sums are as good as correctly rounded ones: 2.5e-8 of their rms or so."""
    rng = np.random.default_rng(3)
    normal, heavy = rng.standard_normal((2, 24, k)), rng.standard_t(2, (2, 24, k))
    for values in (normal, heavy, abs(normal)):
        a, w = (encode(BF16, each) for each in values)
        sums, tags, _ = dot.aligned(2, 16, "bf16", a, "bf16", w)
        exact = decode(BF16, a) @ decode(BF16, w).T
        error = np.ldexp(sums.astype(float), tags + dot.ALIGNED_LSB).astype(np.float32) - exact
        assert np.sqrt(np.mean(error ** 2) / np.mean(exact ** 2)) < 3.2e-8


def product(formats, a, w):
    """The exact dot product."""
    values = decode(FORMATS[formats[0]], a), decode(FORMATS[formats[1]], w)
    return sum(Fraction(x) * Fraction(y) for x, y in zip(*values, strict=True))
