# SPDX-License-Identifier: Apache-2.0
"""Instructions of the engine HEADS on the RTL, compared with golden: scratchpad, memory, completions.

`Script` carries them out on `golden.tile` and so writes a `Job`; `run` plays it on the RTL; `Board` is what sits around
that inside the simulator (see `sim.benches.heads`).
"""

import random
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from golden.config import Chip
from golden.isa import FORMS, Heads, Instruction, assemble
from golden.kvstore import quantize
from golden.paging import Command, Opcode, Part, State, Status
from golden.tile import Tile, TileError
from hw.fetch import write
from hw.instructions import instruction
from hw.tile.heads import ports
from hw.tile.heads.control import LEFT_OUT, rows
from hw.tile.heads.passes import queries
from hw.tile.heads.results import PAIR
from sim.axi import Memory
from sim.job import submit
from sim.ports import Port, Watched, pack, unpack
from sim.traffic import draw

__all__ = ["Board", "Job", "Run", "Script", "run", "traffic"]

PAGE = 4096
FP32_BYTES = 4
READERS = "queries", "rows"
REQUESTS = 4        # of a reader, taken before they are answered


@dataclass
class Job:
    """What the RTL is to do and what must come of it.

    Attributes
    ----------
    chip : golden.config.Chip
    log : list of (golden.isa.Heads, list of int, (int, int), bool)
        Instructions: their words, the error and detail they end with, and whether those before have to be done.
    scratchpad, memory : pair of bytes
        Before and after. The pool begins a page on, host memory on the page after it.
    hosted : bool
        Whether there is host memory.
    nans : int
    stall : float
        Probability with which each port idles or stalls in a cycle.
    seed : int
    size : int
        Bytes of a write of the RTL.
    latency : int
        Cycles from a request to the scratchpad to its first beat.
    errors : dict of (str, range) to int
        As of `sim.axi.Memory`.
    faulty : bool
        What is in memory afterwards, and in the scratchpad, is not compared.
    interrupted : tuple of int
        Cycles after each of which a reset cuts everything short, to begin again.
    """

    chip: Chip
    log: list = field(default_factory=list)
    scratchpad: tuple = ()
    memory: tuple = ()
    hosted: bool = True
    nans: int = 0
    stall: float = 0.0
    seed: int = 0
    size: int = PAIR
    latency: int = 5
    errors: dict = field(default_factory=dict)
    faulty: bool = False
    interrupted: tuple = ()

    @property
    def host_page(self):
        kv = self.chip.kvcache
        return 1 - -kv.blocks * kv.block_bytes // PAGE if self.hosted else 0


@dataclass
class Run:
    """What the RTL did.

    Attributes
    ----------
    accepted, done : list of int
        Cycles in which each instruction was taken, and was done.
    answers : list of (int, int)
        Error and detail of each.
    beats, writes : list of int
        Cycles in which attention took a beat, and the scratchpad a write.
    full : list of int
        Cycles in which attention took none, though there was one.
    fault : int
    seen : Counter
        How often either side of a port made the other wait.
    """

    accepted: list = field(default_factory=list)
    done: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    beats: list = field(default_factory=list)
    writes: list = field(default_factory=list)
    full: list = field(default_factory=list)
    fault: int = 0
    seen: Counter = field(default_factory=Counter)


class Script:
    """Writes a `Job`, instruction by instruction, as golden carries them out.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int
        Queries at a time.
    seed : int
        Of what memory and scratchpad hold at first.
    scratchpad : int
        Bytes; each instruction has a part of it for itself.
    hosted : bool
        Whether there is host memory.
    """

    def __init__(self, kv, group, seed=0, scratchpad=1 << 18, hosted=True):
        self.rng = np.random.default_rng(seed)
        self.chip = Chip(name="test", kvcache=kv, attention={"group": group}, memory={"scratchpad": scratchpad})
        self.job, self.kv = Job(self.chip, seed=seed, hosted=hosted), kv
        end = PAGE + kv.blocks * kv.block_bytes
        host = self.job.host_page * PAGE
        self.tile = Tile(self.chip, host + kv.host_blocks * kv.block_bytes if hosted else end, PAGE, host)
        store = self.tile.store
        self._fill(store)
        for slot, block in store.host.items():
            block[:] = store.pool[slot % kv.blocks]
        self.tile.scratchpad[:] = self.rng.integers(0, 256, scratchpad)
        self.first, self.free = self.tile.scratchpad.copy(), 0
        self.before = self.tile.memory.tobytes()

    def _fill(self, store):
        """Rows that fit their checksums wherever there may be any."""
        store.pool[:] = self.rng.integers(0, 256, store.pool.shape)
        for *place, slot in np.ndindex(*store.pool.shape[:3], self.kv.block_tokens):
            for part in Part.K, Part.V:
                codes, scale, _ = quantize(self.kv.format, self._numbers(self.kv.head_dim))
                store.put(place[0], part, slot, codes, scale, *place[1:])

    def _numbers(self, count, special=0.0):
        """FP32 codes."""
        values = self.rng.standard_normal(count) * np.exp2(self.rng.integers(-2, 2))
        odd = self.rng.choice(np.uint32([0x7F800000, 0xFFC00001, 0x00000001, 0x80000000, 0x7F7FFFFF]), count)
        return np.where(self.rng.random(count) < special, odd, values.astype(np.float32).view(np.uint32))

    def place(self, count):
        """Bytes of the scratchpad that nobody else has: where they begin."""
        at, self.free = self.free, self.free - -count // 64 * 64
        assert self.free <= len(self.first), "the scratchpad is full"
        return at

    def add(self, opcode, wait=False, **fields):
        """An instruction; return the error and detail it must end with. It may `wait` for those before."""
        instruction, found = Instruction(opcode, fields), (ports.Error.NONE.value, 0)
        try:
            self.tile.run(assemble([instruction], 2))
        except TileError as error:
            status = str(error.reason).rpartition(": ")[2]
            found = ((ports.Error.REFUSED.value, Status[status].value) if status in Status.__members__
                     else (ports.Error.ARGUMENT.value, 0))
        words = instruction.words[3:3 + ports.WORDS]
        self.job.log.append((opcode, words, found, wait))
        return found

    def attend(self, sid, layer, rows=1, group=1, window=0, *, over=False, gap=0, special=0.0, wait=False):
        """Attention to new rows of random numbers.

        Parameters
        ----------
        over : bool
            Results are written over queries.
        gap : int
            Bytes between rows, in multiples of 64.
        """
        kv = self.kv
        each = FP32_BYTES * kv.kv_heads * kv.head_dim
        whole = max(group, 1) * each
        pitch = whole + 2 * each + gap
        q = self.place(max(rows, 1) * pitch)
        k, v = q + whole, q + whole + each
        if self.rng.random() < 0.5:
            k, v = v, k
        numbers = self._numbers(max(rows, 1) * pitch // FP32_BYTES, special).view(np.uint8)
        for pad in self.first, self.tile.scratchpad:
            pad[q:q + len(numbers)] = numbers
        result, result_pitch = (q, pitch) if over else (self.place(max(rows, 1) * (whole + gap)), whole + gap)
        return self.add(Heads.ATTEND, wait, sid=sid, layer=layer, rows=rows, group=group, q=q, k=k, v=v, pitch=pitch,
                        result=result, result_pitch=result_pitch, window=window)

    def extend(self, sid, tokens, wait=False):
        return self.add(Heads.EXTEND, wait, sid=sid, tokens=tokens, result=self.place(4) + 4)

    def command(self, command, wait=False):
        """Any `golden.paging.Command` without operands."""
        words = {f"word{n}": command.word >> 32 * n & 0xFFFFFFFF for n in range(4)}
        return self.add(Heads.COMMAND, wait, **words, result=self.place(8) + 8)

    def ask(self, opcode, **arguments):
        """The same by its name and arguments."""
        return self.command(Command(opcode, arguments))

    def done(self, **options):
        """The job."""
        self.job.scratchpad = self.first.tobytes(), self.tile.scratchpad.tobytes()
        self.job.memory = self.before, self.tile.memory.tobytes()
        self.job.nans = self.tile.store.nans
        for name, value in options.items():
            setattr(self.job, name, value)
        return self.job


def run(job, *, waves=False):
    """Run a job on the RTL and compare; return the `Run`.

    Raises
    ------
    AssertionError
        At the first difference.
    """
    from hw.tile.heads.heads import Heads as Rtl

    return submit(Rtl(job.chip.kvcache, job.chip.attention.group, job.size), "sim.benches.heads", job,
                  seed=job.seed, waves=waves, x_initial="unique")


def traffic(kv, group, seed, count, **options):
    """A `Job` of random instructions, many of them of several sequences at once, some of them refused."""
    rng, script = random.Random(seed), Script(kv, group, seed, 1 << 21)
    controller = script.tile.controller
    while len(script.job.log) < count:
        running = [sid for sid, each in enumerate(controller.sequences) if each.state == State.RUNNING and each.length]
        kind = rng.random()
        if kind < 0.6 and running:
            sid = rng.choice(running) if rng.random() < 0.97 else rng.randrange(kv.sequences + 1)
            length = controller.sequences[sid].length if sid < kv.sequences else 1
            rows = rng.choice([1, 1, 2, rng.randrange(1, max(length, 2)), length, length + (rng.random() < 0.1)])
            script.attend(
                sid, rng.randrange(kv.layers) if rng.random() < 0.97 else kv.layers, min(rows, 3 * kv.block_tokens),
                rng.choice([each for each in (1, 2, 4, 8) if each <= group]) if rng.random() < 0.97 else rng.choice(
                    [0, 3, group + 1]),
                rng.choice([0, 0, 0, rng.randrange(1, length + 3)]), over=rng.random() < 0.5, gap=rng.choice([0, 64]),
                special=rng.choice([0, 0, 0.02]))
            continue
        if kind < 0.8 and running:
            script.extend(rng.choice(running), rng.choice([0, 1, 1, 2, rng.randrange(3 * kv.block_tokens)]))
            continue
        command = draw(rng, controller)
        seldom = (*LEFT_OUT, Opcode.COMMIT)         # blocks that were cached are not written any more
        if isinstance(command, int) or command.operands or command.opcode in seldom and rng.random() < 0.9:
            continue
        if "slot" in command.arguments:
            command.arguments["slot"] %= max(kv.host_blocks - kv.table, 1)
        if command.arguments.get("tenant", 0) and rng.random() < 0.7:
            continue
        script.command(command)
    return script.done(**options)


class Board:
    """The unit's surroundings, one step a cycle.

    `step` is called after each rising edge; it reads what the ports held before it and sets what they hold after it.
    """

    def __init__(self, dut, job):
        self.dut, self.job, self.rng, self.run = dut, job, random.Random(job.seed), Run()
        kv, group = job.chip.kvcache, job.chip.attention.group
        self.scratchpad, self.image = bytearray(job.scratchpad[0]), bytearray(job.memory[0])
        self.memory = Memory(dut, "axi", self.image, stall=job.stall, shuffled=bool(job.stall), errors=job.errors,
                             runs=False)
        self.layout = {"queries_request": queries(kv, group), "rows_request": rows(kv), "write": write(job.size),
                       "i": instruction(ports.WORDS), "done": ports.done()}
        self.port = {name: Port(dut, name, source=True) for name in ("i", *READERS)}
        self.port |= {name: Watched(dut, name, source=False)
                      for name in ("done", "write", *(f"{name}_request" for name in READERS))}
        self.reads = {name: deque() for name in READERS}       # (cycle from which on, address, last)
        self.given = deque(job.log)
        self.cycle = self.quiet = 0
        self.size = FP32_BYTES * kv.lanes

    @property
    def finished(self):
        return len(self.run.done) == len(self.job.log)

    def step(self):
        """One cycle."""
        port, stall, random, run = self.port, self.job.stall, self.rng.random, self.run
        self.memory.step()
        moved = {name: each.sample(run.seen) for name, each in port.items()}
        if int(self.dut.takes.value):
            run.beats.append(self.cycle)
        if int(self.dut.full.value):
            run.full.append(self.cycle)

        if moved["write"]:
            given = unpack(self.layout["write"], port["write"].value)
            address, count = given["address"], given["count"]
            assert address % count == 0 and address + count <= len(self.scratchpad), f"a write to {address:#x}"
            self.scratchpad[address:address + count] = given["data"].to_bytes(self.job.size, "little")[:count]
            run.writes.append(self.cycle)
        port["write"].take(stall, random)

        if moved["done"]:
            given = unpack(self.layout["done"], port["done"].value)
            run.done.append(self.cycle)
            run.answers.append((given["error"], given["detail"]))
        port["done"].take(stall, random)
        if moved["i"]:
            run.accepted.append(self.cycle)
            self.given.popleft()
        item = None
        if self.given and (not self.given[0][3] or len(run.done) == len(run.accepted)):
            opcode, words, *_ = self.given[0]
            item = pack(self.layout["i"], {
                "opcode": opcode, "words": sum(word << 32 * n for n, word in enumerate(words))})
        port["i"].drive(item, stall, random)

        for name in READERS:
            self._read(name, moved)
        self.quiet = 0 if any(moved.values()) or run.beats[-1:] == [self.cycle] else self.quiet + 1
        self.cycle += 1

    def _read(self, name, moved):
        """A reader of the scratchpad: beats are read as they leave."""
        request, waiting = self.port[f"{name}_request"], self.reads[name]
        if moved[f"{name}_request"]:
            asked = unpack(self.layout[f"{name}_request"], request.value)
            assert asked["rows"] and asked["beats"] and not asked["address"] % self.size | asked["stride"] % self.size
            ends = asked["rows"] * asked["beats"]
            for n in range(ends):
                row, beat = divmod(n, asked["beats"])
                address = asked["address"] + row * asked["stride"] + beat * self.size & 0xFFFFFFFF
                waiting.append((self.cycle + self.job.latency, address, n == ends - 1))
        if moved[name]:
            waiting.popleft()
        item = None
        if waiting and waiting[0][0] <= self.cycle:
            _, address, last = waiting[0]
            assert address + self.size <= len(self.scratchpad), f"a read at {address:#x}"
            item = int.from_bytes(self.scratchpad[address:address + self.size], "little") | last << 8 * self.size
        self.port[name].drive(item, self.job.stall, self.rng.random)
        if sum(last for *_, last in waiting) < REQUESTS:
            request.take(self.job.stall, self.rng.random)
        else:
            request.take(2, lambda: 0)

    def check(self):
        """Compare with golden."""
        job = self.job
        for number, ((opcode, words, wanted, _), found) in enumerate(zip(job.log, self.run.answers, strict=True)):
            assert found == wanted, f"instruction {number}, {opcode.name} {told(opcode, words)}: {found}, not {wanted}"
        if job.faulty:
            return
        for name, found, wanted in (("scratchpad", self.scratchpad, job.scratchpad[1]),
                                    ("memory", self.image, job.memory[1])):
            wrong = np.flatnonzero(np.frombuffer(found, np.uint8) != np.frombuffer(wanted, np.uint8))
            assert not len(wrong), f"{len(wrong)} bytes of the {name} differ, the first at {wrong[0]:#x}"
        assert int(self.dut.nans.value) == job.nans


def told(opcode, words):
    """Fields of an instruction."""
    found = {}
    for word, form in zip(words, FORMS[ports.Engine.HEADS][opcode], strict=False):
        for name, bits in form.items():
            found[name] = word & (1 << bits) - 1
            word >>= bits
    return found
