# SPDX-License-Identifier: Apache-2.0
"""Bench of a vector engine with mutants inside (`sim.mutation.vector`): which do not as golden, or not as soon."""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

from golden.vector import execute
from sim.stream import reset
from sim.vector import Board

QUIET = 300         # cycles without a transfer after which a mutant counts as hung
OUTPUTS = "results", "completions", "x_request", "y_request"


@cocotb.test()
async def mutants(dut):
    jobs, numbers = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    golden = [[execute(call.instruction, call.x, call.y, lanes=job.config.lanes) for call in job.calls] for job in jobs]
    dut.mutant.value = dut.clear.value = 0
    await reset(dut)
    due = [await play(dut, job, results) for job, results in zip(jobs, golden, strict=True)]
    found = {}
    for number in numbers:
        dut.mutant.value = number
        for n, job in enumerate(jobs):
            try:
                seen = await play(dut, job, golden[n], due[n])
                assert seen == due[n], "errors or cycles differ"
            except (AssertionError, LookupError, ValueError, OverflowError, MemoryError) as error:
                found[number] = n, str(error).splitlines()[0] if str(error) else type(error).__name__
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


async def play(dut, job, results, due=None):
    """Run a job from a reset on; return how its calls ended, whose error sticks, in how many cycles there was none,
    and after how many all were done. Gives up where that is not as `due`.
    """
    if job.reset:
        board = Board(dut, job, results)
        await reset(dut, running=True)
        for _ in range(job.reset):
            await RisingEdge(dut.clk)
            board.step()
    board = Board(dut, job, results)
    await reset(dut, running=True)
    held, good = {}, 0                              # what waits on each output; cycles without an error
    while not board.finished:
        await RisingEdge(dut.clk)
        for name in OUTPUTS:
            port = board.port[name]
            now = int(port.payload.value) if int(port.valid.value) else None
            assert held.get(name) in (None, now), f"{name} changed while it waited"
            held[name] = None if port.taking else now
        before, good = board.completed, good + (not int(dut.error.value))
        board.step()
        assert board.quiet < QUIET, f"nothing moved for {QUIET} cycles"
        if due:
            ends, *_, cycles = due
            assert board.cycle <= cycles, f"not done after {cycles} cycles"
            assert board.completed == before or ended(job, board.runs[before]) == ends[before], (
                f"error or cycles of call {before} differ")
    board.check()
    return [ended(job, run) for run in board.runs], int(dut.error_tag.value), good, board.cycle


def ended(job, run):
    """How a call ended and, where nothing stalls, after how many cycles."""
    return run.error, None if job.stall else run.cycles
