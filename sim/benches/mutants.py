# SPDX-License-Identifier: Apache-2.0
"""Bench of an engine with mutants inside (`sim.mutation`): which of them fail some job, and how."""

import os
import pickle
from bisect import bisect, insort
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

import sim.matmul
from hw.matmul.ports import Error
from sim.matmul import READS, Board
from sim.ports import Memory, pack, unpack
from sim.stream import reset

BASES = 0x5A96_A000, 0xA569_5000        # operands lie up here, so that all bits of an address matter,
PITCHES = 0x2B4D_3A68, 0xD4B2_C594      # and rows so far apart, for those of a pitch
MASK = 0xFFFF_FFFF      # of addresses
SLACK = 16              # bytes that may be read past the end of a row
QUIET = 300             # cycles without a transfer after which a mutant counts as hung
HELD = 250              # cycles in which stalled jobs give no result away: queues fill
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
    board = Apart(dut, job)
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


class Apart(Board):
    """Rows of A and of C do not lie one after the other; results may be held back at first."""

    def step(self):
        super().step()
        if self.job.stall and self.cycle < HELD:
            self.port["results"].take(1, lambda: 0)

    def _command(self, number, gemm):
        layout = self.layout["commands"]
        fields = unpack(layout, super()._command(number, gemm))
        for name in ("a", "c"):
            near, fields[f"{name}_pitch"] = fields[f"{name}_pitch"], PITCHES[self.job.seed % 2]
            if fields[name]:
                self.memory.spread(fields[name], gemm.shape[0], near, fields[f"{name}_pitch"])
        return pack(layout, fields)


class Far(Memory):
    """A memory that does not begin at 0, in which rows can be spread."""

    base = BASES[0]

    def __init__(self):
        super().__init__()
        self.rows = []      # (address, where it lies in `data`, bytes that may be read), by address

    def place(self, content):
        return self.base + super().place(content)

    def spread(self, address, count, near, far):
        """Rows that were placed `near` bytes apart are seen `far` bytes apart."""
        for row in range(count):
            insort(self.rows, (address + row * far & MASK, address - self.base + row * near, near + SLACK))

    def beat(self, address, size):
        address &= MASK
        first, place, length = self.rows[bisect(self.rows, (address, MASK)) - 1]
        if not first <= address < first + length:
            first, place, length = self.base, 0, len(self.data)
        assert first <= address <= first + length, f"a read at {address:#x}"
        return super().beat(place + address - first, size)
