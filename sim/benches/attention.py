# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.attention.attention.Attention`: runs a job of `sim.attention`, compares with golden, leaves the runs."""


import cocotb
from cocotb.triggers import RisingEdge

from sim.attention import Board
from sim.job import finish, given
from sim.stream import reset

QUIET = 5_000       # cycles without a transfer after which the unit counts as hung


@cocotb.test()
async def heads(dut):
    job = given()
    board = Board(dut, job)
    dut.clear.value = 0
    await reset(dut)
    while not board.finished:
        await RisingEdge(dut.clk)
        board.step()
        assert board.quiet < QUIET, (
            f"nothing moved for {QUIET} cycles; {board.done} of {len(job.heads)} heads done")
    board.check()
    finish((board.runs, board.seen))
