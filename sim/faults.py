# SPDX-License-Identifier: Apache-2.0
"""Programs in which something has been changed, on a tile: whatever it is, the tile ends, and the next program runs.

What must come of a program follows from golden:

- What is wrong with an image as such, or with what its registers come to, is found before or while it is dispatched, in
  an order that does not depend on time: same error, same instruction.
- Engines overlap, so which of several refuses first is a matter of time. Each takes its own instructions in order. So
  the tile names an engine, and of this the instruction that it refuses first, no matter what others do meanwhile.
- An address beyond the scratchpad is noticed while some instructions of an engine are under way, the oldest of which
  is named: not a later one than the one that is to blame.
- A matmul engine whose weights nobody has read ahead waits for them, until others come, which it refuses, or the
  watchdog says so.
- A program that golden carries out ends well, if it waits for all that it depends on with the same memory. It may read
  what nobody wrote: memory and scratchpad are cleared before.
- One that would take too long for anybody to wait is stopped by the host.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import permutations
from zlib import crc32

import numpy as np

from golden import sequencer
from golden.isa import (
    BYTES,
    FORMS,
    HEAD,
    LINE,
    REGISTERS,
    SELECT,
    SELECTED,
    Engine,
    Error,
    Instruction,
    IsaError,
    Load,
    assemble,
    disassemble,
)
from golden.tile import TileError
from sw.compiler.layout import PAGE
from sw.compiler.program import Shape, program
from sw.compiler.schedule import MOST, footprint, schedule
from sw.runtime.device import DeviceError, Golden
from sw.runtime.runtime import Runtime

__all__ = ["KINDS", "Bed", "Verdict", "change", "verdict"]

STEPS = 4000            # instructions that golden carries out at most
WORK = 1 << 20          # elements or bytes that one of them has at most
CYCLES = 60_000         # after which a host stops a program
LATE = 8                # instructions of an engine that are under way at most
KINDS = [(engine, opcode) for engine, forms in FORMS.items() for opcode in forms]


def change(image, rng, kind=None):
    """Change something about a program.

    Parameters
    ----------
    image : bytes
    rng : random.Random
    kind : (Engine, opcode)
        Of the instruction that is changed, or becomes such; by default any.

    Returns
    -------
    bytes, str
        The image, whose checksum fits, and what has been done to it.
    """
    lines = [list(line) for line in LINE.iter_unpack(image)]
    of = [(line[0] & 7, line[0] >> 3 & 31) for line in lines]
    at = [n for n, each in enumerate(of) if kind is None or each == kind]
    how = rng.choice(["bit", "bit", "field", "field", "field", "register", "waits"])
    if not at:          # there is none
        at, how = [n for n, each in enumerate(of) if each[0] == kind[0]] or range(len(lines)), "opcode"
    n = rng.choice(at)
    line, form = lines[n], FORMS[Engine(of[n][0])].get(of[n][1], ())
    match how:
        case "bit":
            place = rng.randrange(32 * (HEAD + max(len(form), 1)))
            line[place // 32] ^= 1 << place % 32
            what = f"bit {place}"
        case "field" if form:
            word = rng.randrange(len(form))
            name, bits = rng.choice([*form[word].items()])
            shift = sum([*form[word].values()][:[*form[word]].index(name)])
            old = line[HEAD + word] >> shift & (1 << bits) - 1
            new = rng.choice([0, 1, (1 << bits) - 1, rng.getrandbits(bits), old + 1, old - 1, old * 2, old ^ 16,
                              old ^ 1 << rng.randrange(bits), rng.randrange(64)]) & (1 << bits) - 1
            line[HEAD + word] ^= (old ^ new) << shift
            what = f"{name} {old:#x} -> {new:#x}"
        case "register":
            word, register = rng.randrange(max(len(form), 1)), rng.randrange(REGISTERS)
            place = SELECT * word if word < SELECTED else 32 + SELECT * (word - SELECTED)
            line[1 + place // 32] &= ~(REGISTERS - 1 << place % 32)
            line[1 + place // 32] |= register << place % 32
            what = f"register {register} for word {word}"
        case "opcode":
            line[0] = line[0] & ~0xFF | kind[0] | kind[1] << 3
            what = "opcode"
        case _:
            line[0] ^= rng.getrandbits(3) << 8 + 3 * rng.randrange(Engine.CONTROL)
            what = "waits"
    changed = b"".join(LINE.pack(*each) for each in lines)
    if how != "bit" or n != len(lines) - 1:
        changed = changed[:-BYTES] + LINE.pack(*lines[-1][:HEAD], crc32(changed[:-BYTES]), *lines[-1][HEAD + 1:])
    engine, opcode = of[n]
    name = next((each.name for each in FORMS[Engine(engine)] if each == opcode), opcode)
    return changed, f"instruction {n}, {Engine(engine).name}.{name}: {what}"


class EndlessError(Exception):
    """A program takes longer than anybody wants to wait."""


class Short(list):
    """A program of which a number of instructions are looked at."""

    def __init__(self, program):
        super().__init__(program)
        self.left = STEPS

    def __getitem__(self, pc):
        self.left -= 1
        if self.left < 0:
            raise EndlessError
        return super().__getitem__(pc)


@dataclass
class Verdict:
    """What golden says of a program.

    Attributes
    ----------
    refused : golden.isa.IsaError or None
        What is wrong with it before it runs; then nothing else is known.
    dispatch : golden.isa.IsaError or None
        What ends its dispatch.
    engines : dict of Engine to (list of int, Error, str)
        Of each engine that refuses an instruction: the numbers in the program of this one, the last, and of those of
        the engine before; and why.
    endless : bool
        It was not gone through to its end: any engine may refuse what comes then.
    ordered : bool
        No engine refuses anything, it waits for all that it depends on, and no instruction writes what it still has to
        read.
    """

    refused: IsaError | None = None
    dispatch: IsaError | None = None
    engines: dict = field(default_factory=dict)
    endless: bool = False
    ordered: bool = False

    def allows(self, error, engine, pc):
        """Whether a tile may end a program so: with `Error.NONE` well."""
        if self.refused:
            return (error, engine) == (self.refused.error, Engine.CONTROL) and self.refused.pc in (pc, None)
        if error is Error.NONE:
            return not self.engines and not self.dispatch
        if error is Error.STOPPED:
            return self.endless
        if engine is Engine.CONTROL:
            return self.dispatch is not None and (error, pc) == (self.dispatch.error, self.dispatch.pc)
        if engine not in self.engines:
            return self.endless and error in (Error.INSTRUCTION, Error.ADDRESS)
        pcs, why, _ = self.engines[engine]
        if error is Error.ADDRESS:
            return why is error and pc in pcs
        return error in (why, Error.INSTRUCTION if why is Error.WATCHDOG else why) and pc == pcs[-1]


def verdict(tile, image):
    """Carry a program out as if no engine cared for what becomes of the others."""
    found, done, footprints = Verdict(), {engine: [] for engine in Engine}, []
    try:
        program = disassemble(image)
    except IsaError as error:
        return Verdict(error)
    tile.weights.clear()
    try:
        for each in sequencer.run(Short(program)):
            engine = each.engine
            if engine in found.engines:
                continue
            done[engine] = [*done[engine], each.pc][-LATE:]
            if work(each.instruction.fields) > WORK:
                raise EndlessError
            try:
                tile.carry_out(each)
                footprints.append(footprint(tile.chip, each.instruction, Counter(each.instruction.fields)))
            except TileError as error:
                found.engines[engine] = done[engine], error.error, str(error)
        found.ordered = not found.engines and not any(map(overlaps, footprints)) and all(
            given.waits.get(engine, MOST + 1) <= distance
            for given, wanted in zip(program, schedule(tile.chip, program[:-1]), strict=False)
            for engine, distance in wanted.waits.items())
    except IsaError as error:
        found.dispatch = error
    except EndlessError:
        found.endless = True
    return found


def overlaps(places):
    """Whether an instruction writes where it reads, but for the same bytes, or where it writes something else."""
    return any(write and memory == other and at < end and begin < to and (writes or (begin, end) != (at, to))
               for (write, memory, begin, end), (writes, other, at, to) in permutations(places, 2))


def work(fields):
    """Bytes or elements that an instruction is about."""
    given = dict.fromkeys(("m", "n", "k", "rows", "count", "bytes", "length"), 1) | fields
    macs = given["m"] * given["n"] * given["k"] // 64 if "m" in fields else 0
    return max(macs, given["rows"] * given["count"] * given["bytes"] * given["length"])


class Bed:
    """A tile, its reference, and a model for both.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    device : sim.tile.Rtl
    prompts : list of lists of int
        Two, short ones.
    """

    def __init__(self, layout, device, prompts):
        self.layout, self.device, self.prompts, self.golden = layout, device, prompts, Golden(layout)
        self.ends = Counter()       # how often what came of programs, by error and engine
        self.programs = [program(layout, shape)[1] for shape in (
            Shape(sequences=2, steps=2, logits=True), Shape(tokens=3, head="all", logits=True))]
        self.fresh = np.zeros(layout.size, np.uint8)
        self.clearing = assemble([Instruction(Load.COPY, {
            "source": layout.at["kv"], "target_pitch": PAGE, "bytes": PAGE,
            "rows": layout.chip.memory.scratchpad // PAGE})], layout.chip.sequencer.instructions)
        self.wanted = self.good(self.golden), self.memory(self.golden)
        self.prepare(self.golden)
        tile = self.golden.tile
        self.prepared = self.memory(self.golden), tile.scratchpad.copy(), deepcopy(tile.controller)

    def memory(self, device):
        return device.read(0, self.layout.size).copy()

    def runtime(self, device):
        """The model in a memory and a scratchpad that have forgotten everything."""
        layout = self.layout
        device.write(0, self.fresh.tobytes())
        device.write(layout.at["programs"], self.clearing)
        device.run(layout.at["programs"], len(self.clearing) // BYTES)
        return Runtime(layout, device)

    def good(self, device):
        """Tokens of a program that is as it should be."""
        runtime = self.runtime(device)
        return [token for _, token, _ in runtime.generate(self.prompts, 3, keep_logits=True)]

    def prepare(self, device):
        """Sequences 0 and 1 have been read."""
        device.reset()
        runtime = self.runtime(device)
        for sid, prompt in enumerate(self.prompts):
            runtime.prefill(sid, prompt)

    def verdict(self, image):
        """Golden's, of a program that begins where `prepare` ends."""
        tile = self.golden.tile
        tile.memory[:], tile.scratchpad[:], tile.controller = *self.prepared[:2], deepcopy(self.prepared[2])
        self.golden.write(self.layout.at["programs"], image)
        return verdict(tile, image)

    def attempt(self, image):
        """Run a program on the tile: its error, engine and pc, and what it says."""
        self.prepare(self.device)
        self.device.write(self.layout.at["programs"], image)
        try:
            self.device.run(self.layout.at["programs"], len(image) // BYTES, CYCLES)
        except DeviceError as error:
            if error.error is None:
                raise
            return error.error, error.engine, error.pc, str(error)
        return Error.NONE, None, None, "it ends well"

    def case(self, image):
        """Run a program that may be none, and one that is good.

        Raises
        ------
        AssertionError
            When that does not end as it may, or the next program not as it should.
        """
        allowed, (*found, said) = self.verdict(image), self.attempt(image)
        self.ends[found[0], found[1]] += 1
        assert allowed.allows(*found), f"{said}; golden: {allowed}"
        if found[0] is Error.NONE and allowed.ordered:
            self.same(self.memory(self.golden), "the program")
        self.device.reset()
        assert self.good(self.device) == self.wanted[0], f"tokens of the next program, after: {said}"
        self.same(self.wanted[1], f"the next program, after: {said}")

    def same(self, wanted, what):
        wrong = np.flatnonzero(self.memory(self.device) != wanted)
        assert not len(wrong), f"{len(wrong)} bytes of memory differ, the first at {wrong[0]:#x}: {what}"
