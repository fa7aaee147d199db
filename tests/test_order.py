# SPDX-License-Identifier: Apache-2.0
"""Waits of compiled programs suffice: carried out in any order that they allow, a program leaves the same memory."""

import random
from collections import deque
from copy import deepcopy

import numpy as np
import pytest

from golden import sequencer
from golden.isa import Engine, Gemm, assemble, disassemble
from golden.tile import Tile, TileError
from sw.compiler.program import Shape, program
from sw.compiler.weights import FORMATS_OF_WEIGHTS
from tests.test_tile import TOKENS, runtime

SHAPES = {
    "prefill": Shape(tokens=5, head="all", logits=True), "decode": Shape(sequences=2, steps=3, logits=True),
    "last": Shape(tokens=7, first=1, picks=3),
}
ORDERS = 4


def shuffled(image, rng):
    """What a program dispatches, in some order that its waits allow; some engines are more often chosen than others.

    Each engine keeps its own order, and a GEMM comes after the weights that the program has read ahead for it: it
    waits for them where they come in.
    """
    queues, issued = {engine: deque() for engine in Engine}, dict.fromkeys(Engine, 0)
    for each in sequencer.run(disassemble(image)):
        after = each.after | ({Engine.WEIGHTS: issued[Engine.WEIGHTS]} if each.instruction.opcode is Gemm.GEMM else {})
        queues[each.engine].append((each, after))
        issued[each.engine] += 1
    done, favour = dict.fromkeys(Engine, 0), {engine: 10 ** rng.uniform(-2, 2) for engine in Engine}
    while any(queues.values()):
        ready = [engine for engine, queue in queues.items()
                 if queue and all(done[other] >= count for other, count in queue[0][1].items())]
        engine = rng.choices(ready, [favour[each] for each in ready])[0]
        yield queues[engine].popleft()[0]
        done[engine] += 1


def begun(folder, form):
    """A model whose sequences 0 and 1 have been read."""
    found, _ = runtime(folder, "Qwen3ForCausalLM", "norms", form, kv="fp8")
    for sid, prompt in enumerate((TOKENS[:3], TOKENS[4:9])):
        found.prefill(sid, prompt)
    return found


def memory(found, instructions):
    """What is in memory after some instructions, which begin from there."""
    given, layout = found.device.tile, found.layout
    tile = Tile(layout.chip, layout.size, layout.at["kv"])
    tile.memory[:], tile.scratchpad[:] = given.memory, given.scratchpad
    tile.controller = deepcopy(given.controller)
    for each in instructions:
        tile.carry_out(each)
    return tile.memory


@pytest.mark.parametrize("form", FORMATS_OF_WEIGHTS)
def test_waits_suffice(tmp_path, form):
    found = begun(tmp_path, form)
    for name, shape in SHAPES.items():
        image = program(found.layout, shape)[1]
        wanted = memory(found, sequencer.run(disassemble(image)))
        for seed in range(ORDERS):
            np.testing.assert_array_equal(
                memory(found, shuffled(image, random.Random(seed))), wanted, f"{name}, seed {seed}")


def test_waits_are_needed(tmp_path):
    """Of one instruction after the other all waits are taken away: mostly some order shows it."""
    found, shown = begun(tmp_path, "fp8"), []
    given = program(found.layout, SHAPES["prefill"])[0]
    wanted = memory(found, sequencer.run(disassemble(assemble(given, 128))))
    for pc in [pc for pc, each in enumerate(given) if each.waits]:
        without = [*given[:pc], given[pc].__class__(given[pc].opcode, given[pc].fields, given[pc].registers),
                   *given[pc + 1:]]
        shown.append(False)
        for seed in range(ORDERS):
            try:
                shown[-1] |= (memory(found, shuffled(assemble(without, 128), random.Random(seed))) != wanted).any()
            except TileError:
                shown[-1] = True
    assert sum(shown) > 0.7 * len(shown), shown
