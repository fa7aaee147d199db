# SPDX-License-Identifier: Apache-2.0
"""What a board and its host say to each other over a serial line: the one description both are made from.

The host sends an opcode and its operands, the board one answer, in turn; numbers are little-endian.
An answer begins with an `Answer`, and what follows it, if it is `OK`, belongs to the opcode. After any
other answer the board ignores its line until that has been quiet for a while, so that both sides are
in step again; a frame that stops in its middle ends in the same way.
"""

from enum import IntEnum

__all__ = ["ANSWERS", "OPERANDS", "Answer", "Opcode", "VERSION", "size"]

VERSION = 1


class Opcode(IntEnum):
    """What the host asks for."""

    IDENTIFY = 1
    WRITE = 2           # `count` bytes follow the operands
    READ = 3            # `count` bytes follow the answer
    START = 4
    STATUS = 5


class Answer(IntEnum):
    """How it went."""

    OK = 0
    FRAMING = 1         # a byte without its stop bit
    OPCODE = 2          # no such opcode
    TIMEOUT = 3         # the rest of a frame did not come
    ADDRESS = 4         # beyond the memory
    BUSY = 5            # a command is under way


_SPAN = {"address": 4, "count": 2}

OPERANDS = {
    Opcode.IDENTIFY: {},
    Opcode.WRITE: _SPAN,
    Opcode.READ: _SPAN,
    Opcode.START: {
        "tag": 1,
        "m": 2, "n": 2, "k": 2,
        "a_format": 1, "w_format": 1, "y_format": 1,
        "row_scaled": 1, "column_scaled": 1, "biased": 1, "accumulate": 1, "mx": 1,
        "a": 4, "a_pitch": 4, "w": 4, "a_scales": 4, "a_scales_pitch": 4,
        "row_scales": 4, "column_scales": 4, "bias": 4, "c": 4, "c_pitch": 4,
        "y": 4, "y_pitch": 4,
    },
    Opcode.STATUS: {},
}
"""Operands of each opcode and their bytes. Those of START are a GEMM's, as `hw.matmul.ports.command`
has them (an engine without one of them ignores it), and where its results go: row `i` from byte
`y + i * y_pitch` on."""

ANSWERS = {
    Opcode.IDENTIFY: {"version": 1, "lanes": 1, "rows": 1, "drain": 1, "cols": 2, "acc_rows": 2, "memory": 4},
    Opcode.WRITE: {},
    Opcode.READ: {},
    Opcode.START: {},
    Opcode.STATUS: {"busy": 1, "fault": 1, "tag": 1, "error": 1, "nans": 4, "cycles": 4},
}
"""What follows OK. `memory` is in bytes. The status is that of the command started last: `fault` says that
it reached beyond the memory, `error` is the engine's, `cycles` are those from start to completion."""


def size(fields):
    """Bytes of some fields together."""
    return sum(fields.values())
