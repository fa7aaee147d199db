# SPDX-License-Identifier: Apache-2.0
"""Random programs, and what surrounds a sequencer: engines, and the memory that its programs are in."""

from collections import deque
from dataclasses import dataclass, field

import cocotb
from cocotb.triggers import RisingEdge

from golden import sequencer as golden
from golden.isa import FORMS, LOOPS, REGISTERS, Control, Engine, Instruction, IsaError

__all__ = ["COUNT", "ENGINES", "SMALL", "WORDS", "EndlessError", "Surroundings", "expected", "random_control",
           "random_instruction", "random_program"]

ENGINES = [engine for engine in Engine if FORMS[engine] and engine is not Engine.CONTROL]
NAMES = {engine: engine.name.lower() for engine in ENGINES}
WORDS = {engine: max(map(len, FORMS[engine].values())) for engine in ENGINES}
COUNT, SMALL = 6, 7     # registers that hold counts of loops, and little numbers


def random_instruction(rng, engines=ENGINES, waits=0.25, careless=0.0):
    """One for an engine; with some probability its registers make too much of a field."""
    engine = rng.choice(engines)
    opcode = rng.choice([*FORMS[engine]])
    form = FORMS[engine][opcode]
    fields, registers = {}, {}
    for word in form:
        for key, bits in word.items():
            fields[key] = rng.getrandbits(bits)
            if len(word) == 1 and bits == 32 and rng.random() < 0.4:
                registers[key] = rng.randrange(REGISTERS)
            elif len(word) == 1 and rng.random() < 0.2:
                fields[key], registers[key] = rng.getrandbits(bits - 3), SMALL
                if rng.random() < careless:
                    registers[key] = rng.randrange(1, COUNT)
    distances = {each: rng.randrange(1, 8) for each in ENGINES if rng.random() < waits}
    return Instruction(opcode, fields, {key: value for key, value in registers.items() if value}, distances)


def random_control(rng):
    """One that changes registers; `COUNT` and `SMALL` keep what they are for."""
    kind = rng.choice([Control.SET, Control.ADD, Control.SWAP])
    if kind is Control.SWAP:
        return Instruction(kind, {"register": rng.randrange(COUNT), "other": rng.randrange(COUNT)})
    choice, registers = rng.random(), {}
    if choice < 0.1:
        return Instruction(Control.SET, {"register": SMALL, "value": rng.randrange(4)})
    if choice < 0.2:
        return Instruction(Control.SET, {"register": COUNT, "value": rng.randrange(1, 4)})
    if rng.random() < 0.5:
        registers["value"] = rng.randrange(1, REGISTERS)
    if rng.random() < 0.1:      # a register's number may have a register added
        return Instruction(kind, {"register": 0, "value": rng.getrandbits(32)}, {"register": SMALL, **registers})
    return Instruction(kind, {"register": rng.randrange(COUNT), "value": rng.getrandbits(32)}, registers)


def random_program(rng, most, dispatched=150, **options):
    """Instructions without their `END`: with it at most `most`, and not too many when loops are unrolled."""
    def block(size, depth, times):
        found = []
        while len(found) < size:
            left, choice = size - len(found), rng.random()
            if choice < 0.2 and left >= 3 and depth < LOOPS and times < dispatched // 4:
                inside, count = rng.randrange(1, left - 1), rng.choice([1, 2, 2, 3, 5])
                loop = Instruction(Control.LOOP, {"count": count})
                if rng.random() < 0.4:
                    loop = Instruction(Control.LOOP, {"count": rng.randrange(2)}, {"count": COUNT})
                found += [loop, *block(inside, depth + 1, times * 5), Instruction(Control.NEXT)]
            elif choice < 0.35:
                found.append(random_control(rng))
            else:
                found.append(random_instruction(rng, **options))
        return found

    return block(rng.randrange(1, most), 0, 1)


class EndlessError(Exception):
    """A program takes longer than anybody wants to wait."""


class Watched(list):
    """A program that does not run for ever."""

    def __init__(self, program, steps):
        super().__init__(program)
        self.steps = steps

    def __getitem__(self, pc):
        self.steps -= 1
        if not self.steps:
            raise EndlessError
        return super().__getitem__(pc)


def expected(program, registers, steps=5000):
    """What is dispatched, and what ends it: None, an `IsaError`, or `EndlessError`. The program has its `END`."""
    found = []
    try:
        for each in golden.run(Watched(program, steps), registers):
            found.append(each)
    except (IsaError, EndlessError) as end:
        return found, end
    return found, None


@dataclass
class Unit:
    """What an engine does.

    Attributes
    ----------
    depth : int
        Instructions under way at once.
    shortest, longest : int
        Cycles that one takes.
    idle : float
        Probability of not being ready.
    fails : dict of int to int
        By instruction, counted from 0: the error.
    stuck : int or None
        From which instruction on none is completed.
    log : list of (cycle, payload)
        What has begun.
    offers : list of int
        In which cycle each was offered.
    ends : list of int
        In which cycle each has completed.
    """

    depth: int = 2
    shortest: int = 1
    longest: int = 30
    idle: float = 0.0
    fails: dict = field(default_factory=dict)
    stuck: int | None = None
    log: list = field(default_factory=list)
    offers: list = field(default_factory=list)
    ends: list = field(default_factory=list)
    flight: deque = field(default_factory=deque)


class Surroundings:
    """Engines and a memory around a sequencer; runs by itself.

    Attributes
    ----------
    units : dict of Engine to Unit
    memory : bytearray
    errors : range
        Addresses that answer with an error.
    stall : float
        Probability with which the memory stalls in a cycle.
    deaf : bool
        It does not answer at all.
    """

    def __init__(self, dut, rng, memory, *, stall=0.0, latency=5):
        self.dut, self.rng, self.memory, self.stall, self.latency = dut, rng, memory, stall, latency
        self.units = {engine: Unit() for engine in ENGINES}
        self.cycle, self.errors, self.deaf, self.due, self.bursts = 0, range(0), False, deque(), []
        self.beat = (len(dut.memory__r__payload) - 1) // 8
        self.finished = self.cancels = self.resets = 0
        self.resume = 3         # cycles that a reset takes
        self.busy, self.waits, self.pcs = dict.fromkeys(ENGINES, 0), {}, []
        self.pins = {}
        for engine, name in NAMES.items():
            for port in ("payload", "valid", "ready"):
                self.pins[engine, port] = getattr(dut, f"{name}__{port}")
            for port in ("payload", "valid"):
                self.pins[engine, f"done_{port}"] = getattr(dut, f"{name}_done__{port}")
        for name in ("start__valid", "stop", "clear", "restart", "activity", "astray", "resumed", "memory__ar__ready",
                     "memory__r__valid"):
            getattr(dut, name).value = 0
        self.ready, self.done = dict.fromkeys(ENGINES, False), dict.fromkeys(ENGINES)
        for engine in ENGINES:
            self.pins[engine, "ready"].value = self.pins[engine, "done_valid"].value = 0
        self.asks = self.reading = False
        self.offered = dict.fromkeys(ENGINES)
        cocotb.start_soon(self._run())

    def forget(self):
        """What has been logged."""
        for unit in self.units.values():
            unit.log, unit.ends, unit.offers, unit.fails, unit.stuck = [], [], [], {}, None
        self.finished = self.cancels = self.resets = 0
        self.bursts, self.pcs = [], []

    async def _run(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            resets = bool(int(self.dut.reset.value)) or bool(int(self.dut.rst.value))
            self.finished += int(self.dut.finished.value)
            abort = int(self.dut.cancel.value)
            self.cancels += abort
            self._reset(resets)
            for engine, unit in self.units.items():
                self._engine(engine, unit, resets, abort and engine is Engine.WEIGHTS)
            self._memory(resets)

    def _reset(self, resets):
        if resets:
            self.resets += 1
            self.due.clear()
        self.dut.resumed.value = int(resets and not int(self.dut.rst.value) and self.resets % (self.resume + 1) == 0)

    def _engine(self, engine, unit, resets, abort):
        valid = bool(int(self.pins[engine, "valid"].value))
        if resets:
            unit.flight.clear()
            self.offered[engine], valid = None, False
        if self.offered[engine] is not None:
            assert valid, f"{engine.name}: an offer was withdrawn"
        if valid and self.offered[engine] is None:
            unit.offers.append(self.cycle)
            self.offered[engine] = int(self.pins[engine, "payload"].value)
        begins = valid and self.ready[engine]
        if begins:
            payload = int(self.pins[engine, "payload"].value)
            assert payload == self.offered[engine], f"{engine.name}: an offer has changed"
            unit.log.append((self.cycle, payload))
            unit.flight.append(self.cycle + self.rng.randrange(unit.shortest, unit.longest + 1) - 1)
            self.offered[engine] = None
        if self.done[engine] is not None:
            unit.ends.append(self.cycle)

        number, done = len(unit.ends), None
        stuck = unit.stuck is not None and number >= unit.stuck
        if unit.flight and not stuck and (unit.flight[0] <= self.cycle or abort):
            unit.flight.popleft()
            done = unit.fails.get(number, 0)
            self.pins[engine, "done_payload"].value = done
        if (done is None) != (self.done[engine] is None):
            self.pins[engine, "done_valid"].value = done is not None
        self.done[engine] = done
        ready = len(unit.flight) < unit.depth and self.rng.random() >= unit.idle
        if ready != self.ready[engine]:
            self.pins[engine, "ready"].value = ready
        self.ready[engine] = ready

    def _memory(self, resets):
        dut = self.dut
        if self.asks and int(dut.memory__ar__valid.value) and not resets:
            word = int(dut.memory__ar__payload.value)
            address, beats = (word & (1 << len(dut.memory__ar__payload) - 8) - 1) * self.beat, (
                word >> len(dut.memory__ar__payload) - 8) + 1
            self.bursts.append((address, beats))
            assert address % 4096 + beats * self.beat <= 4096, "a burst crosses a page"
            self.due.extend((address + n * self.beat, self.cycle + self.latency) for n in range(beats))
            assert len(self.due) <= 64 + self.beat
        self.asks = self.rng.random() >= self.stall
        dut.memory__ar__ready.value = self.asks
        answers = self.due and not self.deaf and self.due[0][1] <= self.cycle and self.rng.random() >= self.stall
        dut.memory__r__valid.value = bool(answers)
        if answers:
            address, _ = self.due.popleft()
            data = int.from_bytes(self.memory[address:address + self.beat], "little")
            dut.memory__r__payload.value = data | (address in self.errors) << 8 * self.beat
