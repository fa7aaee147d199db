# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.memory.load.Load` and `hw.memory.store.Store` in a `sim.dma.Dma`, whose arguments are `DMA`.

`golden.dma` says what they do. The lower half of memory is loaded from, the upper half stored to; no two stores
under way have a byte in common, as memory may take them in any order.
"""

import ast
import os
import random
from dataclasses import replace

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from golden import dma
from golden.isa import HEAD, Instruction, Load, Store
from golden.transfer import Error
from hw.fetch import request, write
from hw.memory.rows import COPY, GATHER
from sim.axi import DECERR, SLVERR, Ideal, Memory
from sim.ports import pack
from sim.stream import Sink, Source, check_stalls, reset

BEAT, SIZE, BANKS, WORD, LONGEST, DEPTH = ast.literal_eval(os.environ.get("DMA", "(1, 1, 1, 1, 1, 1)"))
MEMORY = 1 << 14
LATENCY = 10


class Bench:
    """The engines after reset, memory and scratchpad full of random bytes, and what golden makes of these."""

    @classmethod
    async def start(cls, dut, stall=0.0, errors=None, latency=LATENCY):
        self = cls()
        self.dut, self.rng = dut, random.Random(cocotb.RANDOM_SEED)
        content = self.rng.randbytes(MEMORY)
        self.memory = np.frombuffer(content, np.uint8).copy()       # as it should be
        self.scratchpad = np.frombuffer(self.rng.randbytes(SIZE), np.uint8).copy()
        self.data = bytearray(content)
        self.axi = Memory(dut, "axi", self.data, timing=Ideal(latency), stall=stall, errors=errors,
                          hesitant=bool(stall))
        self.sources = {name: Source(dut, name, idle=stall) for name in ("load", "store", "request", "write")}
        self.sinks = {name: Sink(dut, name, stall=stall) for name in ("loaded", "stored", "response")}
        await reset(dut)
        self.put(0, self.scratchpad.tobytes())
        await self.sources["write"].drain()
        return self

    def put(self, address, content):
        """Have the host write words."""
        self.sources["write"].send(
            pack(write(WORD), {"address": address + at, "count": WORD,
                               "data": int.from_bytes(content[at:at + WORD], "little")})
            for at in range(0, len(content), WORD))

    async def indices(self, values):
        """Write indices to the middle of the scratchpad."""
        content = b"".join(value.to_bytes(4, "little") for value in values)
        content += bytes(-len(content) % WORD)
        self.scratchpad[SIZE // 2:SIZE // 2 + len(content)] = np.frombuffer(content, np.uint8)
        self.put(SIZE // 2, content)
        await self.settle()

    async def settle(self):
        """Wait until readers see what the host has written."""
        await self.sources["write"].drain()
        await ClockCycles(self.dut.clk, 2)

    def give(self, one):
        """Give an engine an instruction, and golden; the error that it ends with."""
        loads = isinstance(one.opcode, Load)
        form = GATHER if loads else COPY
        words = one.words[HEAD:HEAD + len(form)]
        self.sources["load" if loads else "store"].send([
            one.opcode.value | sum(word << 32 * n for n, word in enumerate(words)) << 5])
        return (dma.load if loads else dma.store)(one, self.memory, self.scratchpad, BEAT)

    async def done(self, name, errors):
        """Wait for that many completions, and compare."""
        assert await self.sinks[name].recv(len(errors)) == list(errors)

    async def compare(self):
        """All bytes are where they should be."""
        await ClockCycles(self.dut.clk, 4)
        assert bytes(self.data) == self.memory.tobytes()
        self.sources["request"].send([pack(request(SIZE // WORD, 1), {"beats": SIZE // WORD, "rows": 1})])
        beats = await self.sinks["response"].recv(SIZE // WORD)
        found = b"".join((beat & (1 << 8 * WORD) - 1).to_bytes(WORD, "little") for beat in beats)
        assert found == self.scratchpad.tobytes()
        assert not int(self.dut.fault.value) and not int(self.dut.dead.value)

    def rows(self, low, high, length, rows, apart=False):
        """A random address and pitch of rows of `length` bytes between two addresses, that overlap or not."""
        pitch = self.rng.randrange(length * apart, (high - low - length) // max(rows - 1, 1) + 1, BEAT)
        return self.rng.randrange(low, high - length - (rows - 1) * pitch + 1, BEAT), pitch

    def copy(self, opcode, read, written):
        """A random copy from one region to another."""
        rows = self.rng.choice([1, 1, 2, 3, 5])
        most = min(SIZE // 4, (written[1] - written[0]) // 2) // rows // BEAT * BEAT
        bytes = self.rng.randint(1, self.rng.choice([BEAT, most]))
        length = -(-bytes // BEAT) * BEAT
        source, source_pitch = self.rows(*read, length, rows)
        target, target_pitch = self.rows(*written, length, rows, apart=opcode is Store.COPY)
        return Instruction(opcode, {"source": source, "source_pitch": source_pitch, "target": target,
                                    "target_pitch": target_pitch, "bytes": bytes, "rows": rows})

    def gather(self, read, written, indices):
        """A random gather; `indices` is where in the scratchpad there is room for them. Writes them there."""
        count, rows = self.rng.choice([1, 2, 3, 7]), self.rng.choice([1, 1, 2])
        bytes, step = self.rng.randint(1, SIZE // 4 // count // rows), self.rng.randrange(0, 20) * BEAT
        length = -(-bytes // BEAT) * BEAT
        target, target_pitch = self.rows(*written, length, count * rows)
        source, source_pitch = self.rows(*read, length, rows)
        room = (read[1] - source - (rows - 1) * source_pitch - length) // max(step, 1)
        index_pitch = 4 * self.rng.randint(1, max((indices[1] - indices[0]) // 4 // count, 1))
        for n in range(count):
            value = self.rng.randint(0, room if step else 0xFFFFFFFF)
            at = indices[0] + n * index_pitch
            self.scratchpad[at:at + 4] = np.frombuffer(value.to_bytes(4, "little"), np.uint8)
        self.put(indices[0], self.scratchpad[indices[0]:indices[1]].tobytes())
        return Instruction(Load.GATHER, {
            "source": source, "source_pitch": source_pitch, "target": target, "target_pitch": target_pitch,
            "bytes": bytes, "rows": rows, "step": step, "index": indices[0], "index_pitch": index_pitch,
            "count": count})

    def spoilt(self, one):
        """The same with something wrong."""
        wrong = [("source", 1), ("source_pitch", BEAT // 2), ("target", 1), ("target_pitch", BEAT - 1),
                 ("bytes", 0), ("bytes", SIZE + 1), ("bytes", 1 << 31), ("rows", 0)]
        if one.opcode is Load.GATHER:
            wrong += [("step", 1), ("index", 2), ("index_pitch", 1), ("count", 0)]
        name, value = self.rng.choice(wrong)
        return replace(one, fields={**one.fields, name: value})


HALF = MEMORY // 2
PART = HALF // 16
INDICES = SIZE // 2 - 16 * WORD, SIZE // 2


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(stall=[0.0, 0.5])
async def random_traffic(dut, stall):
    """Both engines at once, each with bytes of its own, and now and then an instruction that is refused."""
    bench = await Bench.start(dut, stall)
    for _ in range(3):
        loaded, stored = [], []
        lower, upper = (0, INDICES[0]), (SIZE // 2, SIZE)
        gather = bench.gather((0, HALF), lower, INDICES)        # one a round, as they all have the same indices
        await bench.settle()
        turn = bench.rng.randrange(12)
        for n in range(12):
            one = gather if n == turn else bench.copy(Load.COPY, (0, HALF), lower)
            other = bench.copy(Store.COPY, upper, (HALF + n * PART, HALF + (n + 1) * PART))
            one, other = (bench.spoilt(each) if bench.rng.random() < 0.2 else each for each in (one, other))
            loaded.append(bench.give(one))
            stored.append(bench.give(other))
        await bench.done("loaded", loaded)
        await bench.done("stored", stored)
        await bench.compare()
    if stall:
        check_stalls(bench.sinks["loaded"], bench.sinks["stored"])
        bench.axi.check_stalls()


@cocotb.test(timeout_time=100, timeout_unit="us")
async def done_means_done(dut):
    """What a completion tells of can be read at once: from memory to the scratchpad and back."""
    bench = await Bench.start(dut)
    for _ in range(20):
        back = bench.copy(Store.COPY, (0, SIZE), (HALF, MEMORY))
        fields = back.fields
        one = Instruction(Load.COPY, {**fields, "source": fields["target"] - HALF, "target": fields["source"],
                                      "source_pitch": fields["target_pitch"], "target_pitch": fields["source_pitch"]})
        await bench.done("loaded", [bench.give(one)])
        await bench.done("stored", [bench.give(back)])
        assert bytes(bench.data) == bench.memory.tobytes()
    await bench.compare()


async def cycles(bench, name, instructions):
    """How many until the last of some instructions is done."""
    errors = [bench.give(one) for one in instructions]
    count = 0
    while len(bench.sinks[name].items) < len(errors):
        await RisingEdge(bench.dut.clk)
        count += 1
    await bench.done(name, errors)
    return count


@cocotb.test(timeout_time=100, timeout_unit="us")
async def a_beat_a_cycle(dut):
    """Rows follow each other without a gap, whatever their length; instructions with hardly one."""
    bench = await Bench.start(dut)
    for opcode, name in (Load.COPY, "loaded"), (Store.COPY, "stored"):
        for beats, rows in (SIZE // BEAT // 2, 1), (LONGEST + 1, 8), (3, 20), (1, 40):
            fields = {"source": 0, "target": HALF if name == "stored" else 0, "bytes": beats * BEAT, "rows": rows}
            pitch = {"source_pitch": beats * BEAT, "target_pitch": beats * BEAT}
            if beats * rows * BEAT > SIZE:
                continue
            taken = await cycles(bench, name, [Instruction(opcode, {**fields, **pitch})])
            most = beats * rows + LATENCY + 12 + (LONGEST if name == "stored" else 0)
            if name == "stored":
                most += rows * (beats + 2 * LONGEST - 1) // LONGEST     # a cycle a burst, for its address
            assert taken <= most, f"{name}: {taken} cycles for {rows} rows of {beats} beats"
            taken = await cycles(bench, name, [Instruction(opcode, {**fields, **pitch})] * 4)
            assert taken <= 4 * (most - LATENCY - 2) + LATENCY, f"{name}: {taken} cycles for four such"
    await bench.compare()


@cocotb.test(timeout_time=100, timeout_unit="us")
async def gathers_keep_up(dut):
    """Addresses are found while rows of the index before are read."""
    bench = await Bench.start(dut)
    count, beats = 4, SIZE // BEAT // 8
    await bench.indices(3 * n + 1 for n in range(count))
    taken = await cycles(bench, "loaded", [Instruction(Load.GATHER, {
        "source": 0, "target": 0, "target_pitch": beats * BEAT, "bytes": beats * BEAT, "rows": 1, "step": beats * BEAT,
        "index": SIZE // 2, "index_pitch": 4, "count": count})])
    assert taken <= count * max(beats, 14) + LATENCY + 30, f"{taken} cycles"
    await bench.compare()


@cocotb.test(timeout_time=100, timeout_unit="us")
async def indices_too_large(dut):
    """An index whose rows would be beyond all addresses ends its instruction."""
    bench = await Bench.start(dut)
    for step, source, values in (
            (1 << 12, 0, (1, 1 << 20, 0)), (BEAT, (1 << 32) - BEAT, (1, 0xFFFFFFFF, 5)),
            (0xFFFFFFFF // BEAT * BEAT, 0, (0, 0xFFFFFFFF, 2)), (0, 0, (0xFFFFFFFF, 1, 2)),
            (1 << 31, 0, (0, 2, 0)), (1 << 31, 0, (4, 3, 0)), (1 << 12, 0, (1, 1 << 27, 0)),
            (BEAT, 0, (0, (1 << 32) // BEAT, 1))):
        await bench.indices(values)
        one = Instruction(Load.GATHER, {
            "source": source, "source_pitch": BEAT, "target": 0, "target_pitch": BEAT, "bytes": BEAT, "rows": 2,
            "step": step, "index": SIZE // 2, "index_pitch": 4, "count": 3})
        error = bench.give(one)
        assert error == (Error.INDEX if step else Error.NONE)
        await bench.done("loaded", [error])
        await bench.compare()


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(code=[SLVERR, DECERR])
async def bus_errors(dut, code):
    """They are told of with the instruction that they befall, and with no other."""
    bad = range(5 * BEAT, 6 * BEAT), range(HALF + 5 * BEAT, HALF + 6 * BEAT)
    bench = await Bench.start(dut, errors={("r", bad[0]): code, ("b", bad[1]): code})
    for opcode, name, base in (Load.COPY, "loaded", {"target": 0}), (Store.COPY, "stored", {"source": 0}):
        errors = []
        for n in (2, 4, 6, 0):
            where = {"source" if name == "loaded" else "target": n * BEAT + (HALF if name == "stored" else 0)}
            bench.give(Instruction(opcode, {**base, **where, "bytes": 2 * BEAT, "rows": 1}))
            errors.append(Error.BUS if n == 4 else Error.NONE)
            bench.give(Instruction(opcode, {**base, **where, "bytes": 2 * BEAT, "rows": 0}))
            errors.append(Error.DIMENSION)
        await bench.done(name, errors)
    await bench.compare()


@cocotb.test(timeout_time=100, timeout_unit="us")
async def reset_in_traffic(dut):
    bench = await Bench.start(dut, 0.3)
    for _ in range(10):
        bench.give(bench.copy(Load.COPY, (0, HALF), (0, SIZE)))
        bench.give(bench.copy(Store.COPY, (0, SIZE), (HALF, MEMORY)))
    await ClockCycles(dut.clk, 100)
    dut.rst.value = 1
    for source in bench.sources.values():
        source.queue.clear()
        source.busy = False
        source.valid.value = 0
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 2)
    for sink in bench.sinks.values():
        sink.items.clear()
    bench.memory = np.frombuffer(bytes(bench.data), np.uint8).copy()
    bench.put(0, bench.scratchpad.tobytes())
    await bench.sources["write"].drain()
    await bench.done("loaded", [bench.give(bench.copy(Load.COPY, (0, HALF), (0, SIZE)))])
    await bench.done("stored", [bench.give(bench.copy(Store.COPY, (0, SIZE), (HALF, MEMORY)))])
    await bench.compare()
