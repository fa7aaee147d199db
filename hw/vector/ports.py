# SPDX-License-Identifier: Apache-2.0
"""What crosses the vector engine's ports."""

from amaranth.lib import data, enum

from golden.isa import LENGTH, ROWS
from hw.emit import Block
from hw.fetch import ADDRESS

__all__ = ["Error", "Part", "completion", "instruction", "result"]


class Error(enum.Enum, shape=3):
    """Why an instruction was refused or its results are not to be trusted."""

    NONE = 0
    OPERATION = 1       # no such operation, k is none, or nothing that scales its results
    DIMENSION = 2       # no rows, no elements, too long for an operation on whole rows, or odd for ROPE
    FORMAT = 3          # a format that operands, results or scaled results cannot have
    RESPONSE = 4        # a read came back shorter or longer than asked for


class Part(Block):
    """A block that depends on the engine's whole configuration and is named after it."""

    @property
    def name(self):
        return f"vector_{self.stem}_{self.config.lanes}x{self.config.row_max}"


def instruction():
    """One operation on `rows` rows of `length` elements, see `golden.isa` and `golden.vector`.

    Addresses and pitches, from row to row, are in bytes; elements of a row are packed. With a `y_pitch` of 0 all rows
    meet the same y. A row of scales, or of the values and places of `TOP_K`, goes to `scalars`. `tag` comes back with
    the results.
    """
    return data.StructLayout({
        "tag": 8, "operation": 3, "second": 2, "quantize": 2,
        "x_format": 3, "y_format": 3, "result_format": 3,
        "k": 4, "rows": ROWS, "length": LENGTH,
        "alpha": 32, "beta": 32,
        **{f"{name}{part}": ADDRESS for name in ("x", "y", "result", "scalars") for part in ("", "_pitch")},
    })


def result(lanes):
    """`bytes` bytes from `address` on, packed from bit 0; `last` of the instruction."""
    return data.StructLayout({"address": ADDRESS, "data": 32 * lanes, "bytes": range(4 * lanes + 1),
                              "tag": 8, "last": 1})


def completion():
    """One for each instruction, in order, after its last result: how it went, and how many results are NaN."""
    return data.StructLayout({"tag": 8, "error": Error, "nans": 32})
