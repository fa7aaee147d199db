# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.matmul.engine.Engine`: runs a job of `sim.matmul`, compares with golden, leaves the runs in a file."""


import cocotb
from cocotb.triggers import RisingEdge

from sim.job import finish, given
from sim.matmul import Board
from sim.stream import reset

QUIET = 20_000      # cycles without a transfer after which the engine counts as hung


@cocotb.test()
async def gemms(dut):
    job = given()
    board = Board(dut, job)
    dut.clear.value = 0
    await reset(dut)
    while not board.finished:
        await RisingEdge(dut.clk)
        board.step()
        assert board.quiet < QUIET, (
            f"nothing moved for {QUIET} cycles; {board.completed} of {len(job.gemms)} GEMMs done")
    board.check()
    finish((board.runs, board.seen))
