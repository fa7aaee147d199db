# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.arith.convert.FromFp32`, in `Lanes`, against `golden.fp32.to_format`.

Every upper half of an FP32 code with lower halves that make the guard bit and the rest below it zero
and not, in every format of `FORMATS`; then 40,000 random codes a format, two million with `DEEP` set.
"""

import os

import cocotb
import numpy as np

from golden import fp32
from golden.formats import FORMATS, FP32, is_nan
from hw.arith.convert import FromFp32
from sim.lanes import drive

COUNT = 1_000_000 if os.environ.get("DEEP") else 20_000


@cocotb.test()
async def every_upper_half(dut):
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    await _check(dut, (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | lower).ravel())


@cocotb.test()
async def random_codes(dut):
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    near_one = rng.integers(0x33000000, 0x4B000000, COUNT, dtype=np.uint32)       # 2**-25 to 2**23
    await _check(dut, np.concatenate([near_one, rng.integers(0, 1 << 32, COUNT, dtype=np.uint32)]))


async def _check(dut, codes):
    for index, name in enumerate(os.environ["FORMATS"].split()):
        choice = np.full(len(codes), index)
        results, nan = await drive(dut, FromFp32.latency, "o", "nan", i=codes, format=choice)
        expected = fp32.to_format(FORMATS[name], codes)
        for n in np.flatnonzero(results != expected)[:1]:
            raise AssertionError(f"{codes[n]:08x} to {name}: {results[n]:x}, not {expected[n]:x}")
        np.testing.assert_array_equal(nan, is_nan(FP32, codes))
