# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.arith.functions.Functions`, in `Lanes`, against `golden.functions`.

All BF16 numbers, and FP32 numbers at random: 100,000 a function, a million with `DEEP` set.
"""

import os

import cocotb
import numpy as np

from golden import functions
from golden.formats import FP32, is_nan
from hw.arith.functions import Functions, Kind
from sim.lanes import drive
from sim.operands import pairs

COUNT = 1_000_000 if os.environ.get("DEEP") else 100_000


def operands(kind, rng):
    """Codes of all kinds, and offsets."""
    near = (rng.uniform(-130, 130, COUNT // 2) * rng.choice([1, 1, 10, 500], COUNT // 2)).astype(np.float32)
    near = near.view(np.uint32)
    codes = np.concatenate([np.arange(1 << 16, dtype=np.uint32) << 16, pairs(COUNT // 4, rng)[0], near])
    if kind == Kind.RSQRT:
        codes = np.where(rng.random(len(codes)) < 0.9, codes & 0x7FFFFFFF, codes).astype(np.uint32)
    return codes, rng.choice([0, 0, -32, 100, 1000, -65536, 65535], len(codes))


@cocotb.test
@cocotb.parametrize(kind=list(Kind))
async def function(dut, kind):
    codes, offsets = operands(kind, np.random.default_rng(cocotb.RANDOM_SEED))
    results, = await drive(dut, Functions.latency, "o", i=codes, offset=offsets & 0x1FFFF,
                           kind=np.full(len(codes), kind.value))
    golden = {Kind.EXP2: lambda x: functions.exp2(x, offsets), Kind.RECIPROCAL: functions.reciprocal,
              Kind.RSQRT: functions.rsqrt}[kind](codes)
    for n in np.flatnonzero(results != golden)[:1]:
        raise AssertionError(f"{kind.name} of {codes[n]:08x} + {offsets[n]}: {results[n]:08x}, not {golden[n]:08x}")
    magnitude = results & 0x7FFFFFFF
    assert (magnitude == 0).sum() > 10 and (magnitude == FP32.inf).sum() > 1 and is_nan(FP32, results).sum() > 100
