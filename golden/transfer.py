# SPDX-License-Identifier: Apache-2.0
"""What can go wrong where data move between memory and tile: codes of `LOAD`, `WEIGHTS` and `STORE`."""

from enum import IntEnum

__all__ = ["Error"]


class Error(IntEnum):
    """Why an instruction was refused or what it moved is not to be trusted."""

    NONE = 0
    ALIGNMENT = 1       # an address, pitch or step that is not a multiple of a beat, or of an index: nothing is moved
    DIMENSION = 2       # no bytes, rows or indices, or rows longer than the scratchpad: nothing is moved
    INDEX = 3           # an index whose rows would begin beyond all addresses: only rows before them are moved
    BUS = 4             # memory answered with an error
