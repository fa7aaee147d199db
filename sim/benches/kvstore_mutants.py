# SPDX-License-Identifier: Apache-2.0
"""Bench of a store with mutants inside (`sim.mutation.kvstore`): which of them fail some job, and how."""

import os
import pickle
import random
from collections import deque
from pathlib import Path

import cocotb
from cocotb.triggers import RisingEdge

from sim.axi import PAGE, Ideal, Memory
from sim.benches.kvstore import expected
from sim.mutation.kvstore import Check
from sim.stream import reset

QUIET = 900             # cycles without a transfer after which a mutant counts as hung
NEARLY = 0.85           # how often a slow port stalls
SETTLED = 6             # cycles in which nothing more may come


@cocotb.test()
async def mutants(dut):
    jobs, numbers = pickle.loads(Path(os.environ["JOBS"]).read_bytes())
    due = [[(*expected(job.config, beat, sid), beat.error or bad) for beat, sid, bad in job.beats] for job in jobs]
    dut.mutant.value = 0
    await reset(dut)
    seen = [await Player(dut, *each).play() for each in zip(jobs, due, strict=True)]    # the store itself passes
    dut._log.info(f"{[each and each[-1][0] for each in seen]} cycles")
    found = {}
    for number in numbers:
        dut.mutant.value = number
        for n, (job, beats, before) in enumerate(zip(jobs, due, seen, strict=True)):
            try:
                now = await Player(dut, job, beats, limit=2 * before[-1][0] + 500 if before else 1 << 30).play()
                other = next((each for each in zip(now, before, strict=True) if each[0] != each[1]), None)
                assert job.stall or not other, f"a check finds {other[0]}, not {other[1]}"
            except (AssertionError, LookupError, ValueError) as error:
                found[number] = n, str(error).splitlines()[0]
                dut._log.info(f"{number}: job {n}: {found[number][1]}")
                break
    Path(os.environ["FAILURES"]).write_bytes(pickle.dumps(found))


class Player:
    """Plays a job from a reset on.

    Parameters
    ----------
    dut : handle
    job : sim.mutation.kvstore.Job
    beats : list of (int, int, bool)
        That must come: payload, the bit that says it failed, and whether it did.
    limit : int
        Cycles after which a mutant counts as hung.
    """

    def __init__(self, dut, job, beats, limit=1 << 30):
        self.dut, self.job, self.due, self.limit = dut, job, beats, limit
        self.rng = random.Random(job.seed)
        dut.clear.value = 0
        base = self.rng.getrandbits(len(dut.base))      # of pool and host memory, in pages: all bits matter
        bases = base, base ^ (self.rng.getrandbits(len(dut.base)) | 1 << 8)
        dut.base.value, dut.host_base.value = bases
        self.memory = Far(dut, job, bases)
        self.transfers = {name: Source(dut, name) for name in ("ranges", "moves")}
        self.rows, self.beats, self.retire = Source(dut, "rows"), Sink(dut, "beats"), Sink(dut, "retire")
        self.commands, self.words, self.lines = deque(job.commands), deque(), deque()
        self.came = self.retired = self.cycle = self.quiet = self.settled = 0
        self.before, self.flagged, self.seen = None, [], []

    async def play(self):
        """Return what each check finds: in which cycle, what fault, and how many beats have failed."""
        await reset(self.dut, running=True)
        while self.commands and not 0 < self.job.cut <= self.cycle:
            await RisingEdge(self.dut.clk)
            self.memory.step()
            self._take()
            self._give()
            self._watch()
        return self.seen

    def _willing(self, name):
        stall = NEARLY if name == self.job.slow else self.job.stall
        return not stall or self.rng.random() >= stall

    def _take(self):
        """What comes out: nothing but what is due."""
        if (word := self.beats.taken()) is not None:
            assert self.came < len(self.due), "too many beats"
            due, mark, bad = self.due[self.came]
            failed = bool(word & mark)
            assert failed == bad or self.job.dies, f"beat {self.came} is {'in' * failed}valid"
            assert failed and self.job.dies or word & ~mark == due, f"beat {self.came}: {word & ~mark:#x}, not {due:#x}"
            self.came, self.flagged = self.came + 1, self.flagged + [self.came] * failed
        if (word := self.retire.taken()) is not None:
            assert self.job.retired[self.retired:self.retired + 1] == [word], f"{word} retires"
            self.retired += 1

    def _give(self):
        """What goes in: as of a controller, which looks whether streams have ended before each command."""
        free = all([source.free() for source in self.transfers.values()])
        if free and not self.words and not self.retire.waits and not isinstance(self.commands[0], Check):
            words, lines = self.commands.popleft()
            self.words.extend(words)
            self.lines.extend(lines)
        if free:
            name, word = self.words.popleft() if self.words and self._willing("transfers") else (None, None)
            for each, source in self.transfers.items():
                source.offer(word if each == name else None)
        if self.rows.free():
            self.rows.offer(self.lines.popleft() if self.lines and self._willing("rows") else None)
        self.beats.take(self._willing("beats") and (self.beats.waits or self.job.slow != "beats"))
        self.retire.take(not self.words and self._willing("retire"))
        gone = not self.words and not any(source.offered for source in self.transfers.values())
        self.settled = self.settled + 1 if gone and isinstance(self.commands[0], Check) else 0

    def _watch(self):
        """Whether it goes on, and whether all is as it must be once it is done."""
        self.cycle += 1
        now = self.memory.moved, self.came, self.retired, len(self.commands), len(self.words), len(self.lines)
        self.quiet, self.before = self.quiet + 1 if now == self.before else 0, now
        assert self.quiet < QUIET, f"nothing moves for {QUIET} cycles"
        assert self.cycle < self.limit, "there is no end to it"
        check, dut, dies = self.commands[0], self.dut, self.job.dies
        if self.settled == 2:
            if int(dut.busy.value):
                self.settled = 1            # again, in the next cycle
                return
            assert self.came == check.beats, f"done after {self.came} beats, not {check.beats}"
            assert dies or self.memory.data == check.memory, "memory is not as it must be"
            assert int(dut.nans.value) == check.nans, f"{int(dut.nans.value)} NaN, not {check.nans}"
            fault = int(dut.fault.value)
            assert check.fault in (None, fault), f"the fault is {fault:#x}, not {check.fault:#x}"
            assert int(dut.dead.value) == dies, f"the memory is{' not' * dies} given up"
            self.seen.append((self.cycle, fault, len(self.flagged)))
            dut.clear.value = int(check.clear)
        elif self.settled == 3:
            dut.clear.value = 0
        elif self.settled > SETTLED and self.retired == check.retired:
            assert not (check.clear and int(dut.fault.value)), "the fault stays after clear"
            self.commands.popleft()


class Source:
    """Offers words, and holds each until it is taken."""

    def __init__(self, dut, name):
        self.payload, self.valid, self.ready = (getattr(dut, f"{name}__{end}") for end in ("payload", "valid", "ready"))
        self.offered = False
        self.valid.value = 0

    def free(self):
        """Whether nothing waits to be taken."""
        return not self.offered or bool(int(self.ready.value))

    def offer(self, word):
        """Offer a word from now on, or nothing."""
        if word is not None:
            self.payload.value = word
        if self.offered != (word is not None):
            self.offered = word is not None
            self.valid.value = int(self.offered)


class Sink:
    """Takes words, and sees that they hold until then."""

    def __init__(self, dut, name):
        self.payload, self.valid, self.ready = (getattr(dut, f"{name}__{end}") for end in ("payload", "valid", "ready"))
        self.name, self.held, self.takes, self.waits = name, None, False, False
        self.ready.value = 0

    def taken(self):
        """The word that was taken in the cycle that ends, or None."""
        self.waits = bool(int(self.valid.value))
        word = int(self.payload.value) if self.waits else None
        assert self.held in (None, word), f"{self.name} changed while it waited"
        self.held = None if self.takes else word
        return word if self.takes else None

    def take(self, takes):
        if takes != self.takes:
            self.takes = takes
            self.ready.value = int(takes)


class Far(Memory):
    """A memory of two parts far apart, that may be silent for a while."""

    def __init__(self, dut, job, bases):
        self.bases, self.edge, self.slow = bases, job.host_begin, job.slow
        super().__init__(dut, "axi", bytearray(job.before), timing=Ideal(job.latency), stall=job.stall,
                         shuffled=bool(job.stall), errors=job.errors, deaf=job.deaf, runs=False)
        self.rng = random.Random(job.seed)

    @property
    def moved(self):
        """How often channels have moved."""
        return sum(map(len, self.cycles.values()))

    def _willing(self, way):
        stall = NEARLY if way == self.slow else self.stall
        return self.cycle not in self.deaf.get(way, ()) and self.rng.random() >= stall

    def _place(self, address):
        for base, (start, stop) in zip(self.bases, ((0, self.edge), (self.edge, len(self.data))), strict=True):
            if 0 <= address - base * PAGE < stop - start:
                return address - base * PAGE + start
        raise AssertionError(f"{address:#x} is beyond the memory")
