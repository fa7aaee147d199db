# SPDX-License-Identifier: Apache-2.0
"""What a board with a tile and its host say to each other over a serial line: the one description both are made from.

The host sends an opcode and its operands, the board one answer, in turn; numbers are little-endian.
An answer begins with an `Answer`, and what follows it, if it is `OK`, belongs to the opcode. After any
other answer the board ignores its line until that has been quiet for a while, so that both sides are
in step again; a frame that stops in its middle ends in the same way.
"""

import zlib
from enum import IntEnum

__all__ = ["ANSWERS", "OPERANDS", "Answer", "Opcode", "VERSION", "fingerprint", "size"]

VERSION = 2


class Opcode(IntEnum):
    """What the host asks for."""

    IDENTIFY = 1
    WRITE = 2           # `count` bytes of memory follow the operands
    READ = 3            # `count` bytes of memory follow the answer
    SET = 4             # a register of the tile
    GET = 5


class Answer(IntEnum):
    """How it went."""

    OK = 0
    FRAMING = 1         # a byte without its stop bit
    OPCODE = 2          # no such opcode
    TIMEOUT = 3         # the rest of a frame did not come
    ADDRESS = 4         # beyond the memory
    REGISTER = 5        # no such register


_SPAN = {"address": 4, "count": 2}

OPERANDS = {
    Opcode.IDENTIFY: {},
    Opcode.WRITE: _SPAN,
    Opcode.READ: _SPAN,
    Opcode.SET: {"value": 4, "register": 2},
    Opcode.GET: {"register": 2},
}
"""Operands of each opcode and their bytes. A register is named by its address, as `golden.registers` has it."""

ANSWERS = {
    Opcode.IDENTIFY: {"version": 1, "memory": 4, "chip": 4},
    Opcode.WRITE: {},
    Opcode.READ: {},
    Opcode.SET: {},
    Opcode.GET: {"value": 4},
}
"""What follows OK. `memory` is in bytes; `chip` is the `fingerprint` of what the board was made from."""


def fingerprint(chip):
    """A number of 32 bits for all of a `golden.config.Chip` that programs depend on."""
    parts = chip.matmul, chip.vector, chip.kvcache, chip.attention, chip.memory, chip.sequencer
    return zlib.crc32(repr(parts).encode())


def size(fields):
    """Bytes of some fields together."""
    return sum(fields.values())
