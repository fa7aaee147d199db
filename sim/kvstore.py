# SPDX-License-Identifier: Apache-2.0
"""Commands with their data on the whole KV cache, compared with golden: completions, beats, and all of memory."""

import random
from dataclasses import dataclass, field

import numpy as np

from golden.config import KvCache
from golden.kvcache import INFLIGHT, Controller
from golden.kvstore import Store
from golden.paging import Command, Opcode, State, Status
from sim.job import submit
from sim.traffic import draw

__all__ = ["Flip", "Job", "Run", "Script", "Wait", "run", "traffic"]

PAGE = 4096
QUIET = (Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT)


@dataclass(frozen=True)
class Wait:
    """The host waits until all streams have ended, or until everything is in memory."""

    quiet: bool = False


@dataclass(frozen=True)
class Flip:
    """Bits of a byte in memory turn over."""

    address: int
    mask: int


@dataclass
class Job:
    """What the RTL is to do and what must come of it.

    Attributes
    ----------
    config : golden.config.KvCache
    log : list of (Command, word of its completion, rows), Wait or Flip
        `rows`: numbers of `lanes` elements each, of a `WRITE`.
    beats : list of golden.kvstore.Beat, and sids : list of int
        All that streams read, and of which sequence.
    before, after : bytes
        Of memory: the pool, then host memory, each from a page on.
    nans : int
    latency : int
    dram : golden.config.Dram or None
        In place of the latency.
    stall : float
    errors : dict of (str, range) to int
    deaf : dict of str to int
        As of `sim.axi.Memory`.
    faulty : bool
        Commands ask for what the data side refuses.
    peer : bool
        The memory is cocotbext-axi's.
    interrupted : int
        Cycles after which a reset cuts everything short, to begin again.
    """

    config: KvCache
    log: list = field(default_factory=list)
    beats: list = field(default_factory=list)
    sids: list = field(default_factory=list)
    before: bytes = b""
    after: bytes = b""
    nans: int = 0
    latency: int = 1
    dram: object = None
    stall: float = 0.0
    errors: dict = field(default_factory=dict)
    deaf: dict = field(default_factory=dict)
    faulty: bool = False
    peer: bool = False
    interrupted: int = 0

    @property
    def host_page(self):
        return -(-self.config.blocks * self.config.block_bytes // PAGE)


@dataclass
class Run:
    """What the RTL did.

    Attributes
    ----------
    commands, completions, beats : list of int
        Cycles in which each passed.
    channels : dict of str to list of int
        Cycles in which channels of the AXI port moved.
    reads : list of (id, beats)
        Bursts read; id 1 is the copier's.
    returned : list of int
        Ids of the beats that came back.
    flagged : list of int
        Beats that came out as errors.
    fault, dead : int
    """

    commands: list
    completions: list
    beats: list
    channels: dict
    reads: list
    returned: list
    flagged: list
    fault: int
    dead: int


class Script:
    """Writes a `Job`, command by command, as the reference carries them out.

    Parameters
    ----------
    config : golden.config.KvCache
    seed : int
        Of what memory holds at first, and of the rows.
    special : float
        How many elements are not finite, or subnormal, or zero.
    """

    def __init__(self, config, seed=0, special=0.02):
        self.config, self.special = config, special
        self.rng = np.random.default_rng(seed)
        self.controller, self.store = Controller(config), Store(config)
        self.store.pool[:] = self.rng.integers(0, 256, self.store.pool.shape)
        self.host = self.rng.integers(0, 256, (config.host_blocks, *self.store.pool.shape[1:]), np.uint8)
        self.store.host = {slot: self.host[slot] for slot in range(config.host_blocks)}
        self.job = Job(config, before=self._image())

    def command(self, opcode, operands=(), **arguments):
        """Add a command; return its `Completion`."""
        return self.add(Command(opcode, arguments, tuple(operands)))

    def add(self, command):
        moves, rows = len(self.controller.moves), []
        completion = self.controller.run(command)
        if not completion.status:
            given = command.arguments
            for move in self.controller.moves[moves:]:
                self.store.move(*move)
            if command.opcode == Opcode.WRITE:
                rows = self._write(given["layer"])
            if command.opcode == Opcode.STREAM:
                beats = self.store.stream(self.controller.ranges, given["layer"], given["heads"])
                self.job.beats += beats
                self.job.sids += [given["sid"]] * len(beats)
        self.job.log.append((command, completion.word, rows))
        return completion

    def wait(self, quiet=False):
        """All streams end."""
        for sid, sequence in enumerate(self.controller.sequences):
            while sequence.inflight:
                self.controller.retire(sid)
        self.job.log.append(Wait(quiet))

    def flip(self, address, mask):
        """Bits of a byte of the pool turn over, everything being in memory."""
        self.wait(quiet=True)
        self.store.pool.reshape(-1)[address] ^= mask
        self.job.log.append(Flip(address, mask))

    def sequence(self, sid, tokens, layers=None):
        """Open a sequence and write all of its tokens."""
        self.command(Opcode.ALLOC_SEQ, sid=sid)
        assert self.command(Opcode.APPEND, sid=sid, tokens=tokens).status == Status.OK
        for layer in range(self.config.layers) if layers is None else layers:
            self.command(Opcode.WRITE, sid=sid, layer=layer, first=0, count=tokens)

    def done(self, **options):
        """The job, everything in memory at its end."""
        self.wait(quiet=True)
        self.job.after, self.job.nans = self._image(), self.store.nans
        for name, value in options.items():
            setattr(self.job, name, value)
        return self.job

    def _write(self, layer):
        config, ranges = self.config, self.controller.ranges
        shape = (2, sum(slots for *_, slots in ranges), config.kv_heads, config.head_dim)
        values = self.rng.standard_normal(shape) * np.exp2(self.rng.integers(-8, 8, (*shape[:3], 1)))
        odd = self.rng.choice(np.uint32([0x7F800000, 0xFFC00001, 0x00000001, 0x80000000, 0x7F7FFFFF]), shape)
        codes = np.where(self.rng.random(shape) < self.special, odd, values.astype(np.float32).view(np.uint32))
        k, v = codes.astype(np.uint32)
        self.store.write(ranges, layer, k, v)
        data = np.stack([k, v], axis=1).astype("<u4").tobytes()        # token, K or V, head, element
        size = 4 * config.lanes
        return [int.from_bytes(data[at:at + size], "little") for at in range(0, len(data), size)]

    def _image(self):
        pool = self.store.pool.tobytes()
        return pool + bytes(-len(pool) % PAGE) + self.host.tobytes()


def run(job, *, seed=0, waves=False):
    """Run a job on the RTL and compare; return the `Run`.

    Raises
    ------
    AssertionError
        At the first difference.
    """
    from hw.kvcache.cache import KvCache as Rtl

    return submit(Rtl(job.config), "sim.benches.kvstore", job, seed=seed, waves=waves, x_initial="unique")


def traffic(config, seed, count, *, stall=0.0, latency=1):
    """A `Job` of random commands, streams and writes among them overlapping as far as their order allows."""
    rng = random.Random(seed)
    script = Script(config, rng.getrandbits(32))
    sequences = script.controller.sequences
    while len(script.job.log) < count:
        command = draw(rng, script.controller)
        if isinstance(command, int):
            if rng.random() < 0.2:
                script.wait()
            continue
        sid = command.arguments.get("sid", command.arguments.get("index", 0))
        streams = sequences[sid].inflight if sid < config.sequences else 0
        # Whether a stream is still in flight then is not known: the answer must not depend on it.
        if streams and (command.opcode in (*QUIET, Opcode.STAT) or streams == INFLIGHT):
            script.wait()
        script.add(command)
        running = [sid for sid, each in enumerate(sequences) if each.state == State.RUNNING and each.length]
        if running and rng.random() < 0.5:
            sid = rng.choice(running)
            tenant, length = sequences[sid].tenant, sequences[sid].length
            first = rng.randrange(max(length - config.block_tokens, 0), length)
            layer = rng.randrange(config.layers)
            script.command(Opcode.WRITE, sid=sid, tenant=tenant, layer=layer, first=first,
                           count=rng.randrange(length - first) + 1)
            if sequences[sid].inflight < INFLIGHT:
                script.command(Opcode.STREAM, sid=sid, tenant=tenant, layer=layer,
                               heads=rng.randrange(1, 1 << config.kv_heads))
    return script.done(stall=stall, latency=latency)
