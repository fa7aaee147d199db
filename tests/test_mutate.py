# SPDX-License-Identifier: Apache-2.0
"""Mutants are judged rightly: a few of them, and a bug by hand. The whole campaign is `make mutate`."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import mutate
from sim.mutation.bugs import BUGS, caught
from sim.mutation.campaign import Verdict, inside
from sim.mutation.judge import breach, breaches, matching, same
from sim.mutation.mutants import Pool


def test_mutants_of_the_loader(tmp_path):
    """Those that break its contract are found, those that change nothing are known as such, and the rest is named."""
    _, targets = inside()
    loader = replace(next(target for target in targets if target.label == "loader"), count=24)
    pool = Pool(loader.block, [loader], tmp_path)
    assert len(pool.mutants) == len({mutant.command for mutant in pool.mutants}) == 24
    assert not any(mutant["port"] == "CLK" for mutant in pool.mutants)
    broken = breaches(pool, loader, pool.mutants)
    rest = [mutant for mutant in pool.mutants if mutant.number not in broken]
    equal = same(pool, loader, pool.mutants)
    assert len(broken) > 15 and not equal & set(broken)
    assert {mutant.number for mutant in rest} == equal
    assert set() < matching(pool, loader, pool.mutants) <= equal
    assert breach(loader.task, tmp_path / "sound") is None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_bugs_can_be_planted(bug):
    assert Path(importlib.util.find_spec(bug.module).origin).read_text().count(bug.old) == 1


def test_a_bug_is_caught():
    assert caught(0) == "contract, cycle 3: tiles cover K"


def test_page_names_survivors():
    found = Verdict("walker", "walker-1", "inv at `a.Y[0]`", "cycle 3: tiles cover K", "", False)
    survivor = Verdict("walker", "walker-2", "inv at `b.Y[0]`", "", "", False)
    lines = list(mutate.page([found, survivor], ["simulation"] * len(BUGS)))
    assert "| `walker` | 2 | 1 | 0 | 1 | 0 | 1 |" in lines
    assert "| walker-2 | inv at `b.Y[0]` | **not explained** |" in lines
    figures = {figure["name"]: figure for figure in mutate.figures([found, survivor], ["simulation"] * len(BUGS))}
    assert not figures["mutation.unexplained"]["holds"] and figures["mutation.bugs"]["holds"]
