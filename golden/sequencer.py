# SPDX-License-Identifier: Apache-2.0
"""What the sequencer makes of a program: which instruction goes to which engine, with what, and after what.

Engines are not part of this: `golden.tile` carries out what is dispatched, in this order, which is one of those in
which the hardware may.
"""

from dataclasses import dataclass, replace

from golden.isa import FORMS, HEAD, REGISTERS, Control, Engine, Error, Instruction, IsaError

__all__ = ["Dispatched", "run"]

MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Dispatched:
    """An instruction on its way to its engine.

    Attributes
    ----------
    pc : int
    instruction : Instruction
        Its fields with their registers added.
    after : dict of Engine to int
        How many of an engine's instructions must have completed before it begins, counted from the program's start.
    """

    pc: int
    instruction: Instruction
    after: dict

    @property
    def engine(self):
        return self.instruction.engine

    @property
    def words(self):
        """Body words of its form."""
        form = FORMS[self.engine][self.instruction.opcode]
        return self.instruction.words[HEAD:HEAD + len(form)]


def run(program, registers=(0,) * REGISTERS):
    """What a program dispatches, one after the other, until its `END`.

    Parameters
    ----------
    program : list of Instruction
        As `golden.isa.disassemble` reads it.
    registers : sequence of int
        What they hold at the start; that of register 0 does not count.

    Yields
    ------
    Dispatched

    Raises
    ------
    IsaError
        Where the sequencer would stop: a field that its register makes too big, or a loop of no iterations.
    """
    values, loops, issued, pc = [0, *registers[1:]], [], dict.fromkeys(Engine, 0), 0
    while program[pc].opcode is not Control.END:
        each = _resolved(program[pc], values, pc)
        if each.engine is Engine.CONTROL:
            pc = _control(each, values, loops, pc)
            continue
        after = {engine: issued[engine] + 1 - distance for engine, distance in each.waits.items()}
        yield Dispatched(pc, each, {engine: count for engine, count in after.items() if count > 0})
        issued[each.engine] += 1
        pc += 1


def _resolved(instruction, values, pc):
    """An instruction with its registers added."""
    fields = dict(instruction.fields)
    for key, register in instruction.registers.items():
        fields[key] = fields.get(key, 0) + values[register] & MASK
    for word in FORMS[instruction.engine][instruction.opcode]:
        for key, bits in word.items():
            if fields.get(key, 0) >> bits:
                raise IsaError(f"{instruction.opcode.name}: {key} of {bits} bits cannot be {fields[key]:#x}",
                               Error.ILLEGAL, pc)
    return replace(instruction, fields=fields, registers={})


def _control(instruction, values, loops, pc):
    """Do what an instruction of the sequencer itself says; where the program goes on."""
    value = {key: instruction.fields.get(key, 0) for word in FORMS[Engine.CONTROL][instruction.opcode] for key in word}
    match instruction.opcode:
        case Control.LOOP:
            if not value["count"]:
                raise IsaError("LOOP: a count of 0", Error.LOOP, pc)
            loops.append([pc + 1, value["count"]])
        case Control.NEXT:
            loops[-1][1] -= 1
            if loops[-1][1]:
                return loops[-1][0]
            loops.pop()
        case Control.SET:
            values[value["register"]] = value["value"]
        case Control.ADD:
            values[value["register"]] = values[value["register"]] + value["value"] & MASK
        case Control.SWAP:
            one, other = value["register"], value["other"]
            values[one], values[other] = values[other], values[one]
    values[0] = 0
    return pc + 1
