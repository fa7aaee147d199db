# SPDX-License-Identifier: Apache-2.0
"""What a run costs in energy: what took place, times what each costs. An estimate, whose numbers are written here.

Arithmetic and memories on the chip are those of 45 nm and 0.9 V in M. Horowitz, "Computing's energy problem (and what
we can do about it)", ISSCC 2014: products and sums of INT8 0.2 and 0.03 pJ, of FP16 1.1 and 0.4, of FP32 3.7 and 0.9; a
sum of INT32 0.1; 64 bits of a memory of 8 KiB 10 pJ, of 32 KiB 20, of 1 MiB 100. What is not in it is put together from
it, as `how` says. Memory outside is that of M. O'Connor et al., "Fine-Grained DRAM", MICRO 2017: 3.9 pJ a
bit for HBM2, which we also take for LPDDR4, whose pins cost more and whose rows are shorter. Clocks, wires and leakage
are left out.
"""

from collections import Counter
from dataclasses import dataclass

from golden.families import FORMAT_CODES
from golden.formats import FORMATS
from golden.isa import Engine, Heads, Operation, Second

__all__ = ["EVENTS", "Event", "activity", "joules"]


@dataclass(frozen=True)
class Event:
    """What one of its kind costs.

    Attributes
    ----------
    pj : float
    engine : str
        Whose energy it is.
    how : str
    """

    pj: float
    engine: str
    how: str


PRODUCT, SUM = 3.7, 0.9         # FP32
BYTE = 20 / 8                   # of a memory of 32 KiB, 64 bits wide

EVENTS = {
    "macs_e4m3": Event(0.05 + 0.2, "matmul", "a product of 4 bits, a quarter of INT8's; two sums of INT32"),
    "macs_int8": Event(0.2 + 0.1, "matmul", "a product of INT8, a sum of INT32"),
    "macs_e2m1": Event(0.025 + 0.2, "matmul", "a product of 2 by 4 bits; a sum as of E4M3"),
    "macs_bf16": Event(1.1 + 0.9, "matmul", "a product of FP16, a sum of FP32"),
    "attention_macs": Event(0.3 + 0.2, "heads", "a product of 4 by 8 bits, and a sum of 48"),
    "vector_mul": Event(PRODUCT, "vector", "a product of FP32"),
    "vector_add": Event(SUM, "vector", "a sum of FP32"),
    "vector_rope": Event(2 * PRODUCT + SUM, "vector", "two products and a sum of FP32"),
    "vector_rms_norm": Event(3 * PRODUCT + SUM, "vector", "a square, its sum, two products of FP32"),
    "vector_silu": Event(4 * PRODUCT + 3 * SUM, "vector", "a table with two products and sums, another, and the gate"),
    "vector_softmax": Event(4 * PRODUCT + 4 * SUM, "vector", "a table with two products and sums, scale and total"),
    "vector_top_k": Event(SUM, "vector", "a comparison, as a sum of FP32"),
    "scratchpad_bytes": Event(BYTE, "scratchpad", "a byte of 64 bits of 32 KiB, which is a bank's size or so"),
    "prefetch_bytes": Event(2 * 10 / 8, "weights", "into 8 KiB and out again"),
    "memory_bytes": Event(8 * 3.9, "memory", "3.9 pJ a bit"),
}
WIDTHS = {code: FORMATS[name].width / 8 for name, code in FORMAT_CODES.items()}


def joules(counts):
    """Energy of counted events, in pJ, by engine.

    Parameters
    ----------
    counts : dict of str to number
        By names of `EVENTS`; others cost nothing.
    """
    found = Counter()
    for name, count in counts.items():
        if name in EVENTS:
            found[EVENTS[name].engine] += EVENTS[name].pj * count
    return found


def activity(chip, counters, golden, instructions):
    """What took place.

    Parameters
    ----------
    chip : golden.config.Chip
    counters : dict of str to int
        A simulated tile's: beats of memory.
    golden : dict of str to int
        What the reference counted in the same programs: products, elements.
    instructions : iterable of golden.isa.Instruction
        As they were carried out: bytes of the scratchpad.
    """
    beats = sum(count for name, count in counters.items() if "_beats_" in name)
    return Counter(golden) + Counter(
        memory_bytes=beats * chip.memory.channel, prefetch_bytes=counters["weights_beats_read"] * chip.memory.channel,
        scratchpad_bytes=sum(_scratchpad(chip, each) for each in instructions))


def _scratchpad(chip, instruction):
    """Bytes that an instruction reads from the scratchpad and writes to it."""
    given = {name: instruction.fields.get(name, 0) for name in instruction.names}
    match instruction.engine:
        case Engine.LOAD | Engine.STORE:
            return given["bytes"] * given["rows"] * given.get("count", 1)
        case Engine.MATMUL:
            m, n, k = given["m"], given["n"], given["k"]
            columns = -(-n // chip.matmul.cols)             # each of which the activations pass once
            return m * (k * WIDTHS[given["a_format"]] * columns + n * (
                WIDTHS[given["y_format"]] + 4 * given["accumulate"]))
        case Engine.VECTOR:
            own = WIDTHS[given["x_format"]] * max(given["k"], 1)
            if instruction.opcode is not Operation.TOP_K:
                own += WIDTHS[given["result_format"]]
            if given["second"] == Second.ELEMENT:
                own += WIDTHS[given["y_format"]]
            return given["rows"] * given["length"] * own
        case Engine.HEADS if instruction.opcode is Heads.ATTEND:
            heads = chip.kvcache.kv_heads * (2 * given["group"] + 2)        # queries, results; keys, values
            return 4 * given["rows"] * heads * chip.kvcache.head_dim
    return 0
