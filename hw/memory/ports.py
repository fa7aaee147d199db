# SPDX-License-Identifier: Apache-2.0
"""What crosses the ports of the engines that move data between memory and scratchpad."""

from amaranth.lib import data, enum

__all__ = ["Error", "completion", "instruction"]


class Error(enum.Enum, shape=8):
    """Why an instruction was refused or what it moved is not to be trusted."""

    NONE = 0
    ALIGNMENT = 1       # an address, pitch or step that is not a multiple of a beat, or of an index: nothing is moved
    DIMENSION = 2       # no bytes, rows or indices, or rows longer than the scratchpad: nothing is moved
    INDEX = 3           # an index whose rows would begin beyond all addresses: only rows before them are moved
    BUS = 4             # memory answered with an error


def instruction(form):
    """An instruction of a form of `golden.isa.FORMS`, its registers added."""
    return data.StructLayout({"opcode": 5, "words": data.ArrayLayout(32, len(form))})


def completion():
    """One for each instruction, in order."""
    return data.StructLayout({"error": Error})
