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
from hw.flow import asic, liberty
from hw.flow.figures import dump
from hw.flow.report import critical, figures, table

CHIP = ("engine", "array", "pe")


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
    """A block of the chip that the configuration file describes."""
    matmul = named("golden.config:load")(path).matmul
    if name == "engine":
        return named("hw.matmul.engine:Engine")(matmul)
    array = named("hw.matmul.array:Array")(matmul.family, matmul.lanes, matmul.rows, matmul.cols,
                                           matmul.groups)
    return array if name == "array" else named("hw.matmul.pe:PE")(matmul.family, matmul.lanes, array.width)


def block(name, parameters, config):
    """The block that the command line asks for."""
    if name in CHIP:
        if not config:
            raise ValueError(f"--block {name} needs --config FILE")
        return of_chip(name, config)
    if ":" not in name:
        raise ValueError(f"--block must be {', '.join(CHIP)} or module:Class, not {name!r}")
    return named(name)(**{key: value(text) for key, _, text in (word.partition("=") for word in parameters)})


def synthesize(options):
    """Print the table or the figures that the options ask for."""
    if bool(options.liberty) == (options.target == "generic"):
        raise ValueError("give either --liberty FILE or --target generic")
    library = liberty.read(options.liberty, tuple(options.dont_use)) if options.liberty else None
    design = Verilog(block(options.block, options.parameters, options.config))
    found = []
    for name in asic.RECIPES if options.recipe == "both" and library else [options.recipe]:
        recipe = asic.RECIPES.get(name, asic.AREA)
        if recipe.period and options.period:
            recipe = recipe.at(options.period)
        report = asic.synthesize(design.text, design.tops[0], library, recipe, options.keep,
                                 progress=lambda line: print(line, file=sys.stderr, flush=True))
        paths = critical(report, options.flat)
        found += figures(options.name or report.top, report, paths)
        if not options.json:
            print("\n".join(table(report, paths)))
    if options.json:
        print(dump(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--block", required=True, metavar="NAME", help="engine, array, pe or module:Class")
    option("--with", dest="parameters", nargs="+", default=[], metavar="NAME=VALUE", help="its parameters")
    option("--config", type=Path, metavar="FILE", help="chip configuration in TOML")
    option("--liberty", nargs="+", default=[], metavar="FILE", help="cell library, .lib or .lib.gz files")
    option("--dont-use", nargs="+", default=[], metavar="CELL", help="cells to avoid (shell patterns)")
    option("--target", choices=["asic", "generic"], help="generic counts gates and needs no library")
    option("--recipe", choices=[*asic.RECIPES, "both"], default="area")
    option("--period", type=float, metavar="PS", help="of the speed recipe (default 1400)")
    option("--keep", nargs="+", default=[], metavar="MODULE", help="report these apart (shell patterns)")
    option("--flat", action="store_true", help="time paths across modules, not module by module")
    option("--name", help="first part of the figures' names (default: the module's name)")
    option("--json", action="store_true", help="print figures as JSON")
    try:
        synthesize(parser.parse_args())
    except (AttributeError, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        sys.exit(f"synthesize: {error}")


if __name__ == "__main__":
    main()
