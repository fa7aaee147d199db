# SPDX-License-Identifier: Apache-2.0
"""The engines `LOAD` and `STORE`: which bytes they move, and what they refuse.

Memory and scratchpad are arrays of bytes; what is beyond them is nobody's. Addresses wrap round at 32 bits.
"""

from enum import IntEnum

import numpy as np

from golden.isa import Load

__all__ = ["Error", "load", "refusal", "store"]

REACH = 1 << 32     # of addresses
INDEX = 4           # bytes


class Error(IntEnum):
    """Why an instruction was refused or what it moved is not to be trusted."""

    NONE = 0
    ALIGNMENT = 1       # an address, pitch or step that is not a multiple of a beat, or of an index: nothing is moved
    DIMENSION = 2       # no bytes, rows or indices, or rows longer than the scratchpad: nothing is moved
    INDEX = 3           # an index whose rows would begin beyond all addresses: only rows before them are moved
    BUS = 4             # memory answered with an error


def refusal(instruction, beat, size):
    """Why an instruction is refused as a whole.

    Parameters
    ----------
    instruction : golden.isa.Instruction
        A `LOAD` or `STORE`; its registers have been added.
    beat, size : int
        Bytes of a beat of memory, and of the scratchpad.
    """
    given, gathers = _fields(instruction), instruction.opcode is Load.GATHER
    beats = ["source", "source_pitch", "target", "target_pitch", *["step"] * gathers]
    words = ["index", "index_pitch"] * gathers
    if any(given[name] % beat for name in beats) or any(given[name] % INDEX for name in words):
        return Error.ALIGNMENT
    if not all(given[name] for name in ["bytes", "rows", *["count"] * gathers]) or given["bytes"] > size:
        return Error.DIMENSION
    return Error.NONE


def load(instruction, memory, scratchpad, beat):
    """Carry out a `LOAD`: rows of whole beats, from `memory` to `scratchpad`. Returns its `Error`."""
    error = refusal(instruction, beat, len(scratchpad))
    if error:
        return error
    given = _fields(instruction)
    length, target = -(-given["bytes"] // beat) * beat, given["target"]
    for start in _starts(instruction, scratchpad):
        if start >= REACH:
            return Error.INDEX
        for row in range(given["rows"]):
            source = (start + row * given["source_pitch"]) % REACH
            scratchpad[target:target + length] = memory[source:source + length]
            target = (target + given["target_pitch"]) % REACH
    return Error.NONE


def store(instruction, memory, scratchpad, beat):
    """Carry out a `STORE`: rows of bytes, from `scratchpad` to `memory`. Returns its `Error`."""
    error = refusal(instruction, beat, len(scratchpad))
    if not error:
        given = _fields(instruction)
        for row in range(given["rows"]):
            source, target = ((given[name] + row * given[f"{name}_pitch"]) % REACH for name in ("source", "target"))
            memory[target:target + given["bytes"]] = scratchpad[source:source + given["bytes"]]
    return error


def _starts(instruction, scratchpad):
    """Where the rows of each index begin."""
    given = _fields(instruction)
    if instruction.opcode is not Load.GATHER:
        yield given["source"]
        return
    for n in range(given["count"]):
        place = (given["index"] + n * given["index_pitch"]) % REACH
        yield given["source"] + given["step"] * int.from_bytes(np.asarray(scratchpad[place:place + INDEX]), "little")


def _fields(instruction):
    """All fields of a form; those that are absent are 0."""
    return {name: instruction.fields.get(name, 0) for name in (
        "source", "source_pitch", "target", "target_pitch", "bytes", "rows", "step", "index", "index_pitch", "count")}
