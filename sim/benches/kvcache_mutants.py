# SPDX-License-Identifier: Apache-2.0
"""Bench of a controller with mutants inside (`sim.mutation.kvcache`): which of them fail some job, and how."""

import os
import pickle
import random
from collections import deque
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

from golden.paging import Move, Opcode
from hw.kvcache.ports import event, move, range_
from sim.stream import reset

QUIET = 700             # cycles without a transfer after which a mutant counts as hung
SOURCES, SINKS = ("i", "operands", "retire"), ("o", "hits", "ranges", "moves", "events")


@cocotb.test()
async def mutants(dut):
    jobs, numbers = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    jobs = [(job, list(script(job)), due(job)) for job in jobs]
    dut.mutant.value = dut.clear.value = 0
    await reset(dut)
    cycles = [await play(dut, *job) for job in jobs]        # the controller itself passes
    found = {}
    for number in numbers:
        dut.mutant.value = number
        for n, job in enumerate(jobs):
            try:
                took = await play(dut, *job)
                assert job[0].stall or took == cycles[n], f"commands took {took} cycles, not {cycles[n]}"
            except (AssertionError, ValueError) as error:
                found[number] = n, str(error).splitlines()[0]
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


def script(job):
    """What is sent, in order: (port, word, how many commands must have completed before)."""
    commands = 0
    for entry in job.log:
        if isinstance(entry, tuple):
            yield "i", entry[0].word, 0
            yield from (("operands", word, 0) for word in entry[0].operands)
            commands += 1
        else:
            yield "retire", entry, commands


def due(job):
    """What must come out of each port: words, each with the bits of it that matter."""
    config, found = job.config, {name: [] for name in SINKS}

    def expect(name, layout, ignored=(), **fields):
        word = mask = 0
        for field, where in layout:
            if field not in ignored:
                word |= int(fields[field]) << where.offset
                mask |= (1 << where.width) - 1 << where.offset
        found[name].append((word, mask))

    for command, completion, hits, ranges in (entry for entry in job.log if isinstance(entry, tuple)):
        found["o"].append((completion.word, -1))
        found["hits"] += [(hit, -1) for hit in hits]
        given = command.arguments
        heads = [head for head in range(16) if given.get("heads", 1) >> head & 1]
        for head in heads if ranges else ():
            for n, (block, first, slots) in enumerate(ranges):
                last = n == len(ranges) - 1
                expect("ranges", range_(config), ("head", "opens", "closes") if command.opcode == Opcode.WRITE else (),
                       block=block, first=first, slots=slots, write=command.opcode == Opcode.WRITE,
                       end=last and head == heads[-1], opens=n == 0, closes=last, sid=given["sid"],
                       layer=given.get("layer", 0), head=head)
    for kind, source, target, slots in job.moves:
        expect("moves", move(config), kind=Move(kind), source=source, target=target, slots=slots)
    for kind, block, tenant, hash in job.events:
        expect("events", event(config), ("block", "tenant", "hash") if kind == 2 else (), kind=kind, block=block,
               tenant=tenant, hash=hash)
    return found


async def play(dut, job, script, due):
    """Run a job from a reset on; return how many cycles it took."""
    rng = random.Random(job.seed)
    port = {name: tuple(getattr(dut, f"{name}__{end}") for end in ("payload", "valid", "ready"))
            for name in (*SOURCES, *SINKS)}
    queues = {name: deque() for name in SOURCES}
    for name, word, after in script:
        queues[name].append((word, after))
    sent, valid, ready = dict.fromkeys(SOURCES, 0), dict.fromkeys(SOURCES, False), dict.fromkeys(SINKS, False)
    taken, held = dict.fromkeys(SINKS, 0), dict.fromkeys(SINKS)
    barriers = deque(after for name, _, after in script if name == "retire")
    for name in SOURCES:
        port[name][1].value = 0
    for name in SINKS:
        port[name][2].value = 0
    dut.pool.value, dut.lru_tail.value = job.config.blocks, job.config.policy == "lru_tail"
    await reset(dut, running=True)
    cycles = quiet = 0
    while taken["o"] < len(due["o"]) or queues["retire"] or valid["retire"] or quiet < 3:
        await RisingEdge(dut.clk)
        cycles, quiet = cycles + 1, quiet + 1
        for name in SOURCES:
            payload, valid_pin, ready_pin = port[name]
            if valid[name]:
                if not int(ready_pin.value):
                    continue
                quiet, sent[name] = 0, sent[name] + 1
                if name == "retire":
                    barriers.popleft()
            queue = queues[name]
            may = queue and (not job.stall or rng.random() >= job.stall)
            if may and name == "i":             # a retirement is told of between commands
                may = not barriers or sent["i"] < barriers[0]
            elif may and name == "retire":
                may = taken["o"] >= queue[0][1]
            if may:
                payload.value = queue.popleft()[0]
            if valid[name] != bool(may):
                valid[name] = bool(may)
                valid_pin.value = valid[name]
        for name in SINKS:
            payload, valid_pin, ready_pin = port[name]
            if int(valid_pin.value):
                word = int(payload.value)
                assert held[name] in (None, word), f"{name} changed while it waited"
                held[name] = None if ready[name] else word
                if ready[name]:
                    assert taken[name] < len(due[name]), f"too much comes out of {name}"
                    wanted, mask = due[name][taken[name]]
                    assert word & mask == wanted & mask, f"{name}: {word & mask:#x}, not {wanted & mask:#x}"
                    quiet, taken[name] = 0, taken[name] + 1
            else:
                assert held[name] is None, f"{name} was withdrawn"
            takes = not job.stall or rng.random() >= job.stall
            if takes != ready[name]:
                ready[name] = takes
                ready_pin.value = takes
        assert quiet < QUIET, f"nothing moved for {QUIET} cycles"
    for name in SINKS:
        assert taken[name] == len(due[name]), f"too little comes out of {name}"
    error = job.error and job.error["status"] | job.error["opcode"] << 8 | job.error["sid"] << 16 | (
        (job.error["number"] & 0xFFFF_FFFF) << 32)
    assert int(dut.error.value) == (error or 0), "another error is told of"
    dut.clear.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.clear.value = 0
    assert not int(dut.error.value), "the error stays after clear"
    return cycles
