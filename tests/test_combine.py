# SPDX-License-Identifier: Apache-2.0
"""Sums and maxima in two cycles."""

from hw.arith.combine import Combine
from sim.lanes import Lanes
from sim.run import simulate


def test_combine():
    assert simulate(Lanes(Combine), "sim.benches.combine") == 4
