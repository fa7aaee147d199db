# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.attention.queries.Queries` against `golden.attention`; `KV` is its configuration, `GROUP` its group."""

import os

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from golden.attention import integers
from golden.config import KvCache
from golden.scores import Widths
from sim.stream import Source, reset

CONFIG, GROUP = KvCache.model_validate_json(os.environ["KV"]), int(os.environ["GROUP"])
WIDTHS = Widths(CONFIG)


def random_rows(rng, count):
    """FP32 codes: exponents near and far, the ends of the mantissa's range, and what is zero or not finite."""
    shape = count, CONFIG.head_dim
    exponent = rng.integers(1, 255, (count, 1)) - rng.integers(0, 20, shape) * rng.integers(0, 2, (count, 1))
    exponent = np.where(rng.random(shape) < 0.1, rng.integers(0, 256, shape), np.maximum(exponent, 0))
    exponent = np.where((rng.random((count, 1)) < 0.5) & (exponent == 255), 254, exponent)
    mantissa = rng.integers(0, 1 << 23, shape)
    mantissa = np.where(rng.random(shape) < 0.2, (1 << 23) - (1 << rng.integers(0, 24, shape)), mantissa)
    mantissa = np.where(rng.random(shape) < 0.2, 1 << rng.integers(0, 23, shape), mantissa)
    codes = rng.integers(0, 2, shape) << 31 | exponent << 23 | mantissa
    codes = np.where(rng.random(shape) < 0.1, codes & 1 << 31, codes)
    codes[rng.random(count) < 0.1] = 0
    return codes.astype(np.uint32)


def words(rows):
    return [int.from_bytes(word.tobytes(), "little") for word in rows.reshape(-1, CONFIG.lanes).astype("<u4")]


class Reader:
    """Uses the slots in turn: checks what one holds, reads all of it, gives it up."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        dut.release.value = dut.read_en.value = dut.read_slot.value = dut.read_beat.value = 0

    async def use(self, loads, idle):
        dut, rng, slot = self.dut, self.rng, 0
        for rows in loads:
            count = len(rows)
            operands, exponents, nan = integers(WIDTHS, rows)
            padded = np.zeros((count, CONFIG.row_beats * WIDTHS.elements), np.int64)
            padded[:, :CONFIG.head_dim] = operands
            while not int(dut.full.value) >> slot & 1:
                await RisingEdge(dut.clk)
            found = int(dut.exponents.value) >> 8 * GROUP * slot
            assert [found >> 8 * n & 0xFF for n in range(count)] == list(exponents)
            assert int(dut.nan.value) >> GROUP * slot & (1 << GROUP) - 1 == sum(1 << n for n in np.flatnonzero(nan))
            for beat in rng.permutation(CONFIG.row_beats) if idle else ():
                dut.read_en.value, dut.read_slot.value, dut.read_beat.value = 1, slot, int(beat)
                await RisingEdge(dut.clk)
                dut.read_en.value, dut.read_slot.value = 0, int(rng.integers(2))
                for _ in range(1 + (rng.random() < idle) * rng.integers(4)):
                    await RisingEdge(dut.clk)
                    self.check(padded, int(beat))
            for _ in range((rng.random() < idle) * rng.integers(60)):
                await RisingEdge(dut.clk)
            assert int(dut.full.value) >> slot & 1
            dut.release.value = 1
            await RisingEdge(dut.clk)
            dut.release.value = 0
            await RisingEdge(dut.clk)
            assert not int(dut.full.value) >> slot & 1
            slot ^= 1

    def check(self, rows, beat):
        """What was read of each query, as far as it has elements."""
        found, bits, size = int(self.dut.operands.value), WIDTHS.operand + 1, WIDTHS.elements
        for n, row in enumerate(rows):
            for j in range(min(size, CONFIG.head_dim - beat * size)):
                sign, value = divmod(found >> (n * size + j) * bits & (1 << bits) - 1, 1 << bits - 1)
                assert (-value if sign else value) == row[beat * size + j], f"query {n}, element {beat * size + j}"


async def start(dut, idle):
    loads, i = Source(dut, "loads", idle=idle), Source(dut, "i", idle=idle)
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    reader = Reader(dut, rng)
    await reset(dut)
    return loads, i, reader, rng


def send(loads, i, rng, counts):
    """Rows of some loads, on their way."""
    rows = [random_rows(rng, count) for count in counts]
    loads.send(counts)
    i.send(word for each in rows for word in words(each))
    return rows


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(idle=[0.1, 0.5, 0.9])
async def random_loads(dut, idle):
    loads, i, reader, rng = await start(dut, idle)
    rows = send(loads, i, rng, [int(count) for count in rng.integers(1, GROUP + 1, 24)])
    await reader.use(rows, 1 - idle)
    assert idle > 0.1 or loads.blocked and i.blocked
    assert idle < 0.9 or loads.starved and i.starved


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def full_throughput(dut):
    loads, i, reader, rng = await start(dut, 0.0)
    rows = send(loads, i, rng, [GROUP] * 20)
    cocotb.start_soon(reader.use(rows, 0))
    while not i.moved:
        await RisingEdge(dut.clk)
    i.blocked = 0
    await i.drain()
    spare = GROUP * CONFIG.head_dim // CONFIG.lanes < 8        # a load shorter than the way through
    assert spare or i.blocked == 19, f"{i.blocked} cycles lost"


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def reset_in_traffic(dut):
    loads, i, reader, rng = await start(dut, 0.0)
    send(loads, i, rng, [GROUP] * 3)
    for cycles in rng.integers(1, 40, 4):
        await ClockCycles(dut.clk, int(cycles))
        loads.queue.clear()
        i.queue.clear()
        loads.busy = i.busy = loads.valid.value = i.valid.value = 0
        await reset(dut, running=True)
        await reader.use(send(loads, i, rng, [1, GROUP]), 1.0)
        send(loads, i, rng, [GROUP] * 3)
