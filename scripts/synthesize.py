# SPDX-License-Identifier: Apache-2.0
"""Synthesize any block: area, cells, memory bits and the longest path.

    scripts/synthesize.py --block pe --config configs/small.toml --liberty cells.lib
    scripts/synthesize.py --block hw.arith.fp32:Add --liberty a.lib.gz b.lib.gz --recipe both
    scripts/synthesize.py --block hw.arith.fp32:FromFixed --with width=49 lsb=-18 --target generic

`--block` is `engine`, `array` or `pe` of a configuration, or `module:Class` with the class's
parameters after `--with`: Python literals, plain words, or `module:name` for a named object.
"""

import argparse
import ast
import importlib
import sys
from pathlib import Path

from hw.emit import Verilog
from hw.flow import asic, liberty, sta
from hw.flow.figures import dump, figure


def named(path):
    """The object that `module:name` means."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def value(text):
    """A parameter from the command line."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return named(text) if ":" in text else text


def of_chip(name, path):
    """A block of the configured chip."""
    from golden import config
    matmul = config.load(path).matmul
    if name == "engine":
        return named("hw.matmul.engine:Engine")(matmul)
    array = named("hw.matmul.array:Array")(matmul.family, matmul.lanes, matmul.rows, matmul.cols, matmul.groups)
    return array if name == "array" else named("hw.matmul.pe:PE")(matmul.family, matmul.lanes, array.width)


def block_from(arguments):
    if arguments.block in ("engine", "array", "pe"):
        if not arguments.config:
            raise ValueError(f"--block {arguments.block} needs --config FILE")
        return of_chip(arguments.block, arguments.config)
    if ":" not in arguments.block:
        raise ValueError(f"--block must be engine, array, pe or module:Class, not {arguments.block!r}")
    parameters = dict(word.split("=", 1) for word in arguments.parameters)
    return named(arguments.block)(**{name: value(text) for name, text in parameters.items()})


def table(report, paths):
    """The report as lines of text."""
    ge = report.library.ge if report.library else None
    yield f"{report.top}, recipe {report.recipe.name}, " + (
        f"library {report.library.name}, GE = {report.library.nand2.name} = {report.library.nand2.area:g} um2"
        if ge else "generic gates: no library, so no areas")
    yield f"{'module':40} {'copies':>7} {'cells':>9} {'flops':>8} {'bits':>9} {'GE each':>10} {'GE':>11} {'share':>6}"
    total = report.total("area")
    for unit in sorted(report.units, key=lambda unit: -unit.area * unit.count):
        areas = (f"{ge(unit.area):10.1f} {ge(unit.area) * unit.count:11.1f} {unit.area * unit.count / total:6.1%}"
                 if ge else f"{'-':>10} {'-':>11} {'-':>6}")
        yield (f"{unit.name:40} {unit.count:7} {unit.cells.total() * unit.count:9} "
               f"{unit.flops * unit.count:8} {unit.bits * unit.count:9} {areas}")
    areas = f"{'':>10} {report.ge:11.1f} {'':>6} = {total:.1f} um2" if ge else ""
    yield f"{'total':40} {'':7} {report.cells:9} {report.total('flops'):8} {report.total('bits'):9} {areas}"
    for path in paths:
        yield f"{path.kind} path {path.length:.0f} ps, clk-q and setup included, no wires"
    for step in paths[0].steps if paths else ():
        yield f"  {step.arrival:8.1f} ps  {step.edge:4}  {step.cell:24} {step.instance}"


def figures(label, report, paths):
    """The report as figures."""
    how = f"scripts/synthesize.py, {report.library.name if report.library else 'generic gates'}"
    case = report.recipe.name if report.library else "generic"
    values = [("cells", report.cells, ""), ("flops", report.total("flops"), ""),
              ("memory", report.total("bits"), "bit")]
    if report.library:
        values += [("ge", report.ge, "GE"), ("area", report.total("area"), "um2")]
        values += [(f"ge.{unit.name}", report.library.ge(unit.area) * unit.count, "GE") for unit in report.units]
    values += [("path_ps", paths[0].length, "ps")] if paths else []
    return [figure(f"{label}.{name}.{case}", round(number, 3), unit, how) for name, number, unit in values]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", required=True, metavar="NAME", help="engine, array, pe or module:Class")
    parser.add_argument("--with", dest="parameters", nargs="+", default=[], metavar="NAME=VALUE",
                        help="parameters of the class")
    parser.add_argument("--config", type=Path, metavar="FILE", help="chip configuration in TOML")
    parser.add_argument("--liberty", nargs="+", default=[], metavar="FILE", help="cell library, .lib or .lib.gz")
    parser.add_argument("--dont-use", nargs="+", default=[], metavar="CELL", help="cells to avoid (patterns)")
    parser.add_argument("--target", choices=["asic", "generic"], help="generic needs no library")
    parser.add_argument("--recipe", choices=[*asic.RECIPES, "both"], default="area")
    parser.add_argument("--period", type=float, metavar="PS", help="of the speed recipe (default 1400)")
    parser.add_argument("--keep", nargs="+", default=[], metavar="MODULE", help="report these apart (patterns)")
    parser.add_argument("--flat", action="store_true", help="timing across modules, not a module at a time")
    parser.add_argument("--name", help="first part of the figures' names (default: the module)")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (ValueError, RuntimeError, ImportError, AttributeError, TypeError) as error:
        sys.exit(f"synthesize: {error}")


def run(arguments):
    if bool(arguments.liberty) == (arguments.target == "generic"):
        raise ValueError("give either --liberty FILE or --target generic")
    library = liberty.read(arguments.liberty, tuple(arguments.dont_use)) if arguments.liberty else None
    design = Verilog(block_from(arguments))
    found, top = [], design.tops[0]
    for recipe in asic.RECIPES.values() if arguments.recipe == "both" else [asic.RECIPES[arguments.recipe]]:
        if recipe.period and arguments.period:
            recipe = recipe.at(arguments.period)
        report = asic.synthesize(design.text, top, library, recipe, arguments.keep,
                                 progress=lambda line: print(line, file=sys.stderr))
        netlists = {unit.name: unit.netlist for unit in report.units if unit.netlist}
        paths = []
        if library:
            tops = [top] if arguments.flat else netlists
            paths = max((sta.timing(sta.flatten(netlists if arguments.flat else {t: netlists[t]}, t, library),
                                    library) for t in tops),
                        key=lambda paths: paths[0].length if paths else 0)
        found += figures(arguments.name or top, report, paths)
        if not arguments.json:
            print("\n".join(table(report, paths)))
    if arguments.json:
        print(dump(found))


if __name__ == "__main__":
    main()
