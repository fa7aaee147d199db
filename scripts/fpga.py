# SPDX-License-Identifier: Apache-2.0
"""A tile with memory and a serial line on a ULX3S 85F: make its bitstream, have the board write.

    scripts/fpga.py build --config configs/nano.toml --out build/ulx3s
    scripts/fpga.py run --config configs/nano.toml --port /dev/ttyUSB0 --prompt "def read("

`build` writes the bitstream, and compares its cells with those of the board's blocks synthesized alone:
a design that lost part of itself on the way would look fast and small. `run` has a board write what follows a prompt,
and compares every logit with those of the reference.
"""

import argparse
import sys
from pathlib import Path

from golden import config
from hw.board import ulx3s
from hw.board.board import Board
from hw.flow import ecp5
from hw.flow.figures import dump, figure
from hw.flow.report import fpga_table
from scripts import blocks
from scripts.run import equal
from sw import board, text
from sw.compiler.checkpoint import read
from sw.compiler.layout import Layout, fit
from sw.runtime.device import Golden
from sw.runtime.runtime import Runtime

MEMORY, CLOCK = 256, 20.0       # KiB, MHz
PLACED = {"flops": "TRELLIS_FF", "multipliers": "MULT18X18D", "block_memories": "DP16KD"}    # as nextpnr counts them


def build(options):
    """Write the bitstream; print use, clock and each block's cells."""
    chip = config.load(options.config)
    made = Board(chip, options.memory * 1024, round(options.megahertz * 1e6 / options.baud))
    design = ulx3s.design(made, options.megahertz)
    parts = design.verilog, design.board, design.shell, blocks.parts(made)
    _progress("synthesizing")
    kept = ecp5.kept(*parts)
    _progress("\n".join(_table(kept)))
    if kept.swept:
        raise RuntimeError(f"the whole lacks cells that its blocks have alone: {', '.join(kept.swept)}")
    _progress("placing and routing")
    use, bits = ecp5.bitstream(*parts[:3], design.constraints, parts[3], seed=options.seed)
    for kind, name in PLACED.items():
        if use.used[name] != kept.total[kind]:
            raise RuntimeError(f"{use.used[name]} of {kept.total[kind]} {kind} were placed")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "top.bit").write_bytes(bits)

    how, name = "scripts/fpga.py build, Yosys and nextpnr-ecp5", chip.name
    figures = [
        figure(f"fpga.macs.{name}", chip.matmul.macs, "", how),
        figure(f"fpga.fmax_mhz.{name}", round(use.fmax, 2), "MHz", how, options.megahertz, ">="),
        figure(f"fpga.bitstream.{name}", len(bits), "byte", how),
        *(figure(f"fpga.{cell.lower()}.{name}", count, "", how) for cell, count in use.used.items() if count),
        *(figure(f"fpga.{kind}.{part}", count, "", how) for part, counts in kept.whole.items()
          for kind, count in counts.items() if count),
    ]
    if options.json:
        print(dump(figures))
    else:
        print("\n".join(fpga_table(use)))
        print(f"{options.out / 'top.bit'}: {len(bits)} bytes")
    if failed := [each["name"] for each in figures if each["holds"] is False]:
        raise RuntimeError(f"missed: {', '.join(failed)}")


def _table(kept):
    """Lines of text: a line a block, what it has alone and what of it is in the whole."""
    yield f"{'block: alone, in the whole':40}" + "".join(f" {kind:>16}" for kind in ecp5.KINDS)
    for part, alone in kept.alone.items():
        yield f"{part:40}" + "".join(f" {alone[kind]:>8}{kept.whole[part][kind]:>8}" for kind in ecp5.KINDS)
    yield f"{'all':40}" + "".join(f" {kept.total[kind]:>16}" for kind in ecp5.KINDS)


def run(options):
    """Have a board write, and compare with the reference."""
    checkpoint = read(options.checkpoint)
    layout = Layout(checkpoint, fit(config.load(options.config), checkpoint.model))
    prompts, how = [text.encode(options.prompt)], {"count": options.tokens, "stop": checkpoint.eos, "keep_logits": True}
    device = board.Board(layout, board.Serial(options.port, options.baud))
    found, logits = [[]], [[]]
    print(options.prompt, end="")
    for _, token, row in Runtime(layout, device).generate(prompts, **how):
        found[0].append(token), logits[0].append(row)
        print(text.decode([token]), end="", flush=True)
    print()
    equal(Runtime(layout, Golden(layout)).generate(prompts, **how), found, logits)
    print(f"{device.counters['cycles'] // len(found[0])} cycles a token; every bit of every logit is the reference's.")


def _progress(line):
    print(line, file=sys.stderr, flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in build, run:
        each = commands.add_parser(command.__name__, help=command.__doc__)
        each.set_defaults(run=command)
        add = each.add_argument
        add("--config", type=Path, default=Path("configs/nano.toml"), metavar="FILE")
        add("--baud", type=int, default=1_000_000)
        if command is build:
            add("--seed", type=int, default=1, help="of the placement")
            add("--out", type=Path, default=Path("build/ulx3s"), metavar="FOLDER")
            add("--memory", type=int, default=MEMORY, metavar="KIB", help=f"a multiple of 4 (default {MEMORY})")
            add("--megahertz", type=float, default=CLOCK, help=f"clock (default {CLOCK:g})")
            add("--json", action="store_true", help="print figures as JSON")
        else:
            add("--port", required=True, help="serial port, such as /dev/ttyUSB0")
            add("--checkpoint", type=Path, default=Path("configs/models/tiny-100k"), metavar="FOLDER")
            add("--prompt", default="def read(self, path):\n    ", metavar="TEXT")
            add("--tokens", type=int, default=24, metavar="N", help="to write (default: 24)")
    options = parser.parse_args(argv)
    try:
        options.run(options)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"fpga: {error}")


if __name__ == "__main__":
    main()
