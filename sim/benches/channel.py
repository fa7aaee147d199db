# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.memory.channel.Channel`: a `sim.channel.Job`, its masters a cycle at a time."""

import random
from collections import Counter, deque

import cocotb
from cocotb.triggers import RisingEdge

from hw.memory.channel import READS, WRITES
from sim.axi import Ideal, Memory
from sim.channel import Run
from sim.dram import Dram
from sim.job import finish, given
from sim.stream import reset

QUIET = 3_000       # cycles without progress after which it counts as hung
BURSTS = 40         # that a writer has under way
FAR = 1 << 32


class Far(Memory):
    """A memory of 4 GiB at every multiple of that; the KV cache uses the second."""

    def _place(self, address):
        return address % FAR

    def _burst(self, way):
        far = len(self.pins["araddr"]) > 32 and self._get(f"{way}id") < 2
        assert self._get(f"{way}addr") // FAR == far, "an address is not where it belongs"
        return super()._burst(way)


class Master:
    """Asks for bursts one after the other and checks the answers.

    Attributes
    ----------
    asked, gone : list of int
    answers : list of (int, bool)
        See `sim.channel.Run`.
    owed : int
        Beats or responses.
    """

    def __init__(self, dut, name, job, bursts):
        self.dut, self.name, self.job, self.kv = dut, name, job, name == "kv"
        self.beat = len(dut.axi__wstrb)
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {name} {self.drives}")
        self.handles, self.driven = {}, {}
        self.todo, self.wait = deque(bursts), bursts[0].wait if bursts else 0
        self.asked, self.gone, self.answers, self.stopped, self.dead = [], [], [], False, False
        self.due = {0: deque(), 1: deque()}
        self.reset()

    @property
    def busy(self):
        """Whether anything is to be asked for or to come."""
        return bool((self.todo or self.burst) and not self.stopped or self.owed)

    def reset(self):
        """Forget what was asked for."""
        self.burst, self.owed, self.due = None, 0, {0: deque(), 1: deque()}
        for way in self.drives:
            self.put(way, "valid", 0)

    def heard(self):
        """Whether the channel has to do with it in this cycle."""
        return self.get(self.answer, "valid") or any(self.get(way, "ready") for way in self.drives)

    def get(self, way, field):
        return int(self._handle(way, field).value)

    def put(self, way, field, value):
        if self.driven.get((way, field)) != value:
            self.driven[way, field] = value
            self._handle(way, field).value = value

    def request(self, cycle):
        """The burst on offer has gone, or not; offer the next."""
        way = self.drives[0]
        if self.burst and self.get(way, "ready"):
            self.gone.append(cycle)
            self.goes(self.burst)
            self.burst, self.wait = None, self.todo[0].wait if self.todo else 0
        else:
            self.wait = max(self.wait - 1, 0)
        if not (self.burst or self.stopped or self.wait) and self.todo and self.fits(self.todo[0]) and self.willing():
            self.burst = burst = self.todo.popleft()
            self.asked.append(cycle + 1)
            if self.kv:
                address = burst.address + FAR * (len(self.dut.axi__araddr) > 32)
                for field, value in ("id", burst.id), ("addr", address), ("len", burst.beats - 1):
                    self.put(way, field, value)
            else:
                shift = self.beat.bit_length() - 1
                self.put(way, "payload", burst.address >> shift | burst.beats - 1 << 32 - shift)
        self.put(way, "valid", int(self.burst is not None))

    def willing(self):
        idle = self.job.stall if self.job.idle is None else self.job.idle
        return not idle or self.rng.random() >= idle

    def answered(self, cycle, failed, first, last):
        """An answer about some bytes has come."""
        where = [where for (way, where) in self.job.errors if way == self.answer]
        foreseen = self.dead or any(each.start <= last and first < each.stop for each in where)
        assert failed == foreseen, f"{self.name}: {first:#x} failed: {failed}"
        self.owed -= 1
        self.answers.append((cycle, failed))

    def _handle(self, way, field):
        if (way, field) not in self.handles:
            self.handles[way, field] = getattr(self.dut, f"{self.name}__{way}{'' if self.kv else '__'}{field}")
        return self.handles[way, field]


class Reader(Master):
    drives, answer = ("ar",), "r"

    def fits(self, burst):
        return self.owed + burst.beats <= self.job.depth

    def goes(self, burst):
        self.owed += burst.beats
        self.due[burst.id].extend((burst.address + n * self.beat, n == burst.beats - 1) for n in range(burst.beats))

    def step(self, cycle):
        """A cycle has passed."""
        if self.get("r", "valid"):
            word = self.get("r", "data") if self.kv else self.get("r", "payload")
            failed = self.get("r", "resp") >> 1 if self.kv else word >> 8 * self.beat
            due = self.due[self.get("r", "id") if self.kv else 0]
            assert due, f"{self.name} got a beat that it had not asked for"
            at, last = due.popleft()
            self.answered(cycle, bool(failed), at, at)
            right = int.from_bytes(self.job.data[at:at + self.beat], "little")
            assert self.dead or word & (1 << 8 * self.beat) - 1 == right, f"{self.name}: beat of {at:#x}"
            assert not self.kv or self.get("r", "last") == last
        self.request(cycle)


class Writer(Master):
    """Besides keeps what memory should be, and the bursts of which that is not known."""

    drives, answer = ("aw", "w"), "b"

    def __init__(self, dut, name, job, bursts, image):
        self.image, self.unsure = image, []
        super().__init__(dut, name, job, bursts)

    def reset(self):
        self.unsure += [burst for bursts in self.due.values() for burst in bursts]
        self.words, self.word = deque(), None
        super().reset()

    def fits(self, burst):
        return self.owed < BURSTS

    def goes(self, burst):
        self.owed += 1
        self.due[burst.id].append(burst)
        self.words.extend((*word, int(n == burst.beats - 1)) for n, word in enumerate(burst.words))

    def step(self, cycle):
        """A cycle has passed."""
        if self.word and self.get("w", "ready"):
            self.word = None
        if self.get("b", "valid"):
            due = self.due[self.get("b", "id") if self.kv else 0]
            assert due, f"{self.name} got a response that it had not asked for"
            burst = due.popleft()
            failed = self.get("b", "resp") >> 1 if self.kv else self.get("b", "payload")
            self.answered(cycle, bool(failed), burst.address, burst.address + burst.beats * self.beat - 1)
            for at, _, new in self.bytes(burst):
                self.image[at] = new
            if self.dead:
                self.unsure.append(burst)
        self.request(cycle)
        if not self.word and self.words and self.willing():
            self.word = data, strobe, last = self.words.popleft()
            if self.kv:
                for field, value in ("data", data), ("strb", strobe), ("last", last):
                    self.put("w", field, value)
            else:
                self.put("w", "payload", data | strobe << 8 * self.beat | last << 9 * self.beat)
        self.put("w", "valid", int(self.word is not None))

    def bytes(self, burst):
        """Address, what is there and what will be of each byte."""
        for n, (data, strobe) in enumerate(burst.words):
            for lane in range(self.beat):
                at = burst.address + n * self.beat + lane
                old = self.job.data[at]
                yield at, old, data >> 8 * lane & 0xFF if strobe >> lane & 1 else old


@cocotb.test()
async def replay(dut):
    job = given()
    image, right = bytearray(job.data), bytearray(job.data)
    timing = Dram(job.dram, len(dut.axi__wstrb)) if job.dram else Ideal(job.latency)
    memory = Far(dut, "axi", image, timing=timing, stall=job.stall, shuffled=bool(job.stall), errors=job.errors,
                 deaf=job.deaf, hesitant=job.hesitant, runs=False)
    readers = [Reader(dut, name, job, job.reads[name]) for name in READS]
    writers = [Writer(dut, name, job, job.writes[name], right) for name in WRITES]
    masters, counted = [*readers, *writers], Counter()
    names = [f"{name}.read" for name in READS] + [f"{name}.written" for name in WRITES]
    dut.flush.value = 0
    dut.kv__rready.value = dut.kv__bready.value = 1
    await reset(dut)
    died, drained, flushes = None, [], sorted(job.flushes, reverse=True)
    flushed, closing, quiet, last, rest = 0, False, 0, None, 4      # since when a flush is under way; its first cycle
    while rest:
        await RisingEdge(dut.clk)
        memory.step()
        cycle, counts = memory.cycle, int(dut.beats.value)
        for n in range(len(names)):
            counted[names[n]] += counts >> n & 1
        if died is None and int(dut.dead.value):
            died = cycle
        for master in masters:
            master.dead = died is not None
            if closing:
                assert not master.heard(), f"{master.name} is heard in a flush"
                master.reset()
                continue
            master.stopped = job.cycles and cycle >= job.cycles or master.dead and master.kv
            if master.kv and master.dead:       # its own port sees to that
                master.reset()
            master.step(cycle)
        if flushed and int(dut.idle.value) and not closing:
            drained.append(cycle - flushed)
            flushed = 0
        closing = bool(flushes) and cycle >= flushes[-1] and not flushed
        if closing:
            flushed = flushes.pop()
        dut.flush.value = closing
        now = [(len(master.gone), len(master.answers)) for master in masters] + [len(memory.cycles["w"])]
        quiet, last = (quiet + 1, last) if now == last else (0, now)
        assert quiet < QUIET, f"hung after {now}"
        rest = 4 if flushes or flushed or any(master.busy for master in masters) else rest - 1

    assert int(dut.idle.value)
    unsure = set()
    for at, old, new in (each for writer in writers for burst in writer.unsure for each in writer.bytes(burst)):
        assert image[at] in (old, new), f"{at:#x} is neither old nor new"
        unsure.add(at)
    wrong = [at for at in range(len(image)) if image[at] != right[at] and at not in unsure]
    assert not wrong, f"{len(wrong)} bytes of memory differ, the first at {wrong[0]:#x}"
    if job.stall and not (job.deaf or job.flushes):
        memory.check_stalls()
    by = {f"{master.name}.{master.drives[0]}": master for master in masters}
    finish(Run({key: master.asked for key, master in by.items()}, {key: master.gone for key, master in by.items()},
               {f"{master.name}.{master.answer}": master.answers for master in masters},
               memory.cycles, dict(counted), drained, died))
