# SPDX-License-Identifier: Apache-2.0
"""What is mutated, and what mutants are put to."""

from dataclasses import dataclass

import numpy as np

from golden.config import Matmul
from golden.families import FAMILIES, FORMAT_CODES
from golden.formats import FORMATS, decode
from golden.matmul import PARAMETERS, RESULT_FORMATS, Gemm
from hw.fetch import Fetch
from hw.matmul.accumulator import Accumulator
from hw.matmul.drain import Drain
from hw.matmul.engine import Engine, reads
from hw.matmul.parameters import Parameters
from hw.matmul.sequencer import Loader, Sequencer
from hw.matmul.walker import Walker, load
from hw.stream import Buffer, DeepQueue, Queue
from sim.formal.contract import Contract
from sim.formal.drain import DrainRules
from sim.formal.fetch import FetchRules
from sim.formal.parameters import ParametersRules
from sim.formal.prove import Task
from sim.formal.sequencer import LoaderRules, SequencerRules
from sim.formal.stream import DeepFifo, Fifo
from sim.formal.walker import WalkerRules
from sim.matmul import Job
from sim.mutation.judge import breaches, matching, same
from sim.mutation.mutants import Pool, Target
from sim.mutation.simulation import failures

__all__ = ["CONFIG", "Unwatched", "Verdict", "inside", "jobs", "judged", "queues", "run", "verdict"]

CONFIG = Matmul(family="fp8", lanes=1, rows=2, cols=4, acc_rows=8, drain=2, m_max=24, n_max=12, k_max=8)


class Unwatched(Contract):
    """Nothing is required and nothing promised."""

    def rules(self, m, block):
        pass


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes
    ----------
    label, name, change : str
        Block, number and place.
    contract, simulation : str
        What it breaks; empty if nothing was seen.
    same : bool
        It is proven to be no change at all to those who keep the contract.
    """

    label: str
    name: str
    change: str
    contract: str
    simulation: str
    same: bool

    @property
    def survives(self):
        return not (self.contract or self.simulation or self.same)


def run(folder, progress, label="", config=CONFIG):
    """Judge all mutants of the blocks whose label begins so; return a list of `Verdict`.

    All of them are simulated and put to their contracts; what survives both is compared with the block.
    """
    verdicts, first = [], 1
    top, targets = inside(config)
    pools = [(Pool(top, targets, folder / "engine"), True)]
    for target in queues():
        first += sum(len(pool.mutants) for pool, _ in pools[-1:])
        pools.append((Pool(target.block, [target], folder / target.label, first), False))
    for pool, simulated in pools:
        chosen = [target for target in pool.targets if target.label.startswith(label)]
        failed = {}
        if simulated and chosen:
            mutants = [mutant for target in chosen for mutant in pool.of(target)]
            progress(f"{len(mutants)} mutants in one simulation")
            failed = failures(pool, jobs(config), mutants)
        for target in chosen:
            judged = target.task.contract is not Unwatched
            progress(f"{target.label}: contract")
            broken = breaches(pool, target, pool.of(target)) if judged else {}
            left = [mutant for mutant in pool.of(target) if mutant.number not in {**broken, **failed}]
            progress(f"{target.label}: {len(left)} left to be compared")
            equal = same(pool, target, left) if target.compared else set()
            left = [mutant for mutant in left if mutant.number not in equal]
            if judged and left:
                progress(f"{target.label}: contract, with more patience, of {len(left)}")
                broken |= breaches(pool, target, left, timeout=30)
            verdicts += [verdict(mutant, broken, failed, equal) for mutant in pool.of(target)]
    return verdicts


def judged(name, inside, jobs, bench, folder, progress, label):
    """Judge the mutants of the blocks whose label begins so; return a list of `Verdict`.

    All are simulated, what passes is put to its contract, if there is one, and the rest is compared with the block:
    step by step and, if it is to be `compared`, for ever.

    Parameters
    ----------
    name : str
        Of what is simulated.
    inside : (Block, list of Target)
        That, and what of it is mutated.
    jobs, bench
        As of `failures`. What is not mutated is mutant 0.
    folder, progress, label
        As of `run`.
    """
    top, targets = inside
    chosen, verdicts = [target for target in targets if target.label.startswith(label)], []
    if not chosen:
        return []
    pool = Pool(top, targets, folder / name)
    mutants = [mutant for target in chosen for mutant in pool.of(target)]
    progress(f"{name}: {len(mutants)} mutants in one simulation")
    failed = failures(pool, jobs, mutants, bench)
    if 0 in failed:
        raise RuntimeError(f"{name} itself fails job {failed[0]}")
    for target in chosen:
        left = [mutant for mutant in pool.of(target) if mutant.number not in failed]
        progress(f"{target.label}: {len(left)} left")
        broken = {} if target.task.contract is Unwatched else breaches(pool, target, left, timeout=20)
        left = [mutant for mutant in left if mutant.number not in broken]
        equal = matching(pool, target, left) if left else set()
        if target.compared:
            equal |= same(pool, target, [mutant for mutant in left if mutant.number not in equal])
        verdicts += [verdict(mutant, broken, failed, equal) for mutant in pool.of(target)]
    return verdicts


def verdict(mutant, broken, failed, equal):
    """The `Verdict` on a mutant, given what `breaches`, `failures` and `same` say."""
    breach, failure = broken.get(mutant.number), failed.get(mutant.number)
    return Verdict(mutant.label, mutant.name, str(mutant), f"cycle {breach[1]}: {breach[0]}" if breach else "",
                   f"job {failure[0]}: {failure[1]}" if failure else "", mutant.number in equal)


def inside(config=CONFIG):
    """An engine, and what of it is mutated. Its accumulators and itself have no contract but what golden says."""
    engine, drain = Engine(config), Drain(config)
    return engine, [
        Target("walker", Task(Walker(config), WalkerRules, depth=8)),
        Target("loader", Task(Loader(config), LoaderRules, depth=14)),
        Target("sequencer", Task(Sequencer(config), SequencerRules, depth=14)),
        Target("fetch", Task(Fetch(*reads(config)["parameters"]), FetchRules, depth=12)),
        Target("parameters", Task(Parameters(config, drain.depth), ParametersRules, depth=8)),
        Target("drain", Task(drain, DrainRules, depth=10, cut=("lane_*",)), compared=False),
        Target("queue", Task(Queue(load(config), 4), Fifo, depth=14)),
        Target("accumulator", Task(Accumulator(config), Unwatched)),
        Target("engine", Task(engine, Unwatched), compared=False),
    ]


def queues():
    """Queues by themselves, small enough to be filled within a few cycles."""
    return [Target("buffer", Task(Buffer(2), Fifo, depth=14)),
            Target("deep_queue", Task(DeepQueue(2, 3), DeepFifo, depth=16))]


def jobs(config=CONFIG):
    """GEMMs that reach everything: all shapes and options, no stalls and many, refused commands, broken reads."""
    rng, fields = np.random.default_rng(1), {}
    shapes = [(3, 5, 3), (17, 9, 8), (8, 4, 2), (1, 1, 1), (23, 3, 5), (12, 12, 4), (10, 6, 7)]
    good = [_gemm(config, rng, shape, n) for n, shape in enumerate(shapes)]
    refused = [
        {"m": 0}, {"n": 0}, {"k": 0}, {"m": config.m_max + 1}, {"n": config.n_max + 1}, {"k": config.k_max + 1},
        {"a_format": 7}, {"w_format": 7}, {"y_format": FORMAT_CODES["e2m1"]},
        {"m": 1 << 15}, {"n": 1 << 15}, {"k": 1 << 15}]
    small = [_gemm(config, rng, (2, 3, 3), n) for n in range(2 * len(refused))]
    fields = {2 * n + 1: each for n, each in enumerate(refused)}
    largest = [_gemm(config, rng, (config.m_max, config.n_max, config.k_max), 15)]
    wide, added = (_gemm(config, rng, (config.m_max, config.n_max, 2), n) for n in (0, 8))
    # more results than can wait, and as many of C
    alone = [_gemm(config, rng, (3, 3, 2), n) for n in range(6)]        # a block each
    again = [_gemm(config, rng, (9, 7, 6), n) for n in (15, 3, 12, 15)]
    return [
        Job(config, good, queue=False),
        Job(config, good[::-1], latency=4),
        Job(config, [added, *good, *largest], stall=0.5, seed=1),
        Job(config, small, commands=fields, stall=0.3, seed=2),
        Job(config, [*good[:3], wide], stall=0.85, seed=3),
        *(Job(config, again, queue=False, stall=stall, seed=n, broken={(port, 2): change})
          for n, port in enumerate(reads(config)) for change, stall in ((-1, 0), (2, 0.4))),
        Job(config, again * 2, stall=0.3, seed=4, broken={("weights", 5): -1, ("activations", 20): 1}),
        Job(config, alone, queue=False, seed=5, broken={("weights", 0): -1, ("activations", 3): -1}),
    ]


def _gemm(config, rng, shape, number):
    """A GEMM of a shape; its number says how it is finished."""
    m, n, k = shape
    family, sizes = FAMILIES[config.family], {"row_scales": (m,), "column_scales": (n,), "bias": (n,), "c": shape[:2]}
    a_format, w_format = (names[number % len(names)] for names in (family.activations, family.weights))
    options = {name: (rng.standard_normal(sizes[name]) * 4).astype(np.float32)
               for bit, name in enumerate(PARAMETERS) if number >> bit & 1}
    a = _codes(rng, a_format, (m, k))
    a[m // 2:m // 2 + m // 4] = 0       # sums of nothing
    return Gemm(a, _codes(rng, w_format, (n, k)), a_format, w_format,
                RESULT_FORMATS[number % len(RESULT_FORMATS)], **options)


def _codes(rng, name, shape):
    """Random codes, one in thirty of them NaN where there is such a thing."""
    format = FORMATS[name]
    codes = rng.integers(0, 1 << format.width, shape).astype(format.dtype)
    if format.nan is None:
        return codes
    sound = np.where(np.isfinite(decode(format, codes)), codes, 0)
    return np.where(rng.random(shape) < 1 / 30, format.nan, sound).astype(format.dtype)
