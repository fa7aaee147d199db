# SPDX-License-Identifier: Apache-2.0
"""The engines `LOAD` and `STORE`: which bytes they move, and what they refuse.

Memory and scratchpad are arrays of bytes. Nobody answers for what is beyond memory; what is beyond the scratchpad ends
a program. Addresses wrap round at 32 bits.
"""

import numpy as np

from golden.isa import Load
from golden.transfer import Error

__all__ = ["AddressError", "load", "part", "refusal", "store"]

REACH = 1 << 32     # of addresses
INDEX = 4           # bytes


class AddressError(ValueError):
    """An address that the scratchpad has not, or at which it cannot be used so."""


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
    """Carry out a `LOAD`: rows of whole beats, from `memory` to `scratchpad`. Returns its `Error`, the first.

    Raises
    ------
    AddressError
    """
    error = refusal(instruction, beat, len(scratchpad))
    if error:
        return error
    given = _fields(instruction)
    length, target = -(-given["bytes"] // beat) * beat, given["target"]
    for start in _starts(instruction, scratchpad):
        if start >= REACH:
            return error or Error.INDEX
        for row in range(given["rows"]):
            source = (start + row * given["source_pitch"]) % REACH
            to = part(scratchpad, target, length)
            if source + length > len(memory):
                error = Error.BUS
            else:
                to[:] = memory[source:source + length]
            target = (target + given["target_pitch"]) % REACH
    return error


def store(instruction, memory, scratchpad, beat):
    """Carry out a `STORE`: rows of bytes, from `scratchpad` to `memory`. Returns its `Error`.

    Raises
    ------
    AddressError
    """
    error = refusal(instruction, beat, len(scratchpad))
    if error:
        return error
    given = _fields(instruction)
    for row in range(given["rows"]):
        source, target = ((given[name] + row * given[f"{name}_pitch"]) % REACH for name in ("source", "target"))
        content = part(scratchpad, source, given["bytes"])
        if target + len(content) > len(memory):
            error = Error.BUS
        else:
            memory[target:target + len(content)] = content
    return error


def part(scratchpad, address, count, beat=1):
    """Bytes of the scratchpad, which some beats begin with.

    Raises
    ------
    AddressError
    """
    if address % beat:
        raise AddressError(f"address {address:#x}: must be a multiple of {beat}")
    if address + count > len(scratchpad):
        raise AddressError(f"bytes {address:#x} to {address + count:#x}: the scratchpad has {len(scratchpad):#x}")
    return scratchpad[address:address + count]


def _starts(instruction, scratchpad):
    """Where the rows of each index begin."""
    given = _fields(instruction)
    if instruction.opcode is not Load.GATHER:
        yield given["source"]
        return
    for n in range(given["count"]):
        place = (given["index"] + n * given["index_pitch"]) % REACH
        yield given["source"] + given["step"] * int.from_bytes(np.asarray(part(scratchpad, place, INDEX)), "little")


def _fields(instruction):
    """All fields of a form; those that are absent are 0."""
    return {name: instruction.fields.get(name, 0) for name in (
        "source", "source_pitch", "target", "target_pitch", "bytes", "rows", "step", "index", "index_pitch", "count")}
