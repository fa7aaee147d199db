# SPDX-License-Identifier: Apache-2.0
"""An engine with memory and a serial line on a ULX3S 85F: make its bitstream, try the board.

    scripts/fpga.py build --config configs/ulx3s.toml --out build/ulx3s
    scripts/fpga.py check --config configs/ulx3s.toml --port /dev/ttyUSB0

`build` writes the bitstream, and compares its cells with those of the board's blocks synthesized alone:
a design that lost part of itself on the way would look fast and small. `check` runs random GEMMs on a
board and compares with golden bit for bit.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from golden import config, matmul
from golden.families import FAMILIES
from golden.formats import FORMATS
from hw.board import ulx3s
from hw.flow import ecp5
from hw.flow.figures import dump, figure
from hw.flow.report import fpga_table
from sw.board import Host, Serial

SWEPT = 0.1         # share of the cells of a kind that may be missing, or more than there should be


def build(options):
    """Write the bitstream; print use, clock and each block's cells."""
    engine = config.load(options.config).matmul
    design = ulx3s.design(engine, memory=options.memory * 1024, megahertz=options.megahertz, baud=options.baud)
    parts = design.verilog, design.board, design.shell
    kept = ecp5.kept(*parts, progress=lambda module: _progress(f"synthesizing {module}"))
    if swept := [f"{kept.whole[kind]} {kind} of {kept.alone[kind]}" for kind, share in kept.shares.items()
                 if abs(share - 1) > SWEPT]:
        raise RuntimeError(f"the whole has other cells than its blocks alone: {', '.join(swept)}")
    _progress("placing and routing")
    use, bits = ecp5.bitstream(*parts, design.constraints, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "top.bit").write_bytes(bits)

    how = "scripts/fpga.py build, Yosys and nextpnr-ecp5"
    figures = [
        figure("fpga.macs.ulx3s", engine.macs, "", how),
        figure("fpga.fmax_mhz.ulx3s", round(use.fmax, 2), "MHz", how, options.megahertz, ">="),
        figure("fpga.bitstream.ulx3s", len(bits), "byte", how),
        *(figure(f"fpga.{name.lower()}.ulx3s", count, "", how) for name, count in use.used.items() if count),
        *(figure(f"fpga.kept.{kind}.ulx3s", round(share, 4), "", how, 1 - SWEPT, ">=")
          for kind, share in kept.shares.items()),
    ]
    if options.json:
        print(dump(figures))
    else:
        print("\n".join([*fpga_table(use), *_table(kept)]))
        print(f"{options.out / 'top.bit'}: {len(bits)} bytes")
    if failed := [each["name"] for each in figures if each["holds"] is False]:
        raise RuntimeError(f"missed: {', '.join(failed)}")


def _table(kept):
    """Lines of text: a line a block, their sum, the whole, and its share of the sum."""
    rows = {"block, synthesized alone": ecp5.KINDS, **kept.blocks, "sum": kept.alone, "whole": kept.whole,
            "kept": {kind: f"{share:.1%}" for kind, share in kept.shares.items()}}
    for name, row in rows.items():
        cells = row if row is ecp5.KINDS else (row.get(kind, "") for kind in ecp5.KINDS)
        yield f"{name:32}" + "".join(f" {cell:>14}" for cell in cells)


def check(options):
    """Random GEMMs on a board, against golden."""
    engine = config.load(options.config).matmul
    host, rng = Host(Serial(options.port, options.baud), engine), np.random.default_rng(options.seed)
    family = FAMILIES[engine.family]
    for number in range(options.count):
        m, n, k = (int(size) for size in rng.integers(1, 80, 3))
        formats = family.activations[0], family.weights[number % len(family.weights)]
        a, w = (_codes(rng, FORMATS[name], shape) for name, shape in zip(formats, ((m, k), (n, k)), strict=True))
        gemm = matmul.Gemm(a, w, *formats, matmul.RESULT_FORMATS[number % len(matmul.RESULT_FORMATS)])
        y, status = host.matmul(gemm, tag=number & 0xFF)
        wrong = np.count_nonzero(y != matmul.matmul(engine.family, gemm)[0])
        print(f"{m} x {n} x {k} {' x '.join(formats)} -> {gemm.y_format}: {status['cycles']} cycles, "
              f"{wrong} of {y.size} results differ from golden")
        if wrong or status["error"]:
            raise RuntimeError(f"GEMM {number} (seed {options.seed}) failed: {status}")


def _codes(rng, fmt, shape):
    return rng.integers(0, 1 << fmt.width, shape).astype(fmt.dtype)


def _progress(line):
    print(line, file=sys.stderr, flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in build, check:
        each = commands.add_parser(command.__name__, help=command.__doc__)
        each.set_defaults(run=command)
        each.add_argument("--config", type=Path, default=Path("configs/ulx3s.toml"), metavar="FILE")
        each.add_argument("--baud", type=int, default=1_000_000)
        each.add_argument("--seed", type=int, default=1)
        if command is build:
            each.add_argument("--out", type=Path, default=Path("build/ulx3s"), metavar="FOLDER")
            each.add_argument("--memory", type=int, default=128, metavar="KIB", help="a power of two (default 128)")
            each.add_argument("--megahertz", type=float, default=40.0, help="clock (default 40)")
            each.add_argument("--json", action="store_true", help="print figures as JSON")
        else:
            each.add_argument("--port", required=True, help="serial port, such as /dev/ttyUSB0")
            each.add_argument("--count", type=int, default=20, help="how many GEMMs")
    options = parser.parse_args(argv)
    try:
        options.run(options)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"fpga: {error}")


if __name__ == "__main__":
    main()
