# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.matmul.array.Array`: exact dot products of any operands, decoders and skew included.

Environment: FAMILY, LANES, ROWS, COLS, GROUPS of the array.
"""

import os
import random
from itertools import product

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from golden import dot
from golden.families import FAMILIES, FORMAT_CODES
from golden.formats import FORMATS

FAMILY = FAMILIES[os.environ["FAMILY"]]
LANES, ROWS, COLS, GROUPS = (int(os.environ[name]) for name in ("LANES", "ROWS", "COLS", "GROUPS"))
DEPTH = LANES * ROWS
WIDTH = FAMILY.sum_bits(DEPTH)


class Driver:
    """Feeds tiles and collects sums; `expect` is compared as they come."""

    def __init__(self, dut):
        self.dut = dut
        self.expected = []      # per row that entered: (cycle, sums, nans)
        self.cycle = 0

    async def start(self):
        self.dut.rst.value = 0
        self.dut.row.value = self.dut.beat.value = 0
        self.history = []
        Clock(self.dut.clk, 2, unit="ns").start()
        await RisingEdge(self.dut.clk)

    async def step(self, row=0, beat=0, expect=None):
        """One cycle with these inputs; `expect` is (sums, nans) of the row."""
        self.dut.row.value, self.dut.beat.value = row, beat
        self.history.append(expect)
        await RisingEdge(self.dut.clk)
        self.compare()

    def compare(self):
        sums = nans = None
        for group in range(GROUPS):
            entered = len(self.history) - 1 - (ROWS + 3 + group)
            if entered < 0 or self.history[entered] is None:
                continue
            if sums is None:
                sums, nans = int(self.dut.sums.value), int(self.dut.nans.value)
            for col in range(group * COLS // GROUPS, (group + 1) * COLS // GROUPS):
                want, want_nan = self.history[entered]
                got = sums >> col * WIDTH & (1 << WIDTH) - 1
                assert (nans >> col & 1) == want_nan[col], f"column {col}: NaN flag"
                if not want_nan[col]:
                    assert got == int(want[col]) & (1 << WIDTH) - 1, f"column {col}: {got:#x}, golden {int(want[col])}"

    async def tile(self, a_format, a, w_format, w):
        """Load `w` (COLS, DEPTH), zero beyond K as in memory, then pass the rows of `a` (M, K <= DEPTH)."""
        w = np.where(np.arange(DEPTH) < a.shape[1], w, 0)
        width = FORMATS[w_format].width
        per_beat = 8 // width
        for col in range(0, COLS, per_beat):
            codes = sum(int(code) << width * n for n, code in enumerate(w[col:col + per_beat].ravel()))
            columns = ((1 << per_beat) - 1) << col
            await self.step(beat=pack_beat(codes, w_format, columns))
        sums, nans = dot.matmul(FAMILY.name, a_format, a, w_format, w[:, :a.shape[1]])
        width = FAMILY.bits
        for n, codes in enumerate(a):
            packed = sum(int(code) << width * k for k, code in enumerate(codes))
            await self.step(row=pack_row(packed, a_format, a.shape[1], swap=n == 0), expect=(sums[n], nans[n]))

    async def flush(self):
        for _ in range(ROWS + GROUPS + 4):
            await self.step()


def pack_row(codes, format, count, swap):
    bits, count_bits = DEPTH * FAMILY.bits, DEPTH.bit_length()
    return codes | FORMAT_CODES[format] << bits | count << bits + 3 | swap << bits + 3 + count_bits


def pack_beat(codes, format, columns):
    return codes | FORMAT_CODES[format] << DEPTH * 8 | columns << DEPTH * 8 + 3


def pairs():
    return product(FAMILY.activations, FAMILY.weights)


@cocotb.test()
async def exhaustive(dut):
    """Every activation code times every weight code, in every lane."""
    driver = Driver(dut)
    await driver.start()
    for a_format, w_format in pairs():
        a_codes, w_codes = 1 << FORMATS[a_format].width, 1 << FORMATS[w_format].width
        a = np.zeros((a_codes * DEPTH, DEPTH), np.uint8)
        a[np.arange(len(a)), np.arange(len(a)) % DEPTH] = np.arange(len(a)) // DEPTH
        per_tile = DEPTH * COLS
        codes = np.resize(np.arange(w_codes, dtype=np.uint8), max(w_codes, per_tile))
        for first in range(0, w_codes, per_tile):
            w = np.resize(codes[first:first + per_tile], (COLS, DEPTH))
            # A NaN weight spoils its whole column: give each NaN a column's sums of its own by dropping the rest.
            await driver.tile(a_format, a, w_format, w)
            if FAMILY.nan:
                nan = dot.special(w_format, w)
                await driver.tile(a_format, a, w_format, np.where(nan, 0, w).astype(np.uint8))
    await driver.flush()


@cocotb.test()
async def random_dots(dut):
    """Random and adversarial vectors, ragged K, formats changing from tile to tile."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    driver = Driver(dut)
    await driver.start()
    formats = list(pairs())
    random.Random(cocotb.RANDOM_SEED).shuffle(formats)
    for n in range(int(os.environ.get("TILES", 40))):
        a_format, w_format = formats[n % len(formats)]
        w = draw(rng, n, w_format, (COLS, DEPTH))
        a = draw(rng, n // 2, a_format, (int(rng.integers(1, 500 // COLS + 2)), int(rng.integers(1, DEPTH + 1))))
        await driver.tile(a_format, a, w_format, w)
    await driver.flush()


def draw(rng, kind, format, shape):
    """Codes: uniform without and with specials, or all at the largest magnitude with either sign, or subnormals."""
    fmt = FORMATS[format]
    codes = rng.integers(0, 1 << fmt.width, shape, np.uint8)
    if kind % 5 == 4 and fmt.nan is not None:
        return codes
    codes = np.where(dot.special(format, codes), 0, codes).astype(np.uint8)
    sign = np.uint8(1 << fmt.width - 1)
    if kind % 5 == 1:
        return (codes & sign | fmt.max).astype(np.uint8)
    if kind % 5 == 2:
        return np.full(shape, fmt.max, np.uint8)
    if kind % 5 == 3:
        return codes & (sign | (1 << max(fmt.mantissa, 1)) - 1)
    return codes
