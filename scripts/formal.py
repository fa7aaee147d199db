# SPDX-License-Identifier: Apache-2.0
"""Prove the control logic: what each block promises at its ports (`sim/formal`).

    scripts/formal.py                   # everything
    scripts/formal.py --quick           # the small blocks, within a minute
    scripts/formal.py --block walker    # blocks whose name begins so
    scripts/formal.py --write           # the results of the last runs into docs/formal.md

Exits with 1 unless every property holds.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict

from hw.flow.figures import dump, figure
from sim.formal.prove import Result, prove
from sim.formal.tasks import QUICK, TASKS
from sim.run import ROOT

KEPT, PAGE = ROOT / "build" / "formal" / "results.json", ROOT / "docs" / "formal.md"
HEADER = ("block", "property", "engine", "depth", "s", "result")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", default="", metavar="PREFIX", help="only blocks whose module is called so")
    parser.add_argument("--quick", action="store_true", help="small blocks only")
    parser.add_argument("--timeout", type=int, default=1200, metavar="S", help="for each run (default 1200)")
    parser.add_argument("--write", action="store_true", help="last results into docs/formal.md, beside older ones")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    arguments = parser.parse_args(argv)
    if arguments.write:
        before, mark, rows = PAGE.read_text().partition("<!-- scripts/formal.py --write -->\n")
        PAGE.write_text(before + mark + "\n" + "\n".join(summary(_kept(), rows.splitlines())) + "\n")
        return
    tasks = [task for task in (QUICK if arguments.quick else TASKS) if task.block.name.startswith(arguments.block)]
    if not tasks:
        sys.exit(f"formal: no block is called {arguments.block}...; there are "
                 f"{', '.join(task.block.name for task in TASKS)}")

    results, start = [], time.monotonic()
    for task in tasks:
        print(f"{time.monotonic() - start:7.0f} s  {task.block.name}", file=sys.stderr, flush=True)
        try:
            results += prove(task, timeout=arguments.timeout)
        except RuntimeError as error:
            sys.exit(f"formal: {error}")
    fresh = {(result.block, result.contract) for result in results}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps([asdict(result) for result in results + [
        result for result in _kept() if (result.block, result.contract) not in fresh]], indent=1))
    print(dump(figures(results)) if arguments.json else "\n".join(table(results)))
    sys.exit(not all(result.good for result in results))


def _kept():
    return [Result(**fields) for fields in json.loads(KEPT.read_text())] if KEPT.exists() else []


def summary(results, rows=()):
    """Lines of Markdown: of each block in `TASKS`, how properties ended; without results, its old row."""
    rows = {row.split("|")[1].strip(): row for row in rows if row.startswith("|")}
    yield "| block | contract | proven for ever | up to a depth | reached | open |"
    yield "|---|---|---|---|---|---|"
    for task in TASKS:
        mine = [result for result in results
                if (result.block, result.contract) == (task.block.name, task.contract.__name__)]
        name = task.label or f"`{task.block.name}`"
        if not mine and name in rows:
            yield rows[name]
        if mine:
            proven, bounded, reached, rest = (sum(result.verdict in verdicts for result in mine) for verdicts in (
                ("proven",), ("holds",), ("reached",), ("failed", "unreached", "unknown")))
            depth = f" ({task.depth} cycles)" if bounded else ""
            yield (f"| {name} | `{task.contract.__name__}` | {proven} | "
                   f"{bounded}{depth} | {reached} | {rest} |")


def table(results):
    """Lines, a property each."""
    rows = [HEADER, *((result.block, result.property, result.engine, str(result.depth or "unbounded"),
                       f"{result.seconds:.1f}", result.verdict) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def figures(results):
    """How many properties came to which end, over all and for each block."""
    def count(*verdicts):
        return sum(result.verdict in verdicts for result in results)

    how = "sby, contracts in sim/formal"
    found = [
        figure("formal.proven", count("proven"), "properties", f"{how}, any number of cycles"),
        figure("formal.bounded", count("holds"), "properties", f"{how}, so many cycles from reset"),
        figure("formal.reached", count("reached"), "situations", f"{how}, cover"),
        figure("formal.open", count("failed", "unreached", "unknown"), "properties", how, 0, "<="),
    ]
    for block in dict.fromkeys(result.block for result in results):
        mine = [result for result in results if result.block == block and result.verdict == "proven"]
        found.append(figure(f"formal.proven.{block}", len(mine), "properties", how))
    return found


if __name__ == "__main__":
    main()
