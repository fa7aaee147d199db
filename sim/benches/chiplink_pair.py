# SPDX-License-Identifier: Apache-2.0
"""Bench of two sides of a chip link (`sim.chiplink.Pair`): a `Job` after another, what came of each into `RESULTS`.

`JOBS` is a file of pickled jobs.
"""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles

from sim.chiplink import SIDES

INPUTS = ("idle", "hold", "loss", "late", "errors", "stall", "limit", "ideal", "seed", "burst", "timeout")


@cocotb.test()
async def pair(dut):
    Clock(dut.clk, 2, unit="ns").start()
    jobs = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    results = [await play(dut, job) for job in jobs]
    Path(os.environ["RESULTS"]).write_bytes(pickle.dumps(results))


async def play(dut, job):
    """Play a job from a reset on: what the outputs are at its end, the cycles it took, and what its events saw;
    if it is looked at in each cycle, also those of the first flit from the left to the right."""
    for name in INPUTS:
        getattr(dut, name).value = getattr(job, name)
    for name in ("cut", "reset", "epoch", "resume", "clear", "flood"):
        for side in SIDES:
            getattr(dut, f"{name}_{side}").value = 0
    await meet(dut, job.seed)
    events, cycles, seen, start, latency = sorted(job.events.items()), 0, [], 0, None
    while cycles < job.cycles:
        until = events[0][0] if events else job.cycles
        while cycles < until and (events or not done(dut)):
            step = min(job.step, until - cycles)
            await ClockCycles(dut.clk, step)
            cycles += step
            if job.step == 1 and latency is None:
                if int(dut.valid_left.value) & 1 and not start:
                    start = cycles
                if int(dut.valid_right.value) & 2:
                    latency = cycles - start
        if not events:
            break
        seen.append(outputs(dut))
        for name, value in events.pop(0)[1].items():
            getattr(dut, name).value = value
        await ClockCycles(dut.clk, 1)       # to be seen
        cycles += 1
    return {"cycles": cycles, "seen": seen, "latency": latency, **outputs(dut)}


async def meet(dut, seed):
    """Reset both sides until their sessions have the numbers that they begin with: each cycle makes another."""
    sides = [getattr(dut, f"session_{side}") for side in SIDES]
    dut.rst.value = 0
    dut.reset_left.value = 1
    await ClockCycles(dut.clk, (int(sides[1].value) - int(sides[0].value) - 77 * seed) % 256 + 1)
    dut.reset_left.value = 0
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    await ClockCycles(dut.clk, (37 * seed - int(sides[0].value)) % 256 + 1)
    dut.rst.value = 0


def done(dut):
    """Whether all flits came."""
    return all(int(getattr(dut, f"complete_{side}").value) for side in SIDES)


def outputs(dut):
    return {f"{name}_{side}": int(getattr(dut, f"{name}_{side}").value)
            for name in ("count", "sent", "wrong", "complete", "error", "up", "session") for side in SIDES}
