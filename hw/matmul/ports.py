# SPDX-License-Identifier: Apache-2.0
"""What crosses the matmul engine's ports."""

import re

from amaranth.lib import data, enum

from hw.emit import Block
from hw.fetch import ADDRESS

__all__ = ["Error", "Part", "command", "completion", "result"]


class Error(enum.Enum, shape=3):
    """Why a command was refused or its results are not to be trusted."""

    NONE = 0
    DIMENSION = 1       # m, n or k is zero, or m or n above its maximum
    DEPTH = 2           # k above k_max: the sum might not be exact
    FORMAT = 3          # a format that this family cannot multiply, or that results cannot have
    RESPONSE = 4        # a read came back shorter or longer than asked for


class Part(Block):
    """A block that depends on the engine's whole configuration and is named after its array."""

    @property
    def name(self):
        stem = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        return f"{stem}_{self.config.family}_{self.config.depth}x{self.config.cols}"


def command(config):
    """One GEMM, `Y[m, n] = A[m, k] @ W[n, k].T`, with what to read and how to finish.

    Addresses are in bytes. `a` is row-major with `a_pitch` bytes a row, `w` is in the order of
    `golden.matmul.weight_image`; row and column scales, bias and C are FP32, C row-major with
    `c_pitch` bytes a row. The flags tell which of them take part. `tag` comes back with the results.

    With `mx`, blocks of K have E8M0 scales: those of W stand in `w`, those of A at `a_scales`, a byte a
    row and `a_scales_pitch` bytes from one block to the next.
    """
    return data.StructLayout({
        "tag": 8,
        "m": 16, "n": 16, "k": 16,
        "a_format": 3, "w_format": 3, "y_format": 3,
        "row_scaled": 1, "column_scaled": 1, "biased": 1, "accumulate": 1,
        "a": ADDRESS, "a_pitch": ADDRESS, "w": ADDRESS,
        "row_scales": ADDRESS, "column_scales": ADDRESS, "bias": ADDRESS,
        "c": ADDRESS, "c_pitch": ADDRESS,
        **({"mx": 1, "a_scales": ADDRESS, "a_scales_pitch": ADDRESS} if config.mx else {}),
    })


def result(config):
    """`count` finished results of one row, first column `column`, packed from bit 0; `last` of the command."""
    return data.StructLayout({
        "data": config.drain * 32, "count": range(config.drain + 1),
        "row": 16, "column": 16,
        "tag": 8, "last": 1,
    })


def completion():
    """One for each command, in order, after its last result: how it went, and how many results are NaN."""
    return data.StructLayout({"tag": 8, "error": Error, "nans": 32})
