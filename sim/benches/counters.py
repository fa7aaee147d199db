# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.tile.counters.Counters`."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def counts(dut):
    """Nothing is lost, even if all happens at once in all cycles; not what is frozen, not what was before `zero`."""
    rng, count = random.Random(cocotb.RANDOM_SEED), len(dut.events)
    Clock(dut.clk, 2, unit="ns").start()
    dut.rst.value, dut.events.value, dut.freeze.value, dut.zero.value, dut.index.value = 1, 0, 0, 0, 0
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0

    async def idle(cycles):
        dut.events.value = dut.zero.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)

    await idle(count + 2)
    for _ in range(3):
        totals = [0] * count
        dut.zero.value = 1
        await RisingEdge(dut.clk)
        await idle(count + 2)
        shares = [1, *(rng.choice([0, 0.1, 0.9, 1]) for _ in range(count - 1))]
        rng.shuffle(shares)
        for _ in range(20 * count):
            events, freeze = [rng.random() < share for share in shares], rng.random() < 0.1
            dut.events.value, dut.freeze.value = sum(bit << n for n, bit in enumerate(events)), freeze
            totals = [total + (bit and not freeze) for total, bit in zip(totals, events, strict=True)]
            await RisingEdge(dut.clk)
        for index in rng.sample(range(count), count):
            dut.index.value = index
            await idle(2 * count + 2)
            assert int(dut.value.value) == totals[index], index
        assert max(totals) > 15 * count
