# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits and an attention head through the simulated hardware: accuracy, equality, cycles, a report.

A small network is trained in numpy and quantized to each format; every product of matrices of its
inference over the held-out digits runs on the generated Verilog, layer by layer, and is compared with
golden bit for bit. So is an attention head over a sentence, on the attention unit. Ends with one HTML
file that needs nothing else.

    scripts/digits.py
    scripts/digits.py --config configs/nano.toml --formats fp8 int8 --liberty cells.lib
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import Manager
from pathlib import Path
from queue import Empty

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from golden import config
from hw.flow.figures import dump, figure
from scripts import report
from scripts.area import breakdown
from scripts.head import attend
from scripts.inference import infer
from scripts.measure import distance
from sw import digits, quantize

DEMO = [name for name in ("fp8", "int8", "mxfp4", "bf16") if name in quantize.SCHEMES]
SHADES = " .:-=+*#%@"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, default=Path("configs/small.toml"), metavar="FILE",
        help="chip configuration (default: configs/small.toml); each format takes its own datapath family")
    add("--formats", nargs="+", default=DEMO, choices=quantize.SCHEMES, metavar="FORMAT",
        help=f"of {', '.join(quantize.SCHEMES)} (default: {' '.join(DEMO)})")
    add("--count", type=int, metavar="N", help="the first N of the held-out digits (default: all)")
    add("--liberty", type=Path, default=os.environ.get("LIBERTY") or None, metavar="FILE",
        help="cell library for areas in GE (default: LIBERTY of the environment, else generic cells)")
    add("--out", type=Path, default=Path("build/digits"), metavar="FOLDER", help="default: build/digits")
    add("--json", action="store_true", help="print figures as JSON, all else to standard error")
    arguments = parser.parse_args(argv)
    console = Console(stderr=arguments.json, highlight=False)
    try:
        found = run(arguments, console)
    except (ValueError, RuntimeError, OSError, AssertionError) as error:
        sys.exit(f"digits: {error}")
    for part in accuracy(found), speed(found), samples(found), head(found.head):
        console.print(part)
    path = report.write(arguments.out / "report.html", found)
    console.print(f"Report: [bold]{path}[/]")
    if arguments.json:
        print(dump(list(figures(found))))


def run(arguments, console):
    """Train, run, measure; a `report.Found`."""
    chip = config.load(arguments.config)
    engines = {name: quantize.SCHEMES[name].engine(chip.matmul) for name in dict.fromkeys(arguments.formats)}
    learned, held_out = digits.load()
    if arguments.count is not None:
        if not 1 <= arguments.count <= len(held_out.labels):
            raise ValueError(f"--count must be 1 to {len(held_out.labels)}, not {arguments.count}")
        held_out = digits.Digits(*(part[:arguments.count] for part in held_out))
    layers = digits.train(learned)
    floats = digits.forward(layers, held_out.images)
    console.print(
        f"[bold]Handwritten digits on simulated RTL[/], {arguments.config}: "
        f"{chip.matmul.macs:,} multipliers\n"
        f"network {' - '.join(map(str, digits.SIZES))} trained on {len(learned.labels):,} digits; "
        f"{len(held_out.labels)} held out, of which float32 reads "
        f"{np.mean(floats.argmax(axis=1) == held_out.labels):.1%}")
    outcomes, areas, attended = work(chip, engines, layers, held_out.images, arguments.liberty, console)
    return report.Found(chip, held_out, floats, outcomes, areas, attended)


def work(chip, engines, layers, images, library, console):
    """The `Outcome` and the `Area` of each format, and that of the attention head, two jobs at a time."""
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"),
               TextColumn("{task.fields[doing]}"), TimeElapsedColumn())
    with (Manager() as manager, ProcessPoolExecutor(2) as pool,
          Progress(*columns, console=console) as progress):
        news = manager.Queue()
        titles = {name: quantize.SCHEMES[name].title for name in engines} | {"head": "Attention"}
        tell = {name: partial(_tell, news, name) for name in titles}
        infers = {name: pool.submit(infer, name, engine, layers, images, tell[name])
                  for name, engine in reversed(engines.items())}        # BF16's engine takes longest to build
        attended = pool.submit(attend, chip.kvcache, chip.attention.group, tell["head"])
        areas = {name: pool.submit(breakdown, engine, library, tell[name]) for name, engine in engines.items()}
        rows = {name: progress.add_task(title, total=2, start=False, doing="waits") for name, title in titles.items()}
        parts = {name: (infers[name], areas[name]) for name in engines} | {"head": (attended,)}
        jobs = [job for part in parts.values() for job in part]
        while not all(job.done() for job in jobs) or not news.empty():
            if any(job.done() and job.exception() for job in jobs):
                pool.shutdown(cancel_futures=True)      # what failed says so below
                break
            try:
                name, line = news.get(timeout=0.2)
            except Empty:
                pass
            else:
                progress.start_task(rows[name])
                progress.update(rows[name], doing=line)
                if not console.is_terminal:
                    console.print(f"{titles[name]}: {line}")
            for name, row in rows.items():
                if all(job.done() for job in parts[name]):
                    progress.update(row, doing="done", completed=2)
        for job in jobs:
            if job.done() and not job.cancelled():
                job.result()
        return *([each[name].result() for name in engines] for each in (infers, areas)), attended.result()


def _tell(news, name, line):
    """In a worker: say what is being done."""
    news.put((name, line))


def accuracy(found):
    """What each format reads, and how far its logits are from float32's."""
    table = Table("format", title="accuracy, against float32", title_justify="left")
    for heading in "digits read", "as float32", "logits: rms", "max", "RTL = golden":
        table.add_column(heading, justify="right")
    for outcome in found.outcomes:
        error = distance(outcome.logits, found.floats)
        table.add_row(outcome.title, f"{found.accuracy(outcome.read):.1%}",
                      f"{np.mean(outcome.read == found.float_read):.1%}", f"{error['rms']:.2%}",
                      f"{error['max']:.2f}", f"yes, {outcome.total('results'):,}")
    return table


def speed(found):
    """Cycles, utilization and area of each format's engine."""
    unit = found.areas[0].unit
    table = Table("format", title="engine", title_justify="left")
    headings = [f"layer {n + 1}" for n in range(len(found.outcomes[0].layers))]
    for heading in "MACs", "cycles", *headings, "of peak", f"{unit} / MAC":
        table.add_column(heading, justify="right")
    for outcome, area in zip(found.outcomes, found.areas, strict=True):
        table.add_row(outcome.title, f"{outcome.total('macs') / 1e6:.2f} M", f"{outcome.total('cycles'):,}",
                      *(f"{layer.utilization:.1%}" for layer in outcome.layers), f"{outcome.utilization:.1%}",
                      f"{area.parts['array'] / outcome.engine.macs:,.0f}")
    table.caption = "area of the array" + (f", {found.areas[0].library}" if found.areas[0].library else
                                           " in generic cells; LIBERTY=file gives it in gate equivalents")
    return table


def samples(found, count=4):
    """A few digits as text, those that some format misreads first."""
    misread = ~np.all([outcome.read == found.digits.labels for outcome in found.outcomes], axis=0)
    grid = Table.grid(padding=(0, 3))
    cells = []
    for n in np.argsort(~misread, kind="stable")[:count]:
        image = np.int64(found.digits.images[n].reshape(8, 8) * (len(SHADES) - 1))
        lines = ["".join(SHADES[pixel] * 2 for pixel in row) for row in image]
        reads = [("is", found.digits.labels[n]), ("float32", found.float_read[n]),
                 *((outcome.title, outcome.read[n]) for outcome in found.outcomes)]
        cells.append("\n".join([*lines, "", *(f"{name:12}{digit:4}" for name, digit in reads)]))
    grid.add_row(*cells)
    return grid


def head(found):
    """What the attention head did."""
    table = Table("attention", title="a head, against float64", title_justify="left")
    for heading in "rows: rms", "weights: max", "guesses as float64's", "RTL = golden":
        table.add_column(heading, justify="right")
    count = len(found.text)
    table.add_row(f"{found.kv.format.upper()}, {count} tokens", f"{found.error['rms']:.2%}", f"{found.off:.3f}",
                  f"{found.same} of {count}", f"yes, {found.results:,}")
    return table


def figures(found):
    """All of it as figures."""
    how = "scripts/digits.py, RTL simulation"
    for name, value, unit in (("rms_error", found.head.error["rms"], ""), ("cycles", found.head.cycles, "cycle"),
                              ("beats", found.head.beats, "beat"), ("equal", found.head.results, "")):
        yield figure(f"head.{name}.{found.head.kv.format}", value, unit, how)
    for outcome, area in zip(found.outcomes, found.areas, strict=True):
        for name, value, unit in (
                ("accuracy", found.accuracy(outcome.read), ""), ("cycles", outcome.total("cycles"), "cycle"),
                ("equal", outcome.total("results"), ""), ("utilization", outcome.utilization, ""),
                ("rms_error", distance(outcome.logits, found.floats)["rms"], ""),
                ("array", area.parts["array"], area.unit), ("engine", area.total, area.unit)):
            yield figure(f"digits.{name}.{outcome.name}", value, unit, how)


if __name__ == "__main__":
    main()
