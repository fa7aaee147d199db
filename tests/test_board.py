# SPDX-License-Identifier: Apache-2.0
"""The board through its serial line, and its parts."""

import pickle
import re

import numpy as np
import pytest

from golden.config import Matmul
from golden.matmul import Gemm
from hw.board.board import Board
from hw.board.memory import Memory
from hw.board.uart import Receiver, Transmitter
from sim.run import simulate

NANO = Matmul(family="fp8", lanes=4, rows=2, cols=8, acc_rows=8, k_max=512)
DIVISOR, PATIENCE = 4, 400


def gemms():
    """Ragged GEMMs in both weight formats, with results of each size and all parameters."""
    rng = np.random.default_rng(1)

    def codes(shape, limit=0x7F):
        return rng.integers(0, limit, shape).astype(np.uint8)

    def floats(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    yield Gemm(codes((3, 21)), codes((5, 21)))
    yield Gemm(codes((11, 17)), codes((13, 17)), y_format="bf16", row_scales=floats(11), column_scales=floats(13),
               bias=floats(13), c=floats(11, 13))
    yield Gemm(codes((2, 9)), codes((9, 9), 16), w_format="e2m1", y_format="e4m3", column_scales=floats(9))
    yield Gemm(np.full((2, 3), 0x7F, np.uint8), codes((3, 3)))      # NaN


def test_board(tmp_path):
    (tmp_path / "board").write_bytes(pickle.dumps((NANO, list(gemms()), DIVISOR, PATIENCE)))
    tests = simulate(Board(NANO, 4096, DIVISOR, PATIENCE), "sim.benches.board", env={"BOARD": tmp_path / "board"})
    assert tests == 3


@pytest.mark.parametrize("make, sentence", [
    (lambda: Receiver(3), "Receiver: divisor must be at least 4 cycles a bit, not 3"),
    (lambda: Transmitter(1), "Transmitter: divisor must be at least 4 cycles a bit, not 1"),
    (lambda: Memory(3000, ((1, 1, 1),), (1,)), "Memory: size must be a power of two from 1024 on, not 3000"),
])
def test_mistakes_are_named(make, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
