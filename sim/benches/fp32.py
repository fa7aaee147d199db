# SPDX-License-Identifier: Apache-2.0
"""Bench of the blocks of `hw.arith.fp32`, in `Lanes`, against `golden.fp32` and the processor.

`OPERATION` names the block. 40,000 random operands of each kind, a million with `DEEP` set.
"""

import os

import cocotb
import numpy as np

from golden import fp32
from golden.formats import FP32, is_nan
from hw.arith import fp32 as blocks
from sim.lanes import drive
from sim.operands import ieee, integers, pairs

COUNT = 1_000_000 if os.environ.get("DEEP") else 40_000


@cocotb.test(skip=os.environ["OPERATION"] == "FromFixed")
async def arithmetic(dut):
    operation = os.environ["OPERATION"]
    scale = int(os.environ.get("SCALE", 0))
    golden = {"Add": fp32.add, "Multiply": lambda a, b: fp32.mul(a, b, scale)}[operation]
    a, b = pairs(COUNT, np.random.default_rng(cocotb.RANDOM_SEED))
    results, = await drive(dut, getattr(blocks, operation).latency, "o", a=a, b=b)
    _compare(results, golden(a, b), a, b)
    if not scale:
        _compare(results, ieee(operation, a, b), a, b)

    # Every kind of outcome was there, and often.
    magnitude = results & 0x7FFFFFFF
    assert (magnitude == 0).sum() > 100 and (magnitude == FP32.inf).sum() > 100
    assert is_nan(FP32, results).sum() > 100 and (magnitude < 0x01000000).sum() > 100


@cocotb.test(skip=os.environ["OPERATION"] != "FromFixed")
async def conversion(dut):
    width, lsb = int(os.environ["WIDTH"]), int(os.environ["LSB"])
    values = integers(3 * COUNT, width, np.random.default_rng(cocotb.RANDOM_SEED))
    results, = await drive(dut, blocks.FromFixed.latency, "o", i=values)
    _compare(results, fp32.round_fixed(values, lsb), values)


def _compare(results, expected, *operands):
    for n in np.flatnonzero(results != expected)[:1]:
        inputs = ", ".join(f"{int(operand[n]):x}" for operand in operands)
        raise AssertionError(f"of ({inputs}): {results[n]:08x}, not {expected[n]:08x}")
