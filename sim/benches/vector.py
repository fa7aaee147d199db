# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.vector.engine.Engine`: runs a job of `sim.vector`, compares with golden, leaves the runs in a file."""

import cocotb
from cocotb.triggers import RisingEdge

from sim.job import finish, given
from sim.stream import reset
from sim.vector import Board

QUIET = 5_000       # cycles without a transfer after which the engine counts as hung


@cocotb.test()
async def calls(dut):
    job = given()
    dut.clear.value = 0
    if job.reset:
        board = Board(dut, job)
        await reset(dut)
        for _ in range(job.reset):
            await RisingEdge(dut.clk)
            board.step()
    board = Board(dut, job)
    await reset(dut, running=bool(job.reset))
    while not board.finished:
        await RisingEdge(dut.clk)
        board.step()
        assert board.quiet < QUIET, (
            f"nothing moved for {QUIET} cycles; {board.completed} of {len(job.calls)} instructions done")
    board.check()
    finish((board.runs, board.seen))
