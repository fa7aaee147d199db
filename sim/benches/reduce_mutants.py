# SPDX-License-Identifier: Apache-2.0
"""Bench of a `Reduce` with mutants inside (`sim.mutation.noc_reduce`): which do anything else, in any cycle."""

import os
import pickle
import random
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

from golden.packet import ORDER
from sim.stream import reset


@cocotb.test
async def mutants(dut):
    jobs, numbers = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    dut.mutant.value = 0
    await reset(dut)
    due = []
    for job in jobs:                            # the block itself does as golden says
        due.append(await play(dut, job))
        leaves = [payload for _, payload, ready, _, _ in due[-1] if payload is not None and ready]
        assert job.leaves in (None, leaves), f"seed {job.seed}: {len(leaves)} flits, not {len(job.leaves)}"
    found = {}
    for number in numbers:
        dut.mutant.value = number
        for n, job in enumerate(jobs):
            if difference := await play(dut, job, due[n]):
                found[number] = n, difference
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


async def play(dut, job, due=None):
    """Run a job from a reset on. Return what is seen in each cycle; with `due`, what differs from that first, if so."""
    rng, seen = random.Random(job.seed), []
    inputs = [(*(getattr(dut, f"{port.name.lower()}_i__{name}") for name in ("valid", "payload", "ready")),
               list(job.sent.get(port, ()))[::-1]) for port in ORDER]
    for valid, *_ in inputs:
        valid.value = 0
    dut.o__ready.value = dut.clear.value = 0
    await reset(dut, running=True)
    for word in job.writes:
        dut.write.value = word
        await RisingEdge(dut.clk)
    dut.write.value = 0
    waits, ready = [False] * len(inputs), False
    for cycle in range(job.cycles):
        await RisingEdge(dut.clk)
        taken = [waiting and bool(handle.value) for waiting, (_, _, handle, _) in zip(waits, inputs, strict=True)]
        payload = int(dut.o__payload.value) if dut.o__valid.value else None
        seen.append((taken, payload, ready, int(dut.error.value), cycle))
        if due and seen[-1] != due[cycle]:
            return f"cycle {cycle}: {seen[-1][:-1]}, not {due[cycle][:-1]}"
        for n, (valid, data, _, flits) in enumerate(inputs):
            if taken[n] or not waits[n]:
                waits[n] = bool(flits) and rng.random() >= job.idle
                valid.value = waits[n]
                data.value = flits.pop() if waits[n] else 0
        ready = rng.random() >= job.stall
        dut.o__ready.value = ready
        dut.clear.value = rng.random() < 0.01
        dut.write.value = job.later.get(cycle, 0)
    return None if due else seen
