# SPDX-License-Identifier: Apache-2.0
"""Mutants of the KV cache's data side, and what they are put to: transfers, and the memory they leave behind."""

from dataclasses import dataclass, field
from functools import cache
from itertools import product

import numpy as np

from golden.config import KvCache
from golden.paging import Move, Status, pack
from hw.axi import Bursts, Port, Reads, Writes
from hw.kvcache.copier import AHEAD, BURST, Copier
from hw.kvcache.dispatcher import Dispatcher
from hw.kvcache.ports import fault, move, range_
from hw.kvcache.reader import Reader, tag
from hw.kvcache.runs import Runs, Tags, address, most
from hw.kvcache.store import Store
from hw.kvcache.writer import Writer
from sim.axi import DECERR, PAGE, SLVERR
from sim.formal.axi import BurstsRules, PortRules, ReadsRules, WritesRules
from sim.formal.prove import Task
from sim.formal.store import DispatcherRules, RunsRules, TagsRules
from sim.kvstore import Script
from sim.mutation.campaign import Unwatched, verdict
from sim.mutation.judge import breaches, same
from sim.mutation.mutants import Pool, Target
from sim.mutation.simulation import failures

__all__ = ["BENCH", "CONFIG", "Check", "Job", "Transfers", "inside", "jobs", "mixed", "run"]

BENCH = "sim.benches.kvstore_mutants"
CONFIG = KvCache(blocks=6, sequences=5, block_tokens=8, layers=2, kv_heads=3, head_dim=24, beat=16, buffer=32,
                 transfers=5, host_blocks=5, patience=100, address_bits=32)
COMPARED = ("tags", "dispatcher", "bursts", "port")
EXOKAY = 1          # a response that is no error


@dataclass(frozen=True)
class Check:
    """Everything is done: beats and retirements have come, and memory is as it must be."""

    beats: int
    retired: int
    memory: bytes
    nans: int
    fault: int | None
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
    slow : str
        A channel of the memory, or a port, that stalls nearly always.
    deaf : dict of str to range
        Cycles in which a channel does not move.
    dies : bool
        The memory is given up; checks are of what comes out alone then.
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
    slow: str = ""
    deaf: dict = field(default_factory=dict)
    dies: bool = False
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

    def check(self, clear=True, known=True):
        """Everything is done. The fault is `known`, unless it depends on timing."""
        fails = _word(fault(), **self.fault or {}) if known else None
        self.job.commands.append(Check(
            len(self.job.beats), len(self.job.retired), self._image(), self.store.nans, fails, clear))
        if clear:
            self.fault = None

    def _values(self, shape):
        """Half of them are midway between two results, or a bit more than that; half of the rows are of any size."""
        rng, half = self.rng, 1 << (15 if self.config.format == "bf16" else 19)
        whole = rng.random((*shape[:-1], 1)) < 0.5
        exponent = np.where(whole, rng.integers(10, 250, whole.shape), 125) - rng.integers(0, 5, shape)
        above = half << rng.integers(1, 4, shape)
        below = half >> rng.integers(1, half.bit_length() + 1, shape)
        ties = exponent << 23 | above | half | below
        return np.where(whole | (rng.random(shape) < 0.5), ties, super()._values(shape)).astype(np.uint32)

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
    """Judge all mutants of the blocks whose label begins so; return a list of `campaign.Verdict`.

    They are simulated; what survives that is put to the contract, where there is one, and compared with the block.
    """
    verdicts, first = [], 1
    for format in "fp8", "bf16":
        pool = Pool(*inside(format), folder / f"kvstore_{format}", first)
        first += len(pool.mutants)
        chosen = [target for target in pool.targets if target.label.startswith(label)]
        mutants = [mutant for target in chosen for mutant in pool.of(target)]
        if mutants:
            progress(f"kvstore, {format}: {len(mutants)} mutants in one simulation")
        failed = failures(pool, jobs(format), mutants, BENCH) if mutants else {}
        for target in chosen:
            left = [mutant for mutant in pool.of(target) if mutant.number not in failed]
            progress(f"{target.label}: contract and comparison of {len(left)}")
            judged = left and target.task.contract is not Unwatched
            broken = breaches(pool, target, left) if judged else {}
            left = [mutant for mutant in left if mutant.number not in broken] if target.compared else []
            equal = same(pool, target, left)
            verdicts += [verdict(mutant, broken, failed, equal) for mutant in pool.of(target)]
    return verdicts


def inside(format="fp8"):
    """A store, and what of it is mutated; with BF16 that which is different then.

    What has memories, the quantizer or checksums inside is too large to be compared; and the contract of the runs says
    where the pool begins, so that what matters elsewhere would count as no change.
    """
    config = CONFIG.model_copy(update={"format": format})
    beats, entry = (address(config), config.beat, most(config)), (config.transfers - 1).bit_length()
    tasks = {
        "reader": Task(Reader(config), Unwatched),
        "writer": Task(Writer(config), Unwatched),
        "runs": Task(Runs(config), RunsRules, depth=10),
        "tags": Task(Tags(config, tag(config)), TagsRules, depth=10),
    }
    if format == "bf16":
        return Store(config), [Target(f"kvstore_bf16_{name}", task, 50, name in COMPARED)
                               for name, task in tasks.items()]
    tasks |= {
        "dispatcher": Task(Dispatcher(config), DispatcherRules, depth=10),
        "copier": Task(Copier(config), Unwatched),
        "bursts": Task(Bursts(address(config), most(config), BURST, entry), BurstsRules, depth=8),
        "reads": Task(Reads(*beats, config.burst, config.buffer), ReadsRules, depth=10),
        "writes": Task(Writes(*beats, BURST, entry), WritesRules, depth=10),
        "port": Task(Port(config.address_bits, config.beat, max(config.buffer, AHEAD), config.patience), PortRules,
                     depth=8),
    }
    return Store(config), [Target(f"kvstore_{name}", task, 100, name in COMPARED) for name, task in tasks.items()]


@cache
def jobs(format="fp8"):
    """Everything at once, without stalls and with many; what fails; a memory that dies; resets in the midst."""
    config = CONFIG.model_copy(update={"format": format})
    found = []

    def job(write, *arguments, special=0.02, flips=(), **options):
        script = Transfers(config, special, flips, seed=len(found), **options)
        write(script, *arguments)
        found.append(script.job)

    job(mixed, 10)
    job(ending, latency=40)
    job(mixed, 13, latency=24, special=0.5)
    job(mixed, 8, stall=0.4)
    for cut in 50, 90, 200:
        job(mixed, 5, stall=0.2, cut=cut)
        job(mixed, 3)
    flips, errors = _failures(config)
    job(failing, flips=flips, errors=errors)
    job(beyond)
    block = config.block_bytes
    job(blaming, errors={(way, range(first * block, end * block)): SLVERR
                         for way in "rb" for first, end in ((1, 3), (4, 6))})
    job(meeting)
    for slow in "r", "w", "b", "rows", "beats", "retire":
        job(mixed, 3, stall=0.1, slow=slow)
    for way in "ar", "r", "aw", "w", "b":
        job(pausing, deaf={way: range(50, 50 + config.patience - 5)})
        job(dying, "stream" if way in ("ar", "r") else "write", deaf={way: range(50, 1 << 30)}, dies=True)
        job(dying, "copy", deaf={way: range(57, 57 + 4 * config.patience)}, dies=True)
    for way, kind in [("ar", "stream"), ("aw", "write"), ("w", "write")] * 4:
        job(expiring, kind, deaf={way: range(1 << 30)}, dies=True)
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

    def move(kind):
        source, target = (int(block) for block in rng.permutation(config.blocks)[:2])
        return (kind, source % config.host_blocks if kind == Move.IN else source,
                target % config.host_blocks if kind == Move.OUT else target, int(rng.integers(config.block_tokens)) + 1)

    for n in range(count):
        sid, layer, kind = int(rng.integers(config.sequences)), int(rng.integers(config.layers)), n % 5
        if kind in (0, 3):
            script.stream(sid, layer, int(rng.integers(1, 1 << config.kv_heads)), *ranges())
        elif kind == 1:
            script.write(sid, layer, *ranges())
        else:
            script.moves(*(move(Move(int(rng.integers(3)))) for _ in range(rng.integers(2) + 1)))
        if n % 10 == 9:
            script.check()
    script.check()


def ending(script):
    """As many streams end as can while the controller has no time for them."""
    for n in range(script.config.transfers + 1):
        script.stream(n % script.config.sequences, 0, 1, (n % script.config.blocks, n, 1))
    script.stream(3, 1, 0b111, (1, 0, 8), (2, 0, 8), (3, 3, 1))
    script.check()


def beyond(script):
    """Slots that host memory does not have, each bit of them; and blocks of the same numbers, which there are."""
    end = script.config.host_blocks
    for slot in [end, end + 1, end + 2, *(1 << n for n in range(3, 32)), (1 << 32) - 1]:
        for ends in ((Move.OUT, 3, slot, 2), (Move.IN, slot, 3, 2)):
            script.moves(ends)
            script.check()
    script.moves((Move.COPY, end, 2, 1), (Move.OUT, end, 2, 1), (Move.COPY, 1, end, 3), (Move.IN, 1, end, 3))
    script.check()
    script.moves((Move.OUT, 1, end, 8), (Move.OUT, 1, end - 1, 1))     # the first one stays
    script.check(clear=False)
    script.moves((Move.IN, end + 1, 1, 8))
    script.check()
    script.stream(1, 1, 0b10, (5, 0, 8))
    script.check()


def _failures(config):
    """Bytes whose bits turn over, and addresses that fail. In block 3 nothing does."""
    place = Transfers(config).store.address
    row, beat = config.row_beats * config.beat, config.beat
    rows = config.scale_beats * beat
    flips = [place(1, 0, 0) + rows + row + 1]                           # K of slot 1
    if config.scale_beats:
        flips += [place(1, 0, 1) + 2, place(1, 0, 1) + 4 * 7 + 1]       # scale of V of slot 0, checksum of K of 7
    host = -(-config.blocks * config.block_bytes // PAGE) * PAGE

    def beats(at, count=1):
        return range(at, at + count * beat)

    return flips, {
        ("r", beats(place(1, 0, 0) + rows + 3 * row)): SLVERR,          # K of slot 3
        ("r", beats(place(1, 0, 2) + rows + row - beat)): DECERR,       # the last of slot 0
        ("r", beats(place(2, 1, 2), most(config))): DECERR,
        ("r", beats(place(4), config.segments * most(config))): EXOKAY,
        ("r", beats(host + place(1, 1, 2) + rows)): SLVERR,
        ("b", beats(place(5, 0, 0) + rows + 2 * row)): SLVERR,          # K of slot 2
        ("b", beats(place(5, 1, 2) + rows + 15 * row, config.row_beats)): DECERR,
        ("b", beats(place(4), config.segments * most(config))): EXOKAY,
        ("b", beats(host + place(4, 1, 2) + rows + 15 * row)): SLVERR,
        ("b", beats(host + place(2))): SLVERR,
    }


def failing(script):
    """What turned over, what fails on the bus, one and then the other; and what is sound before and behind."""
    sound = (3, 0, 2)
    for head, ranges in product(range(3), ([sound, (1, 0, 4), sound], [(1, 1, 1), (1, 3, 1)], [(1, 3, 2), (1, 0, 2)],
                                           [(1, 0, 1)], [(1, 7, 1)])):
        script.stream(head + 1, 0, 1 << head, *ranges)
        script.stream(4, 1, 1 << head, sound)
        script.check()
    script.stream(2, 1, 0b111, (4, 0, 8), (2, 0, 1))
    script.stream(1, 0, 0b001, (2, 2, 4), (1, 0, 8))
    script.check(clear=False)
    script.stream(1, 0, 0b001, (1, 0, 8))
    script.check()
    for layer, first, slots in [(0, 0, 2), (0, 1, 2), (0, 2, 1), (0, 3, 1), (1, 5, 3), (1, 7, 1), (1, 0, 1)]:
        script.write(3, layer, sound)
        script.write(4, layer, (5, first, slots), (4, first, slots))
        script.write(2, layer, sound)
        script.check()
    for kind, source, target, slots in [
            (Move.COPY, 2, 3, 2), (Move.COPY, 1, 4, 1), (Move.COPY, 1, 4, 4), (Move.IN, 1, 3, 1), (Move.OUT, 2, 3, 3),
            (Move.COPY, 3, 5, 2), (Move.COPY, 3, 5, 3), (Move.COPY, 3, 5, 8), (Move.OUT, 3, 4, 7), (Move.OUT, 3, 4, 8),
            (Move.OUT, 3, 2, 1), (Move.COPY, 4, 3, 8), (Move.IN, 2, 5, 8)]:
        script.moves((Move.COPY, 3, 0, 1), (kind, source, target, slots), (Move.COPY, 3, 0, 2))
        script.check()


def blaming(script):
    """Transfers that fail, of all kinds, blocks and entries: behind so many that do not. Blocks 0 and 3 are sound."""
    config = script.config
    for n, ahead, kind in product(range(2), range(config.transfers), range(4)):
        for head in range(ahead):
            script.stream(head, 0, 1, (0, head, 1))
        sid, block = (3 * ahead + 2 * n + kind) % config.sequences, (1, 2, 4, 5)[(ahead + 2 * n + kind) % 4]
        match kind:
            case 0:
                script.stream(sid, 1, 1 << n, (block, ahead, 1))
            case 1:
                script.write(sid, n, (block, ahead, 1))
            case 2:
                script.moves((Move.COPY, block, 3, 1))
            case 3:
                script.moves((Move.COPY, 3, block, 1))
        script.check()


def meeting(script):
    """Writes and streams, behind so many others, and each followed by one that meets it in one slot alone."""
    rng, tokens = script.rng, script.config.block_tokens
    for n, ahead in product(range(8), range(script.config.transfers)):
        for head in range(ahead):
            script.stream(head, 0, 1, (0, head, 1))
        block, first, slots = (int(rng.integers(1, end)) for end in (script.config.blocks, tokens - 3, 4))
        met = (first + slots - 1, 2) if n & 1 else (first - 1, 2)
        for write, each in (n & 2, (first, slots)), (~n & 2, met):
            if write:
                script.write(1, 0, (block, *each))
            else:
                script.stream(2, 0, 0b10, (block, *each))
        script.check()


def pausing(script):
    """Some of everything."""
    script.stream(1, 0, 0b111, (1, 0, 8))
    script.write(2, 1, (2, 0, 2))
    script.moves((Move.COPY, 3, 4, 2))
    script.stream(1, 0, 0b111, (1, 0, 8))
    script.write(2, 1, (5, 5, 3))
    script.check()


def dying(script, kind):
    """Some of a kind, amid which the memory dies; and of everything after that, which fails at once."""
    for n in range(4):
        match kind:
            case "stream":
                script.stream(3, 1, 0b111, (4, 0, 8))
            case "write":
                script.write(3, 1, (4, 2 * n, 2))
            case "copy":
                script.moves((Move.COPY, 4, n, 4))
    if kind != "copy":
        script.fault = {"status": Status.BUS_ERR, "sid": 3, "place": 4, "write": kind == "write"}
    script.check(known=kind != "copy")
    script.stream(1, 0, 0b101, (1, 0, 8))
    script.fault = {"status": Status.BUS_ERR, "sid": 1, "place": 1}
    script.check()
    script.write(2, 0, (2, 5, 3))
    script.fault = {"status": Status.BUS_ERR, "sid": 2, "place": 2, "write": 1}
    script.check()
    script.moves((Move.IN, 3, 5, 2), (Move.OUT, 2, 1, 1))
    script.fault = {"status": Status.BUS_ERR, "sid": 0, "place": 3, "host": 1}
    script.check()


def expiring(script, kind):
    """One transfer, of which nothing comes; what waits must not change."""
    sid, block = (int(script.rng.integers(end)) for end in (script.config.sequences, script.config.blocks))
    getattr(script, kind)(sid, 0, *([0b1] if kind == "stream" else []), (block, 0, 1))
    script.fault = {"status": Status.BUS_ERR, "sid": sid, "place": block, "write": kind == "write"}
    script.check()
