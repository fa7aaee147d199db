# SPDX-License-Identifier: Apache-2.0
"""The mutants of attention, and the heads that they are put to."""

from functools import cache

import numpy as np

from golden.config import KvCache
from hw.attention.align import Align
from hw.attention.attention import Attention
from hw.attention.dot import DotPair
from hw.attention.elements import Elements
from hw.attention.intake import Intake
from hw.attention.mean import Mean
from hw.attention.scores import Scores
from hw.attention.weight import Weight
from hw.attention.weights import Weights
from sim.attention import Job
from sim.formal.attention import WATCHED, IntakeRules
from sim.formal.prove import Task
from sim.heads import KINDS, draw
from sim.mutation.campaign import Unwatched, judged
from sim.mutation.mutants import Target

__all__ = ["CONFIGS", "GROUP", "inside", "jobs", "run"]

BENCH = "sim.benches.attention_mutants"
MUTANTS, GROUP = 100, 2
CONFIGS = {
    "attention": KvCache(format="fp8", beat=8, head_dim=16, lanes=4, block_tokens=4, table=8),
    "attention_bf16": KvCache(format="bf16", beat=8, head_dim=8, lanes=4, block_tokens=4, table=8),
}
SHARED = ("intake", "weights")      # that BF16 leaves as they are


def run(folder, progress, label=""):
    """Judge the mutants, if their label begins so; return a list of `campaign.Verdict`."""
    return [verdict for name, kv in CONFIGS.items()
            for verdict in judged(name, inside(name), jobs(kv), BENCH, folder, progress, label)]


def inside(name="attention"):
    """Attention, and what of it is mutated."""
    kv = CONFIGS[name]
    blocks = {"intake": Intake(kv, GROUP), "weights": Weights(kv, GROUP), "weight": Weight(kv),
              "scores": Scores(kv, GROUP), "align": Align(), "mean": Mean(kv), "elements": Elements(kv),
              "dot_pair": DotPair(kv)}
    return Attention(kv, GROUP), [
        Target(f"{name}_{part}", Task(block, IntakeRules, depth=14, watched=WATCHED) if part == "intake"
               else Task(block, Unwatched), MUTANTS, compared=part in ("intake", "align"))
        for part, block in blocks.items() if name == "attention" or part not in SHARED]


@cache
def jobs(kv):
    """Heads of every kind and many lengths, with stalls and without; such as have few tokens or none; wrong ones."""
    rng = np.random.default_rng(1)

    def heads(count, kinds=KINDS, most=14, least=1, **options):
        return [draw(rng, kv, int(rng.integers(1, GROUP + 1)), int(rng.integers(least, most)), str(rng.choice(kinds)),
                     **options) for _ in range(count)]

    found = [Job(kv, GROUP, heads(8, ("plain", "spread", "codes"))), Job(kv, GROUP, heads(14)),
             Job(kv, GROUP, heads(10, least=0, most=3)), Job(kv, GROUP, heads(6, most=33), stall=0.4, ragged=True)]
    full = kv.table * kv.block_tokens
    found += [Job(kv, GROUP, heads(16, (kind,), most=20), seed=n) for n, kind in enumerate(KINDS)]
    found += [Job(kv, GROUP, [draw(rng, kv, GROUP, full, kind, masked=masked) for kind in KINDS])
              for masked in (False, True)]
    found += [Job(kv, GROUP, heads(8), stall=0.7, seed=2), Job(kv, GROUP, heads(6), queue=False, seed=4),
              Job(kv, GROUP, heads(12, most=9, least=0), stall=0.2, seed=3)]
    wrong = [("commands", {"queries": 0}), ("commands", {"queries": GROUP + 1}),
             *(("commands", {"tokens": 9 + off}) for off in (-8, -5, -1, 1, 4, 20)),
             *(("broken", off) for off in (-1, -3, -2 * kv.row_beats, 1, 2, 20)),
             *(("flagged", at) for at in (0, 3, 11))]
    for stall in 0, 0.5:
        options = {"commands": {}, "broken": {}, "flagged": set()}
        for n, (what, value) in enumerate(wrong):
            if what == "flagged":
                options[what].add((2 * n + 1, value))
            else:
                options[what][2 * n + 1] = value
        given = [draw(rng, kv, GROUP, 9) for _ in range(2 * len(wrong) + 1)]
        found.append(Job(kv, GROUP, given, stall=stall, **options))
    return [*found, *(Job(kv, GROUP, heads(24, most=12), seed=n) for n in range(6))]
