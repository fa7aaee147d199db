# SPDX-License-Identifier: Apache-2.0
"""Bench of an engine with mutants inside (`sim.mutation`): which of them fail some job, and how."""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

import sim.matmul
from hw.matmul.ports import Error
from sim.matmul import READS, Board, Memory
from sim.stream import reset

BASES = 0x5A96_A000, 0xA569_5000     # operands lie up here, so that all bits of an address matter
QUIET = 300             # cycles without a transfer after which a mutant counts as hung
OUTPUTS = ("results", "completions", "weights_request", "activations_request", "parameters_request")


@cocotb.test()
async def mutants(dut):
    jobs, numbers = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    sim.matmul.Memory = Far
    dut.mutant.value = 0
    dut.clear.value = 0
    await reset(dut)
    due = [await play(dut, job) for job in jobs]    # the engine itself passes
    found = {}
    for number in numbers:
        dut.mutant.value = number
        for n, job in enumerate(jobs):
            try:
                cycles, errors = await play(dut, job)
                assert errors == due[n][1], f"errors are {errors}, not {due[n][1]}"
                assert job.stall or cycles == due[n][0], f"GEMMs took {cycles} cycles, not {due[n][0]}"
            except (AssertionError, LookupError, ValueError) as error:
                found[number] = n, str(error).splitlines()[0]
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


async def play(dut, job):
    """Run a job from a reset on; return the cycles of its GEMMs, and their errors."""
    Far.base = BASES[job.seed % 2]
    board = Board(dut, job)
    dut.clear.value = 0
    await reset(dut, running=True)
    held = {}                                       # what waits on each output
    while not board.finished:
        await RisingEdge(dut.clk)
        for name in OUTPUTS:
            port = board.port[name]
            now = int(port.payload.value) if int(port.valid.value) else None
            assert held.get(name) in (None, now), f"{name} changed while it waited"
            held[name] = None if port.taking else now
        board.step()
        assert board.quiet < QUIET, f"nothing moved for {QUIET} cycles"
    board.check()
    errors = [run.error for run in board.runs]
    first = next((n for n, error in enumerate(errors) if error), None)
    assert first is None or job.broken or int(dut.error_tag.value) == first, "error_tag is of another command"
    await clear(dut)
    for name in READS:                              # a beat that nobody asked for
        stray = board.port[name]
        stray.payload.value, stray.valid.value = 1 << len(stray.payload) - 1, 1
        await RisingEdge(dut.clk)
        stray.valid.value = 0
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        assert int(dut.error.value) == Error.RESPONSE.value, f"a stray beat of {name} is no error"
        await clear(dut)
    return [run.cycles for run in board.runs], errors


async def clear(dut):
    dut.clear.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.clear.value = 0
    assert not int(dut.error.value), "the error stays after clear"


class Far(Memory):
    """A memory that does not begin at 0."""

    base = BASES[0]

    def place(self, content):
        return self.base + super().place(content)

    def beat(self, address, size):
        assert self.base <= address <= self.base + len(self.data), f"a read at {address:#x}"
        return super().beat(address - self.base, size)
