# SPDX-License-Identifier: Apache-2.0
"""The KV-cache controller's mutants, and what they are put to."""

import random
from functools import cache

from golden.config import KV_POLICIES, KvCache
from golden.paging import Command, Opcode
from hw.kvcache.controller import Controller
from sim.formal.prove import Task
from sim.kvcache import PATIENCE, Player
from sim.mutation.campaign import Unwatched, Verdict
from sim.mutation.mutants import Pool, Target
from sim.mutation.simulation import failures
from sim.traffic import draw

__all__ = ["BENCH", "inside", "jobs", "run"]

BENCH = "sim.benches.kvcache_mutants"
CONFIG = KvCache(blocks=18, table=6, block_tokens=4, tenant_bits=1)
MUTANTS = 500       # of the one module that all groups of commands are in


def run(folder, progress, label=""):
    """Judge the controller's mutants, if its label begins so; return a list of `campaign.Verdict`."""
    top, targets = inside()
    chosen = [target for target in targets if target.label.startswith(label)]
    if not chosen:
        return []
    pool = Pool(top, chosen, folder / "kvcache")
    progress(f"kvcache: {len(pool.mutants)} mutants in one simulation")
    failed = failures(pool, jobs(), pool.mutants, BENCH)
    return [Verdict(mutant.label, mutant.name, str(mutant), "",
                    f"job {failed[mutant.number][0]}: {failed[mutant.number][1]}" if mutant.number in failed else "",
                    False) for mutant in pool.mutants]


def inside():
    """The controller, and what of it is mutated."""
    controller = Controller(Player({}, CONFIG).job().built, PATIENCE)
    return controller, [Target("kvcache", Task(controller, Unwatched), count=MUTANTS, compared=False)]


def _far(command):
    """A command whose slots of host memory are far up, so that all of their bits matter."""
    if "slot" not in command.arguments:
        return command
    return Command(command.opcode, command.arguments | {"slot": command.arguments["slot"] ^ 0xA5A5_A400})


@cache
def jobs():
    """Random commands of both policies, with stalls and without; and so many openings that generations begin anew."""
    found = []
    for stall, count in (0, 700), (0.4, 700), (0, 2500):
        for policy in KV_POLICIES:
            rng, player = random.Random(f"{policy} {stall} {count}"), Player({}, CONFIG.model_copy(
                update={"policy": policy}))
            while len(player.log) < count:
                command = draw(rng, player.controller)
                if not isinstance(command, int):
                    player.run(_far(command))
                else:
                    player.controller.retire(command)
                    player.log.append(command)
            player.dump()
            found.append(player.job(stall, seed=len(found)))
    player = Player({}, CONFIG)
    for _ in range(257):
        player.run(Command(Opcode.ALLOC_SEQ, {"sid": 7}))
        player.run(Command(Opcode.FREE, {"sid": 7}))
    return [*found, player.job(seed=len(found))]
