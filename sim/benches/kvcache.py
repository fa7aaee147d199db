# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.kvcache.controller.Controller`: a log of the reference, command by command, see `sim.kvcache.Job`."""


import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from sim.job import finish, given
from sim.kvcache import unpacked
from sim.stream import Sink, Source, reset

QUIET = 20_000      # cycles without a completion after which the controller counts as hung


class Watch:
    """The cycles in which items pass a stream."""

    def __init__(self, dut, *prefixes):
        self.streams = [tuple(getattr(dut, f"{prefix}__{end}") for end in ("valid", "ready")) for prefix in prefixes]
        self.cycles = [[] for _ in prefixes]
        cocotb.start_soon(self._run(dut.clk))

    async def _run(self, clk):
        cycle = 0
        while True:
            await RisingEdge(clk)
            cycle += 1
            for (valid, ready), cycles in zip(self.streams, self.cycles, strict=True):
                if int(valid.value) and int(ready.value):
                    cycles.append(cycle)


@cocotb.test()
async def replay(dut):
    job = given()
    commands, operands, retire = (Source(dut, name, idle=job.stall) for name in ("i", "operands", "retire"))
    sinks = {name: Sink(dut, name, stall=job.stall) for name in ("o", "hits", "ranges", "moves", "events")}
    dut.clear.value = 0
    dut.pool.value, dut.lru_tail.value = job.config.blocks, job.config.policy == "lru_tail"
    await reset(dut)
    everything = [entry[:2] for entry in job.log if isinstance(entry, tuple)]
    for cycles in job.interrupted:
        commands.send([command.word for command, _ in everything])
        operands.send([each for command, _ in everything for each in command.operands])
        await ClockCycles(dut.clk, cycles)
        said = sinks["o"].items
        assert said == [completion.word for _, completion in everything[:len(said)]], f"up to cycle {cycles}"
        for source in commands, operands:
            source.queue.clear()
            source.busy = source.valid.value = 0
        await reset(dut, running=True)
        for sink in sinks.values():
            sink.items.clear()
    watch = Watch(dut, "i", "o")

    done = []                           # commands whose completions are still to come
    async def settle():
        for command, completion in done:
            quiet = 0
            while not sinks["o"].items:
                await RisingEdge(dut.clk)
                quiet += 1
                assert quiet < QUIET, f"{command} never completes"
            found = sinks["o"].items.pop(0)
            assert found == completion.word, f"{command}: expected {completion}, found {unpacked(command, found)}"
        done.clear()

    hits, ranges = [], []
    for entry in job.log:
        if isinstance(entry, int):
            await settle()
            retire.send([entry])
            await retire.drain()
            continue
        command, completion, found, reads = entry
        commands.send([command.word])
        operands.send(command.operands)
        done.append((command, completion))
        hits += found
        ranges += reads * command.arguments.get("heads", 1).bit_count()     # head after head
        if len(done) > 100:
            await settle()
    await settle()

    config = job.built
    bits, size = max((config.blocks - 1).bit_length(), 1), (config.block_tokens - 1).bit_length()
    used = config.block_tokens.bit_length()

    def fields(word, *widths):
        for width in widths:
            yield word & (1 << width) - 1
            word >>= width

    error = job.error and job.error["status"] | job.error["opcode"] << 8 | job.error["sid"] << 16 | (
        job.error["number"] << 32)
    assert int(dut.error.value) == (error or 0)
    assert sinks["hits"].items == hits
    assert [tuple(fields(word, bits, size, used)) for word in sinks["ranges"].items] == ranges
    assert [tuple(fields(word, 2, 32, 32, used)) for word in sinks["moves"].items] == job.moves
    assert [tuple(fields(word, 2, bits, config.tenant_bits, config.hash_bits)) for word in sinks["events"].items] == [
        (kind, block, tenant, hash) for kind, block, tenant, hash in job.events]
    finish([end - start for start, end in zip(*watch.cycles, strict=True)])
