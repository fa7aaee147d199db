# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.sequencer.sequencer.Sequencer`. `CONFIG` is its configuration, as JSON; `PROGRAMS` how many."""

import os
import random
from zlib import crc32

import cocotb
from cocotb.triggers import RisingEdge

from golden.config import Sequencer
from golden.isa import (
    BYTES,
    HEAD,
    LINE,
    REGISTERS,
    Control,
    Engine,
    Error,
    Gemm,
    Heads,
    Instruction,
    IsaError,
    Load,
    Operation,
    Store,
    Weights,
    assemble,
    disassemble,
)
from sim.sequencer import COUNT, ENGINES, SMALL, WORDS, EndlessError, Surroundings, expected, random_program
from sim.stream import reset

CONFIG = Sequencer.model_validate_json(os.environ["CONFIG"])
PROGRAMS = int(os.environ["PROGRAMS"])
IDLE, LOADING, RUNNING, DRAINING, ERROR = range(5)
ROOM = 1 << 16


class Bench:
    """A sequencer and what surrounds it."""

    def __init__(self, dut, **options):
        self.dut, self.rng = dut, random.Random(cocotb.RANDOM_SEED)
        self.memory = bytearray(self.rng.randbytes(ROOM))
        self.around = Surroundings(dut, self.rng, self.memory, **options)
        self.units = self.around.units
        self.unit = max(self.around.beat, BYTES)

    async def cycles(self, count=1):
        for _ in range(count):
            await RisingEdge(self.dut.clk)

    def place(self, image, address=None):
        """Write an image to memory; its address."""
        if address is None:
            address = self.rng.randrange((ROOM - len(image)) // self.unit) * self.unit
        self.memory[address:address + len(image)] = image
        return address

    def registers(self):
        values = [self.rng.getrandbits(32) for _ in range(REGISTERS)]
        values[COUNT], values[SMALL] = self.rng.randrange(1, 4), self.rng.randrange(4)
        return values

    async def start(self, address, count, registers=(0,) * REGISTERS):
        dut = self.dut
        self.around.forget()
        dut.start__payload.value = address | count << 32
        dut.registers.value = sum(value << 32 * n for n, value in enumerate(registers))
        dut.start__valid.value = 1
        await self.cycles()
        dut.start__valid.value = 0
        assert self.state == IDLE and int(dut.start__ready.value)
        await self.cycles(REGISTERS)
        dut.registers.value = self.rng.getrandbits(32 * REGISTERS)

    @property
    def state(self):
        return int(self.dut.status.value) & 7

    @property
    def error(self):
        """Code, engine, pc and detail."""
        word, bits = int(self.dut.error.value), (CONFIG.instructions - 1).bit_length()
        return word & 15, word >> 4 & 7, word >> 7 & (1 << bits) - 1, word >> 7 + bits

    async def end(self, most=100_000):
        """Wait for the end of a program; whether it was a good one."""
        for _ in range(most):
            if self.state in (IDLE, ERROR):
                assert self.around.finished == (self.state == IDLE), "finished"
                return self.state == IDLE
            await self.cycles()
        raise AssertionError(f"hung in state {self.state}")

    async def clear(self):
        assert self.error[0]
        self.dut.clear.value = 1
        await self.cycles()
        self.dut.clear.value = 0
        await self.cycles(2)
        assert self.state == IDLE and self.error == (0, 0, 0, 0)

    def check(self, dispatched, whole=True):
        """What has begun is what should have, in order, and not too early."""
        for engine in ENGINES:
            theirs = [each for each in dispatched if each.engine == engine]
            unit = self.units[engine]
            assert len(unit.log) == len(theirs) if whole else len(unit.log) <= len(theirs)
            for n, ((_, payload), each) in enumerate(zip(unit.log, theirs, strict=False)):
                words = payload >> 5
                found = [words >> 32 * k & 0xFFFFFFFF for k in range(WORDS[engine])]
                assert payload & 31 == each.instruction.opcode, f"{engine.name} {n}: opcode"
                assert found == each.words + [0] * (WORDS[engine] - len(each.words)), f"{engine.name} {n}: {each}"
                for other, count in each.after.items():
                    ends = self.units[other].ends
                    assert len(ends) >= count and ends[count - 1] < unit.offers[n], (
                        f"{engine.name} {n} has not waited for {other.name} {count - 1}")

    async def run(self, program, registers=None):
        """Run a good program."""
        image, registers = assemble(program, CONFIG.instructions), registers or self.registers()
        dispatched, refused = expected(disassemble(image), registers)
        assert refused is None
        await self.start(self.place(image), len(image) // BYTES, registers)
        assert await self.end()
        self.check(dispatched)
        return dispatched

    async def good(self):
        """A random program runs: whatever has been before."""
        for unit in self.units.values():
            unit.depth, unit.longest, unit.idle = 2, 20, 0.0
        await self.run(self.random(waits=0.3))

    async def give_up(self, code, **told):
        """Wait for an error and clear it. `told` is what it says beside its code."""
        assert not await self.end()
        found = dict(zip(("engine", "pc", "detail"), self.error[1:], strict=True))
        told = {"engine": Engine.CONTROL, "detail": 0, **told}
        assert self.error[0] == code and found | told == found, f"{self.error}, not {code} {told}"
        await self.clear()

    async def either(self, image, registers):
        """Run what may be no good program; the error that ended it."""
        await self.start(self.place(image), len(image) // BYTES, registers)
        try:
            dispatched, end = expected(disassemble(image), registers)
        except IsaError as refused:
            dispatched, end = [], refused
        if isinstance(end, EndlessError):
            await self.cycles(self.rng.randrange(10_000))
            await self.stop()
            await self.give_up(Error.STOPPED)
            return Error.STOPPED
        if end is None:
            assert await self.end()
            self.check(dispatched)
            return Error.NONE
        await self.give_up(end.error, **({} if end.pc is None else {"pc": end.pc}))
        self.check(dispatched, whole=False)
        return end.error

    async def stop(self):
        self.dut.stop.value = 1
        await self.cycles()
        self.dut.stop.value = 0
        await self.cycles(2)

    def random(self, **options):
        """A program that ends well, and soon."""
        while True:
            program = random_program(self.rng, CONFIG.instructions, **options)
            dispatched, end = expected([*program, Instruction(Control.END)], [0, *[1] * 5, 3, 3])
            if end is None and len(dispatched) < 200:
                return program


async def begin(dut, **options):
    bench = Bench(dut, **options)
    await reset(dut)
    await bench.cycles(2)
    return bench


@cocotb.test(timeout_time=3, timeout_unit="ms")
@cocotb.parametrize(idle=[0.0, 0.7], longest=[1, 40], waits=[0.1, 0.5])
async def random_programs(dut, idle, longest, waits):
    bench = await begin(dut, stall=idle / 2)
    for _ in range(PROGRAMS):
        for unit in bench.units.values():
            unit.depth, unit.idle = bench.rng.choice([1, 1, 2, 4, 20]), bench.rng.choice([0, idle])
            unit.longest = bench.rng.randrange(longest) + 1
        await bench.run(bench.random(waits=waits))


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def broken_images(dut):
    """Any bit turned over: refused, or what the broken program says; never hung."""
    bench, found = await begin(dut), set()
    for _ in range(PROGRAMS):
        image = bytearray(assemble(bench.random(), CONFIG.instructions))
        for mends in 0, 1, 1, 1, 1:
            broken = bytearray(image)
            bit = bench.rng.randrange(8 * len(image))
            if mends and bench.rng.random() < 0.5:      # in what says which instruction it is
                bit = bit // (8 * BYTES) * 8 * BYTES + bit % 8
            broken[bit // 8] ^= 1 << bit % 8
            if mends:
                checksum = len(image) - BYTES + 4 * HEAD
                broken[checksum:checksum + 4] = crc32(broken[:-BYTES]).to_bytes(4, "little")
            found.add(await bench.either(broken, bench.registers()))
        await bench.good()
    assert found >= {Error.NONE, Error.CHECKSUM, Error.ILLEGAL}, found


LOOP, NEXT, END = (Instruction(opcode) for opcode in (Control.LOOP, Control.NEXT, Control.END))


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def refusals(dut):
    """Each with its code and pc, as the reference has it."""
    bench = await begin(dut)
    nothing = Instruction(Control.ADD)
    wide = Instruction(Load.COPY)
    odd = [Instruction(Operation.MUL, {}, {"rows": 1}), Instruction(Control.SET, {}, {"register": 1})]
    programs = [
        [NEXT, END], [LOOP, END], [END, END], [nothing, LOOP, END, NEXT, END],
        [Instruction(Control.LOOP, {"count": 1})] * 5 + [NEXT] * 5 + [END],
        [Instruction(Control.LOOP, {"count": 2}), wide, LOOP, NEXT, NEXT, END],
        [wide, nothing, odd[0], END], [odd[1], END], [wide],
        [Instruction(Control.LOOP, {"count": 1}, {"count": 1}), NEXT, END],
    ]
    for program in programs:
        words = [list(each.words) for each in program]
        words[-1][HEAD] = crc32(b"".join(LINE.pack(*each) for each in words[:-1]))
        image = b"".join(LINE.pack(*each) for each in words)
        assert await bench.either(image, [0, 0xFFFFFFFF, *[0] * 6]) != Error.NONE
        await bench.good()

    good = assemble([wide], CONFIG.instructions)
    for address, count in (0, 0), (0, CONFIG.instructions + 1), (0, 0x8001), (bench.unit // 2, 2), (4, 2):
        bench.place(good, address)
        await bench.start(address, count)
        await bench.give_up(Error.SIZE)
        await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def failures(dut):
    """An engine's error names engine, instruction and detail; nothing begins any more but what was offered."""
    bench = await begin(dut)
    for _ in range(PROGRAMS):
        program, registers = bench.random(waits=0.2), bench.registers()
        image = assemble(program, CONFIG.instructions)
        dispatched, end = expected(disassemble(image), registers)
        if not dispatched or end:
            continue
        await bench.start(bench.place(image), len(image) // BYTES, registers)
        for unit in bench.units.values():
            unit.depth, unit.longest, unit.idle = bench.rng.choice([1, 3]), 30, bench.rng.choice([0, 0.5])
        failing = bench.rng.choice(dispatched)
        theirs = [each for each in dispatched if each.engine == failing.engine]
        detail = bench.rng.randrange(1, 256)
        bench.units[failing.engine].fails[theirs.index(failing)] = detail
        await bench.give_up(Error.INSTRUCTION, engine=failing.engine, pc=failing.pc, detail=detail)
        assert bench.around.cancels and not bench.around.resets
        bench.check(dispatched, whole=False)
        assert all(len(unit.log) == len(unit.ends) for unit in bench.units.values()), "under way"
        await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def astray(dut):
    """An engine that uses an address that there is not is named, and the oldest instruction that it is at."""
    bench, found = await begin(dut), set()
    while len(found) < len(ENGINES):
        program, registers = bench.random(waits=0.2), bench.registers()
        image, engine = assemble(program, CONFIG.instructions), bench.rng.choice(ENGINES)
        dispatched, end = expected(disassemble(image), registers)
        theirs = [each for each in dispatched if each.engine == engine]
        if end or len(theirs) < 2:      # one may end meanwhile, and another is to be under way
            continue
        await bench.start(bench.place(image), len(image) // BYTES, registers)
        unit, after = bench.units[engine], bench.rng.randrange(len(theirs) - 1)
        unit.depth, unit.shortest, unit.longest = 3, 10, 30
        while len(unit.ends) < after or not int(dut.busy.value) >> engine & 1:
            await bench.cycles()
        dut.astray.value = 1 << engine
        await bench.cycles()
        dut.astray.value = 0
        oldest = theirs[len(unit.ends)].pc      # in the cycle in which the sequencer hears of it
        await bench.give_up(Error.ADDRESS, engine=engine, pc=oldest)
        assert bench.around.cancels and not bench.around.resets
        bench.check(dispatched, whole=False)
        unit.shortest = 1
        await bench.good()
        found.add(engine)


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def silence(dut):
    """An engine that never ends is named, then all are reset; so is a memory."""
    bench = await begin(dut)
    for engine in ENGINES:
        program, registers = bench.random(waits=0.2), bench.registers()
        image = assemble(program, CONFIG.instructions)
        dispatched, end = expected(disassemble(image), registers)
        theirs = [each for each in dispatched if each.engine == engine]
        if end or not theirs:
            continue
        await bench.start(bench.place(image), len(image) // BYTES, registers)
        stuck = bench.units[engine].stuck = bench.rng.randrange(len(theirs))
        await bench.give_up(Error.WATCHDOG, engine=engine, pc=theirs[stuck].pc)
        last = max(max(unit.ends, default=0) for unit in bench.units.values())
        assert bench.around.resets and bench.around.cycle - last > CONFIG.patience
        bench.check(dispatched, whole=False)
        await bench.good()
    bench.around.deaf = True
    await bench.start(0, 8)
    await bench.give_up(Error.WATCHDOG, pc=0)
    bench.around.deaf = False
    await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def activity(dut):
    """As long as something moves nobody is given up; after `stop` that does not matter."""
    bench = await begin(dut)
    image = assemble([Instruction(Gemm.GEMM)], CONFIG.instructions)
    await bench.start(bench.place(image), 2)
    unit = bench.units[Engine.MATMUL]
    unit.stuck = 0
    dut.activity.value = 1
    await bench.cycles(3 * CONFIG.patience)
    assert bench.state == RUNNING and unit.log
    await bench.stop()
    assert bench.state == DRAINING
    start = bench.around.cycle
    await bench.give_up(Error.STOPPED)
    assert CONFIG.patience - 10 < bench.around.cycle - start < CONFIG.patience + 30 and bench.around.resets
    dut.activity.value = 0
    await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def weights_nobody_wants(dut):
    """A program does not wait for what is read ahead of its end, but for all else."""
    bench = await begin(dut)
    weights, store = bench.units[Engine.WEIGHTS], bench.units[Engine.STORE]
    weights.depth, weights.shortest, weights.longest = 1, 1 << 20, 1 << 20
    store.shortest = store.longest = 100
    await bench.run([Instruction(Weights.STREAM)] * 4 + [Instruction(Store.COPY)])
    assert bench.around.cancels and weights.ends[0] > store.ends[0]
    weights.shortest = store.shortest = 1
    await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def stops(dut):
    """At any time: what is under way ends, and the next program runs."""
    bench = await begin(dut)
    for _ in range(2 * PROGRAMS):
        image = assemble(bench.random(waits=0.2), CONFIG.instructions)
        await bench.start(bench.place(image), len(image) // BYTES, bench.registers())
        await bench.cycles(bench.rng.randrange(60 + 25 * len(image) // BYTES))
        await bench.stop()
        if bench.state != IDLE:
            await bench.give_up(Error.STOPPED)
            assert all(len(unit.log) == len(unit.ends) for unit in bench.units.values()), "under way"
        assert not bench.around.resets
        await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def restarts(dut):
    """At any time: all engines are reset, at once; a program that runs has been stopped, an error stays."""
    bench, states = await begin(dut), set()

    async def restart():
        state, error = bench.state, bench.error
        dut.restart.value = 1
        await bench.cycles()
        dut.restart.value = 0
        await bench.cycles(bench.around.resume + 4)
        assert bench.around.resets and bench.state == (IDLE if state == IDLE else ERROR)
        states.add(state)
        return state, error

    while states < {IDLE, LOADING, RUNNING, DRAINING, ERROR}:
        image = assemble(bench.random(waits=0.2), CONFIG.instructions)
        await bench.start(bench.place(image), len(image) // BYTES, bench.registers())
        await bench.cycles(bench.rng.randrange(60 + 25 * len(image) // BYTES))
        if bench.rng.random() < 0.4:
            for unit in bench.units.values():
                unit.shortest = unit.longest = 100
            await bench.stop()
            await bench.cycles(bench.rng.choice([0, 300]))
        state, error = await restart()
        if state != IDLE:
            assert bench.error == error if error[0] else bench.error[0] == Error.STOPPED
            await restart()
            await bench.clear()
        for unit in bench.units.values():
            unit.shortest = 1
        await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bus_errors(dut):
    bench = await begin(dut, stall=0.3)
    for _ in range(PROGRAMS):
        image = assemble(bench.random(), CONFIG.instructions)
        address = bench.place(image)
        at = bench.rng.randrange(len(image))
        bench.around.errors = range(address + at, address + at + bench.around.beat)
        await bench.start(address, len(image) // BYTES, bench.registers())
        first = -(-at // bench.around.beat) * bench.around.beat     # the beat that begins there
        if address + first < address + -(-len(image) // bench.unit) * bench.unit:
            await bench.give_up(Error.BUS, pc=first // BYTES)
        else:
            await bench.end()
        bench.around.errors = range(0)
        await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def cycles_of_dispatch(dut):
    """An instruction takes as many as its header and its body have words."""
    bench = await begin(dut)
    each = [Instruction(opcode) for opcode in (Load.COPY, Weights.STREAM, Operation.ADD, Store.COPY, Gemm.GEMM)]
    each += [Instruction(Control.SET), Instruction(Control.ADD), Instruction(Control.SWAP)]
    taken = [9, 5, 16, 9, 16, 5, 5, 9]
    loop = [Instruction(Control.LOOP, {"count": 2}), NEXT]
    program = loop + each
    image = assemble(program, CONFIG.instructions)
    for unit in bench.units.values():
        unit.longest = 1
    await bench.start(bench.place(image), len(image) // BYTES)
    pcs = []
    while bench.state != IDLE:
        if bench.state == RUNNING:
            pcs.append(int(dut.status.value) >> 3)
        await bench.cycles()
    assert [pcs.count(n) for n in range(2, len(program))] == taken
    assert pcs.count(0) == 4 and pcs.count(1) == 12


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def begins_soon(dut):
    """A head is offered in the cycle after the last completion that it waits for; the next one soon after it begins."""
    bench = await begin(dut)
    units = bench.units
    units[Engine.LOAD].shortest = units[Engine.LOAD].longest = 150
    waits = {Engine.LOAD: 1}
    program = [Instruction(Load.COPY), Instruction(Operation.MUL, {}, {}, waits),
               Instruction(Store.COPY, {}, {}, waits), *[Instruction(Weights.STREAM)] * 5]
    units[Engine.WEIGHTS].depth, units[Engine.WEIGHTS].longest = 1, 1
    await bench.start(bench.place(assemble(program, CONFIG.instructions)), len(program) + 1)
    while not units[Engine.LOAD].log:
        await bench.cycles()
    await bench.cycles(120)
    assert int(dut.busy.value) == 1 << Engine.LOAD
    assert int(dut.waits.value) == sum(1 << len(ENGINES) * each + Engine.LOAD for each in (Engine.VECTOR, Engine.STORE))
    assert await bench.end()
    for engine in Engine.VECTOR, Engine.STORE:
        assert units[engine].offers[0] == units[Engine.LOAD].ends[0] + 1
    weights = units[Engine.WEIGHTS]
    following = [offer - begun for (begun, _), offer in zip(weights.log, weights.offers[1:], strict=False)]
    assert max(following) <= WORDS[Engine.WEIGHTS] + 6, following


@cocotb.test(timeout_time=3, timeout_unit="ms", skip=PROGRAMS < 50)
async def long_loops(dut):
    """More instructions than counts can tell apart; meanwhile some wait behind one that takes long."""
    bench = await begin(dut)
    weights, heads = bench.units[Engine.WEIGHTS], bench.units[Engine.HEADS]
    dut.activity.value = 1
    program = [*[Instruction(Weights.STREAM)] * 4,
               Instruction(Control.LOOP, {"count": 2100}), Instruction(Heads.EXTEND), NEXT,
               Instruction(Control.LOOP, {"count": 2100}), Instruction(Weights.STREAM), Instruction(Heads.EXTEND),
               NEXT, Instruction(Store.COPY, {}, {}, {Engine.WEIGHTS: 7, Engine.HEADS: 1})]
    heads.longest = 3
    weights.depth, weights.shortest, weights.longest = 1, 36_000, 36_000
    image = assemble(program, CONFIG.instructions)
    dispatched, _ = expected(disassemble(image), [0] * REGISTERS, 50_000)
    await bench.start(bench.place(image), len(image) // BYTES)
    while not weights.ends:
        await bench.cycles()
    assert 2000 < len(heads.log) < 2060, "what is too long behind a head"
    weights.shortest = weights.longest = 1
    assert await bench.end()
    bench.check(dispatched)
    dut.activity.value = 0
    await bench.good()


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def reset_in_a_program(dut):
    bench = await begin(dut)
    for cycles in 3, 30, 100, 200, 300:
        image = assemble(bench.random(), CONFIG.instructions)
        await bench.start(bench.place(image), len(image) // BYTES)
        await bench.cycles(cycles)
        await reset(dut, running=True)
        await bench.cycles(2)
        await bench.good()
