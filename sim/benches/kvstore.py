# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.kvcache.cache.KvCache`: a `sim.kvstore.Job`."""


import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from golden.paging import Opcode, Status
from sim.axi import Ideal, Memory, peer
from sim.dram import Dram
from sim.job import finish, given
from sim.kvcache import unpacked
from sim.kvstore import Flip, Run, Wait
from sim.stream import Sink, Source, check_stalls, reset

QUIET = 40_000      # cycles without progress after which it counts as hung


def expected(config, beat, sid):
    """A beat's payload."""
    word = int.from_bytes(beat.data, "little")
    shift = 8 * config.beat
    sizes = (4, len(config.slots), config.kv_heads, max(config.sequences, 2), 2, 2, 2)
    values = (beat.part, beat.slot, beat.head, sid, beat.first, beat.last, beat.end)
    for value, bits in zip(values, ((size - 1).bit_length() for size in sizes), strict=True):
        word |= int(value) << shift
        shift += bits
    return word, 1 << shift


class Timed:
    """Beside a source or a sink: when its items went."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.cycle, self.cycles = 0, []

    def _count(self, valid, ready):
        super()._count(valid, ready)
        self.cycle += 1
        if valid and ready:
            self.cycles.append(self.cycle)


class TimedSink(Timed, Sink):
    """A sink that knows when its items came."""


class TimedSource(Timed, Source):
    """A source that knows when its items went."""


@cocotb.test()
async def replay(dut):
    job = given()
    config, image = job.config, bytearray(job.before)
    commands, operands, rows = (TimedSource(dut, name, idle=job.stall) for name in ("i", "operands", "rows"))
    sinks = {name: TimedSink(dut, name, stall=job.stall) for name in ("o", "beats", "hits", "events")}
    completions, beats = sinks["o"], sinks["beats"]
    dut.clear.value = 0
    dut.pool.value, dut.lru_tail.value = config.blocks, config.policy == "lru_tail"
    dut.base.value, dut.host_base.value = 0, job.host_page
    if job.peer:
        peer(dut, "axi", image, job.stall)
        memory = None
    else:
        timing = Dram(job.dram, config.beat) if job.dram else Ideal(job.latency)
        memory = Memory(dut, "axi", image, timing=timing, stall=job.stall, shuffled=bool(job.stall),
                        errors=job.errors, deaf=job.deaf, hesitant=bool(job.stall))
    await reset(dut)

    async def until(what, progress):
        quiet, last = 0, None
        while not what():
            await RisingEdge(dut.clk)
            quiet, last = (quiet + 1, last) if progress() == last else (0, progress())
            assert quiet < QUIET, "hung"

    def send(entry):
        command, _, given = entry
        commands.send([command.word])
        operands.send(command.operands)
        rows.send(given)

    if job.interrupted:
        for entry in job.log:
            if isinstance(entry, tuple):
                send(entry)
        await ClockCycles(dut.clk, job.interrupted)
        for source in commands, operands, rows:
            source.queue.clear()
            source.busy = source.valid.value = 0
        await reset(dut, running=True)
        image[:] = job.before
        for sink in sinks.values():
            sink.items.clear()
            sink.cycles.clear()

    done, streamed = [], 0
    for entry in job.log:
        if isinstance(entry, Wait):
            await until(lambda count=streamed: len(completions.items) == len(done) and len(beats.items) >= count,
                        lambda: (len(completions.items), len(beats.items)))
            if entry.quiet:
                await until(lambda: not int(dut.busy.value), lambda: int(dut.axi__wdata.value))
            await ClockCycles(dut.clk, 12)          # the last stream retires
            continue
        if isinstance(entry, Flip):
            image[entry.address] ^= entry.mask
            continue
        send(entry)
        done.append(entry[:2])
        command, word, _ = entry
        if command.opcode == Opcode.STREAM and not word >> 8 & 0xFF:
            streamed += word >> 16

    for number, ((command, word), found) in enumerate(zip(done, completions.items, strict=True)):
        assert found == word, f"{number}: {command}: {unpacked(command, word)}, found {unpacked(command, found)}"
    assert len(beats.items) == len(job.beats)
    flagged = []
    for number, (found, beat, sid) in enumerate(zip(beats.items, job.beats, job.sids, strict=True)):
        word, error = expected(config, beat, sid)
        if bool(found & error) != beat.error:
            flagged.append(number)
        else:
            assert found & ~error == word, f"beat {number}: {beat}, found {found:#x}"
    if not job.errors and not job.deaf and not job.faulty:
        status = Status.ECC_UE if any(beat.error for beat in job.beats) else Status.OK
        assert not flagged and int(dut.fault.value) & 0xFF == status and not int(dut.dead.value)
    if not job.deaf:
        assert int(dut.nans.value) == job.nans
        wrong = [at for at in range(len(image)) if image[at] != job.after[at]] if image != job.after else []
        assert not wrong, f"{len(wrong)} bytes of memory differ, the first at {wrong[0]:#x}"
    if job.stall and len(job.log) > 200:
        check_stalls(rows, beats, completions)
        if memory:
            memory.check_stalls()
    cycles, reads, returned = (memory.cycles, memory.reads, memory.returned) if memory else ({}, [], [])
    finish(Run(
        commands.cycles, completions.cycles, beats.cycles, cycles, reads, returned, flagged,
        int(dut.fault.value), int(dut.dead.value)))
