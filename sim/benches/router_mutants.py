# SPDX-License-Identifier: Apache-2.0
"""Bench of a `Router` with mutants inside (`sim.mutation.router`): which do anything else, in any cycle.

The router itself plays all jobs, and must do as golden says. What it was given in each cycle is then given to each
mutant, which must answer the same. A mutant begins out of traffic, not out of nothing.
"""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from sim.benches.router_jobs import INPUTS, eyes, record

JOBS, NUMBERS = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
RUNS = []           # of each job, cycle by cycle: inputs, and what is seen
WARM = 150          # cycles of the first job, of the router itself, ahead of each mutant


@cocotb.test
@cocotb.parametrize(number=range(len(JOBS)))
async def recorded(dut, number):
    dut.mutant.value = 0
    RUNS.append(await record(dut, JOBS[number]))


@cocotb.test
async def mutants(dut):
    assert len(RUNS) == len(JOBS), "the router itself does not as golden says"
    look, found, before = eyes(dut), {}, dict.fromkeys(INPUTS)

    async def drive(inputs):
        for name, value in inputs.items():
            if value != before[name]:
                getattr(dut, name).value = before[name] = value
        await RisingEdge(dut.clk)

    async def begin(number):
        dut.mutant.value = 0
        for inputs in warm:
            await drive(inputs)
        dut.mutant.value = number

    Clock(dut.clk, 2, unit="ns").start()
    warm = [inputs for inputs, _ in RUNS[0][:WARM]]
    await begin(0)
    for run in RUNS:        # once more, out of traffic
        for n, (inputs, _) in enumerate(run):
            await drive(inputs)
            run[n] = inputs, look()
    cycles = [(n, *each) for n, run in enumerate(RUNS) for each in enumerate(run)]
    for number in [0, *NUMBERS, 0]:
        await begin(number)
        for n, cycle, (inputs, due) in cycles:
            await drive(inputs)
            if (seen := look()) != due:
                found[number] = n, f"cycle {cycle}: {next(name for name, now in seen.items() if due[name] != now)}"
                break
    assert 0 not in found, f"the router itself is not what it was: job {found[0]}"
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))
