# SPDX-License-Identifier: Apache-2.0
"""Measure a block's figures: cycles on the simulated RTL, area and timing from synthesis, accuracy.

    scripts/bench.py matmul --liberty cells.lib --json
    scripts/bench.py                    all benches, merged into build/figures.json
"""

import argparse
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path

from hw.flow.figures import dump
from scripts import benches
from sim.run import ROOT

NAMES = tuple(module.name for module in pkgutil.iter_modules(benches.__path__))
MERGED = ROOT / "build" / "figures.json"


def table(figures):
    """Figures as lines of text."""
    width = max(len(figure["name"]) for figure in figures)
    for figure in figures:
        goal = "" if figure["goal"] is None else f"{figure['sense']} {figure['goal']:<10g}"
        verdict = {True: "holds", False: "MISSES", None: ""}[figure["holds"]]
        yield f"{figure['name']:{width}}  {figure['value']:>14,.10g} {figure['unit']:8} {goal:14} {verdict}".rstrip()


def merge(figures):
    """Bring build/figures.json up to date; return all of it."""
    known = {each["name"]: each for each in json.loads(MERGED.read_text())["figures"]} if MERGED.exists() else {}
    known |= {each["name"]: each for each in figures}
    MERGED.parent.mkdir(exist_ok=True)
    figures = [known[name] for name in sorted(known)]
    MERGED.write_text(dump(figures) + "\n")
    return figures


def markdown(figures):
    """Figures as a page of documentation; those measured at several K (`<name>.k<K>`) in a table of their own."""
    over_k, plain = {}, []
    for figure in figures:
        name, dot, k = figure["name"].rpartition(".k")
        if dot and k.isdigit():
            over_k.setdefault((name, figure["how"]), {})[int(k)] = figure["value"]
        else:
            plain.append(figure)
    yield "# Figures\n\nMeasured by `make bench LIBERTY=cells.lib TABLE=docs/figures.md`.\n"
    yield "| figure | value | unit | goal | | how |\n|---|---:|---|---|---|---|"
    for figure in plain:
        goal = "" if figure["goal"] is None else f"{figure['sense']} {figure['goal']:g}"
        verdict = {True: "holds", False: "**misses**", None: ""}[figure["holds"]]
        yield f"| {figure['name']} | {figure['value']:,.6g} | {figure['unit']} | {goal} | {verdict} | {figure['how']} |"
    columns = sorted({k for values in over_k.values() for k in values})
    if columns:
        yield "\n| figure |" + "".join(f" K = {k:,} |" for k in columns) + " how |"
        yield "|---|" + "---:|" * len(columns) + "---|"
    for (name, how), values in over_k.items():
        yield f"| {name} |" + "".join(f" {values[k]:.3g} |" if k in values else " |" for k in columns) + f" {how} |"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=NAMES, help="the bench; all of them when absent")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="a minute's worth, the figures that issues name")
    parser.add_argument("--table", metavar="FILE", help="write all figures as a page, as docs/figures.md")
    parser.add_argument("--liberty", nargs="+", metavar="FILE",
                        default=[os.environ["LIBERTY"]] if os.environ.get("LIBERTY") else [],
                        help="cell library for areas and timing (default: LIBERTY in the environment)")
    options = parser.parse_args(argv)

    figures = []
    for name in [options.name] if options.name else NAMES:
        bench = importlib.import_module(f"scripts.benches.{name}")
        for figure in bench.measure(options.quick, options.liberty):
            figures.append(figure)
            merged = merge([figure])        # at once: a full bench takes an hour
            print(f"bench: {figure['name']} {figure['value']:g} {figure['unit']}", file=sys.stderr, flush=True)
    if options.table:
        Path(options.table).write_text("\n".join(markdown(merged)) + "\n")
    print(dump(figures) if options.json else "\n".join(table(figures)))


if __name__ == "__main__":
    main()
