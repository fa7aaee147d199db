# SPDX-License-Identifier: Apache-2.0
"""Bench of attention with mutants inside (`sim.mutation.attention`): which give other results than golden, or later."""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from sim.attention import Board
from sim.stream import reset

QUIET = 400         # cycles without a transfer after which a mutant counts as hung


@cocotb.test()
async def mutants(dut):
    jobs, numbers = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    dut.mutant.value = dut.clear.value = 0
    await reset(dut)
    due = [await play(dut, job) for job in jobs]        # attention itself passes
    found = {}
    for number in numbers:
        dut.mutant.value = number
        for n, job in enumerate(jobs):
            try:
                seen = await play(dut, job)
                assert seen[0] == due[n][0], f"errors are {seen[0]}, not {due[n][0]}"
                assert job.stall or seen[1] == due[n][1], f"heads took {seen[1]} cycles, not {due[n][1]}"
            except (AssertionError, ValueError, IndexError) as error:
                found[number] = n, str(error).splitlines()[0]
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


class Cleared(Board):
    """Looks at the error after each head, and clears it."""

    def step(self):
        before = self.completed
        super().step()
        ended = self.completed != before
        self.dut.clear.value = ended
        if ended:
            self.check_error()
            self.cleared = self.completed


async def play(dut, job):
    """Run a job from a reset on; return the errors of all heads, and how many cycles they took."""
    dut.clear.value = 0
    board = (Board if job.queue else Cleared)(dut, job)
    await reset(dut, running=True)
    while not board.finished:
        await RisingEdge(dut.clk)
        board.step()
        assert board.quiet < QUIET, f"nothing moved for {QUIET} cycles"
    board.check()
    dut.clear.value = 1
    await ClockCycles(dut.clk, 2)
    assert not int(dut.error.value), "the error stays after clear"
    return [run.error for run in board.runs], board.cycle
