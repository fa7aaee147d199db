# SPDX-License-Identifier: Apache-2.0
"""Figures of the matmul engine: an array of 1,024 multiply-accumulates, 16 lanes, 2 rows, 32 columns."""

import contextlib
import resource
import sys
import time
from fractions import Fraction

import numpy as np

from golden import matmul as golden
from golden.config import Matmul, load
from golden.families import FAMILIES
from golden.formats import FORMATS, decode, dequantize_mx, encode, quantize_mx
from golden.matmul import Gemm
from hw.emit import Verilog
from hw.flow import asic, liberty
from hw.flow.figures import figure
from hw.flow.report import critical
from hw.matmul.array import Array
from hw.matmul.engine import Engine
from hw.matmul.pe import PE
from scripts.area import breakdown
from sim.matmul import Job, run
from sim.run import ROOT

__all__ = ["measure"]

SMALL = load(ROOT / "configs" / "small.toml").matmul
GOALS = {(512, 512, 512): 99.5, (256, 2048, 512): 99.5, (64, 512, 512): 98.5, (1, 512, 512): None}
SCALE_SIM = {   # SCALE-Sim 3.0.0, 32 x 32 array, stalls excluded: weight-stationary, output-stationary
    (512, 512, 512): (155_135, 146_943), (256, 2048, 512): (358_399, 293_887),
    (64, 512, 512): (40_447, 18_367), (1, 512, 512): (24_319, 9_183)}
WEIGHT_PORT = {"fp8": ("fp8", "e4m3"), "fp4": ("fp8", "e2m1"), "int8": ("int8", "int8"), "bf16": ("uni", "bf16")}
AREA_GOALS = {"fp8": 765, "int8": 667, "fp4": 260, "uni": 1000}
RAGGED = [(m, n, k) for m in (1, 2, 7, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 159, 200)
          for n, k in ((1, 1), (33, 65), (64, 512), (100, 31), (257, 33))]


def measure(quick, library):
    """All figures, one by one.

    Parameters
    ----------
    quick : bool
        Only those that take seconds, and those that the issues name.
    library : list of path
        Liberty files, or none.
    """
    yield from _cycles(quick)
    yield from _weight_port(quick)
    if not quick:
        yield from _ragged()
        yield from _accuracy()
    yield from _emission(quick)
    yield from _areas(quick, library)


def _gemm(shape, a_format="e4m3", w_format="e4m3"):
    """A GEMM of random sound operands."""
    rng = np.random.default_rng(1)
    m, n, k = shape

    def draw(name, size):
        fmt = FORMATS[name]
        codes = rng.integers(0, 1 << fmt.width, size).astype(fmt.dtype)
        return np.where(np.isfinite(decode(fmt, codes)), codes, 0).astype(fmt.dtype)

    return Gemm(draw(a_format, (m, k)), draw(w_format, (n, k)), a_format, w_format)


def _run(config, gemms, **options):
    with contextlib.redirect_stdout(sys.stderr):
        return run(Job(config, gemms, **options))[0]


def _cycles(quick):
    """Whole GEMMs: cycles from command to last result, and the share of the peak."""
    shapes = [shape for shape in GOALS if not quick or shape != (256, 2048, 512)]
    runs = _run(SMALL, [_gemm(shape) for shape in shapes], queue=False)
    how = "RTL, no stalls, memory latency 1, command accept to last result"
    for (m, n, k), one in zip(shapes, runs, strict=True):
        name, goal = f"{m}x{n}x{k}", GOALS[m, n, k]
        yield figure(f"matmul.cycles.{name}", one.cycles, "cycle", how,
                     golden.cycles(SMALL, (m, n, k)), "==")
        for flow, cycles in zip(("ws", "os"), SCALE_SIM[m, n, k], strict=True):
            yield figure(f"matmul.scale_sim.{flow}.{name}", cycles, "cycle", "SCALE-Sim 3.0.0, published with it")
        if goal:
            peak = 100 * m * n * k / SMALL.macs / one.cycles
            yield figure(f"matmul.peak.{name}", round(peak, 3), "%", how, goal, ">=")


def _weight_port(quick):
    """A matrix-vector product keeps the weight port busy, and so do two in a row."""
    beats = {}
    for name, (family, w_format) in WEIGHT_PORT.items():
        if family not in FAMILIES or quick and family == "int8":
            continue
        config = SMALL if family == SMALL.family else Matmul(**{**SMALL.model_dump(), "family": family})
        one = _gemm((1, 512, 512), FAMILIES[family].activations[0] if name != "bf16" else "bf16", w_format)
        first, second = _run(config, [one, one])
        beats[name] = len(first.weight_beats)
        yield figure(f"matmul.weight_port.1x512x512.{name}", round(100 * beats[name] / first.cycles, 3), "%",
                     "RTL, weight beats / cycles from command accept to last result", 97, ">=")
        yield figure(f"matmul.weight_port_bubble.{name}", second.weight_beats[0] - first.weight_beats[-1] - 1, "cycle",
                     "RTL, cycles without a weight beat between two queued commands", 0, "==")
    for name, goal in (("fp4", 0.5), ("bf16", 2)):
        if name in beats:
            yield figure(f"matmul.weight_beats.{name}_to_fp8", beats[name] / beats["fp8"], "", "RTL", goal, "==")


def _ragged():
    """The most cycles beyond the bound max(tiles x max(M, load), result beats), over ragged shapes."""
    for drain in dict.fromkeys((SMALL.drain, SMALL.cols // 4)):
        config = Matmul(**{**SMALL.model_dump(), "drain": drain})
        runs = _run(config, [_gemm(shape) for shape in RAGGED], queue=False)
        excess = {}
        for (m, n, k), one in zip(RAGGED, runs, strict=True):
            tiles = -(-n // config.cols) * -(-k // config.depth)
            bound = max(tiles * max(m, config.cols), m * -(-n // config.drain))
            excess[m, n, k] = one.cycles - bound
        worst = max(excess, key=excess.get)
        yield figure(f"matmul.excess.ragged.drain{drain}", excess[worst], "cycle",
                     f"RTL, worst of {len(RAGGED)} shapes, at {worst}", 120 if drain == SMALL.drain else None, "<=")


def _accuracy():
    """Of each family's formats, and with MX scales where there are such."""
    for name, family in FAMILIES.items():
        for format in family.activations:
            if format in family.weights:
                yield from _errors(name, format)
    yield from _errors("fp8", "e4m3", mx=True)
    yield from _errors("fp4", "e2m1", mx=True)


def _errors(family, format, *, mx=False):
    """The error of quantized operands' products, and how many are not the correctly rounded exact sum."""
    rng, fmt, name = np.random.default_rng(3), FORMATS[format], f"{family}.{'mx_' * mx}{format}"
    cases = {
        "normal": lambda size: rng.standard_normal(size),
        "heavy_tailed": lambda size: rng.standard_t(2, size),
        "outliers": lambda size: rng.standard_normal(size) * np.where(rng.random(size) < 0.01, 30, 1),
        "positive": lambda size: np.abs(rng.standard_normal(size)),
    }
    wrong = 0
    for case, draw in cases.items():
        for k in (128, 1024, 4096):
            drawn = [16 * draw((16, k)) if format == "int8" else draw((16, k)) for _ in range(2)]
            if mx:
                (a, a_scales), (w, w_scales) = (quantize_mx(fmt, values) for values in drawn)
                gemm = Gemm(a, w, format, format, a_scales=a_scales, w_scales=w_scales)
                values = dequantize_mx(fmt, a, a_scales), dequantize_mx(fmt, w, w_scales)
            else:
                gemm = Gemm(*(encode(fmt, each) for each in drawn), format, format)
                values = decode(fmt, gemm.a), decode(fmt, gemm.w)
            y, _ = golden.matmul(family, gemm, (SMALL.rows, SMALL.lanes))
            a, w = ([[Fraction(value) for value in row] for row in each.tolist()] for each in values)
            exact = np.array([[float(sum(map(Fraction.__mul__, row, column))) for column in w] for row in a])
            error = decode(FORMATS["fp32"], y) - exact
            wrong += int(np.count_nonzero(y != encode(FORMATS["fp32"], exact)))
            yield figure(f"matmul.error.{name}.{case}.k{k}", float(np.sqrt(np.mean(error**2) / np.mean(exact**2))), "",
                         "golden (equal to RTL), rms error / rms of the exact product of the same operands")
    if not mx and FAMILIES[family].rate(format, format) == 1:
        yield figure(f"matmul.not_correctly_rounded.{name}", wrong, "",
                     "golden (equal to RTL) against fractions, of 3,072", 0, "==")


def _emission(quick):
    """Time and modules of Verilog; they must not grow with copies."""
    expected = None
    for macs, rows, cols, goal in ((1024, 2, 32, None), (4096, 4, 64, 15), (16384, 8, 128, 60)):
        if quick and macs == 16384:
            continue
        config = Matmul(rows=rows, cols=cols)
        before = time.process_time()
        children = _child_time()
        engine = len(Verilog(Engine(config)).modules)
        spent = time.process_time() - before + _child_time() - children
        if goal:
            yield figure(f"emit.cpu_s.{macs}", round(spent, 2), "s", "CPU, engine to Verilog", goal, "<=")
        array = len(Verilog(Array(config.family, config.lanes, rows, cols, config.groups)).modules)
        yield figure(f"emit.modules.{macs}", array, "", "distinct modules of the array", expected, expected and "==")
        yield figure(f"emit.modules_engine.{macs}", engine, "", "distinct modules of the engine; sizes may coincide")
        expected = array


def _child_time():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _areas(quick, library):
    """Area per multiply-accumulate, longest path, and where an engine's area goes."""
    cells = liberty.read(library) if library else None
    unit = "GE" if cells else "cells"
    for name, goal in AREA_GOALS.items():
        if name not in FAMILIES or quick and name != "fp8":
            continue
        array = Array(name, SMALL.lanes, SMALL.rows, SMALL.cols, SMALL.groups)
        report = asic.synthesize(Verilog(array).text, array.name, cells, asic.AREA)
        size = (report.ge if cells else report.cells) / SMALL.macs
        how = f"synthesis, area recipe, {cells.name if cells else 'generic cells, no library'}; array, decoders, skew"
        yield figure(f"matmul.ge_per_mac.{name}" if cells else f"matmul.cells_per_mac.{name}.generic",
                     round(size, 2), unit, how, goal if cells else None, "<=")
        if cells and (name == "fp8" or not quick):
            fast = asic.synthesize(Verilog(array).text, array.name, cells, asic.SPEED)
            how = "synthesis, speed recipe, clk-q and setup included, no wires"
            yield figure(f"matmul.path_ps.{name}", round(critical(fast)[0].length), "ps", how, 1400, "<=")
            element, small = PE(name, SMALL.lanes, array.width), Array(name, SMALL.lanes, 2, 4, 1)
            alone, flat = (round(critical(asic.synthesize(Verilog(block).text, block.name, cells, asic.SPEED),
                                          flat=True)[0].length) for block in (element, small))
            yield figure(f"matmul.path_ps.element.{name}", alone, "ps", how)
            yield figure(f"matmul.path_ps.flattened_2x4.{name}", flat, "ps", f"{how}; no longer than an element's",
                         alone, "<=")
    if not quick:
        area = breakdown(SMALL, library[0] if library else None)
        for part, value in area.parts.items():
            yield figure(f"matmul.area.{part.replace(' ', '_')}", round(value), area.unit, "synthesis, area recipe")
        yield figure("matmul.memory_bits", area.bits, "bit", "counted")
        yield figure("matmul.array_share", round(100 * area.parts["array"] / area.total, 2), "%",
                     "synthesis, area recipe, of the engine's logic", 65 if cells else None, ">=")
