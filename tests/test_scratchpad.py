# SPDX-License-Identifier: Apache-2.0
"""The scratchpad: bytes as a bytearray has them, a beat a cycle, nobody starved."""

import os
import re

import pytest

from hw.memory.scratchpad import Scratchpad
from sim.formal.cones import waits
from sim.run import simulate

DEEP = "DEEP" in os.environ
SHAPES = [
    (1024, 4, 16, ((16, 16, 4, 1), (8, 2, 6, 3), (4, 4, 1, 9), (4, 4, 8, 2)), ((16, 16), (8, 1), (5, 2))),
    (256, 1, 8, ((8, 4, 3, 2),), ((8, 4),)),
    *[(512, 2, 16, ((16, 1, 5, 2), (2, 2, 9, 1), (1, 1, 1, 5)), ((16, 8), (16, 1), (4, 8)))] * DEEP,
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("x_initial", ["0", "unique"])
def test_scratchpad(shape, x_initial):
    tests = simulate(Scratchpad(*shape), "sim.benches.scratchpad", env={"SCRATCHPAD": repr(shape)}, x_initial=x_initial)
    assert tests == 11


def test_nothing_waits_within_the_cycle():
    assert waits(Scratchpad(*SHAPES[0])) == []


READER, WRITER = ((4, 4, 1, 1),), ((4, 4),)


@pytest.mark.parametrize("arguments, sentence", [
    ((1000, 2, 16, READER, WRITER), "size must be a power of two, not 1000"),
    ((1024, 3, 16, READER, WRITER), "banks must be a power of two, not 3"),
    ((1024, 2, 0, READER, WRITER), "word must be a power of two, not 0"),
    ((64, 4, 16, READER, WRITER), "size must be 128 or more, two words of each bank, not 64"),
    ((1024, 2, 16, (), WRITER), "there must be a reader and a writer"),
    ((1024, 2, 16, (*READER, (3, 1, 1, 1)), WRITER), "beat of reader 1 must be a power of two up to 16, not 3"),
    ((1024, 2, 16, ((32, 1, 1, 1),), WRITER), "beat of reader 0 must be a power of two up to 16, not 32"),
    ((1024, 2, 16, ((4, 8, 1, 1),), WRITER), "unit of reader 0 must be a power of two up to 4, not 8"),
    ((1024, 2, 16, ((4, 4, 0, 1),), WRITER), "reader 0 must have 1 beat and row or more, not 0, 1"),
    ((1024, 2, 16, READER, ((17, 1),)), "writer 0 must have 1 to 16 bytes, not 17"),
    ((1024, 2, 16, READER, ((4, 3),)), "unit of writer 0 must be a power of two up to 16, not 3"),
])
def test_mistakes_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(f'Scratchpad: {sentence}')}$"):
        Scratchpad(*arguments)
