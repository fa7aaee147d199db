# SPDX-License-Identifier: Apache-2.0
"""Figures of the KV cache: cycles of commands and streams on the RTL, area and longest path."""

import contextlib
import sys

from golden.config import KvCache, load
from golden.paging import Command, Opcode, Table
from hw.emit import Verilog
from hw.flow import asic, liberty
from hw.flow.figures import figure
from hw.flow.report import critical
from hw.kvcache.controller import Controller
from scripts import streams
from sim.kvcache import Player, replay
from sim.run import ROOT

__all__ = ["commands", "measure"]

CLASSES = {"sim": "nano", "1b": "small", "8b": "large"}
"""Sizes of controllers, and the configurations that have them."""


def measure(quick, library):
    """All figures, one by one.

    Parameters
    ----------
    quick : bool
        Only those that take seconds, and those that the issues name.
    library : list of path
        Liberty files, or none.
    """
    with contextlib.redirect_stdout(sys.stderr):
        found = commands()
    for name, (cycles, goal) in found.items():
        yield figure(f"kvcache.cycles.{name}", cycles, "cycle",
                     "RTL, command accept to completion, ports never stall", goal, "<=")
    yield from streams.measure(quick, library)
    yield from _areas(quick, library)


def commands():
    """Cycles of each command and at most how many there should be, by case; n is a number of blocks."""
    n, size, player, cases = 12, 16, Player({}, KvCache(blocks=64, table=16)), {}

    def run(opcode, case=None, goal=None, operands=(), **arguments):
        if case:
            cases[len([each for each in player.log if isinstance(each, tuple)])] = case, goal
        assert not player.run(Command(opcode, arguments, tuple(operands)))[0].status

    def filled(sid, first):
        """A sequence of n cached blocks."""
        run(Opcode.ALLOC_SEQ, sid=sid)
        run(Opcode.APPEND, sid=sid, tokens=n * size)
        for index in range(n):
            run(Opcode.COMMIT, sid=sid, index=index, hash=first + index)
        return player.controller.sequences[sid].entries[:]

    run(Opcode.ALLOC_SEQ, "alloc_seq", 3, sid=0)
    run(Opcode.APPEND, "append.blocks1", 4 + 4, sid=0, tokens=10)
    run(Opcode.APPEND, "append.in_block", 4, sid=0, tokens=3)
    run(Opcode.APPEND, f"append.blocks{n - 1}", 4 + 4 * (n - 1), sid=0, tokens=(n - 1) * size)
    run(Opcode.FORK, f"fork.blocks{n}", 4 + n, sid=0, target=1)
    run(Opcode.APPEND, "append.copy", 4 + 6, sid=1, tokens=1)
    run(Opcode.TRUNCATE, f"truncate.blocks{n - 1}", 4 + n - 1, sid=1, length=3)
    run(Opcode.WINDOW, f"window.blocks{n - 1}", 4 + n - 1, sid=0, computed=n * size - 3, window=1)
    run(Opcode.PREEMPT, "preempt.blocks1", 4 + 1, sid=1)
    for sid in 0, 1:
        run(Opcode.FREE, sid=sid)

    blocks = filled(0, 64)
    run(Opcode.ALLOC_SEQ, sid=1)
    run(Opcode.COMMIT, "commit.again", None, sid=0, index=0, hash=64)
    run(Opcode.APPEND, sid=1, tokens=size)
    run(Opcode.COMMIT, "commit", 3, sid=1, index=0, hash=1)
    run(Opcode.TRUNCATE, sid=1, length=size - 1)
    run(Opcode.APPEND, "append.forgets", 4, sid=1, tokens=1)
    run(Opcode.LOOKUP, f"lookup.blocks{n}", 3 + n, count=n, operands=range(64, 64 + n))
    run(Opcode.LOOKUP, f"lookup.blocks{n}_and_miss", 3 + n + 1, count=n + 1, operands=range(64, 65 + n))
    run(Opcode.LOOKUP, "lookup.blocks0", 3)
    run(Opcode.ATTACH, f"attach.blocks{n}", 4 + n, sid=1, count=n, operands=blocks)
    run(Opcode.FREE, f"free.blocks{n + 1}", 4 + n + 1, sid=1)
    run(Opcode.FREE, sid=0)
    run(Opcode.ALLOC_SEQ, sid=1)
    run(Opcode.ATTACH, f"attach.off_free_list.blocks{n}", 4 + n, sid=1, count=n, operands=blocks)
    run(Opcode.PREEMPT, f"preempt.blocks{n}", 4 + n, sid=1)
    run(Opcode.ATTACH, f"attach.by_hash.blocks{n}", 4 + n, sid=1, count=n, by_hash=1, operands=range(64, 64 + n))
    run(Opcode.PREEMPT, sid=1)
    run(Opcode.PIN, "pin.block", 4, block=blocks[0])
    run(Opcode.UNPIN, "unpin.block", 4, block=blocks[0])
    run(Opcode.PIN, "pin.hash", 4, by_hash=1, hash=65)
    run(Opcode.UNPIN, "unpin.hash", 4, by_hash=1, hash=65)
    run(Opcode.EVICT, "evict.block", 4, block=blocks[0])
    run(Opcode.EVICT, "evict.hash", 4, by_hash=1, hash=65)
    run(Opcode.STAT, "stat.counter", 2, index=3)
    run(Opcode.STAT, "stat.block", 3, table=Table.BLOCK, index=3)
    run(Opcode.FREE, "free.blocks0", 4, sid=1)

    filled(2, 128)                      # blocks that are cached and free, and the pool has no others
    run(Opcode.SWAP_OUT, f"swap_out.blocks{n}", None, sid=2, slot=0)
    run(Opcode.SWAP_IN, f"swap_in.blocks{n}", None, sid=2, slot=0)
    for sid in range(3, 8):
        filled(sid, 256 + sid * n)
        run(Opcode.FREE, sid=sid)
    run(Opcode.FREE, sid=2)
    cached = sum(each.hash is not None for each in player.controller.blocks)
    run(Opcode.ALLOC_SEQ, sid=0)
    run(Opcode.APPEND, sid=0, tokens=(63 - cached) * size)
    before = player.controller.counters["evictions"]
    run(Opcode.ALLOC_SEQ, sid=1)
    run(Opcode.APPEND, f"append.evicts{n}", 4 + 4 * n, sid=1, tokens=n * size)
    assert player.controller.counters["evictions"] == before + n
    run(Opcode.FORK, sid=0, target=2)
    for sid in range(3):
        run(Opcode.FREE, sid=sid)
    run(Opcode.RESET_PREFIX, "reset_prefix.pool64", 4 + 64)
    cycles = replay(player.job())
    return {case: (cycles[number], goal) for number, (case, goal) in cases.items()}


def _areas(quick, library):
    """Logic and table bits of controllers, and the longest path of those that are timed."""
    cells = liberty.read(library) if library else None
    for name, file in CLASSES.items():
        if quick and name != "1b":
            continue
        block = Controller(load(ROOT / "configs" / f"{file}.toml").kvcache)
        text = Verilog(block).text
        report = asic.synthesize(text, block.name, cells, asic.AREA)
        how = f"synthesis, area recipe, {cells.name if cells else 'generic cells, no library'}; logic without tables"
        yield figure(f"kvcache.ge.{name}" if cells else f"kvcache.cells.{name}.generic",
                     round(report.ge if cells else report.cells), "GE" if cells else "cells", how,
                     60_000 if cells and name == "1b" else None, "<=")
        yield figure(f"kvcache.table_bits.{name}", report.total("bits"), "bit", "counted")
        if cells:
            fast = asic.synthesize(text, block.name, cells, asic.SPEED)
            how = "synthesis, speed recipe, clk-q and setup included, no wires"
            yield figure(f"kvcache.path_ps.{name}", round(critical(fast)[0].length), "ps", how, 1400, "<=")
            yield figure(f"kvcache.ge.{name}.speed", round(fast.ge), "GE", "synthesis, speed recipe; without tables")
