# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.matmul.array.Array`: dot products of any operands, decoders and skew included.

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
from hw.arith.aligned import TAG
from hw.arith.dot import datapath

FAMILY = FAMILIES[os.environ["FAMILY"]]
LANES, ROWS, COLS, GROUPS = (int(os.environ[name]) for name in ("LANES", "ROWS", "COLS", "GROUPS"))
DEPTH = LANES * ROWS
WIDTH = FAMILY.sum_bits(DEPTH)
LATENCY = ROWS + 3 + datapath(FAMILY.name).lead


class Driver:
    """Feeds tiles and collects sums; `expect` is compared as they come."""

    def __init__(self, dut):
        self.dut = dut
        self.expected = []      # per row that entered: (cycle, sums, nans)
        self.cycle = 0

    async def start(self):
        self.dut.rst.value = 0
        self.idle_row = self.idle_beat = self.aligned = 0
        self.dut.row.value = self.dut.beat.value = 0
        self.history = []
        Clock(self.dut.clk, 2, unit="ns").start()
        await RisingEdge(self.dut.clk)

    async def step(self, row=None, beat=None, expect=None):
        """One cycle with these inputs; `expect` is (sums, nans, tags) of the row."""
        if row is not None:
            self.idle_row = row & pack_row(0, 0, 0, swap=0, aligned=1)
        if beat is not None:
            self.idle_beat = beat & pack_beat(0, 0, 0, aligned=1)
        self.dut.row.value = self.idle_row if row is None else row
        self.dut.beat.value = self.idle_beat if beat is None else beat
        self.history.append(expect)
        await RisingEdge(self.dut.clk)
        self.compare()

    def compare(self):
        sums = nans = None
        for group in range(GROUPS):
            entered = len(self.history) - 1 - (LATENCY + group)
            if entered < 0 or self.history[entered] is None:
                continue
            if sums is None:
                sums, nans = int(self.dut.sums.value), int(self.dut.nans.value)
                tags = int(self.dut.tags.value) if FAMILY.aligned else 0
            for col in range(group * COLS // GROUPS, (group + 1) * COLS // GROUPS):
                want, want_nan, want_tag = self.history[entered]
                got = sums >> col * WIDTH & (1 << WIDTH) - 1
                assert (nans >> col & 1) == want_nan[col], f"column {col}: NaN flag"
                if not want_nan[col]:
                    assert got == int(want[col]) & (1 << WIDTH) - 1, f"column {col}: {got:#x}, golden {int(want[col])}"
                    assert want_tag is None or tags >> col * TAG & (1 << TAG) - 1 == want_tag[col], f"column {col}: tag"

    async def tile(self, a_format, a, w_format, w):
        """Load `w` (COLS, depth), zero beyond K as in memory, then pass the rows of `a` (M, K <= depth)."""
        k, aligned = a.shape[1], depth(a_format, w_format) < DEPTH
        w = np.where(np.arange(w.shape[1]) < k, w, 0)
        if aligned != self.aligned:
            self.aligned = aligned
            await self.flush()
        per_beat = 2 if aligned or FORMATS[w_format].width == 4 else 1
        for col in range(0, COLS, per_beat):
            slices = (pack(w[col + n], FORMATS[w_format].width) << n * DEPTH * 4 for n in range(per_beat))
            columns = ((1 << per_beat) - 1) << col
            await self.step(beat=pack_beat(sum(slices), FORMAT_CODES[w_format], columns, aligned))
        if aligned:
            sums, tags, nans = dot.aligned(ROWS, LANES, a_format, a, w_format, w[:, :k])
        else:
            sums, nans = dot.matmul(FAMILY.name, a_format, a, w_format, w[:, :k])
            tags = None
        for n, codes in enumerate(a):
            packed = pack(codes, FORMATS[a_format].width)
            await self.step(row=pack_row(packed, FORMAT_CODES[a_format], k, n == 0, aligned),
                            expect=(sums[n], nans[n], tags[n] if aligned else None))

    async def flush(self):
        for _ in range(LATENCY + GROUPS + 1):
            await self.step()


def depth(a_format, w_format):
    """Elements of K in a tile."""
    return DEPTH // FAMILY.rate(a_format, w_format)


def pack(codes, width):
    return sum(int(code) << width * n for n, code in enumerate(codes))


def pack_row(codes, format, count, swap, aligned=0):
    bits, count_bits = DEPTH * FAMILY.bits, DEPTH.bit_length()
    packed = codes | format << bits | count << bits + 3 | swap << bits + 3 + count_bits
    return packed | aligned << bits + 4 + count_bits if FAMILY.aligned else packed


def pack_beat(codes, format, columns, aligned=0):
    packed = codes | format << DEPTH * 8 | columns << DEPTH * 8 + 3
    return packed | aligned << DEPTH * 8 + 3 + COLS if FAMILY.aligned else packed


def pairs():
    return product(FAMILY.activations, FAMILY.weights)


@cocotb.test()
async def exhaustive(dut):
    """Every activation code times every weight code, in every lane; BF16 has too many."""
    driver = Driver(dut)
    await driver.start()
    for a_format, w_format in pairs():
        if "bf16" in (a_format, w_format):
            continue
        lanes = depth(a_format, w_format)
        a_codes, w_codes = 1 << FORMATS[a_format].width, 1 << FORMATS[w_format].width
        a = np.zeros((a_codes * lanes, lanes), np.uint8)
        a[np.arange(len(a)), np.arange(len(a)) % lanes] = np.arange(len(a)) // lanes
        per_tile = lanes * COLS
        codes = np.resize(np.arange(w_codes, dtype=np.uint8), max(w_codes, per_tile))
        for first in range(0, w_codes, per_tile):
            w = np.resize(codes[first:first + per_tile], (COLS, lanes))
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
        lanes = depth(a_format, w_format)
        w = draw(rng, w_format, (COLS, lanes))
        a = draw(rng, a_format, (int(rng.integers(1, 500 // COLS + 2)), int(rng.integers(1, lanes + 1))))
        await driver.tile(a_format, a, w_format, w)
    await driver.flush()


def draw(rng, format, shape):
    """Codes: uniform without and with specials, or of the largest or of close magnitudes, or subnormals."""
    fmt, kind = FORMATS[format], rng.integers(6)
    codes = rng.integers(0, 1 << fmt.width, shape).astype(fmt.dtype)
    if kind == 4 and fmt.nan is not None:
        return codes
    codes = np.where(dot.special(format, codes), 0, codes).astype(fmt.dtype)
    sign = fmt.dtype.type(1 << fmt.width - 1)
    if kind == 1:
        return (codes & sign | fmt.max).astype(fmt.dtype)
    if kind == 2:
        return np.full(shape, fmt.max, fmt.dtype)
    if kind == 3:
        return codes & (sign | (1 << max(fmt.mantissa, 1)) - 1)
    if kind == 5:
        keep = (int(sign) | (1 << fmt.mantissa + 2) - 1) & (1 << fmt.width) - 1
        return (codes & keep | fmt.max >> 1 & ~keep).astype(fmt.dtype)
    return codes
