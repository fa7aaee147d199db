# SPDX-License-Identifier: Apache-2.0
"""The vector engine's mutants, and what they are put to: instructions of all kinds, as golden."""

import numpy as np

from golden.config import Vector
from golden.formats import FORMATS, FP32, MX_BLOCK, decode, encode
from golden.isa import Operation, Quantize, Second
from golden.vector import LOG2E, QUANTIZED, Instruction, code, rms_norm, scale_blocks, scale_rows
from hw.vector.back import Back
from hw.vector.engine import Engine
from hw.vector.issue import Issue, Unpack
from hw.vector.reduce import Largest, Most, Sum
from hw.vector.scalars import Scalars
from hw.vector.walker import Walker
from hw.vector.writer import Writer
from sim.formal.prove import Task
from sim.formal.vector import BackRules, IssueRules, WalkerRules, WriterRules
from sim.mutation.campaign import Unwatched, judged
from sim.mutation.mutants import Target
from sim.vector import Call, Job

__all__ = ["CONFIG", "corners", "inside", "jobs", "run"]

BENCH = "sim.benches.vector_mutants"
CONFIG = Vector(lanes=4, row_max=64)


def run(folder, progress, label=""):
    """Judge the mutants of the blocks whose label begins so; return a list of `campaign.Verdict`."""
    return judged("vector", inside(), jobs(), BENCH, folder, progress, label)


def inside():
    """An engine, and what of it is mutated. What computes has no contract but what golden says."""
    engine, lanes = Engine(CONFIG), CONFIG.lanes
    return engine, [
        Target("vector_walker", Task(Walker(CONFIG), WalkerRules, depth=6)),
        Target("vector_unpack", Task(Unpack(lanes), Unwatched)),
        Target("vector_issue", Task(Issue(CONFIG, Largest(lanes).latency), IssueRules, depth=14), compared=False),
        Target("vector_most", Task(Most(lanes), Unwatched), compared=False),
        Target("vector_sum", Task(Sum(lanes), Unwatched), compared=False),
        Target("vector_largest", Task(Largest(lanes), Unwatched), compared=False),
        Target("vector_scalars", Task(Scalars(CONFIG.units), Unwatched), compared=False),
        Target("vector_back", Task(Back(lanes), BackRules, depth=10, cut=("finish*",)), compared=False),
        Target("vector_writer", Task(Writer(lanes), WriterRules, depth=8)),
        Target("vector", Task(engine, Unwatched), compared=False),
    ]


def jobs():
    """Operations, formats, scales and lengths of all kinds; refused ones, broken reads, stalls."""
    rng = np.random.default_rng(1)
    rules = [(operation, rule) for operation in Operation for rule in (
        [Quantize.NONE] if operation in (Operation.SOFTMAX, Operation.TOP_K) else Quantize)]
    all_kinds = [_call(rng, *rules[n % len(rules)], int(rng.choice([1, 4, 7, 32, 64, 50])), n, rows=1 + n % 3)
                 for n in range(72)]
    bad = [{"operation": 7}, {"second": 3}, {"rows": 0}, {"length": 0}, {"x_format": 6}, {"y_format": 7},
           {"result_format": 6}, {"quantize": 2, "result_format": 4}, {"quantize": 1, "result_format": 1},
           {"quantize": 3, "result_format": 0}, {"quantize": 1, "result_format": 2, "length": 65}]
    bad += [{"operation": Operation.TOP_K, **each} for each in (
        {"k": 0}, {"k": 9}, {"k": 8, "length": 7}, {"quantize": 1, "result_format": 2})]
    bad += [{"operation": Operation.ROPE, "length": 7}, {"operation": Operation.SOFTMAX, "quantize": 1}]
    bad += [{"operation": Operation.SOFTMAX, "length": 1 << n} for n in range(7, 20)]
    bad += [{"second": Second.BLOCK, "x_format": n} for n in (0, 1, 4, 6)]
    bad += [{"second": Second.BLOCK, "x_format": 2, "operation": each} for each in Operation
            if each not in (Operation.MUL, Operation.TOP_K)]
    refused = [_call(rng, Operation.MUL, Quantize.NONE, 9, n) for n in range(2 * len(bad))]
    for call, fields in zip(refused[::2], bad, strict=True):
        call.fields = fields
    refused += [_call(rng, operation, Quantize.NONE, 64, 4) for operation in (Operation.SOFTMAX, Operation.RMS_NORM)]
    for call in refused[-2:]:
        call.fields = {"length": 65}
    # All exponents in a row; sums of nothing.
    wild = [_wild(rng, *rules[n % len(rules)], n) for n in range(3 * len(rules))]
    nothing = [Call(Instruction(operation, "fp32", "fp32", "fp32", beta=0.0), np.full((2, 9), code, np.uint32))
               for operation, code in ((Operation.SOFTMAX, 0xFF800000), (Operation.RMS_NORM, 0))]
    nothing += [Call(Instruction(Operation.MUL), np.full((1, 5001), 0x7FC0, np.uint16))]
    few = np.array([0, 1 << 31, 0x3F800000, 0xBF800000, 0x40000000, 0x7FC00000, 0xFF800000], np.uint32)
    equal = [Call(Instruction(Operation.TOP_K, "fp32", k=8), rng.choice(few[:n], (6, 50))) for n in (2, 4, 5, 7)]
    equal += [_call(rng, Operation.TOP_K, Quantize.NONE, 3, 1, rows=70)]
    short = [_call(rng, *rules[n % len(rules)], 2 + 2 * (n % 3), n, rows=1 + n % 4) for n in range(60)]
    far = np.zeros((1, 16380), np.uint8)
    far[0, [0x1555, 0x2AAA]] = 0x38
    long = [Call(Instruction(Operation.TOP_K, "e4m3", k=2), far)]
    long += [_call(rng, Operation.MUL, Quantize.NONE, 8000, 1),
             _call(rng, Operation.ADD, Quantize.NONE, 3, 1, rows=650)]
    full = [[_call(rng, operation, rule, length, 3, rows=rows)] for operation, rule, length, rows in (
        (Operation.RMS_NORM, Quantize.ROW, 3, 60), (Operation.MUL, Quantize.MX, 33, 30), (Operation.ADD, 0, 64, 12))]
    return [
        Job(CONFIG, all_kinds, queue=False),
        Job(CONFIG, [*wild, *nothing, *equal], seed=7),
        Job(CONFIG, corners(), seed=9),
        Job(CONFIG, short, stall=0.4, seed=1),
        Job(CONFIG, all_kinds[::-1], stall=0.2, seed=2, latency=3),
        Job(CONFIG, refused, stall=0.3, seed=3),
        Job(CONFIG, short[:30], seed=4, broken={("x", 3): -1, ("y", 4): 1}),
        Job(CONFIG, short, seed=4, broken={("x", n): -1 for n in range(0, 80, 3)} | {("y", n): 1 for n in range(40)}),
        Job(CONFIG, equal[:2], seed=8, broken={("x", 1): -1}),      # not the last read of an instruction
        *(Job(CONFIG, calls, stall=0.9, seed=5, reset=600) for calls in full),      # while queues are full
        Job(CONFIG, short, stall=0.3, seed=10, reset=231),
        Job(CONFIG, long, seed=6),
    ]


def corners():
    """Calls on scores, constants, sums, scales and results of which each bit tells."""
    rng = np.random.default_rng(2)
    return [*_scores(rng), *_constants(rng), *_small_sums(), *_blocks(rng), *_tops(rng), *_edges(rng)]


def _scores(rng):
    """Softmax of scores as far apart as their powers can be, running up, down and anyhow; with NaN and Inf."""
    scores = [far + np.sort(rng.uniform(-135, 0, (4, 37)))[:, ::turn]
              for far in (-65534, -65420, -30000, -200, 0, 77, 1000, 30000, 65500) for turn in (1, -1)]
    scores += [rng.permuted(each, axis=-1) for each in scores]
    lone = np.full((32, 9), -1000.0)                # one score far above all others, in each lane
    lone[range(32), np.arange(32) % 9] = np.repeat([300, 511, 1023, 5000, 12345, 29999, -1, -200], 4)
    above = np.repeat(rng.integers(-30000, -200, (160, 1)), 6, 1) + 0.9     # by a power of two, in each lane
    above[range(160), np.arange(160) % 4] += 2.0 ** (7 + np.arange(160) // 4 % 10)
    for length in (40, 48):
        none = np.repeat([np.cumsum(rng.uniform(0, 9, length))], 2 * length, 0)
        none[range(2 * length), np.arange(2 * length) % length] = np.repeat([np.nan, np.inf], length)
        scores.append(none)
    return [Call(Instruction(Operation.SOFTMAX, "fp32", "fp32", "fp32"), np.float32(each).view(np.uint32))
            for each in (*scores, lone, above)]


def _constants(rng):
    """Constants of all sizes and signs, with operands to match."""
    for n in range(48):
        operation = (Operation.ADD, Operation.SILU, Operation.SOFTMAX, Operation.RMS_NORM)[n % 4]
        sizes = 2.0 ** np.array([5 * n - 117, rng.integers(-20, 20)])
        alpha, beta = rng.choice([-1, 1], 2) * rng.uniform(1, 2, 2) * sizes
        x = rng.standard_normal((2, 9)) / sizes[0] ** (0.5 if operation == Operation.RMS_NORM else 1)
        y = rng.standard_normal((2, 9)) * (1 / sizes[1] if operation == Operation.ADD else sizes[0])
        yield Call(Instruction(operation, "fp32", "fp32", "fp32", alpha, beta), encode(FP32, x), encode(FP32, y))


def _small_sums():
    """Norms of rows of one number each, whose square is among the smallest, in each of the partial sums."""
    x = np.zeros((4, 24, 16))
    for partial, rows in enumerate(x):
        rows[:, 4 * partial + 1] = 1.2 * 2.0 ** (np.array([*range(21), 31, 63, 127]) / 2 - 63)
    yield Call(Instruction(Operation.RMS_NORM, "fp32", "fp32", "fp32", beta=0.0), encode(FP32, x.reshape(-1, 16)))


def _blocks(rng):
    """Rows of so many blocks that their scales, which are of all sizes, fill words."""
    for blocks in (*range(3, 18), 32, 41):
        x = np.repeat(2.0 ** rng.integers(-120, 120, (2, blocks)), MX_BLOCK, -1)[:, 5:]
        rule = Quantize.MX if blocks % 4 < 2 else Quantize.MX_CEIL
        yield Call(Instruction(Operation.MUL, "fp32", result_format=QUANTIZED[rule][blocks % 3], quantize=rule),
                   encode(FP32, x * rng.standard_normal(x.shape)))
    for name in QUANTIZED[Quantize.MX]:             # and back
        x, scales = rng.integers(0, 1 << FORMATS[name].width, (2, 650)), rng.integers(0, 255, (2, 21))
        yield Call(Instruction(Operation.MUL, name, "e8m0", "fp32"), x.astype(np.uint8), scales.astype(np.uint8))


def _tops(rng):
    """Blocks whose largest magnitude is the largest of their format, or one bit from it."""
    for result in QUANTIZED[Quantize.MX_CEIL]:
        top = int(encode(FP32, decode(FORMATS[result], FORMATS[result].max)))
        tops = np.uint32(top + np.append(0, np.outer([1, -1], 1 << np.arange(22))))
        x = np.full((len(tops), MX_BLOCK), encode(FP32, 0.1))
        x[range(len(x)), rng.integers(0, MX_BLOCK, len(x))] = tops
        for rule in (Quantize.MX_CEIL, Quantize.ROW):
            yield Call(Instruction(Operation.MUL, "fp32", result_format=result, quantize=rule), x)


def _edges(rng):
    """Norms whose results are as near as can be to edges between two codes: each bit of their factors counts."""
    for rule, result in ((each, name) for each in QUANTIZED if each for name in QUANTIZED[each]):
        x, y, fmt = encode(FP32, rng.standard_normal((6, 64))), np.full((6, 64), encode(FP32, 1)), FORMATS[result]
        x[:, ::MX_BLOCK] = encode(FP32, 24)         # the largest of their blocks
        instruction = Instruction(Operation.RMS_NORM, "fp32", "fp32", result, 1 / 64, 1e-5, rule)
        kept, share = rms_norm(x, y, code(instruction.alpha), code(instruction.beta), CONFIG.lanes)
        factor, _ = (scale_rows(fmt, kept, share) if rule == Quantize.ROW else
                     scale_blocks(fmt, kept, share, rule == Quantize.MX_CEIL))
        values = decode(fmt, np.arange(fmt.max // 2))
        edges = rng.choice((values[1:] + values[:-1]) / 2, x.shape)
        y = np.where(x == encode(FP32, 24), y, encode(FP32, edges / decode(FP32, factor) / decode(FP32, x)))
        yield Call(instruction, x, y)


def _wild(rng, operation, rule, number):
    """A call on FP32 numbers of all sizes, a few of them infinite or none."""
    def draw(rows):
        exponent = rng.integers(*[(0, 255), (90, 160), (1, 40), (200, 254)][number % 4], (rows, 40))
        codes = rng.integers(0, 2, (rows, 40)) << 31 | exponent << 23 | rng.integers(0, 1 << 23, (rows, 40))
        odd = rng.choice([0x7F800000, 0x7FC00000, 0xFF800000, 0], (rows, 40))
        return np.where(rng.random((rows, 40)) < 0.005, odd, codes).astype(np.uint32)

    result = QUANTIZED[rule][number % len(QUANTIZED[rule])] if rule else "fp32"
    beta = rng.uniform(0.1, 1) if operation == Operation.RMS_NORM else rng.uniform(-1, 1)
    instruction = Instruction(operation, "fp32", "fp32", result, rng.uniform(0.5, 2), beta, rule, 3)
    return Call(instruction, draw(5), None if number % 3 else draw(1))


def _call(rng, operation, rule, length, number, rows=2):
    """A call whose number says which formats and which y it has."""
    formats = QUANTIZED[Quantize.NONE]
    length += length % 2 * (operation == Operation.ROPE)
    x, y = formats[number % 6], formats[number // 6 % 6]
    result = QUANTIZED[rule][number // 2 % len(QUANTIZED[rule])]
    width = length
    if operation in (Operation.MUL, Operation.TOP_K) and x in QUANTIZED[Quantize.MX] and number % 4 in (1, 2):
        y, width = "e8m0", -(-length // MX_BLOCK)
    shape = [None, (rows, width), (1, width), (rows, 1)][number % 4]

    def draw(name, shape):
        if name == "e8m0":
            return rng.integers(50, 200, shape).astype(np.uint8)
        return encode(FORMATS[name], rng.standard_normal(shape) * (40 if name == "int8" else 3))

    alpha = {Operation.SILU: -LOG2E, Operation.SOFTMAX: LOG2E, Operation.RMS_NORM: 1 / length}.get(operation, 0.75)
    instruction = Instruction(operation, x, y, result, alpha, 1e-5 if operation == Operation.RMS_NORM else -1.5,
                              Quantize(rule), min(1 + number % 8, length))
    return Call(instruction, draw(x, (rows, length)), shape and draw(y, shape))
