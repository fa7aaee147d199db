# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.memory.weights.Weights` behind a channel: a `sim.weights.Job`."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from golden.transfer import Error
from hw.fetch import request
from hw.instructions import instruction
from hw.memory.weights import STREAM
from sim.axi import Ideal, Memory
from sim.dram import Dram
from sim.job import finish, given
from sim.ports import pack
from sim.stream import Sink, Source, check_stalls, reset
from sim.weights import Run

QUIET = 2_000       # cycles without progress after which it counts as hung


@cocotb.test()
async def replay(dut):
    job = given()
    channel, port, _, _, most = job.sizes
    sources = Source(dut, "i", idle=job.stall), Source(dut, "request", idle=job.stall)
    done, beats = Sink(dut, "done", stall=job.stall), Sink(dut, "o", stall=job.stall)
    timing = Dram(job.dram, channel) if job.dram else Ideal(job.latency)
    memory = Memory(dut, "axi", bytearray(job.data), timing=timing, stall=job.stall, shuffled=bool(job.stall),
                    errors=job.errors, deaf=job.deaf)
    dut.clear.value = dut.flush.value = 0
    await reset(dut)
    found = Run([], [], memory.cycles["ar"], memory.cycles["r"], [], memory.reads, 0, 0, False)

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            found.full += int(dut.full.value)
            found.empty += int(dut.empty.value)
            if int(dut.o__valid.value) and int(dut.o__ready.value):
                found.served.append(memory.cycle)

    async def send(patient=0):
        layout = instruction(len(STREAM))
        sources[0].send(pack(layout, {"words": source | size << 32}) for source, size in job.instructions)
        if patient:
            await ClockCycles(dut.clk, patient)
        sources[1].send(pack(request(most, 1), {"address": address, "beats": count, "rows": 1})
                        for address, count in job.requests)

    async def until(what):
        quiet, last = 0, None
        while not what():
            await RisingEdge(dut.clk)
            now = len(done.items), len(beats.items), len(memory.returned)
            quiet, last = (quiet + 1, last) if now == last else (0, now)
            assert quiet < QUIET, f"hung after {now}"

    def answered():
        """Requests whose last beat has come."""
        return sum(item >> 8 * port for item in beats.items)

    cocotb.start_soon(watch())
    if job.cleared:
        await send()
        await ClockCycles(dut.clk, job.cleared)
        dut.clear.value = 1
        await until(lambda: len(done.items) == len(job.instructions) and answered() == len(job.requests))
        dut.clear.value = 0
        await RisingEdge(dut.clk)               # what is under way comes later
        assert len(done.items) == len(job.instructions) and answered() == len(job.requests)
        done.items.clear()
        beats.items.clear()
    if job.flushed:
        await send()
        await ClockCycles(dut.clk, job.flushed)
        dut.flush.value = 1
        for source in sources:
            source.queue.clear()
            source.busy = source.valid.value = 0
        await RisingEdge(dut.clk)
        dut.flush.value = 0
        await RisingEdge(dut.clk)
        done.items.clear()
        beats.items.clear()
    await send(job.patient)
    await until(lambda: len(done.items) == len(job.instructions) and answered() == len(job.requests))
    if job.stall and not job.deaf:
        check_stalls(*sources, beats)
    found.done = [Error(item) for item in done.items]
    found.beats = [(item & (1 << 8 * port) - 1, bool(item >> 8 * port)) for item in beats.items]
    found.dead = bool(int(dut.dead.value))
    finish(found)
