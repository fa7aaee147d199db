# SPDX-License-Identifier: Apache-2.0
"""Bench of two interfaces with mutants inside (`sim.mutation`): which of them fail a job, and how.

Each mutant and job is a test of its own, so that its drivers end with it; those of a mutant that has failed
are passed over. Number 0 is the interface itself, which passes.
"""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.triggers import SimTimeoutError, with_timeout

from sim import pair
from sim.mutation.interface import CONFIG

JOBS, NUMBERS = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
FOUND = {}


@cocotb.test()
@cocotb.parametrize(number=[0, *NUMBERS], job=range(len(JOBS)))
async def mutants(dut, number, job):
    if number in FOUND or 0 in FOUND:
        return
    name, options = JOBS[job]
    dut.mutant.value = number
    said = "a driver or the link's watch objects"       # which end the test, and not by an exception in here
    try:
        await with_timeout(getattr(pair, name)(dut, CONFIG, **options), 200, "us")
        said = ""
    except (AssertionError, LookupError, ValueError, SimTimeoutError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        if not number:
            raise
    finally:
        if said:
            FOUND[number] = job, said
        if number == NUMBERS[-1]:
            Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(FOUND))
