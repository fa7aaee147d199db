# SPDX-License-Identifier: Apache-2.0
"""Bench of a `Router` with mutants inside (`sim.mutation.router`): which do anything else, in any cycle.

The router itself plays all jobs, and must do as golden says; then each mutant is given the same.
"""

import os
import pickle
from pathlib import Path

import cocotb

from sim.benches.router_jobs import record
from sim.mutation.replay import Replay
from sim.mutation.router import TOP

JOBS, NUMBERS = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
RUNS = []


@cocotb.test
@cocotb.parametrize(number=range(len(JOBS)))
async def recorded(dut, number):
    dut.mutant.value = 0
    RUNS.append(await record(dut, JOBS[number]))


@cocotb.test
async def mutants(dut):
    assert len(RUNS) == len(JOBS), "the router itself does not as golden says"
    found = await Replay(dut, TOP).unlike(RUNS, NUMBERS, 150)
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))
