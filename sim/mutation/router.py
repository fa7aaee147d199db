# SPDX-License-Identifier: Apache-2.0
"""The router's mutants, and what they are put to."""

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cache

from amaranth.lib import data

from golden.config import Noc, NocClass
from golden.noc import Message, Packet, flits, outputs, packets, step
from golden.packet import HEADER, LENGTH, ORDER, Port, bucket, flit
from golden.paging import pack, unpack
from hw.noc import link
from hw.noc.arbiter import Arbiter
from hw.noc.lane import Lane, Slots
from hw.noc.link import Traffic
from hw.noc.mesh import router
from hw.noc.multicast import Fork
from hw.noc.output import Credits, Output
from hw.noc.router import Router
from sim.formal.noc import ArbiterRules, CreditsRules, ForkRules, RouterRules, SlotsRules
from sim.formal.prove import Task
from sim.mutation.campaign import Unwatched, judged
from sim.mutation.mutants import Target
from sim.reduce import allowed, order, reductions, some_join

__all__ = ["BENCH", "BENCHES", "CONFIG", "CORNER", "TOP", "Job", "inside", "jobs", "run"]

BENCH = "sim.benches.router_mutants"
CONFIG = Noc(width=16, height=16, depth=3, groups=2, patience=5000, classes=(
    NocClass(name="data", vcs=2), NocClass(name="cast", order="yx", multicast=True),
    NocClass(name="sums", reduce=True)))
"""A choice of virtual channels, both orders, multicasts and reductions."""
SMALL = Noc(width=4, height=4, depth=3, classes=CONFIG.classes[:2])
TOP = router(CONFIG)
BENCHES = [(router(SMALL), "sim.benches.router", {"CONFIG": SMALL.model_dump_json(), "SIDES": "NESW"}),
           (TOP, "sim.benches.router_jobs", {})]
"""Block, bench and its environment, for bugs by hand."""
CORNER = Target("router_corner", Task(Router("ES", 64, 2, (Traffic(2),)), RouterRules, depth=6))
"""A whole router that a solver can look at, for bugs by hand."""
SUMS = CONFIG.channels("sums")[0]


@dataclass(frozen=True)
class Job:
    """Some cycles of traffic from a reset on.

    Attributes
    ----------
    here : (int, int)
        Where the router is.
    writes : tuple of int
        To its groups, one a cycle, before anything comes.
    sent : dict of Port to list
        What comes in, packet by packet, as `sim.link.Sender.send` takes it.
    leaves : dict of Port to dict of list, or None
        What must leave, if golden says: the flits of each packet by virtual channel, by flow in their order.
    idle, stall : float
        Of the inputs and of the outputs.
    depth : int
        Slots that the senders count on.
    clear : float
        In what share of the cycles errors are cleared.
    cycles : int
        At most; it ends when everything is quiet.
    seed : int
    """

    here: tuple
    writes: tuple = ()
    sent: dict = field(default_factory=dict)
    leaves: dict | None = None
    idle: float = 0.0
    stall: float = 0.0
    depth: int = CONFIG.depth
    clear: float = 0.0
    cycles: int = 5000
    seed: int = 0


def inside():
    """A router with all neighbours, and what of it is mutated."""
    cast = CONFIG.classes[1]
    kept = data.StructLayout({**link.flit(CONFIG.data).members, "route": 4})
    sizes = CONFIG.data, CONFIG.depth
    return TOP, [
        Target("router_arbiter", Task(Arbiter(5), ArbiterRules, depth=8)),
        Target("router_slots", Task(Slots(kept, CONFIG.depth), SlotsRules, depth=8)),
        Target("router_credits", Task(Credits(CONFIG.depth, ordered=True), CreditsRules, depth=10)),
        Target("router_fork", Task(Fork(cast.order), ForkRules, depth=8)),
        Target("router_lane", Task(Lane(*sizes, "xy", "NESL"), Unwatched)),
        Target("router_cast_lane", Task(Lane(*sizes, "yx", "NEWL", multicast=True), Unwatched)),
        Target("router_sums_lane", Task(Lane(*sizes, "xy", ""), Unwatched)),
        Target("router_output", Task(Output(
            TOP.traffic, CONFIG.depth, ((0, 1), (0, 1, 2), (0, 1), (0, 1, 2), (SUMS,)), True), Unwatched), 150),
        Target("router", Task(TOP, Unwatched), 220, compared=False),
    ]


def run(folder, progress, label=""):
    """Judge the mutants of the blocks whose label begins so; return a list of `campaign.Verdict`."""
    return judged("router", inside(), jobs(), BENCH, folder, progress, label)


@cache
def jobs():
    """Traffic of all classes from everywhere to everywhere, or through one output; damaged flits, or too many."""
    found = []
    for seed in range(16):
        idle, stall = [(0, 0), (0, 0.6), (0.6, 0), (0.5, 0.5)][seed % 4]
        found.append(mixed(seed, 40 if seed % 4 else 80, idle=idle, stall=stall))
    for seed in range(20, 30):
        found.append(mixed(seed, 100, Port(seed % 5), stall=0 if seed % 2 else 0.7))
    for seed in range(30, 48):
        through, stall = Port(seed // 2 % 4) if seed % 2 else Port.N, (0, 0.2, 0.4, 0.6, 0.8)[seed % 5]
        found.append(mixed(seed, 150, through, ("data",), (0, 0, 0, 0, 0, 1, 3), stall=stall))
    for seed in range(50, 60):
        found.append(mixed(seed, 60, Port(seed % 5), ("cast",), (0, 1, 2), stall=0.7 if seed % 2 else 0.3))
    found.append(mixed(60, 8, kinds=("data",), sizes=(100, 150)))
    for seed in range(70, 100):
        found.append(harmed(seed, random.Random(seed)))
    for seed in range(100, 106):        # nothing but too many
        found.append(replace(mixed(seed, 80), leaves=None, stall=0.8, clear=0.5, depth=CONFIG.depth + 1, cycles=200))
    for seed in range(110, 118):
        found.append(mixed(seed, 200, Port.N, ("data",), (0, 0, 0, 1), idle=0.2, stall=(0.1, 0.3, 0.5, 0.7)[seed % 4]))
    found += map(stray, range(120, 124))
    found += map(odd, range(130, 132))
    for seed in range(8):       # three rows, which are three buckets
        rows, stall = [6 + (seed + n) % 8 for n in (0, 1, 4)], 0.2 + 0.1 * (seed % 4)
        found.append(mixed(140 + seed, 150, Port.N, ("data",), (0, 0, 0, 1), (7, 14), rows, stall=stall))
    found += [stray(seed, ("cast",)) for seed in range(150, 154)]
    return found


def mixed(seed, count, through=None, kinds=("data", "data", "cast"), sizes=(0, 0, 0, 1, 2, 6), here=None, rows=None,
          **options):
    """Packets of some classes from all sides, most of them through one output, and reductions in two groups."""
    rng = random.Random(seed)
    here = here or (rng.randint(1, 14), rng.randint(1, 14))
    sent, leaves = defaultdict(list), defaultdict(lambda: defaultdict(list))
    for number in range(count):
        kind = rng.choice(kinds)
        entry, packet, dst, ext, outs = passing(
            rng, here, number, kind, rng.choice(sizes), through if rows or rng.random() < 0.9 else None, rows)
        order_, vcs = CONFIG.order(kind), list(CONFIG.channels(kind))
        sent[entry].append(({vc: list(flits(packet, vc, outs)) for vc in vcs}, vcs, bucket(*dst)))
        for out in outs:
            way = () if out == Port.L else outputs(order_, out.opposite, step(here, out), dst, ext)
            leaves[out][entry, kind, dst, ext].append({vc: list(flits(packet, vc, way)) for vc in vcs})
    joins = {}
    while not joins or not allowed(joins):
        joins = {number: some_join(rng) for number in range(CONFIG.groups)}
    operands, results = reductions(rng, joins, count // 8, CONFIG.data)
    for port in ORDER:
        sent[port] = spread(rng, sent[port], [({SUMS: each}, [SUMS], 0) for each in cut(operands[port], OPERAND)])
    for each in cut(results, RESULT):
        out = Port(each[0].pop("outputs").bit_length() - 1)
        leaves[out]["sums"].append({SUMS: [{name: flit[name] for name in flit if name != "outputs"} for flit in each]})
    writes = tuple(order(number, join, CONFIG.groups) for number, join in joins.items())
    return Job(here, writes, dict(sent), {out: dict(flows) for out, flows in leaves.items()}, **options, seed=seed)


def passing(rng, here, number, kind, size, through=None, rows=None):
    """A packet that comes by: input, packet, dst, ext, outputs."""
    outs = ()
    while not outs or through not in (None, *outs):
        entry, far = rng.choice(list(Port)), rng.choice((1, 1, 4, 15))
        dst = (here[0], rng.choice(rows)) if rows else tuple(
            min(max(each + rng.randint(-far, far), 0), 15) for each in here)
        ext = tuple(rng.randrange(16 - each) if kind == "cast" and rng.random() < 0.5 else 0 for each in dst)
        outs = outputs(CONFIG.order(kind), entry, here, dst, ext)
    longest = CONFIG.depth - 1 if kind == "cast" else 255
    words = tuple(rng.getrandbits(CONFIG.data) for _ in range(min(size, longest)))
    [packet] = packets(CONFIG, Message(
        tuple(rng.randrange(16) for _ in range(2)), kind, dst, ext, (), rng.getrandbits(4), number & 255, number >> 8,
        rng.getrandbits(4), rng.getrandbits(8)))
    packet = Packet(packet.header | {"length": len(words)}, payload=words)
    return entry, packet, dst, ext, outs


def harmed(seed, rng):
    """Traffic with damaged flits; in some, senders count on more slots than there are."""
    job = mixed(seed, 60, kinds=("data", "cast") if seed % 3 else ("cast",))
    share = rng.choice((0.2, 0.6, 0.9))
    return replace(
        job, leaves=None, idle=rng.choice((0, 0.4)), stall=rng.choice((0, 0.4)), clear=rng.choice((0.05, 0.3, 0.8)),
        depth=CONFIG.depth + (seed % 4 == 0), cycles=250,
        sent={port: [damaged(rng, *each) if rng.random() < share else each for each in mine]
              for port, mine in job.sent.items()})


def stray(seed, kinds=("data", "data", "cast")):
    """Heads with a bit of their route turned over, half of them of even parity."""
    return turned(mixed(seed, 100, kinds=kinds), lambda n: {"route": 1 << n % 5, "parity": n // 5 % 2}, idle=0.5)


def odd(seed):
    """Heads with some bit turned over, one after the other."""
    return turned(mixed(seed, 900, sizes=(0,)), lambda n: {"data": 1 << n % CONFIG.data})


def turned(job, bits, **options):
    """The job with some bits of the heads turned over, by the number of their packet at its input."""
    return replace(job, leaves=None, clear=0.5, cycles=600, **options, sent={
        port: [(turn(by_vc, 0, bits(n)), vcs, number) for n, (by_vc, vcs, number) in enumerate(mine)]
        for port, mine in job.sent.items()})


OPERAND = {"data": CONFIG.data, "head": 1, "tail": 1, "odd": 1}
RESULT = {"data": CONFIG.data, "head": 1, "tail": 1, "parity": 1, "outputs": len(Port)}


def cut(words, layout):
    """Flits of reductions as they are on links, packet by packet."""
    found = []
    for word in words:
        fields = unpack(layout, word)
        if "odd" in fields:
            fields["parity"] = (sum(value.bit_count() for value in fields.values()) + SUMS.bit_count()) % 2
            del fields["odd"]
        else:
            fields["parity"] ^= SUMS.bit_count() % 2
        if fields["head"]:
            found.append([])
        found[-1].append(fields | {"route": 0})
    return found


def spread(rng, *lists):
    """All of some lists, each in its order, evenly mixed."""
    turns, items = [n for n, each in enumerate(lists) for _ in each], [iter(each) for each in lists]
    rng.shuffle(turns)
    return [next(items[n]) for n in turns]


def damaged(rng, by_vc, vcs, number):
    """A packet with some bit of some flit turned over; and its parity, at times."""
    name, index = rng.choice([*flit(CONFIG.data), "route", "route"]), rng.randrange(len(by_vc[vcs[0]]))
    index = rng.choice((0, 0, index))
    bits = {name: 1 << rng.randrange(flit(CONFIG.data)[name])}
    if rng.random() < 0.2:
        bits = {"data": pack(HEADER, {"length": 1 << rng.randrange(LENGTH)})}
    if rng.random() < 0.5:
        bits.setdefault("parity", 1)
    return turn(by_vc, index, bits), vcs, number


def turn(by_vc, index, bits):
    """The flits of a packet, by virtual channel, with some bits of one turned over."""
    return {vc: [each | {name: each[name] ^ bit for name, bit in bits.items()} if n == index else each
                 for n, each in enumerate(list_)] for vc, list_ in by_vc.items()}
