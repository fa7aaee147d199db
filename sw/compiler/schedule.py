# SPDX-License-Identifier: Apache-2.0
"""What instructions have to wait for: those before them that read or write the same bytes.

A program is gone through as the sequencer does. For each instruction, and each engine, the last one whose bytes overlap
with its own must have completed before it begins. How far back that is may differ from one turn of a loop to the next;
the nearest serves all.
"""

from dataclasses import replace

from golden.families import FORMAT_CODES
from golden.formats import FORMATS, MX_BLOCK
from golden.isa import WAITS, Control, Engine, Gemm, Heads, Load, Operation, Quantize, Second, Store, Weights

__all__ = ["footprint", "schedule"]

MOST = (1 << WAITS) - 1
TURNS = 3               # of a loop around others, after which nothing new comes
WIDTHS = {code: FORMATS[name].width for name, code in FORMAT_CODES.items()}


def schedule(chip, program):
    """A program of `Instruction` with the waits that it needs.

    Parameters
    ----------
    chip : golden.config.Chip
    program : list of golden.isa.Instruction
        Without waits; registers are set before they are used.
    """
    waits = [{} for _ in program]
    issued = dict.fromkeys(Engine, 0)
    touched = {}                                    # by (engine, writes, memory, first, end): number in its engine
    for pc, given in _walk(program):
        each = program[pc]
        own = footprint(chip, each, given)
        latest = {}
        for (engine, writes, *place), number in touched.items():
            if number > latest.get(engine, -1) and any(
                    (writes or write) and _overlap(place, mine) for write, *mine in own):
                latest[engine] = number
        for engine, number in latest.items():
            distance = min(issued[engine] - number, MOST)
            waits[pc][engine] = min(waits[pc].get(engine, MOST), distance)
        for write, *mine in own:
            touched[each.engine, write, *mine] = issued[each.engine]
        issued[each.engine] += 1
    return [replace(each, waits=wait) for each, wait in zip(program, waits, strict=True)]


def footprint(chip, instruction, given):
    """What an instruction reads and writes whose fields have become `given`.

    Returns
    -------
    list of (bool, str, int, int)
        Whether it is written, in which memory, from where on and up to where.
    """
    def rows(write, address, pitch, count, size, memory="scratchpad"):
        return write, memory, address, address + (count - 1) * pitch + size

    beat = chip.memory.channel
    match instruction.engine, instruction.opcode:
        case Engine.LOAD, Load.COPY:
            size = -(-given["bytes"] // beat) * beat
            return [rows(False, given["source"], given["source_pitch"], given["rows"], size, "memory"),
                    rows(True, given["target"], given["target_pitch"], given["rows"], size)]
        case Engine.LOAD, Load.GATHER:
            size, count = -(-given["bytes"] // beat) * beat, given["count"]
            return [rows(False, given["index"], given["index_pitch"], count, 4),
                    rows(True, given["target"], given["target_pitch"], count * given["rows"], size)]
        case Engine.STORE, Store.COPY:
            return [rows(False, given["source"], given["source_pitch"], given["rows"], given["bytes"]),
                    rows(True, given["target"], given["target_pitch"], given["rows"], given["bytes"], "memory")]
        case Engine.WEIGHTS, Weights.STREAM:
            return []
        case Engine.MATMUL, Gemm.GEMM:
            return _gemm(chip, rows, given)
        case Engine.HEADS, Heads.ATTEND:
            kv, count, pitch = chip.kvcache, given["rows"], given["pitch"]
            own = 4 * kv.kv_heads * kv.head_dim
            return [rows(False, given["q"], pitch, count, own * given["group"]),
                    rows(False, given["k"], pitch, count, own), rows(False, given["v"], pitch, count, own),
                    rows(True, given["result"], given["result_pitch"], count, own * given["group"])]
        case Engine.HEADS, Heads.EXTEND:
            return [rows(True, given["result"], 0, 1, 4)]
        case Engine.HEADS, Heads.COMMAND:
            return [rows(True, given["result"], 0, 1, 8)]
        case Engine.VECTOR, operation:
            return _vector(operation, rows, given)
    raise TypeError(f"footprint: {instruction.opcode!r} is not of an engine")


def _gemm(chip, rows, given):
    m, n, k = given["m"], given["n"], given["k"]
    found = [rows(False, given["a"], given["a_pitch"], m, -(-k * WIDTHS[given["a_format"]] // 8)),
             rows(True, given["y"], given["y_pitch"], m, n * WIDTHS[given["y_format"]] // 8)]
    if given["row_scaled"]:
        found.append(rows(False, given["scales"], 0, 1, 4 * m))
    if given["mx"]:
        found.append(rows(False, given["scales"], given["scales_pitch"], -(-k // MX_BLOCK), m))
    for flag, name in ("column_scaled", "column_scales"), ("biased", "bias"):
        if given[flag]:
            found.append(rows(False, given[name], 0, 1, 4 * n))
    if given["accumulate"]:
        found.append(rows(False, given["c"], given["c_pitch"], m, 4 * n))
    return found


def _vector(operation, rows, given):
    count, length, second = given["rows"], given["length"], Second(given["second"])
    found = [rows(False, given["x"], given["x_pitch"], count, -(-length * WIDTHS[given["x_format"]] // 8))]
    if second != Second.ABSENT:
        bits = {Second.ELEMENT: length * WIDTHS.get(given["y_format"], 0), Second.ROW: WIDTHS.get(given["y_format"], 0),
                Second.BLOCK: -(-length // MX_BLOCK) * 8}[second]
        found.append(rows(False, given["y"], given["y_pitch"], count, -(-bits // 8)))
    if operation == Operation.TOP_K:
        return [*found, rows(True, given["scalars"], given["scalars_pitch"], count, 8 * given["k"])]
    size = -(-length * WIDTHS[given["result_format"]] // 8)
    found.append(rows(True, given["result"], given["result_pitch"], count, size))
    if given["quantize"] == Quantize.ROW:
        found.append(rows(True, given["scalars"], given["scalars_pitch"], count, 4))
    elif given["quantize"]:
        found.append(rows(True, given["scalars"], given["scalars_pitch"], -(-length // MX_BLOCK), count))
    return found


def _overlap(a, b):
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _walk(program):
    """Instructions of engines as they leave: number in the program, and fields with registers added."""
    registers, loops, pc = [0] * 8, [], 0
    inner = _inner(program)
    while pc < len(program):
        each = program[pc]
        given = {name: each.fields.get(name, 0) + registers[each.registers.get(name, 0)] & 0xFFFFFFFF
                 for name in each.names}
        match each.engine, each.opcode:
            case Engine.CONTROL, Control.LOOP:
                loops.append([pc, given["count"] if pc in inner else min(given["count"], TURNS)])
            case Engine.CONTROL, Control.NEXT:
                loops[-1][1] -= 1
                if loops[-1][1]:
                    pc = loops[-1][0]
                else:
                    loops.pop()
            case Engine.CONTROL, Control.SET:
                registers[given["register"]] = given["value"]
            case Engine.CONTROL, Control.ADD:
                registers[given["register"]] = registers[given["register"]] + given["value"] & 0xFFFFFFFF
            case Engine.CONTROL, Control.SWAP:
                a, b = given["register"], given["other"]
                registers[a], registers[b] = registers[b], registers[a]
            case _:
                yield pc, given
        pc += 1


def _inner(program):
    """Loops that have no others in them."""
    found, last = set(), None
    for pc, each in enumerate(program):
        if each.opcode is Control.LOOP:
            last = pc
        elif each.opcode is Control.NEXT and last is not None:
            found.add(last)
            last = None
    return found
