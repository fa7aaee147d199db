# SPDX-License-Identifier: Apache-2.0
"""The prefetch of weights behind a channel, simulated: instructions and requests in, beats out."""

from dataclasses import dataclass, field

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.transfer import Error
from hw.emit import Block
from hw.memory.channel import Channel
from hw.memory.weights import Weights
from sim.job import submit

__all__ = ["Fed", "Job", "Run", "expected", "run"]

PATIENCE = 200


class Fed(Block):
    """`Weights` alone on a `Channel`, and reset when that is flushed.

    Parameters
    ----------
    channel, port, prefetch, burst, beats : int
        As of `Weights`.

    Members
    -------
    axi : Out(Axi4)
    flush : In(1)
    idle, dead : Out(1)
        And those of `Weights`, without `memory`.
    """

    def __init__(self, channel, port, prefetch, burst, beats):
        self.weights = Weights(channel, port, prefetch, burst, beats)
        self.channel = Channel(32, channel, burst, PATIENCE)
        members = {**self.weights.signature.members, "axi": self.channel.signature.members["axi"],
                   "flush": In(1), "idle": Out(1), "dead": Out(1)}
        del members["memory"]
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        weights, channel = self.weights, self.channel
        m.domains.masters = ClockDomain()
        m.d.comb += [
            ClockSignal("masters").eq(ClockSignal()), ResetSignal("masters").eq(ResetSignal() | self.flush),
            channel.flush.eq(self.flush), self.idle.eq(channel.idle),
        ]
        m.submodules.weights, m.submodules.channel = DomainRenamer("masters")(weights), channel
        connect(m, weights.memory, channel.weights)
        connect(m, channel.axi, flipped(self.axi))
        for own, part in (self.i, weights.i), (self.request, weights.request):
            connect(m, flipped(own), part)
        for part, own in (weights.done, self.done), (weights.o, self.o):
            connect(m, part, flipped(own))
        m.d.comb += [weights.clear.eq(self.clear), self.full.eq(weights.full), self.empty.eq(weights.empty),
                     self.dead.eq(channel.dead)]
        return m


@dataclass
class Job:
    """What to simulate.

    Attributes
    ----------
    sizes : tuple of int
        Parameters of `Fed`.
    data : bytes
        Of memory.
    instructions : list of (int, int)
        Source and bytes.
    requests : list of (int, int)
        Address and beats.
    stall : float
    patient : int
        Cycles before the first request.
    latency : int
    dram : golden.config.Dram or None
        In place of the latency.
    errors : dict of (str, range) to int
    deaf : dict of str to int
        As of `sim.axi.Memory`.
    cleared, flushed : int
        Cycles after which all is dropped, or reset, to begin again.
    """

    sizes: tuple
    data: bytes
    instructions: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    stall: float = 0.0
    patient: int = 0
    latency: int = 1
    dram: object = None
    errors: dict = field(default_factory=dict)
    deaf: dict = field(default_factory=dict)
    cleared: int = 0
    flushed: int = 0


@dataclass
class Run:
    """What came of it.

    Attributes
    ----------
    done : list of Error
    beats : list of (int, bool)
        Data and `last`.
    asked, read, served : list of int
        Cycles in which a burst was asked for, a beat came from memory, and one left.
    reads : list of (id, beats)
        Bursts.
    full, empty : int
        Cycles.
    dead : bool
    """

    done: list
    beats: list
    asked: list
    read: list
    served: list
    reads: list
    full: int
    empty: int
    dead: bool


def run(job, **options):
    """Play a job."""
    return submit(Fed(*job.sizes), "sim.benches.weights", job, **options)


def expected(job):
    """Completions and beats, if the memory makes no errors."""
    channel, port, *_ = job.sizes
    done, places = [], []
    for source, size in job.instructions:
        aligned = (source | size) % max(channel, port) == 0
        done.append(Error.ALIGNMENT if not aligned else Error.DIMENSION if not size else Error.NONE)
        if done[-1] == Error.NONE:
            places += range(source, source + size, port)
    beats, places = [], iter(places)
    for address, count in job.requests:
        right = True
        for n in range(count):
            right &= next(places) == address + n * port
            at = address + n * port
            word = int.from_bytes(job.data[at:at + port], "little") if right else 0
            beats.append((word, right and n == count - 1))
        if not right:
            beats.append((0, True))
    return done, beats
