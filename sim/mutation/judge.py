# SPDX-License-Identifier: Apache-2.0
"""What a solver says of mutants: which break their block's contract, and which are the block itself."""

import json
import re
import subprocess
from dataclasses import replace

from amaranth.hdl import Module, Mux, ResetSignal, Value
from amaranth.lib.wiring import In

from sim.formal.contract import Bench
from sim.formal.prove import ABC, design, preparation
from sim.mutation.aig import Aig
from sim.mutation.mutants import run_yosys

__all__ = ["breach", "breaches", "matching", "same"]

# From a prepared design to an AIG, as SymbiYosys goes.
FORMAL = """\
scc -select; simplemap; select -clear
memory_nordff
async2sync
opt_clean
formalff -setundef -clk2ff -ff2anyinit -hierarchy
chformal -live -fair -cover -remove
opt_clean
setundef -undriven -anyseq
opt -fast
"""
FLAT = """\
delete */t:$print
formalff -assume
flatten
setundef -undriven -anyseq
setattr -unset keep
"""
GATES = """\
opt -full
techmap
opt -fast
memory_map -formal
formalff -clk2ff -ff2anyinit
simplemap
dffunmap
aigmap
opt_clean
"""
AIG = f"{FLAT}delete -output\n{GATES}"
COMMON = ["chformal -assert -cover -live -fair -remove", "memory_nordff", "memory_map -formal",
          "setundef -init -zero", FORMAL, "flatten", "opt_clean"]


def breaches(pool, target, mutants, timeout=2):
    """Which of some mutants of a target break its contract.

    Parameters
    ----------
    pool : Pool
    target : Target
    mutants : list of Mutant
    timeout : int
        Seconds for each mutant, after which it counts as keeping the contract.

    Returns
    -------
    dict of int to (str, int)
        By number of the mutant: a property that fails, and in which cycle from reset.
    """
    folder, task = pool.folder / target.label, target.task
    folder.mkdir(exist_ok=True)
    text, names = design(task)
    (folder / "design.il").write_text(text)
    script = [
        "read_rtlil ../base.il", "design -stash base", "read_rtlil design.il", f"delete {target.block.name}",
        f"design -copy-from base {target.block.name}", *(mutant.command for mutant in mutants), *preparation(task),
        FORMAL, AIG, "design -save ready",
    ]
    for mutant in mutants:
        script += ["design -load ready", *_choose("bench", mutant), *_write(mutant.number)]
    run_yosys(folder, "breaches", "\n".join(script) + "\n")
    found = {mutant.number: _bounded(folder, mutant.number, names, task.depth, timeout) for mutant in mutants}
    return {number: breach for number, breach in found.items() if breach}


def breach(task, folder, timeout=60):
    """How a block breaks its contract, like those of `breaches`; None if it is not seen to."""
    folder.mkdir(parents=True, exist_ok=True)
    text, names = design(task)
    (folder / "design.il").write_text(text)
    run_yosys(folder, "breach", "\n".join([
        "read_rtlil design.il", *preparation(task), FORMAL, AIG, *_write("block")]) + "\n")
    return _bounded(folder, "block", names, task.depth, timeout)


def same(pool, target, mutants, timeout=10):
    """Which of some mutants are the same as the block, at all ports, for ever, from a common state.

    Where the block's surroundings keep to its contract, resets come at any time, and nobody looks at the
    payload of a stream that is not valid.

    Returns
    -------
    set of int
    """
    if not mutants:
        return set()
    folder, task, read = _twin(pool, target)
    script = [*read, *preparation(task), *COMMON, "rename bench gold", "design -stash gold",
              *read, *(mutant.command for mutant in mutants), *preparation(task), *COMMON, "design -save gate"]
    for mutant in mutants:
        script += [
            "design -load gate", *_choose("bench", mutant), "rename bench gate", "design -copy-from gold gold",
            "miter -equiv -flatten -make_assert gold gate miter", "hierarchy -top miter", "delete gold gate",
            AIG, f"write_aiger -I -B -zinit -no-startoffset same{mutant.number}.aig",
        ]
    run_yosys(folder, "same", "\n".join(script) + "\n")
    return {mutant.number for mutant in mutants if _proven(folder, f"same{mutant.number}", timeout)}


def matching(pool, target, mutants):
    """Which of some mutants are the block in every step: from any state to the same next one, with the same outputs.

    Under the conditions of `same`. It is decided at once, but says nothing of mutants that differ in states that the
    block is never in.

    Returns
    -------
    set of int
    """
    folder, task, read = _twin(pool, target)
    run_yosys(folder, "matching", "\n".join([
        *read, *(mutant.command for mutant in mutants), *preparation(task), *COMMON, FLAT, GATES,
        "write_aiger -I -B -zinit -no-startoffset -symbols matching.aig"]) + "\n")
    aig, step = Aig(folder / "matching.aig"), folder / "step.aig"
    return {mutant.number for mutant in mutants if not aig.difference("mutant", mutant.number, step) or re.search(
        r"UNSATISFIABLE", _abc(folder, f"read_aiger {step.name}; sat -C 1000000"))}


def _twin(pool, target):
    """Folder and task of a comparison, and commands that read what is compared."""
    folder, task = pool.folder / target.label, replace(target.task, cut=())     # what was cut would differ
    folder.mkdir(exist_ok=True)
    (folder / "twin.il").write_text(design(task, Twin)[0])
    return folder, task, ["read_rtlil ../base.il", "design -stash base", "read_rtlil twin.il",
                          f"delete {target.block.name}", f"design -copy-from base {target.block.name}"]


class Twin(Bench):
    """A block under its contract, and what anybody sees of it: no payload that is not valid, nothing during a reset."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.block = block = self._block
        m.submodules.contract = contract = self._contract(block, assume=True)
        visible = contract.visible(block)
        ports = {path: Value.cast(value) for path, _, value in block.signature.flatten(block)}
        for path, member, value in self.signature.flatten(self):
            if member.flow is In:
                m.d.comb += ports[path].eq(value)
            else:
                valid = ports[*path[:-1], "valid"] if path[-1] == "payload" else visible.get(path[0], 1)
                m.d.comb += Value.cast(value).eq(Mux(valid & ~ResetSignal(), ports[path], 0))
        return m


def _choose(module, mutant):
    """Commands that make a design with all mutants into that of one."""
    return [f"delete -input {module}/w:mutant", f"connect -set mutant 12'd{mutant.number}", "opt_expr", "opt_clean"]


def _write(name):
    return [f"write_aiger -I -B -zinit -no-startoffset -ywmap {name}.ywa {name}.aig"]


def _bounded(folder, name, names, depth, timeout):
    """The property that fails first within a number of cycles, and when; or None."""
    said = _abc(folder, f"read_aiger {name}.aig; fold; strash; bmc3 -F {depth} -T {timeout}")
    if match := re.search(r"Output (\d+) of miter .* was asserted in frame (\d+)", said):
        check = json.loads((folder / f"{name}.ywa").read_text())["asserts"][int(match[1])][-1].lstrip("\\")
        return names.get(check, check), int(match[2])
    if not re.search("No output asserted|[Tt]imeout", said):
        raise RuntimeError(f"ABC failed on {folder / str(name)}.aig:\n{said[-1000:]}")
    return None


def _proven(folder, name, timeout):
    """Whether the one property of an AIG holds for ever."""
    said = _abc(folder, f"read_aiger {name}.aig; fold; strash; scorr; strash; print_stats; pdr -T {timeout}")
    nothing_left = re.search(r"and = +0 ", said) and "asserted" not in said     # in which case `pdr` has no opinion
    return "Property proved" in said or bool(nothing_left)


def _abc(folder, commands):
    return subprocess.run([ABC, "-c", commands], cwd=folder, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT).stdout
