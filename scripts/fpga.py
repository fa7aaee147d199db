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
from collections import Counter
from pathlib import Path

import numpy as np

from golden import config, matmul
from golden.families import FAMILIES
from golden.formats import FORMATS
from hw.board import ulx3s
from hw.flow import ecp5
from hw.flow.figures import dump, figure
from hw.flow.hierarchy import Hierarchy
from hw.flow.report import fpga_table
from sw.board import Host, Serial

KINDS = {"logic": {"LUT4": 1, "CCU2C": 2}, "flops": {"TRELLIS_FF": 1}, "multipliers": {"MULT18X18D": 1},
         "block_memories": {"DP16KD": 1}, "small_memories": {"TRELLIS_DPR16X4": 1}}
"""What is compared, and how many of it each type of cell is."""

SWEPT = 0.1         # share of the cells that may be missing or more


def build(options):
    """Write the bitstream; print use, clock, and what became of the blocks' cells."""
    design = ulx3s.design(config.load(options.config).matmul, memory=options.memory * 1024,
                          megahertz=options.megahertz, baud=options.baud)
    text = design.files["board.sv"]
    alone = Counter()
    for block, copies in Hierarchy(text, design.board).modules[design.board].children.items():
        _progress(f"synthesizing {block} alone")
        for kind, count in _kinds(ecp5.cells({"board.sv": text}, block)).items():
            alone[kind] += copies * count
    _progress("synthesizing the whole")
    whole = _kinds(ecp5.cells(design.files, "top"))
    _progress("placing and routing")
    use, bits = ecp5.bitstream(design.files, "top", design.constraints, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "top.bit").write_bytes(bits)

    how = "scripts/fpga.py build, Yosys and nextpnr-ecp5"
    figures = [
        figure("fpga.fmax_mhz.ulx3s", round(use.fmax, 2), "MHz", how, options.megahertz, ">="),
        *(figure(f"fpga.{name.lower()}.ulx3s", count, "", how) for name, count in use.used.items() if count),
        *(figure(f"fpga.kept.{kind}.ulx3s", round(whole[kind] / alone[kind], 3), "", how, 1 - SWEPT, ">=")
          for kind in KINDS),
    ]
    if options.json:
        print(dump(figures))
    else:
        print("\n".join(fpga_table(use)))
        print(f"{'cells':20} {'blocks alone':>12} {'whole':>8} {'kept':>7}")
        for kind in KINDS:
            print(f"  {kind:18} {alone[kind]:12} {whole[kind]:8} {whole[kind] / alone[kind]:7.1%}")
        print(f"{options.out / 'top.bit'}: {len(bits)} bytes")
    if failed := [each["name"] for each in figures if each["holds"] is False]:
        raise RuntimeError(f"missed: {', '.join(failed)}")


def _kinds(cells):
    return Counter({kind: sum(cells[cell] * weight for cell, weight in each.items())
                    for kind, each in KINDS.items()})


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
            each.add_argument("--megahertz", type=float, default=50.0, help="clock (default 50)")
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
