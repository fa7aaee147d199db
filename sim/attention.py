# SPDX-License-Identifier: Apache-2.0
"""Heads on the simulated attention unit: commands, queries, and the beats of a KV cache that has their tokens.

`run` is the door for everybody; `Board` is what sits around the unit inside the simulator (see
`sim.benches.attention`).
"""

import random
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from golden.attention import Attended
from golden.kvstore import Store
from golden.paging import Part
from hw.attention import ports
from hw.attention.attention import Attention
from sim.job import submit
from sim.ports import Port, Watched, pack, unpack
from sw.attention import NONE

__all__ = ["Board", "Job", "Run", "run", "stream", "tag"]


@dataclass
class Job:
    """What to simulate.

    Attributes
    ----------
    kv : golden.config.KvCache
    group : int
    heads : list of sw.attention.Head
        Of at most `group` queries each; their streams follow each other.
    stall : float
        Probability with which each port idles or stalls in a cycle.
    seed : int
    queue : bool
        Give a command, its queries and its beats as soon as they are taken, not when all heads before are done.
    late : int
        Cycles before the first beat, in which commands and queries come.
    held : int
        Cycles in which no results are taken; in as many after these, no completions are.
    ragged : bool
        Blocks are read in part, as windows and sinks have it.
    commands : dict of int to dict
        For tests: fields of a head's command to overwrite.
    broken : dict of int to int
        For tests: heads, and how many beats to add at their ends or, negative, to leave out.
    flagged : set of (int, int)
        For tests: heads and numbers of their beats that come with an error.
    interrupted : tuple of int
        For tests: cycles after each of which a reset cuts everything short, to begin again.
    """

    kv: object
    group: int
    heads: list
    stall: float = 0.0
    seed: int = 0
    queue: bool = True
    late: int = 0
    held: int = 0
    ragged: bool = False
    commands: dict = field(default_factory=dict)
    broken: dict = field(default_factory=dict)
    flagged: set = field(default_factory=set)
    interrupted: tuple = ()


@dataclass
class Run:
    """What came of one head.

    Attributes
    ----------
    attended : golden.attention.Attended
    error : int
        A value of `hw.attention.ports.Error`.
    beats : list of int
        Cycles in which a beat was taken.
    results : list of int
        Cycles in which results were given.
    completed : int
        Cycle of its completion.
    """

    attended: Attended
    error: int = 0
    beats: list = field(default_factory=list)
    results: list = field(default_factory=list)
    completed: int = 0

    @property
    def beyond(self):
        """Cycles from the first beat to the last result, both counted, that are not a beat's."""
        return self.results[-1] - self.beats[0] + 1 - len(self.beats)


def run(job, *, waves=False, x_initial="0"):
    """Simulate a job; return its list of `Run` and the `Counter` of what its ports saw.

    Raises
    ------
    AssertionError
        When a result differs from golden in any bit, or the bench fails otherwise.
    """
    return submit(Attention(job.kv, job.group), "sim.benches.attention", job, seed=job.seed, waves=waves,
                  x_initial=x_initial)


def stream(head, rng=None):
    """The beats that the KV cache gives of a head.

    Parameters
    ----------
    head : sw.attention.Head
    rng : random.Random
        Reads parts of blocks, from any slot on; by default whole ones.
    """
    size, tokens = head.kv.block_tokens, len(head.k)
    ranges, left = [], tokens
    while left:
        first = rng.randrange(size) if rng else 0
        count = min(left, rng.randint(1, size - first) if rng else size)
        ranges.append((len(ranges), first, count))
        left -= count
    store = Store(head.kv.model_copy(update={"blocks": len(ranges), "layers": 1, "kv_heads": 1}))
    slots = ((block, first + n) for block, first, count in ranges for n in range(count))
    for token, (block, slot) in enumerate(slots):
        store.put(block, Part.K, slot, head.k[token], head.k_scales[token])
        store.put(block, Part.V, slot, head.v[token], head.v_scales[token])
    return store.stream(ranges, 0, 1)


def tag(number):
    """That of a head's command: all bits differ soon."""
    return number * 181 + 90 & 0xFF


class Board:
    """The unit's surroundings, one step a cycle.

    `step` is called after each rising edge; it reads what the ports held before it and sets what they hold after it.
    """

    def __init__(self, dut, job):
        self.dut, self.job, self.rng = dut, job, random.Random(job.seed)
        self.seen, self.cycle, self.quiet = Counter(), 0, 0
        kv, group = job.kv, job.group
        self.layout = {"commands": ports.command(kv, group), "beats": ports.beat(kv), "results": ports.result(group),
                       "completions": ports.completion(group)}
        self.port = {name: Port(dut, name, source=True) for name in ("commands", "queries", "beats")}
        self.port |= {name: Watched(dut, name, source=False) for name in ("results", "completions")}
        self.given = {name: deque() for name in ("commands", "queries", "beats")}       # (head, payload)
        for number, head in enumerate(job.heads):
            self._give(number, head)
        self.runs = [Run(Attended(np.zeros((group, 2 * -(-kv.head_dim // 2)), np.uint32), np.zeros(group, np.uint32),
                                  np.zeros(group, np.int64))) for _ in job.heads]
        self.answered = self.completed = self.cleared = 0       # heads; up to which errors were cleared

    def _give(self, number, head):
        """Queue what a head takes."""
        job, kv = self.job, self.job.kv
        command = pack(self.layout["commands"], self._command(number, head) | job.commands.get(number, {}))
        self.given["commands"].append((number, command))
        taken = 1 <= job.commands.get(number, {}).get("queries", len(head.queries)) <= job.group
        words = head.queries.reshape(-1, kv.lanes).astype("<u4") if taken else ()
        self.given["queries"].extend((number, int.from_bytes(word.tobytes(), "little")) for word in words)
        beats = stream(head, self.rng if job.ragged else None)
        change = job.broken.get(number, 0)
        beats = (beats + beats[-1:] * max(change, 0))[:len(beats) + change]
        for n, beat in enumerate(beats):
            self.given["beats"].append((number, pack(self.layout["beats"], {
                "data": int.from_bytes(beat.data, "little"), "part": beat.part, "slot": beat.slot,
                "last": n == len(beats) - 1, "error": beat.error or (number, n) in job.flagged})))

    def _command(self, number, head):
        mask = head.mask
        length, score = (self.layout["commands"][name].width // self.job.group for name in ("first", "sink"))
        none = head.sink == NONE
        return {"tag": tag(number), "queries": len(head.queries), "tokens": len(head.k), "part": head.part,
                "first": join(mask.first, length), "end": join(mask.end, length), "sinks": mask.sinks,
                "sink_valid": join(~none, 1), "sink": join(np.where(none, self.rng.getrandbits(20), head.sink), score)}

    @property
    def finished(self):
        return self.done == len(self.runs)

    @property
    def done(self):
        """Heads that have given everything."""
        return min(self.answered, self.completed)

    def step(self):
        """One cycle."""
        port, stall, held, random = self.port, self.job.stall, self.job.held, self.rng.random
        moved = {name: each.sample(self.seen) for name, each in port.items()}
        for name, given in self.given.items():
            if moved[name]:
                number, _ = given.popleft()
                if name == "beats":
                    self.runs[number].beats.append(self.cycle)
            due = given and (self.job.queue or given[0][0] == self.done) and (
                name != "beats" or self.cycle >= self.job.late)
            port[name].drive(given[0][1] if due else None, stall, random)
        if moved["results"]:
            self._result(unpack(self.layout["results"], port["results"].value))
        port["results"].take(1 if self.cycle < held else stall, random)
        if moved["completions"]:
            self._complete(unpack(self.layout["completions"], port["completions"].value))
        port["completions"].take(1 if held <= self.cycle < 2 * held else stall, random)
        self.quiet = 0 if any(moved.values()) else self.quiet + 1
        self.cycle += 1

    def _result(self, word):
        number, group = self.answered, self.job.group
        assert word["tag"] == tag(number), f"a result of command {word['tag']}, not {tag(number)}"
        run = self.runs[number]
        column, last = 2 * len(run.results), word["last"]
        run.results.append(self.cycle)
        run.attended.rows[:, column:column + 2] = np.reshape(split(word["data"], 32, 2 * group), (group, 2))
        assert last == (column + 2 == run.attended.rows.shape[1]), f"results of head {number} end at column {column}"
        self.answered += last

    def _complete(self, word):
        number, group = self.completed, self.job.group
        assert word["tag"] == tag(number), f"completion of {word['tag']}, not {tag(number)}"
        run, wide = self.runs[number], self.layout["completions"]["exponents"].width // group
        run.error, run.completed = word["error"], self.cycle
        run.attended.totals[:] = split(word["totals"], 32, group)
        exponents = split(word["exponents"], wide, group)
        run.attended.exponents[:] = [each - (each >> wide - 1 << wide) for each in exponents]
        self.completed += 1

    def check(self):
        """Compare all results of heads without an error with golden, bit for bit, and the sticky error."""
        self.check_error()
        for number, (head, run) in enumerate(zip(self.job.heads, self.runs, strict=True)):
            size, length = len(head.queries), self.job.kv.head_dim
            if not run.error:
                for name, wanted in vars(head.attended).items():
                    self._compare(f"{name} of head {number}, {size} queries, {len(head.k)} tokens",
                                  getattr(run.attended, name), wanted)
            rows, totals, exponents = vars(run.attended).values()
            run.attended = Attended(rows[:size, :length], totals[:size], exponents[:size])

    def check_error(self):
        """Compare the sticky error with the first since errors were cleared."""
        wrong = [(run.error, tag(number)) for number, run in enumerate(self.runs)
                 if run.error and number >= self.cleared]
        error, said = int(self.dut.error.value), int(self.dut.error_tag.value)
        assert wrong[:1] == [(error, said)] * bool(error), f"error {error} of command {said}, not {wrong[:1]}"

    def _compare(self, what, found, wanted):
        own = found[tuple(slice(size) for size in wanted.shape)]
        where = [tuple(each) for each in np.argwhere(own != wanted)]
        assert not where, (f"{what}: {len(where)} of {wanted.size} differ, first at {where[0]}: "
                           f"{own[where[0]]:#x}, golden {wanted[where[0]]:#x}")
        assert not found[len(wanted):].any(), f"{what}: not zero beyond"


def join(values, width):
    """Integers of some bits each as one, the first in the lowest place."""
    return sum((int(value) & (1 << width) - 1) << n * width for n, value in enumerate(values))


def split(word, width, count):
    return [word >> n * width & (1 << width) - 1 for n in range(count)]
