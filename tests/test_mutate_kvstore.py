# SPDX-License-Identifier: Apache-2.0
"""Mutants of the KV cache's data side are judged rightly: a few of them, in a few jobs."""

from dataclasses import replace

from sim.mutation.judge import breaches, same
from sim.mutation.kvstore import BENCH, inside, jobs
from sim.mutation.mutants import Pool
from sim.mutation.simulation import failures


def test_mutants_of_the_runs(tmp_path):
    """The store passes; what simulation and contract find is not the same as the block, and hardly anything is left."""
    top, targets = inside()
    runs = replace(next(target for target in targets if target.label == "kvstore_runs"), count=20)
    pool = Pool(top, [runs], tmp_path)
    failed = failures(pool, jobs()[:2], pool.mutants, BENCH)
    broken, equal = breaches(pool, runs, pool.mutants), same(pool, runs, pool.mutants)
    assert len(failed) >= 12 and not equal & {*failed, *broken}
    assert len({*failed, *broken} | equal) >= 18
