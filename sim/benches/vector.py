# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.vector.engine.Engine`: runs jobs of `sim.vector`, compares with golden, leaves the runs in a file."""

import cocotb
from cocotb.triggers import RisingEdge

from sim.job import finish, given
from sim.stream import reset
from sim.vector import Board

QUIET = 5_000       # cycles without a transfer after which the engine counts as hung


@cocotb.test()
async def calls(dut):
    dut.clear.value = 0
    done = []
    for job in given():
        if job.reset:
            board = Board(dut, job)
            await reset(dut, running=bool(done))
            for _ in range(job.reset):
                await RisingEdge(dut.clk)
                board.step()
        done.append(await play(dut, job, running=bool(done or job.reset)))
    finish(done)


async def play(dut, job, running):
    """The runs of a job, from a reset on, and what its ports saw."""
    board = Board(dut, job)
    await reset(dut, running=running)
    while not board.finished:
        await RisingEdge(dut.clk)
        board.step()
        assert board.quiet < QUIET, (
            f"nothing moved for {QUIET} cycles; {board.completed} of {len(job.calls)} instructions done")
    board.check()
    return board.runs, board.seen
