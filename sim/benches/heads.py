# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.tile.heads.heads.Heads`: plays a job of `sim.heads_unit`, compares with golden, leaves the `Run`."""

import cocotb
from cocotb.triggers import RisingEdge

from sim.heads_unit import Board
from sim.job import finish, given
from sim.stream import reset

QUIET = 5_000       # cycles without a transfer after which the unit counts as hung
SETTLED = 300       # after which everything is in memory


@cocotb.test()
async def play(dut):
    job = given()
    dut.clear.value = 0
    dut.pool.value = job.chip.kvcache.blocks
    dut.base.value, dut.host_base.value = 1, job.host_page
    board = Board(dut, job)
    await reset(dut)
    for cycles in job.interrupted:
        for _ in range(cycles):
            await RisingEdge(dut.clk)
            board.step()
        assert not board.finished
        await reset(dut, running=True)
        board = Board(dut, job)

    while not board.finished:
        await RisingEdge(dut.clk)
        board.step()
        assert board.quiet < QUIET, (
            f"nothing moved for {QUIET} cycles; {len(board.run.done)} of {len(job.log)} instructions done")
    while board.quiet < SETTLED:
        await RisingEdge(dut.clk)
        board.step()
    board.run.fault = int(dut.fault.value)
    board.check()
    finish(board.run)
