# SPDX-License-Identifier: Apache-2.0
"""Reductions in the network: what comes out, how fast, and what is refused."""

import pytest

from hw.noc.reduce import Reduce
from sim.run import simulate


@pytest.mark.parametrize("sides, bits, groups", [("NESW", 64, 4), ("NESW", 128, 1), ("ES", 64, 3)])
def test_reduce(sides, bits, groups):
    env = {"SIDES": sides, "GROUPS": groups, "PATIENCE": 400}
    assert simulate(Reduce(sides, bits, groups, 400), "sim.benches.reduce", env=env) == 13


@pytest.mark.parametrize("arguments, sentence", [
    (("NX", 64, 4, 100), "sides must be some of NESW, not 'NX'"),
    (("N", 96, 4, 100), "bits must be a multiple of 64, not 96"),
    (("N", 64, 0, 100), "groups must be 1 to 16, not 0"),
    (("N", 64, 4, 1), "patience must be at least 2, not 1"),
])
def test_reduce_is_checked(arguments, sentence):
    with pytest.raises(ValueError, match=f"^Reduce: {sentence}$"):
        Reduce(*arguments)
