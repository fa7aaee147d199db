# SPDX-License-Identifier: Apache-2.0
"""LOAD and STORE: rows between memory and scratchpad, as `golden.dma` moves them."""

import os
import re

import numpy as np
import pytest

from golden import dma
from golden.isa import Instruction, Load, Store
from golden.transfer import Error
from hw.memory import load as load_engine
from hw.memory import store as store_engine
from sim.dma import Dma
from sim.formal.cones import waits
from sim.run import simulate

DEEP = "DEEP" in os.environ
SHAPES = [(8, 2048, 4, 32, 4, 32), *[(16, 1024, 1, 16, 16, 64), (32, 4096, 2, 32, 1, 16)] * DEEP]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("x_initial", ["0", "unique"])
def test_dma(shape, x_initial):
    assert simulate(Dma(*shape), "sim.benches.dma", env={"DMA": repr(shape)}, x_initial=x_initial) == 9


def test_nothing_waits_within_the_cycle():
    assert waits(load_engine.Load(8, 1024, 4, 16)) == []
    assert waits(store_engine.Store(8, 1024, 4)) == []


def test_golden_by_hand():
    memory, scratchpad = np.arange(64, dtype=np.uint8), np.zeros(32, np.uint8)
    scratchpad[28] = 2
    gather = Instruction(Load.GATHER, {"source": 8, "source_pitch": 4, "target": 4, "target_pitch": 8, "bytes": 3,
                                       "rows": 2, "step": 16, "index": 28, "count": 1})
    assert dma.load(gather, memory, scratchpad, 4) is Error.NONE
    assert scratchpad.tolist() == [0] * 4 + [40, 41, 42, 43] + [0] * 4 + [44, 45, 46, 47] + [0] * 12 + [2, 0, 0, 0]
    copy = Instruction(Store.COPY, {"source": 4, "source_pitch": 8, "target": 16, "target_pitch": 4, "bytes": 3,
                                    "rows": 2})
    assert dma.store(copy, memory, scratchpad, 4) is Error.NONE
    assert memory[15:25].tolist() == [15, 40, 41, 42, 19, 44, 45, 46, 23, 24]


@pytest.mark.parametrize("make, sentence", [
    (lambda: load_engine.Load(3, 1024, 4, 16), "Load: beat must be a power of two from 2 to 128, not 3"),
    (lambda: load_engine.Load(0, 1024, 4, 16), "Load: beat must be a power of two from 2 to 128, not 0"),
    (lambda: load_engine.Load(8, 1000, 4, 16), "Load: size must be a power of two from 8 to 16777216, not 1000"),
    (lambda: load_engine.Load(64, 1024, 128, 128), "Load: longest must be a power of two from 1 to 64, not 128"),
    (lambda: load_engine.Load(8, 1024, 32, 16), "Load: depth must be 32 to 4096 beats, not 16"),
    (lambda: store_engine.Store(256, 1024, 4), "Store: beat must be a power of two from 2 to 128, not 256"),
])
def test_mistakes_are_named(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()
