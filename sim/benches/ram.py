# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.ram.Ram`: random reads and writes against a list; `DEPTH` is its number of words."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def reads_first_and_holds(dut):
    rng, depth, width = random.Random(cocotb.RANDOM_SEED), int(os.environ["DEPTH"]), len(dut.read_data)
    lanes = len(dut.write_en)
    words, expected, collisions, holds = [None] * depth, None, 0, 0
    Clock(dut.clk, 2, unit="ns").start()
    for _ in range(20 * depth):
        target, read = rng.randrange(depth), rng.random() < 0.5
        write = rng.getrandbits(lanes)
        if words[target] is None and write:
            write = (1 << lanes) - 1           # all of it at first
        source = target if rng.random() < 0.3 else rng.randrange(depth)
        data = rng.getrandbits(width)
        dut.write_en.value, dut.write_address.value, dut.write_data.value = write, target, data
        dut.read_en.value, dut.read_address.value = read, source
        await RisingEdge(dut.clk)          # the read data of the cycle before is sampled here
        if expected is not None:
            assert int(dut.read_data.value) == expected
            holds += not read
        if read:
            expected = words[source]
            collisions += write and source == target
        if write:
            mask = sum((1 << width // lanes) - 1 << n * (width // lanes) for n in range(lanes) if write >> n & 1)
            words[target] = (words[target] or 0) & ~mask | data & mask
    assert collisions and holds
