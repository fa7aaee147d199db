# SPDX-License-Identifier: Apache-2.0
"""Figures of the vector engine: rates on the simulated RTL, accuracy, area of a lane, longest path."""

import contextlib
import sys

import numpy as np

from golden.config import Vector
from golden.formats import BF16, FP32, decode, encode
from golden.isa import Operation, Quantize
from golden.vector import LOG2E, Instruction, execute, pairs
from hw.emit import Verilog
from hw.flow import asic, liberty
from hw.flow.figures import figure
from hw.flow.report import critical
from hw.vector.back import Back, Finish
from hw.vector.engine import Engine
from hw.vector.issue import Issue
from hw.vector.lane import Lane, Operands
from hw.vector.reduce import Largest, Most, Sum
from hw.vector.scalars import Scalars
from sim.vector import Call, Job, run

__all__ = ["measure"]

CONFIG = Vector(lanes=16, row_max=4096)
BEATS = 4096            # of an instruction whose rate is measured
LENGTHS = 256, 1024, 4096
QUEUED = 32             # instructions of one row that follow each other
UNITS = {"multiply*": "multipliers", "functions*": "functions", "add": "adders"}


def measure(quick, library):
    """All figures, one by one.

    Parameters
    ----------
    quick : bool
        Without areas of what a lane does not depend on, and paths.
    library : list of path
        Liberty files, or none.
    """
    with contextlib.redirect_stdout(sys.stderr):
        rates = list(_rates())
    yield from rates
    yield from _accuracy()
    yield from _areas(quick, library)


# Cycles

def _call(operation, rows, length, quantize=Quantize.NONE, result="bf16"):
    """A call on BF16 rows, and a y where the operation is known with one."""
    rng = np.random.default_rng(length)
    draw = lambda rows: encode(BF16, rng.standard_normal((rows, length)))   # noqa: E731
    alpha = {Operation.SILU: -LOG2E, Operation.SOFTMAX: LOG2E, Operation.RMS_NORM: 1 / length}.get(operation, 1)
    y = None if operation in (Operation.SOFTMAX, Operation.TOP_K) else draw(
        1 if operation == Operation.RMS_NORM else rows)
    return Call(Instruction(operation, result_format=result, alpha=alpha, beta=1e-5, quantize=quantize), draw(rows), y)


CASES = {
    "mul": (Operation.MUL,), "add": (Operation.ADD,), "rope": (Operation.ROPE,), "silu": (Operation.SILU,),
    "argmax": (Operation.TOP_K,), "rms_norm": (Operation.RMS_NORM,), "softmax": (Operation.SOFTMAX,),
    "rms_norm_e4m3": (Operation.RMS_NORM, Quantize.ROW, "e4m3"), "silu_e4m3": (Operation.SILU, Quantize.ROW, "e4m3"),
    "rms_norm_mxfp4": (Operation.RMS_NORM, Quantize.MX, "e2m1"),
}


def _whole(operation, *options):
    """Whether the end of a row must be known before any of it is given."""
    return operation in (Operation.RMS_NORM, Operation.SOFTMAX) or bool(options)


def _rates():
    """Beats per cycle, from an instruction's being taken to its last result; and what a row alone costs beyond them."""
    lanes = CONFIG.lanes
    cases = [(name, length, case) for name, case in CASES.items() for length in (LENGTHS if _whole(*case) else [1024])]
    calls = [_call(operation, BEATS * lanes // length, length, *options) for _, length, (operation, *options) in cases]
    runs, _ = run(Job(CONFIG, calls, queue=False))
    for (name, length, case), one in zip(cases, runs, strict=True):
        yield figure(f"vector.rate.{name}.{length}", round(BEATS / one.cycles, 4), "element/lane/cycle",
                     f"RTL, {BEATS * lanes // length} rows of {length}, BF16, {lanes} lanes, instruction taken to last "
                     "result", 0.8 if _whole(*case) else 0.98, ">=")
    singles = [(name, length) for name in ("mul", "rms_norm", "softmax") for length in (64, 4096)]
    calls = [_call(CASES[name][0], 1, length) for name, length in singles]
    ones, _ = run(Job(CONFIG, calls, queue=False))
    for (name, length), call, one in zip(singles, calls, ones, strict=True):
        yield figure(f"vector.cycles_beyond_beats.{name}.{length}", one.cycles - length // lanes, "cycle",
                     "RTL, one row, instruction taken to last result, memory answers in the next cycle")
        runs, _ = run(Job(CONFIG, [call] * QUEUED))
        each = (runs[-1].finished - runs[0].finished) / (QUEUED - 1)
        yield figure(f"vector.cycles_beyond_beats.queued.{name}.{length}", round(each - length // lanes, 2), "cycle",
                     f"RTL, the same, {QUEUED} instructions of a row one after the other, each", 25, "<=")


# Accuracy

def _accuracy():
    """BF16 numbers between results and float64's, of BF16 operands; golden is equal to the RTL."""
    rng = np.random.default_rng(1)
    for length in (64, 4096):
        x, y = (encode(BF16, rng.standard_normal((50, length)) * 2) for _ in range(2))
        a, b = decode(BF16, x), decode(BF16, y)
        power = np.exp(a - a.max(-1, keepdims=True))
        turned = (a[:, ::2] + 1j * a[:, 1::2]) * np.exp(1j * b[:, ::2])
        table = encode(FP32, pairs(np.concatenate([np.cos(b[:, ::2]), np.sin(b[:, ::2])], -1)))
        for name, instruction, second, due in (
                ("rms_norm", Instruction(Operation.RMS_NORM, alpha=1 / length, beta=1e-5), y,
                 a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-5) * b),
                ("softmax", Instruction(Operation.SOFTMAX, alpha=LOG2E), None, power / power.sum(-1, keepdims=True)),
                ("silu_gate", Instruction(Operation.SILU, alpha=-LOG2E), y, a / (1 + np.exp(-a)) * b),
                ("rope", Instruction(Operation.ROPE, y_format="fp32"), table,
                 np.stack([turned.real, turned.imag], -1).reshape(a.shape))):
            found = execute(instruction, x, second, lanes=CONFIG.lanes).codes
            counts = (np.abs(due) > 1e-5 if name == "softmax" else
                      np.abs(due) > 2.0**-10 * np.abs(a).max() if name == "rope" else np.abs(due) > 2.0**-126)
            off = np.abs(_ordinal(found) - _ordinal(encode(BF16, due)))[counts]
            yield figure(f"vector.ulp.{name}.{length}", int(off.max()), "ulp",
                         f"golden (equal to RTL) against float64, BF16, {off.astype(bool).mean():.2%} not correctly "
                         "rounded", 1, "<=")


def _ordinal(codes):
    """BF16 codes as integers in the order of their numbers."""
    codes = codes.astype(np.int64)
    return np.where(codes >> 15, -(codes & 0x7FFF), codes)


# Area and paths

def _areas(quick, library):
    """What a lane is made of, and what is there once."""
    cells = liberty.read(library) if library else None
    lanes, unit, generic = CONFIG.lanes, "GE" if cells else "cells", "" if cells else ".generic"
    how = f"synthesis, area recipe, {cells.name if cells else 'generic cells, no library'}"
    per_lane = {"operands": (Operands(), 2), "front": (Lane(), 1), "back": (Finish(), 1), "sum": (Sum(lanes), lanes),
                "maximum": (Most(lanes), lanes), "largest": (Largest(lanes), lanes)}
    once = {} if quick else {"scalars": Scalars(CONFIG.units), "issue": Issue(CONFIG, Largest(lanes).latency),
                             "engine": Engine(CONFIG)}
    total = 0
    for name, (block, share) in per_lane.items():
        report = asic.synthesize(Verilog(block).text, block.name, cells, asic.AREA, UNITS)
        size = (report.ge if cells else report.cells) / share
        total += size
        yield figure(f"vector.area.lane.{name}{generic}", round(size), unit, f"{how}, a lane's share of {block.name}")
        if name == "front":
            for pattern, what in UNITS.items():
                parts = [each for each in report.units if each.name.startswith(pattern.rstrip("*"))]
                if cells:
                    yield figure(f"vector.area.lane.front.{what}", round(sum(
                        cells.ge(each.area) * each.count for each in parts)), unit, f"{how}, part of front")
    yield figure(f"vector.area.lane{generic}", round(total), unit, f"{how}, all of these")
    for name, block in once.items():
        report = asic.synthesize(Verilog(block).text, block.name, cells, asic.AREA)
        yield figure(f"vector.area.{name}{generic}", round(report.ge if cells else report.cells), unit,
                     f"{how}, {lanes} lanes, memories apart")
    if once:
        yield figure("vector.memory_bits", report.total("bits"), "bit", f"counted; rows of {CONFIG.row_max}")
    if cells and not quick:
        for name, block in {**{name: block for name, (block, _) in per_lane.items()}, "back_end": Back(lanes),
                            **once}.items():
            fast = asic.synthesize(Verilog(block).text, block.name, cells, asic.SPEED, UNITS)
            yield figure(f"vector.path_ps.{name}", round(critical(fast, flat=True)[0].length), "ps",
                         "synthesis, speed recipe, arithmetic mapped apart; across modules, clk-q and setup included, "
                         "no wires", 1400, "<=")
