# SPDX-License-Identifier: Apache-2.0
"""All mutants of an engine in one simulation, each put to the same GEMMs as golden."""

import os
import pickle
from pathlib import Path

from cocotb_tools.runner import get_runner

from sim.mutation.mutants import run_yosys
from sim.run import FAST, ROOT, WARNINGS, verilator

__all__ = ["failures"]

BENCH = "sim.benches.mutants"


def failures(pool, jobs, mutants, bench=BENCH):
    """The mutants that fail a job.

    Parameters
    ----------
    pool : Pool
        Of an `Engine` or a KV-cache controller.
    jobs : list
        Tried in this order until one fails.
    mutants : list of Mutant
    bench : str
        Module of the bench that plays such jobs.

    Returns
    -------
    dict of int to (int, str)
        By number of the mutant: number of the job, and what went wrong.
    """
    given, taken = pool.folder / "jobs", pool.folder / "failures"
    given.write_bytes(pickle.dumps((jobs, [mutant.number for mutant in mutants])))
    taken.unlink(missing_ok=True)
    runner, folder = _build(pool), pool.folder / "model"
    try:
        runner.test(hdl_toplevel=pool.top.name, hdl_toplevel_lang="verilog", test_module=bench, seed=1,
                    build_dir=folder, test_dir=folder, log_file=pool.folder / "simulation.log",
                    extra_env={"PYTHONPATH": str(ROOT), "JOBS": str(given.resolve()), "FAILURES": str(taken.resolve())})
    except SystemExit:
        pass
    if not taken.exists():
        raise RuntimeError(f"the simulation ended without results; see {pool.folder / 'simulation.log'}")
    return pickle.loads(taken.read_bytes())


def _build(pool):
    """Compile the engine with all of its mutants."""
    run_yosys(pool.folder, "verilog", "\n".join([
        "read_rtlil base.il", *(mutant.command for mutant in pool.mutants), "proc -nomux -norom", "memory_collect",
        "write_verilog -sv -noattr mutants.sv"]) + "\n")
    program, _ = verilator()
    os.environ["PATH"] = f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["MAKEFLAGS"] = " ".join(f"'{each}'" if " " in each else each for each in FAST)
    runner = get_runner("verilator")
    runner.build(sources=[pool.folder / "mutants.sv"], hdl_toplevel=pool.top.name, build_dir=pool.folder / "model",
                 build_args=[*WARNINGS, "-Wno-UNOPTFLAT"], log_file=pool.folder / "build.log")
    return runner
