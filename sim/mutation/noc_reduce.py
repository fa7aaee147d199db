# SPDX-License-Identifier: Apache-2.0
"""The mutants of reductions, and what they are put to."""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache

from golden.noc import Join
from golden.packet import GROUP, ORDER, Port, Reduction
from hw.noc.reduce import Reduce
from sim.formal.prove import Task
from sim.formal.reduce import CUT, ReduceRules
from sim.mutation.campaign import judged
from sim.mutation.mutants import Target
from sim.reduce import SHAPES, allowed, order, packet, reductions, some_join

__all__ = ["BENCHES", "Job", "inside", "jobs", "run"]

BENCH = "sim.benches.reduce_mutants"
GROUPS, PATIENCE, BITS = 3, 120, 64
MUTANTS = 250
BENCHES = [(Reduce("NESW", BITS, GROUPS, 400), "sim.benches.reduce",
            {"SIDES": "NESW", "GROUPS": GROUPS, "PATIENCE": 400})]
"""Block, bench and its environment, for bugs by hand."""


@dataclass(frozen=True)
class Job:
    """Some cycles of traffic from a reset on.

    Attributes
    ----------
    writes : tuple of int
        To the registers, one a cycle, before anything comes.
    later : dict of int to int
        Further ones, by cycle.
    sent : dict of Port to list of int
        Flits of each input.
    leaves : list of int or None
        What must come out, if golden says.
    idle, stall : float
        Of the inputs and of the output.
    cycles : int
    seed : int
    """

    writes: tuple
    sent: dict
    leaves: list | None
    idle: float = 0.0
    stall: float = 0.0
    cycles: int = 250
    seed: int = 0
    later: dict = field(default_factory=dict)


def run(folder, progress, label=""):
    """Judge the mutants, if their label begins so; return a list of `campaign.Verdict`."""
    return judged("reduce", inside(), jobs(), BENCH, folder, progress, label)


def inside():
    """Reductions in a router with all neighbours."""
    reduce = Reduce("NESW", BITS, GROUPS, PATIENCE)
    return reduce, [Target("reduce", Task(reduce, ReduceRules, depth=10, cut=CUT), MUTANTS, compared=False)]


@cache
def jobs():
    """Reductions in groups of all kinds, with stalls and without; broken ones of every kind."""
    found = []
    for seed in range(30):
        rng, idle, stall = random.Random(seed), (0, 0.4)[seed % 2], (0, 0, 0.5)[seed % 3]
        joins = {}
        while not joins or not allowed(joins):
            joins = {number: some_join(rng) for number in range(GROUPS)}
        sent, leaves = reductions(rng, joins, 12, BITS)
        writes = [order(n, join, GROUPS) for n, join in joins.items()]
        if seed >= 20:          # a packet too many, too few, of another group or of another length
            leaves = None
            ports = [port for port in ORDER if sent[port]]
            for _ in range(2):
                sent[rng.choice(ports)] += packet(rng, rng.choice([0, 1, 2, 3, 130]), rng.choice([0, 2, 5]), BITS)
                del sent[rng.choice(ports)][-rng.randint(1, 3):]
        found.append(Job(tuple(writes), sent, leaves, idle, stall, 600 if seed < 20 else 500, seed))
    # Those that wait for each other, and for what never comes; an output that stands for long.
    rng = random.Random(100)
    for inputs in (Port.L, Port.W), (Port.E, Port.N, Port.S), ORDER:
        join = Join(inputs, Port.N, Reduction.SUM_FP32)
        for absent in inputs:
            sent = {port: [flit for n in range(2) for flit in packet(rng, 1, 2, BITS)] for port in inputs}
            unlike = sent | {absent: packet(rng, 1, rng.choice([0, 3, 6]), BITS) + sent[absent]}
            sent[absent] = sent[absent][:rng.choice([0, 2, 4])]
            found += [Job((order(1, join, GROUPS),), sent, None, cycles=400),
                      Job((order(1, join, GROUPS),), unlike, None, cycles=60)]
    for port in ORDER:
        alone = Join((port,), Port.S, Reduction.SUM_FP32)
        sent, leaves = reductions(rng, {2: alone}, 3, BITS)
        found.append(Job((order(2, alone, GROUPS),), sent, leaves, stall=0.3, cycles=100))
    own, pair = Join((Port.L,), Port.E, Reduction.MAX_INT32), Join((Port.L, Port.W), Port.E, Reduction.MAX_INT32)
    first, rest = (reductions(rng, {n: each}, 2, BITS)[0] for n, each in enumerate((own, pair)))
    sent = {Port.L: first[Port.L] + rest[Port.L], Port.W: rest[Port.W]}
    writes = (order(0, own, GROUPS), order(1, pair, GROUPS))
    found.append(Job(writes, sent, None, stall=1.0, cycles=3 * PATIENCE))

    sent, leaves = reductions(rng, {1: join}, 3, BITS)
    return [*found, Job((order(1, join, GROUPS),), sent, leaves, stall=0.98, cycles=900), *map(disorder, range(60))]


def disorder(seed):
    """Packets of all groups, known or not, and registers that are written at any time; or never, since the reset."""
    rng, width = random.Random(seed), sum(GROUP.values())
    joins = {number: some_join(rng, shape=rng.choice(SHAPES[5:])) for number in range(GROUPS)}
    writes = tuple(order(n, join, GROUPS) for n, join in joins.items()) if seed % 10 else ()
    sent = defaultdict(list)
    for _ in range(10):
        number = rng.randrange(GROUPS)
        length = rng.choice([0, 1, 2, 3])
        for port in joins[number].inputs:
            sent[port] += packet(rng, number, length if rng.random() < 0.97 else length + 4, BITS)
            if rng.random() < 0.2:      # of a group that there is not, or not here
                sent[port] += packet(rng, rng.choice([rng.randrange(4), rng.randrange(256)]), rng.choice([0, 2]), BITS)
    later = {rng.randrange(30, 300): 1 | rng.randrange(4) << 1 | rng.choice([0, rng.getrandbits(width)]) << 3
             for _ in range(rng.choice([0, 2, 4]))}
    return Job(writes, sent, None, rng.choice([0, 0.4]), rng.choice([0, 0.4]), 500, seed, later)
