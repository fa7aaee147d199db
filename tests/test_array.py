# SPDX-License-Identifier: Apache-2.0
"""The systolic array against golden, and golden against plain Python integers and fractions."""

from fractions import Fraction

import numpy as np
import pytest

from golden import dot
from golden.families import FAMILIES
from golden.formats import FORMATS, decode
from hw.emit import Verilog
from hw.flow import asic
from hw.matmul.array import Array
from hw.matmul.pe import PE
from sim.run import simulate

SHAPES = [(4, 1, 4, 1), (4, 2, 8, 4), (8, 3, 4, 2)]     # lanes, rows, columns, groups


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_array(family, shape):
    lanes, rows, cols, groups = shape
    env = {"FAMILY": family, "LANES": lanes, "ROWS": rows, "COLS": cols, "GROUPS": groups}
    assert simulate(Array(family, lanes, rows, cols, groups), "sim.benches.array", seed=1, env=env) == 2


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_golden_is_the_exact_sum(family):
    rng = np.random.default_rng(1)
    for a_format in family.activations:
        for w_format in family.weights:
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
