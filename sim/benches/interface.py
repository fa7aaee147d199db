# SPDX-License-Identifier: Apache-2.0
"""Bench of `sim.interface.Pair`, two interfaces back to back. `NOC` is the configuration, as JSON."""

import os

import cocotb

from golden.config import Noc
from sim import pair
from sim.interface import openers

CONFIG = Noc.model_validate_json(os.environ["NOC"])
KINDS = [each.name for each in CONFIG.classes]


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(idle=[0.0, 0.6], stall=[0.0, 0.5, 0.9])
async def random_traffic(dut, idle, stall):
    await pair.random_traffic(dut, CONFIG, idle, stall)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(kind=openers(CONFIG))
async def flit_a_cycle(dut, kind):
    await pair.flit_a_cycle(dut, CONFIG, kind)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def refusals(dut):
    await pair.refusals(dut, CONFIG)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(kind=KINDS, words=[0, 3])
async def damage(dut, kind, words):
    await pair.damage(dut, CONFIG, kind, words)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def replies_sink(dut):
    await pair.replies_sink(dut, CONFIG)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def reset_in_traffic(dut):
    await pair.reset_in_traffic(dut, CONFIG)
