# SPDX-License-Identifier: Apache-2.0
"""The KV-cache controller's mutants, and what they are put to."""

import random
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

from amaranth.hdl import Module, Shape
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.config import KV_POLICIES, KvCache
from golden.paging import ARGUMENTS, COUNTERS, Command, Opcode
from hw.emit import Block, Library
from hw.kvcache.controller import Controller
from hw.kvcache.tables import Rows
from hw.ram import Ram
from sim.formal.contract import Contract
from sim.formal.counters import CountersFromAnywhere, CountersRules
from sim.formal.prove import Task
from sim.kvcache import PATIENCE, Player
from sim.mutation.campaign import verdict
from sim.mutation.judge import breaches, matching
from sim.mutation.mutants import Pool, Target
from sim.mutation.simulation import failures
from sim.traffic import corners, draw, reorder

__all__ = ["BENCH", "inside", "jobs", "run"]

BENCH = "sim.benches.kvcache_mutants"
CONFIG = KvCache(blocks=18, table=6, block_tokens=4, tenant_bits=1)
MUTANTS = 400       # of the one module that all groups of commands are in
FIRST = 2001        # number of the first, after those of the matmul engine


def far_up(name):
    """Where a counter begins, so that all of its bits matter, and carries come soon."""
    return (0x5A5A, 0xA5A5)[COUNTERS.index(name) % 2] << 48 | 0xFFFF_FFFF_FFFE


class Opened(Controller):
    """A controller whose memories are outside, so that all it does to them can be seen."""

    def begins(self, name):
        return far_up(name) + super().begins(name)

    def ports(self):
        found = super().ports()
        for name, (shape, depth) in self.tables().items():
            width, address = Shape.cast(shape).width, ceil_log2(max(depth, 2))
            found |= {f"{name}_write_en": Out(1), f"{name}_write_address": Out(address),
                      f"{name}_write_data": Out(width), f"{name}_read_en": Out(1),
                      f"{name}_read_address": Out(address), f"{name}_read_data": In(width)}
        return found

    def _table(self, m, name, shape, depth):
        return Rows(SimpleNamespace(**self.memory(name)), shape)

    def memory(self, name):
        """Ports of a memory."""
        return {port: getattr(self, f"{name}_{port}") for port in (
            "write_en", "write_address", "write_data", "read_en", "read_address", "read_data")}


class Closed(Block):
    """An `Opened` controller and its memories: a `Controller`."""

    def __init__(self, config, patience):
        self.inner = Opened(config, patience)
        super().__init__(Controller(config, patience).ports())

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        for name, (shape, depth) in inner.tables().items():
            m.submodules[name] = ram = Ram(Shape.cast(shape).width, max(depth, 2))
            for port, signal in inner.memory(name).items():
                outside = getattr(ram, port)
                m.d.comb += signal.eq(outside) if port == "read_data" else outside.eq(signal)
        for name, member in self.signature.members.items():
            outer, own = getattr(self, name), getattr(inner, name)
            if member.is_signature:
                connect(m, *((flipped(outer), own) if member.flow is In else (own, flipped(outer))))
            else:
                m.d.comb += own.eq(outer) if member.flow is In else outer.eq(own)
        return m


class Memories(Contract):
    """Memories may contain anything; nobody looks at what is written into the null block's links."""

    def rules(self, m, block):
        self.require("the pool is steady", block.pool == block.config.blocks)

    def visible(self, block):
        found = {}
        for name in block.tables():
            memory = block.memory(name)
            writes = memory["write_en"]
            if name in ("next", "prev", "younger", "older"):
                writes = writes & (memory["write_address"] != 0)
                found[f"{name}_write_en"] = memory["write_address"] != 0
            found |= {f"{name}_write_address": writes, f"{name}_write_data": writes,
                      f"{name}_read_address": memory["read_en"]}
        return found


def run(folder, progress, label=""):
    """Judge the controller's mutants, if its label begins so; return a list of `campaign.Verdict`.

    Of those that pass all jobs some do the same in every step, whatever the memories contain: they are no change. The
    counters' others are put to their contract.
    """
    top, targets = inside()
    chosen = [target for target in targets if target.label.startswith(label)]
    if not chosen:
        return []
    pool = Pool(top, targets, folder / "kvcache", FIRST)
    mutants = [mutant for target in chosen for mutant in pool.of(target)]
    progress(f"kvcache: {len(mutants)} mutants in one simulation")
    failed, broken, equal = failures(pool, jobs(), mutants, BENCH), {}, set()
    for target in chosen:
        left = [mutant for mutant in pool.of(target) if mutant.number not in failed]
        progress(f"{target.label}: {len(left)} left to be compared")
        equal |= matching(pool, target, left)
        for contract in (target.task.contract, CountersRules) if target.task.depth else ():
            left = [mutant for mutant in left if mutant.number not in {*equal, *broken}]
            progress(f"{target.label}: contract of {len(left)}")
            asked = replace(target, task=replace(target.task, contract=contract))
            broken |= breaches(pool, asked, left, timeout=60)
    return [verdict(mutant, broken, failed, equal) for mutant in mutants]


def inside():
    """The controller, and what of it is mutated."""
    closed = Closed(CONFIG, PATIENCE)
    Library().add(closed)           # then it has its counters
    return closed, [
        Target("kvcache", Task(closed.inner, Memories), count=MUTANTS),
        Target("kvcache_counters", Task(closed.inner.counters, CountersFromAnywhere, depth=10)),
    ]


@cache
def jobs(far=True):
    """Random commands of both policies, with stalls and without, through an end of what they do; corners; so many
    openings that generations begin anew; and all first errors. With `far`, for counters that begin `far_up`."""
    def start(policy=KV_POLICIES[0]):
        player = Player({}, CONFIG.model_copy(update={"policy": policy}))
        if far:
            player.controller.counters = {name: far_up(name) for name in COUNTERS}
        return player

    found = []
    for stall, count in (0, 700), (0.4, 700), (0, 3300):
        for policy in KV_POLICIES:
            rng, player = random.Random(f"{policy} {stall} {count}"), start(policy)
            while len(player.log) < count:
                command = draw(rng, player.controller)
                if not isinstance(command, int):
                    player.run(_far(rng, command))
                else:
                    player.controller.retire(command)
                    player.log.append(command)
            found.append(_job(player, stall, len(found)))
    for policy in KV_POLICIES:
        player = start(policy)
        corners(player)
        found.append(_job(player, seed=len(found)))
    player = start()
    reorder(player)
    found.append(_job(player, seed=len(found)))
    player = start()
    for _ in range(257):
        player.run(Command(Opcode.ALLOC_SEQ, {"sid": 7}))
        player.run(Command(Opcode.FREE, {"sid": 7}))
    found.append(_job(player, seed=len(found)))
    for opcode in Opcode:
        player = start()
        for _ in range(5 * (opcode - 1)):
            player.run(Command(Opcode.STAT))
        operands = (0,) * 3 if opcode in (Opcode.LOOKUP, Opcode.ATTACH) else ()
        given = {"sid": 0xA5A5 ^ opcode} if "sid" in ARGUMENTS[opcode] else {}
        player.run(Command(opcode, given | {"tenant": 255, **({"count": 3} if operands else {})}, operands))
        found.append(player.job(seed=len(found)))
    return found


def _job(player, stall=0.0, seed=0):
    """What it has done, and all that can be read then."""
    player.dump()
    for index in range(len(COUNTERS)):
        player.run(Command(Opcode.STAT, {"index": index, "high": 1}))
    return player.job(stall, seed)


def _far(rng, command):
    """A command whose slots of host memory are anywhere, so that all of their bits matter."""
    if "slot" not in command.arguments:
        return command
    return Command(command.opcode, command.arguments | {"slot": rng.randrange((1 << 32) - CONFIG.table)})
