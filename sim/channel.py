# SPDX-License-Identifier: Apache-2.0
"""A tile's masters on the simulated channel: bursts of each, all of them checked as they are answered.

`run` is the door for tests; the masters live in `sim.benches.channel`.
"""

import random
from dataclasses import dataclass, field

from hw.memory.channel import READS, WRITES, Channel
from sim.job import submit

__all__ = ["Burst", "Job", "Run", "mix", "run"]

SPACE = 1 << 16         # bytes that are read; what is written lies behind them


@dataclass
class Burst:
    """A burst of a master.

    Attributes
    ----------
    address, beats : int
    id : int
        0 or 1, of the KV cache.
    words : list of (int, int)
        Data and strobes, of a write.
    wait : int
        Cycles before it is asked for, once the one before it has gone.
    """

    address: int
    beats: int
    id: int = 0
    words: list = None
    wait: int = 0


@dataclass
class Job:
    """What to simulate.

    Attributes
    ----------
    channel : Channel
    reads, writes : dict of str to list of Burst
        By master.
    data : bytes
        Of memory.
    depth : int
        Beats that a master may ask for before they come.
    stall, latency, dram, errors, deaf, hesitant
        Of the memory, see `sim.axi.Memory`.
    idle : float or None
        Probability with which masters idle in a cycle; by default as `stall`.
    flushes : tuple of int
        Cycles in which the channel is flushed.
    cycles : int
        After which no more is asked for; 0: all of it.
    """

    channel: Channel
    data: bytes
    reads: dict = field(default_factory=lambda: {name: [] for name in READS})
    writes: dict = field(default_factory=lambda: {name: [] for name in WRITES})
    depth: int = 256
    stall: float = 0.0
    idle: float = None
    latency: int = 1
    dram: object = None
    errors: dict = field(default_factory=dict)
    deaf: dict = field(default_factory=dict)
    hesitant: bool = False
    flushes: tuple = ()
    cycles: int = 0


@dataclass
class Run:
    """What came of it.

    Attributes
    ----------
    asked, gone : dict of str to list of int
        By master and way, such as "kv.ar": cycles in which its bursts were asked for first, and taken.
    answers : dict of str to list of (int, bool)
        By "kv.r" and so on: cycle and error of each answer.
    channels : dict of str to list of int
        When the channels of the memory moved.
    beats : dict of str to int
        What the channel counted, by "kv.read" and so on.
    drained : list of int
        Cycles that each flush took.
    died : int or None
        Cycle.
    """

    asked: dict
    gone: dict
    answers: dict
    channels: dict
    beats: dict
    drained: list
    died: int


def mix(channel, seed, bursts, *, most=None, wait=0, **options):
    """A job of random bursts of all masters; no byte is written twice."""
    rng, beat = random.Random(seed), channel.beat
    most = min(most or channel.longest, 4096 // beat)
    job = Job(channel, b"", **options)
    for name in READS:
        for _ in range(bursts):
            beats = rng.randint(1, rng.choice([1, 4, most]))
            page, first = rng.randrange(SPACE // 4096), rng.randrange(4096 // beat - beats + 1)
            job.reads[name].append(Burst(4096 * page + first * beat, beats, rng.randrange(2) * (name == "kv"),
                                         wait=rng.randint(0, wait)))
    at = SPACE
    for name in WRITES:
        for _ in range(bursts):
            beats = rng.randint(1, rng.choice([1, 4, most]))
            at += beat * rng.randrange(3)
            if at % 4096 + beats * beat > 4096:
                at = (at | 4095) + 1
            words = [(rng.getrandbits(8 * beat), rng.getrandbits(beat)) for _ in range(beats)]
            job.writes[name].append(Burst(at, beats, rng.randrange(2) * (name == "kv"), words, rng.randint(0, wait)))
            at += beats * beat
    job.data = rng.randbytes((at | 4095) + 1)
    return job


def run(job, **options):
    """Play a job."""
    block, job.channel = job.channel, None
    try:
        return submit(block, "sim.benches.channel", job, **options)
    finally:
        job.channel = block
