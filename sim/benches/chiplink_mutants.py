# SPDX-License-Identifier: Apache-2.0
"""Bench of two sides of a chip link with mutants inside (`sim.mutation.chiplink`): which fail some job, and how."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import cocotb
from cocotb.clock import Clock

from sim.benches.chiplink_pair import play

LATE = 300      # cycles beyond those of the link itself after which a mutant counts as hung


@cocotb.test()
async def mutants(dut):
    jobs, numbers = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    Clock(dut.clk, 2, unit="ns").start()
    dut.mutant.value = 0
    due = [await play(dut, job) for job in jobs]
    jobs = [replace(job, cycles=min(job.cycles, result["cycles"] + LATE))
            for job, result in zip(jobs, due, strict=True)]
    found = {}
    for number in numbers:
        dut.mutant.value = number
        for n, job in enumerate(jobs):
            if difference := differs(await play(dut, job), due[n]):
                found[number] = n, difference
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


def differs(result, due):
    """What a job shows of a mutant: the line is as it was, so everything is due to the cycle and the byte."""
    for before, now in zip([*due["seen"], due], [*result["seen"], result], strict=True):
        for name, value in before.items():
            if name != "seen" and now[name] != value:
                return f"{name} is {now[name]}, not {value}"
    return None
