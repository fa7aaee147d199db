# SPDX-License-Identifier: Apache-2.0
"""Two sides of a chip link, bad lines between them, and traffic that notices whatever goes wrong.

All of it is hardware: a simulated cycle costs no Python.
"""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from amaranth.hdl import (
    Array,
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Module,
    Mux,
    ResetSignal,
    Shape,
    Signal,
    Value,
)
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect
from amaranth.utils import ceil_log2

from golden.framing import FLAG
from hw.emit import Block
from hw.flow.figures import figure
from hw.noc.chiplink import Chiplink
from hw.noc.link import Link, flit
from sim.run import simulate

__all__ = ["BITS", "SIDES", "WIDTH", "Drain", "Job", "Line", "Noise", "Pair", "Tap", "measure",
           "play"]

SIDES = ("left", "right")
BITS = 64               # data of a flit
WIDTH = Shape.cast(flit(BITS)).width
COUNT = 24              # bits of a count of flits
CHANCE = 10             # bits of a probability


class Noise(Block):
    """64 random bits a cycle, from the recurrence x^127 + x^63 + 1; a reset begins with `seed`."""

    def __init__(self):
        super().__init__({"seed": In(32), "o": Out(64)})

    def elaborate(self, platform):
        m = Module()
        state = Signal(127, reset_less=True)
        m.d.comb += self.o.eq(state[63:] ^ state[:64])
        m.d.sync += state.eq(Cat(state[64:], self.o))
        with m.If(ResetSignal()):
            m.d.sync += state.eq(Cat(self.seed, ~self.seed, self.seed * 0x9E3779B1, Const(1, 31)))
        return m


class Line(Block):
    """A line that loses frames, flips bits, lets frames overtake each other and stands still at times.

    All chances are in 1 of 1024. With `ideal` it is a wire, with `cut` nothing comes through.

    Members
    -------
    i : In(stream.Signature(8))
    o : Out(stream.Signature(8))
    loss, late : In(10)
        Of a frame: to be lost, to be held back for up to 1023 cycles.
    errors : In(10)
        Of a bit, to be flipped.
    stall : In(10)
        Of a byte, to wait for up to 1023 cycles.
    """

    BUFFERS, SIZE = 8, 256

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), "seed": In(32),
            **{name: In(CHANCE) for name in ("loss", "late", "errors", "stall")}, "ideal": In(1), "cut": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.noise = noise = Noise()
        m.submodules.flips = flips = Noise()
        m.submodules.bytes = bytes = Memory(shape=8, depth=self.BUFFERS * self.SIZE, init=[])
        m.d.comb += noise.seed.eq(self.seed), flips.seed.eq(self.seed + 1000)
        write, read = bytes.write_port(), bytes.read_port(domain="comb")
        lengths = Array(Signal(range(self.SIZE + 1), name=f"length{n}") for n in range(self.BUFFERS))   # 0 if empty
        waits = [Signal(CHANCE, name=f"wait{n}") for n in range(self.BUFFERS)]
        tail, fill = Signal(range(self.BUFFERS)), Signal(range(self.SIZE))
        chances = [noise.o[n * CHANCE:(n + 1) * CHANCE] for n in range(6)]
        ends = self.i.payload == FLAG
        takes = Signal()
        m.d.comb += [
            self.i.ready.eq(Mux(self.ideal, self.o.ready | self.cut, lengths[tail] == 0)),
            takes.eq(self.i.valid & self.i.ready & ~self.ideal),
            write.en.eq(takes), write.addr.eq(Cat(fill, tail)), write.data.eq(self.i.payload),
        ]
        for wait in waits:
            m.d.sync += wait.eq(Mux(wait == 0, 0, wait - 1))
        with m.If(takes):
            m.d.sync += fill.eq(Mux(ends, 0, fill + 1))
            with m.If(ends & ~self.cut & (chances[0] >= self.loss)):
                m.d.sync += tail.eq(tail + 1), lengths[tail].eq(fill + 1)
                m.d.sync += Array(waits)[tail].eq(Mux(chances[1] < self.late, chances[2], 0))

        # The oldest frame that is not held back
        sends, source, choice, place = Signal(), Signal.like(tail), Signal.like(tail), Signal.like(fill)
        may, flip = Signal(self.BUFFERS), Signal(8)
        m.d.comb += may.eq(Cat((lengths[n] != 0) & (waits[n] == 0) for n in range(self.BUFFERS)))
        with m.Switch(tail):
            for n in range(self.BUFFERS):
                with m.Case(n):
                    for k in reversed(range(self.BUFFERS)):
                        with m.If(may.bit_select((n + k) % self.BUFFERS, 1)):
                            m.d.comb += choice.eq((n + k) % self.BUFFERS)
        still = Signal(CHANCE)
        m.d.comb += [
            flip.eq(Cat(flips.o[7 * n:7 * n + CHANCE] < self.errors for n in range(8))),
            read.addr.eq(Cat(place, source)),
            self.o.valid.eq(Mux(self.ideal, self.i.valid & ~self.cut, sends & (still == 0))),
        ]
        mask, damaged = Signal(8), Signal(8)       # of the byte on offer, which may wait
        m.d.comb += damaged.eq(read.data ^ mask), self.o.payload.eq(Mux(self.ideal, self.i.payload, damaged))
        moves = Signal()
        m.d.comb += moves.eq(self.o.valid & self.o.ready & ~self.ideal)
        with m.If(still != 0):
            m.d.sync += still.eq(still - 1)
        with m.If(moves):
            m.d.sync += place.eq(place + 1), mask.eq(flip)
            with m.If(chances[3] < self.stall):
                m.d.sync += still.eq(chances[4])
            with m.If(place + 1 == lengths[source]):
                m.d.sync += lengths[source].eq(0), sends.eq(0)
        with m.Elif(~sends & may.any()):
            m.d.sync += sends.eq(1), source.eq(choice), place.eq(0), mask.eq(flip)
        return m


def content(number, vc, epoch):
    """What is in a flit, all of its bits: its number, what follows from that, and whose it is."""
    return Cat(number, epoch, vc, (number * 0x9E3779B1 ^ number << 7)[:WIDTH - COUNT - 4 - len(vc)])


class Tap(Block):
    """A network that sends numbered flits on all channels, as credits allow.

    Members
    -------
    o : Out(Link(BITS, vcs))
    limit : In(24)
        Flits of each channel.
    idle : In(10)
        Chance to send nothing in a cycle, of 1024.
    epoch : In(4)
    flood : In(1)
        As if there were always credits.
    """

    def __init__(self, vcs, depth):
        self.vcs, self.depth = vcs, depth
        super().__init__({"o": Out(Link(BITS, vcs)), "limit": In(COUNT), "idle": In(CHANCE), "epoch": In(4),
                          "flood": In(1), "seed": In(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.noise = noise = Noise()
        m.d.comb += noise.seed.eq(self.seed)
        numbers = Array(Signal(COUNT, name=f"number{v}") for v in range(self.vcs))
        credits = [Signal(range(self.depth + 1), init=self.depth, name=f"credits{v}") for v in range(self.vcs)]
        may, rotated, turn = Signal(self.vcs), Signal(2 * self.vcs), Signal(2)
        m.d.comb += may.eq(Cat((numbers[v] != self.limit) & (self.flood | (credits[v] != 0)) for v in range(self.vcs)))
        choice, goes = Signal(range(max(self.vcs, 2))), Signal()
        m.d.comb += rotated.eq(Cat(may, may)), turn.eq(noise.o[32:34])
        with m.Switch(turn):
            for n in range(4):
                with m.Case(n):
                    for k in reversed(range(self.vcs)):
                        with m.If(rotated[n % self.vcs + k]):
                            m.d.comb += choice.eq((n + k) % self.vcs)
        m.d.comb += goes.eq(may.any() & (noise.o[:CHANCE] >= self.idle))
        m.d.sync += self.o.valid.eq(goes << choice)
        m.d.sync += self.o.flit.eq(content(numbers[choice], choice, self.epoch))
        for v, credit in enumerate(credits):
            goes_here = goes & (choice == v)
            m.d.sync += credit.eq(credit + self.o.credit[v] - goes_here), numbers[v].eq(numbers[v] + goes_here)
        return m


class Drain(Block):
    """A network that takes flits, each channel's in order, and gives their slots free after a while.

    Members
    -------
    i : In(Link(BITS, vcs))
    hold : In(10)
        Chance that a slot is not given free in a cycle, of 1024.
    resume : In(1)
        The first flit of a channel may have any number.
    limit : In(24)
        Flits of each channel.
    count : Out(24)
        Flits that came.
    complete : Out(1)
        All of them.
    wrong : Out(1)
        One that should not have come.
    """

    def __init__(self, vcs, depth):
        self.vcs, self.depth = vcs, depth
        super().__init__({"i": In(Link(BITS, vcs)), "hold": In(CHANCE), "resume": In(1), "seed": In(32),
                          "limit": In(COUNT), "count": Out(COUNT), "complete": Out(1), "wrong": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.noise = noise = Noise()
        m.d.comb += noise.seed.eq(self.seed)
        with m.If(self.i.valid.any()):
            m.d.sync += self.count.eq(self.count + 1)
        came = Value.cast(self.i.flit)
        dues = [Signal(COUNT, name=f"due{v}") for v in range(self.vcs)]
        m.d.comb += self.complete.eq(~Cat(due != self.limit for due in dues).any())
        for v, due in enumerate(dues):
            epoch, began = Signal(4, name=f"epoch{v}"), Signal(name=f"began{v}")
            held, number = Signal(range(self.depth + 1), name=f"held{v}"), came[:COUNT]
            tag = came[COUNT:COUNT + 4]
            bits, anew, first = ceil_log2(max(self.vcs, 2)), Signal(name=f"anew{v}"), Signal(COUNT, name=f"first{v}")
            is_due = Signal(WIDTH, name=f"is_due{v}")
            frees = Signal(name=f"frees{v}")
            m.d.comb += [
                anew.eq(~began | (tag != epoch)), first.eq(Mux(self.resume & ~began, number, 0)),
                is_due.eq(content(Mux(anew, first, due), Const(v, bits), Mux(anew, tag, epoch))),
                frees.eq((held != 0) & (noise.o[v * CHANCE:(v + 1) * CHANCE] >= self.hold)),
            ]
            m.d.sync += self.i.credit[v].eq(frees), held.eq(held + self.i.valid[v] - frees)
            with m.If(self.i.valid[v]):
                m.d.sync += due.eq(number + 1), epoch.eq(tag), began.eq(1)
                with m.If((came != is_due) | (held == self.depth)):
                    m.d.sync += self.wrong.eq(1)
        with m.If((self.i.valid & (self.i.valid - 1)).any()):       # two at once
            m.d.sync += self.wrong.eq(1)
        return m


class Pair(Block):
    """Two sides, the lines between, a network at each.

    Parameters
    ----------
    vcs, depth, slots, burst, timeout, settle, patience : int
        As of `Chiplink`, whose flits have 64 bits of data here.

    Members
    -------
    limit, idle, hold, loss, late, errors, stall, ideal, seed : In
        As of `Tap`, `Drain` and `Line`, for both directions.
    burst, timeout : In
        As of `Chiplink`.
    cut_left, cut_right : In(1)
        Nothing comes to this side.
    reset_left, reset_right : In(1)
        Reset this side and its network.
    epoch_left, epoch_right, resume_left, resume_right, flood_left, flood_right, clear_left, clear_right : In
    count_left, complete_left, wrong_left, error_left, up_left, session_left, sent_left, valid_left, and so on : Out
        As of `Drain` and `Chiplink`; bytes that were sent; whether a flit goes from the network and to it.
    """

    def __init__(self, vcs, depth, slots=16, burst=8, timeout=4000, settle=1000, patience=100_000):
        self.vcs, self.depth = vcs, depth
        self.sizes = {"slots": slots, "burst": burst, "timeout": timeout, "settle": settle, "patience": patience}
        super().__init__({
            **{name: In(CHANCE) for name in ("idle", "hold", "loss", "late", "errors", "stall")},
            "limit": In(COUNT), "ideal": In(1), "seed": In(32), "burst": In(range(burst + 1)),
            "timeout": In(range(timeout + 1)),
            **{f"{name}_{side}": In(width) for side in SIDES for name, width in (
                ("cut", 1), ("reset", 1), ("epoch", 4), ("resume", 1), ("clear", 1), ("flood", 1))},
            **{f"{name}_{side}": Out(width) for side in SIDES for name, width in (
                ("count", COUNT), ("sent", 32), ("wrong", 1), ("complete", 1), ("error", 2), ("up", 1), ("session", 8),
                ("valid", 2))},
        })

    @property
    def link(self):
        """One side."""
        return Chiplink(BITS, self.vcs, self.depth, **self.sizes)

    def elaborate(self, platform):
        m = Module()
        links = {}
        for n, side in enumerate(SIDES):
            m.domains += (domain := ClockDomain(side))
            m.d.comb += domain.clk.eq(ClockSignal()), domain.rst.eq(ResetSignal() | getattr(self, f"reset_{side}"))
            inside = DomainRenamer(side)
            blocks = one, tap, drain = self.link, Tap(self.vcs, self.depth), Drain(self.vcs, self.depth)
            for name, block in zip(("link", "tap", "drain"), blocks, strict=True):
                m.submodules[f"{name}_{side}"] = inside(block)
            connect(m, tap.o, one.i)
            connect(m, one.o, drain.i)
            links[side] = one
            m.d.comb += [
                tap.limit.eq(self.limit), tap.idle.eq(self.idle), tap.seed.eq(self.seed + n),
                drain.limit.eq(self.limit), drain.seed.eq(self.seed + 2 + n), drain.hold.eq(self.hold),
                one.burst.eq(self.burst), one.timeout.eq(self.timeout),
                tap.epoch.eq(getattr(self, f"epoch_{side}")), drain.resume.eq(getattr(self, f"resume_{side}")),
                one.clear.eq(getattr(self, f"clear_{side}")),
                getattr(self, f"count_{side}").eq(drain.count), getattr(self, f"wrong_{side}").eq(drain.wrong),
                getattr(self, f"complete_{side}").eq(drain.complete), getattr(self, f"error_{side}").eq(one.error),
                getattr(self, f"up_{side}").eq(one.up), getattr(self, f"session_{side}").eq(one.session),
                tap.flood.eq(getattr(self, f"flood_{side}")), getattr(self, f"valid_{side}").eq(Cat(
                    tap.o.valid.any(), one.o.valid.any())),
            ]
            sent = getattr(self, f"sent_{side}")
            m.d.sync += sent.eq(sent + (one.tx.valid & one.tx.ready))
        for n, (side, other) in enumerate((SIDES, SIDES[::-1])):
            m.submodules[f"line_to_{side}"] = line = Line()
            connect(m, links[other].tx, line.i)
            connect(m, line.o, links[side].rx)
            m.d.comb += [getattr(line, name).eq(getattr(self, name))
                         for name in ("loss", "late", "errors", "stall", "ideal")]
            m.d.comb += line.seed.eq(self.seed + 4 + n)
            m.d.comb += line.cut.eq(getattr(self, f"cut_{side}"))
        return m


@dataclass(frozen=True)
class Job:
    """What a `Pair` is put to.

    Attributes
    ----------
    limit : int
        Flits of each channel, in each direction.
    cycles : int
        After which it ends, complete or not.
    step : int
        Cycles from one look to the next.
    events : dict of int to dict
        Inputs that change, by cycle.
    """

    limit: int
    cycles: int = 10_000_000
    idle: int = 0
    hold: int = 0
    loss: int = 0
    late: int = 0
    errors: int = 0
    stall: int = 0
    ideal: int = 0
    seed: int = 1
    burst: int = 8
    timeout: int = 400
    step: int = 100
    events: dict = field(default_factory=dict)


def play(pair, jobs):
    """Put a pair to some jobs; return what came of each, as `sim.benches.chiplink_pair` says."""
    with TemporaryDirectory() as folder:
        given, taken = Path(folder) / "jobs", Path(folder) / "results"
        given.write_bytes(pickle.dumps(jobs))
        simulate(pair, "sim.benches.chiplink_pair", seed=1, env={"JOBS": given, "RESULTS": taken})
        return pickle.loads(taken.read_bytes())


def measure(quick=False):
    """Figures of the link: what of the line is payload, what comes through, and after how long."""
    pair, flits = Pair(2, 4), 1_000 if quick else 5_000
    lossy = {"timeout": 600, "step": 50}
    jobs = {
        "loss0": Job(flits, seed=1, **lossy),
        "loss1": Job(flits, seed=2, loss=10, **lossy),
        "loss10": Job(flits, seed=3, loss=102, **lossy),
        "worst": Job(flits // 5, seed=4, loss=102, errors=10, burst=1, timeout=160),
        "ideal": Job(flits, ideal=1),
        **{f"alone{n}": Job(0, ideal=1, step=1, events={2_000 + 33 * n: {"limit": 1}}, cycles=3_000) for n in range(6)},
    }
    found = dict(zip(jobs, play(pair, list(jobs.values())), strict=True))
    how = "RTL, 64-bit flits, 2 VCs with 16 slots, both directions full"

    def payload(name, per):
        """Bytes of data that came to the left for each byte sent by the right, or for each cycle."""
        return round(found[name]["count_left"] * BITS / 8 / found[name][per], 4)

    return [
        figure("chiplink.payload.share", payload("ideal", "sent_right"), "byte/byte", f"{how}; of the bytes sent"),
        *(figure(f"chiplink.throughput.{name}", payload(name, "cycles"), "byte/cycle", f"{how}; {line}")
          for name, line in (
              ("ideal", "the line is a wire"), ("loss0", "a line that stores frames and forwards them"),
              ("loss1", "which loses 1 % of them"), ("loss10", "which loses 10 %"),
              ("worst", "which loses 10 % and flips 1 % of all bits; one flit a frame"))),
        figure("chiplink.latency", min(found[f"alone{n}"]["latency"] for n in range(6)), "cycles",
               "RTL, a flit on an idle line, link to link"),
        figure("chiplink.latency.worst", max(found[f"alone{n}"]["latency"] for n in range(6)), "cycles",
               "the same when a status has just begun"),
    ]
