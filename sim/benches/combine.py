# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.arith.combine.Combine`, in `Lanes`, against `golden.noc`: 40,000 operands of each kind, a million
with `DEEP` set."""

import os

import cocotb
import numpy as np

from golden.noc import OPERATIONS
from golden.packet import Reduction
from hw.arith.combine import Combine
from sim.lanes import drive
from sim.operands import pairs

COUNT = 1_000_000 if os.environ.get("DEEP") else 40_000


@cocotb.test
@cocotb.parametrize(op=list(Reduction))
async def operation(dut, op):
    a, b = pairs(COUNT, np.random.default_rng(cocotb.RANDOM_SEED))
    keep = np.random.default_rng(1).choice([0, 0, 0, 0, 1, 2], len(a))
    always = np.full(len(a), 3)
    results, = await drive(dut, Combine.latency, "o", a=a, b=b, op=np.full(len(a), op), keep=keep, go=always)
    expected = np.choose(keep, [OPERATIONS[op](a, b), a, b])
    for n in np.flatnonzero(results != expected)[:1]:
        raise AssertionError(f"{op.name} of ({a[n]:08x}, {b[n]:08x}): {results[n]:08x}, not {expected[n]:08x}")
