# SPDX-License-Identifier: Apache-2.0
"""What instructions of the vector engine can say; `golden.vector` says what they mean."""

from enum import IntEnum

__all__ = ["K_MAX", "LENGTH", "PARTIALS", "ROWS", "Operation", "Quantize", "Second"]

ROWS, LENGTH = 16, 20   # bits of the number of rows and of a row's length
K_MAX = 8               # of `TOP_K`
PARTIALS = 4            # sums of a row that grow in turn: as many as an addition takes cycles, and one


class Operation(IntEnum):
    """What becomes of x and y. An absent y is 1."""

    MUL = 0         # x * y; without y: a copy
    ADD = 1         # alpha * x + beta * y
    ROPE = 2        # x * y, neighbours taken as complex numbers
    SILU = 3        # x * y / (1 + 2**(alpha * x)); alpha = -1 / ln 2
    RMS_NORM = 4    # x * y / sqrt(alpha * sum(x**2) + beta); alpha = 1 / length
    SOFTMAX = 5     # 2**(alpha * x) over its sum
    TOP_K = 6       # the k largest of x * y, and where they are


class Second(IntEnum):
    """What y is."""

    ABSENT = 0
    ELEMENT = 1     # a number for each element
    ROW = 2         # one for each row
    BLOCK = 3       # an E8M0 scale for each block of 32: MX elements become numbers; of `MUL` and `TOP_K`


class Quantize(IntEnum):
    """What results share a scale, which is written beside them."""

    NONE = 0
    ROW = 1         # a row, in FP32
    MX = 2          # a block of 32, in E8M0, by the rule of OCP
    MX_CEIL = 3     # the same; the smallest scale under which none saturates
