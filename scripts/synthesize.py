# SPDX-License-Identifier: Apache-2.0
"""Synthesize any block: area, cells, memory bits and the longest path.

    scripts/synthesize.py --block pe --config configs/small.toml --liberty cells.lib
    scripts/synthesize.py --block hw.arith.fp32:Add --liberty a.lib.gz b.lib.gz --recipe both
    scripts/synthesize.py --block hw.stream:Queue --with shape=8 depth=4 --target generic
    scripts/synthesize.py --block tile --config configs/nano.toml --liberty cells.lib
    scripts/synthesize.py --block pe --config configs/nano.toml --target ecp5
"""

import argparse
import sys

from hw.emit import Verilog
from hw.flow import asic, ecp5, liberty
from hw.flow.figures import dump
from hw.flow.report import figures, fpga_figures, fpga_table, table, timing
from scripts import blocks


def synthesize(options):
    """Print the table or the figures that the options ask for."""
    if bool(options.liberty) == bool(options.target):
        raise ValueError("give either --liberty FILE or --target")
    library = liberty.read(options.liberty, tuple(options.dont_use)) if options.liberty else None
    block = blocks.block_from(options)
    design, keep = Verilog(block), options.keep or [*blocks.parts(block), *blocks.APART]
    top = design.tops[0]
    label, found, lines = options.name or top, [], []
    if options.target == "ecp5":
        use = ecp5.place_and_route(design.text, top)
        found, lines = fpga_figures(label, use), fpga_table(use)
    else:
        for recipe in _recipes(options):
            report = asic.synthesize(design.text, top, library, recipe, keep, options.whole,
                                     progress=_progress)
            timed = timing(report, options.flat)
            found += figures(label, report, timed)
            lines += table(report, timed)
    print(dump(found) if options.json else "\n".join(lines))


def _recipes(options):
    """The recipes to run; generic gates know no difference."""
    if options.recipe != "both":
        chosen = [asic.RECIPES[options.recipe]]
    else:
        chosen = [asic.AREA, asic.SPEED] if options.liberty else [asic.AREA]
    return [recipe.at(options.period) if recipe.period and options.period else recipe for recipe in chosen]


def _progress(line):
    print(line, file=sys.stderr, flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=f"{__doc__}\n{blocks.HELP}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    blocks.add_arguments(parser, required=True)
    option = parser.add_argument
    option("--liberty", nargs="+", default=[], metavar="FILE", help="cell library, .lib or .lib.gz files")
    option("--dont-use", nargs="+", default=[], metavar="CELL", help="cells to avoid (shell patterns)")
    option("--target", choices=["generic", "ecp5"], help="gates without a library, or a Lattice ECP5 85F")
    option("--recipe", choices=[*asic.RECIPES, "both"], default="area", help="both: area and speed")
    option("--period", type=float, metavar="PS", help=f"of the recipes with one (default {asic.SPEED.period})")
    option("--keep", nargs="+", default=[], metavar="MODULE",
           help="report these apart (shell patterns; default: the blocks of a tile, functions)")
    option("--whole", action="store_true", help="all as one unit: better, but slow when much is there twice")
    option("--flat", action="store_true", help="time paths across modules, not module by module")
    option("--name", help="first part of the figures' names (default: the module's name)")
    option("--json", action="store_true", help="print figures as JSON")
    try:
        synthesize(parser.parse_args(argv))
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"synthesize: {error}")


if __name__ == "__main__":
    main()
