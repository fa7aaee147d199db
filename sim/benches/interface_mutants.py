# SPDX-License-Identifier: Apache-2.0
"""Bench of two interfaces with mutants inside (`sim.mutation.interface`): which do anything else, in any cycle.

The interface itself passes all jobs; then each mutant is given the same.
"""

import os
import pickle
from pathlib import Path

import cocotb

from sim import pair
from sim.mutation.interface import CONFIG, TOP
from sim.mutation.replay import Replay

JOBS, NUMBERS = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
RUNS = []


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(number=range(len(JOBS)))
async def recorded(dut, number):
    name, options = JOBS[number]
    run = []
    dut.mutant.value = 0
    recording = cocotb.start_soon(Replay(dut, TOP).record(run))
    await getattr(pair, name)(dut, CONFIG, **options)
    recording.cancel()
    RUNS.append(run)


@cocotb.test
async def mutants(dut):
    assert len(RUNS) == len(JOBS), "the interface itself does not as golden says"
    found = await Replay(dut, TOP).unlike(RUNS, NUMBERS, 150)
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))
