# SPDX-License-Identifier: Apache-2.0
"""Reductions in the network: what comes out, how fast, and what is refused."""

import pytest

from hw.noc.reduce import Reduce
from sim.run import simulate


@pytest.mark.parametrize("bits, groups", [(64, 4), (128, 3), (64, 1)])
def test_reduce(bits, groups):
    env = {"GROUPS": groups, "PATIENCE": 100}
    assert simulate(Reduce("NESW", bits, groups, 100), "sim.benches.reduce", env=env) == 11
