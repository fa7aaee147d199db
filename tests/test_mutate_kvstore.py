# SPDX-License-Identifier: Apache-2.0
"""Mutants of the KV cache's data side are judged rightly: a few of them, in one job. The campaign is `make mutate`."""

from dataclasses import replace

from sim.mutation.kvstore import BENCH, CONFIG, Transfers, inside, mixed
from sim.mutation.mutants import Pool
from sim.mutation.simulation import failures


def test_mutants_of_the_runs(tmp_path):
    """The store itself passes, and most of them do not."""
    top, targets = inside()
    runs = replace(next(target for target in targets if target.label == "kvstore_runs"), count=12)
    pool, script = Pool(top, [runs], tmp_path), Transfers(CONFIG)
    mixed(script, 5)
    found = failures(pool, [script.job], pool.mutants, BENCH)
    assert len(pool.mutants) == 12 and len(found) >= 8 and set(found) <= {mutant.number for mutant in pool.mutants}
