# SPDX-License-Identifier: Apache-2.0
"""Mutants of the KV cache's data side, and what they are put to: transfers, and the memory they leave behind."""

from dataclasses import dataclass, field
from functools import cache
from itertools import product

import numpy as np

from golden.config import KvCache
from golden.paging import Move, Part, Status, pack
from hw.axi import OUTSTANDING, Bursts, Port, Reads, Writes
from hw.kvcache.copier import AHEAD, BURST, Copier
from hw.kvcache.dispatcher import Dispatcher
from hw.kvcache.ports import fault, move, range_
from hw.kvcache.reader import Reader
from hw.kvcache.runs import Runs, Tags, address, most
from hw.kvcache.store import Store
from hw.kvcache.writer import Writer
from sim.axi import DECERR, PAGE, SLVERR
from sim.formal.axi import BurstsRules, PortRules, ReadsRules, WritesRules
from sim.formal.prove import Task
from sim.formal.store import DispatcherRules, RunsRules, TagsRules
from sim.kvstore import Script
from sim.mutation.campaign import Unwatched, judged
from sim.mutation.mutants import Pool, Target

__all__ = ["BENCH", "Check", "Job", "inside", "jobs", "run"]

BENCH = "sim.benches.kvstore_mutants"
CONFIG = KvCache(blocks=6, sequences=5, block_tokens=8, layers=2, kv_heads=3, head_dim=24, beat=16, buffer=32,
                 transfers=5, host_blocks=5, patience=100, address_bits=32)
EXOKAY = 1          # a response that is no error


@dataclass(frozen=True)
class Check:
    """Everything is done: beats and retirements have come, and memory is as it must be."""

    beats: int
    retired: int
    memory: bytes
    nans: int
    fault: int
    clear: bool = True      # the fault, once it was looked at


@dataclass
class Job:
    """Transfers, and what must come of them.

    Attributes
    ----------
    config : golden.config.KvCache
    commands : list of Check or (list of (port, word), list of int)
        The words that a command of the controller sends to "ranges" or "moves"; and the rows that it writes.
    beats : list of (golden.kvstore.Beat, sid, bool)
        The latter: it fails on the bus.
    retired : list of int
    before : bytes
        Of memory, as of `sim.kvstore.Job`.
    latency, stall, errors : as of `sim.axi.Memory`
    deaf : dict of str to range
        Cycles in which a channel does not move; checks are of what comes out alone then.
    seed : int
    cut : int
        Cycles after which everything is cut short, by the next job's reset.
    """

    config: KvCache
    commands: list = field(default_factory=list)
    beats: list = field(default_factory=list)
    retired: list = field(default_factory=list)
    before: bytes = b""
    latency: int = 1
    stall: float = 0.0
    errors: dict = field(default_factory=dict)
    deaf: dict = field(default_factory=dict)
    seed: int = 0
    cut: int = 0

    @property
    def host_begin(self):
        """Where host memory begins in the image."""
        return -(-self.config.blocks * self.config.block_bytes // PAGE) * PAGE


class Transfers(Script):
    """Writes a `Job`, transfer by transfer. All rows fit their checksums at first.

    Parameters
    ----------
    config : golden.config.KvCache
    options :
        Attributes of the job.
    """

    def __init__(self, config, special=0.05, flips=(), **options):
        super().__init__(config, options.get("seed", 0), special)
        every = [(block, 0, config.block_tokens) for block in range(config.blocks)]
        for layer in range(config.layers):
            self._write(every, layer)
        self.host[:] = self.store.pool[-config.host_blocks:]
        for at in flips:
            self.store.pool.reshape(-1)[at] ^= 0x10
        self.store.nans, self.fault = 0, None
        self.job = Job(config, before=self._image(), **options)

    def stream(self, sid, layer, heads, *ranges):
        """Slots are read, of the heads of a mask."""
        job, words = self.job, []
        beats = iter(self.store.stream(ranges, layer, heads))
        for head in (head for head in range(self.config.kv_heads) if heads >> head & 1):
            for n, (block, first, slots) in enumerate(ranges):
                closes, status = n == len(ranges) - 1, Status.OK
                words.append(self._range(block, first, slots, sid, layer, head, opens=n == 0, closes=closes,
                                         end=closes and not heads >> head + 1))
                for at in self._addresses(block, layer, head, first, slots):
                    beat, bad = next(beats), self._response("r", at) >= SLVERR
                    job.beats.append((beat, sid, bad))
                    status = status or (Status.BUS_ERR if bad else Status.ECC_UE if beat.error else Status.OK)
                self._fails(status, sid, block)
        job.retired.append(sid)
        job.commands.append((words, []))

    def write(self, sid, layer, *ranges):
        """Slots are written, of all heads."""
        words = [self._range(block, first, slots, sid, layer, write=1, end=n == len(ranges) - 1)
                 for n, (block, first, slots) in enumerate(ranges)]
        self.job.commands.append((words, self._write(ranges, layer)))
        for block, first, slots in ranges:
            bad = any(self._response("b", at) >= SLVERR for head in range(self.config.kv_heads)
                      for at in self._addresses(block, layer, head, first, slots, rows_only=True))
            self._fails(Status.BUS_ERR * bad, sid, block, write=1)

    def moves(self, *each):
        """Blocks are copied: (kind, source, target, slots)."""
        words = []
        for kind, source, target, slots in each:
            words.append(("moves", _word(move(self.config), kind=kind, source=source, target=target, slots=slots)))
            self.store.move(kind, source, target, slots)
            ends = (source, kind == Move.IN, 0), (target, kind == Move.OUT, 1)
            for place, host, write in ends:
                if host and place >= self.config.host_blocks:
                    self._fails(Status.OUT_OF_RANGE, 0, place, host, write)
                    break
            else:
                for (place, host, write), way in zip(ends, "rb", strict=True):
                    start = self.job.host_begin * host
                    bad = any(self._response(way, start + at) >= SLVERR
                              for layer, head in product(range(self.config.layers), range(self.config.kv_heads))
                              for at in self._addresses(place, layer, head, 0, slots))
                    self._fails(Status.BUS_ERR * bad, 0, place, host, write)
        self.job.commands.append((words, []))

    def check(self, clear=True):
        """Everything is done."""
        self.job.commands.append(Check(len(self.job.beats), len(self.job.retired), self._image(), self.store.nans,
                                       _word(fault(), **self.fault or {}), clear))
        if clear:
            self.fault = None

    def _range(self, block, first, slots, sid, layer, head=0, write=0, opens=0, closes=0, end=0):
        return "ranges", _word(range_(self.config), block=block, first=first, slots=slots, sid=sid, layer=layer,
                               head=head, write=write, opens=opens, closes=closes, end=end)

    def _addresses(self, block, layer, head, first, slots, rows_only=False):
        """Of the beats of some slots in the image."""
        config, segment = self.config, self.store.address(block, layer, head)
        scales = range(config.scale_beats)
        if rows_only:       # of scales, too, those beats alone that are written
            scales = sorted({4 * slot // config.beat for slot in range(first, first + slots)}) if scales else ()
        for n in scales:
            yield segment + n * config.beat
        for part, slot, n in product(range(2), range(first, first + slots), range(config.row_beats)):
            row = part * config.block_tokens + slot
            yield segment + (config.scale_beats + row * config.row_beats + n) * config.beat

    def _response(self, way, at):
        return next((code for (each, where), code in self.job.errors.items() if each == way and at in where), 0)

    def _fails(self, status, sid, place, host=0, write=0):
        if status and not self.fault:
            self.fault = {"status": status, "sid": sid, "place": place, "host": host, "write": write}


def _word(layout, **values):
    return pack({name: field.width for name, field in layout}, values)


def run(folder, progress, label=""):
    """Judge all mutants of the blocks whose label begins so; return a list of `campaign.Verdict`."""
    verdicts, first = [], 1
    for format in "fp8", "bf16":
        top, targets = inside(format)
        if any(target.label.startswith(label) for target in targets):
            pool = Pool(top, targets, folder / f"kvstore_{format}", first)
            first += len(pool.mutants)
            verdicts += judged(pool, progress, label, jobs(format), BENCH)
    return verdicts


def inside(format="fp8"):
    """A store, and what of it is mutated; with BF16, what differs then."""
    config = CONFIG.model_copy(update={"format": format})
    bits, entry = address(config), (config.transfers - 1).bit_length()
    targets = [
        Target("dispatcher", Task(Dispatcher(config), DispatcherRules, depth=10)),
        Target("reader", Task(Reader(config), Unwatched)),
        Target("writer", Task(Writer(config), Unwatched)),
        Target("copier", Task(Copier(config), Unwatched)),
        Target("runs", Task(Runs(config), RunsRules, depth=10)),
        Target("tags", Task(Tags(config, entry), TagsRules, depth=10)),
        Target("bursts", Task(Bursts(bits, most(config), BURST, entry), BurstsRules, depth=8)),
        Target("reads", Task(Reads(bits, config.beat, most(config), config.burst, config.buffer), ReadsRules, depth=10)),
        Target("writes", Task(Writes(bits, config.beat, most(config), BURST, entry), WritesRules, depth=10)),
        Target("port", Task(Port(config.address_bits, config.beat, max(config.buffer, AHEAD), config.patience),
                            PortRules, depth=8)),
        Target("store", Task(Store(config), Unwatched), compared=False),
    ]
    return Store(config), targets


@cache
def jobs(format="fp8"):
    """Everything at once, without stalls and with many; what fails; a memory that dies; resets in the midst."""
    config = CONFIG.model_copy(update={"format": format})
    found = []
    for seed, (count, latency, stall) in enumerate([(40, 1, 0), (40, 20, 0), (40, 1, 0.4), (40, 3, 0.8)]):
        script = Transfers(config, seed=seed, latency=latency, stall=stall)
        mixed(script, count)
        script.check()
        found.append(script.job)
    return found


def mixed(script, count):
    """Random transfers of few blocks, so that many wait for each other."""
    config, rng = script.config, script.rng

    def slots(block):
        whole = rng.random() < 0.3
        first = 0 if whole else int(rng.integers(config.block_tokens))
        return int(block), first, config.block_tokens if whole else int(rng.integers(config.block_tokens - first)) + 1

    def ranges():
        return [slots(block) for block in rng.permutation(config.blocks)[:rng.integers(3) + 1]]

    for _ in range(count):
        sid, layer = int(rng.integers(config.sequences)), int(rng.integers(config.layers))
        kind = rng.random()
        if kind < 0.5:
            script.stream(sid, layer, int(rng.integers(1, 1 << config.kv_heads)), *ranges())
        elif kind < 0.8:
            script.write(sid, layer, *ranges())
        else:
            source, target = (int(each) for each in rng.permutation(config.blocks)[:2])
            which = Move(int(rng.integers(3)))
            if which == Move.OUT:
                target = int(rng.integers(config.host_blocks))
            if which == Move.IN:
                source = int(rng.integers(config.host_blocks))
            script.moves((which, source, target, int(rng.integers(config.block_tokens)) + 1))
