# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.attention.attention.Attention`: runs a job of `sim.attention`, compares with golden, leaves the runs."""


import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from sim.attention import Board
from sim.job import finish, given
from sim.stream import reset

QUIET = 5_000       # cycles without a transfer after which the unit counts as hung


@cocotb.test()
async def heads(dut):
    job = given()
    dut.clear.value = 0
    await reset(dut)
    for cycles in job.interrupted:
        board = Board(dut, job)
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
            f"nothing moved for {QUIET} cycles; {board.done} of {len(job.heads)} heads done")
    board.check()
    dut.clear.value = 1
    await ClockCycles(dut.clk, 2)
    assert not int(dut.error.value)
    finish((board.runs, board.seen))
