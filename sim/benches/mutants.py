# SPDX-License-Identifier: Apache-2.0
"""Bench of an engine with mutants inside (`sim.mutation`): which of them fail some job, and how."""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

import sim.matmul
from sim.matmul import Board, Memory
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
                cycles = await play(dut, job)
                assert job.stall or cycles == due[n], f"GEMMs took {cycles} cycles, not {due[n]}"
            except (AssertionError, LookupError, ValueError) as error:
                found[number] = n, str(error).splitlines()[0]
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


async def play(dut, job):
    """Run a job from a reset on; return the cycles of its GEMMs."""
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
    errors = [n for n, run in enumerate(board.runs) if run.error]
    assert not errors or job.broken or int(dut.error_tag.value) == errors[0], "error_tag is of another command"
    dut.clear.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    assert not int(dut.error.value), "the error stays after clear"
    return [run.cycles for run in board.runs]


class Far(Memory):
    """A memory that does not begin at 0."""

    base = BASES[0]

    def place(self, content):
        return self.base + super().place(content)

    def beat(self, address, size):
        assert self.base <= address <= self.base + len(self.data), f"a read at {address:#x}"
        return super().beat(address - self.base, size)
