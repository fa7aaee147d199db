# SPDX-License-Identifier: Apache-2.0
"""Mutants: a netlist with one bit of one cell's port inverted, stuck, or toggled by its neighbour.

Yosys' `mutate` draws them, evenly over wires, bits and cells. All mutants of a netlist live in one: an input
`mutant` chooses which of them it is, 0 for none, so that contracts and simulation see the very same netlist
and nothing is built twice.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hw.emit import Library
from sim.formal import yosys
from sim.formal.prove import Task

__all__ = ["SEED", "Mutant", "Pool", "Target", "run_yosys"]

SEED = 2024         # of every list
WIDTH = 12          # bits of the input `mutant`


@dataclass(frozen=True)
class Target:
    """A block to be mutated.

    Attributes
    ----------
    label : str
    task : Task
        The block, and the contract that judges it within `depth` cycles.
    count : int
        Mutants, at most; fewer where there are no more.
    compared : bool
        What survives is compared with the block; not those that have the arithmetic inside.
    """

    label: str
    task: Task
    count: int = 110
    compared: bool = True

    @property
    def block(self):
        return self.task.block


@dataclass(frozen=True)
class Mutant:
    """One mutant: `number` is what the input `mutant` has to be."""

    number: int
    label: str
    command: str

    @property
    def name(self):
        return f"{self.label}-{self.number}"

    def __getitem__(self, option):
        """An option of its `mutate` command, such as `mode` or `cell`."""
        found = re.search(rf" -{option} (\S+)", self.command)
        return found and found[1]

    def __str__(self):
        wire = f" (`{self['wire']}`)" if self["wire"] else ""
        bit = f" by bit {self['ctrlbit']}" if self["ctrlbit"] else ""
        return f"{self['mode']}{bit} at `{self['cell']}.{self['port']}[{self['portbit']}]`{wire}"


class Pool:
    """The mutants of all targets, and the netlist of the block that they are parts of.

    Parameters
    ----------
    top : Block
    targets : list of Target
    folder : Path
        For files.
    first : int
        Number of the first mutant.
    """

    def __init__(self, top, targets, folder, first=1):
        self.top, self.targets, self.folder, self.first = top, targets, Path(folder), first
        self.folder.mkdir(parents=True, exist_ok=True)
        self.base = self.folder / "base.il"
        library = Library()
        library.add(top)
        (self.folder / "top.il").write_text("".join(library.modules.values()))
        modules = " ".join(target.block.name for target in targets)
        run_yosys(self.folder, "base", f"""\
read_rtlil top.il
hierarchy -check -top {top.name}
delete ram_*/t:$meminit_v2
setattr -unset init w:*
select {modules}
proc -norom
pmuxtree
opt
wreduce
opt
clean
select -clear
write_rtlil {self.base.name}
design -reset
read_rtlil {self.base.name}
""" + "".join(f"setattr -set src \"{target.block.name}\" {target.block.name}/c:*\n"     # else it may run out
              f"mutate -list {target.count * 5 // 4} -seed {SEED} -o {target.label}.list "
              f"-module {target.block.name}\n" for target in targets))

    @cached_property
    def mutants(self):
        """All mutants but those of clocks, which no synchronous model can tell from a broken clock tree."""
        mutants = []
        for target in self.targets:
            lines = (self.folder / f"{target.label}.list").read_text().splitlines()
            for line in [line for line in lines if " -port CLK " not in line][:target.count]:
                number = self.first + len(mutants)
                command = line.replace("mutate", f"mutate -ctrl mutant {WIDTH} {number}", 1)
                mutants.append(Mutant(number, target.label, command))
        return mutants

    def of(self, target):
        return [mutant for mutant in self.mutants if mutant.label == target.label]


def run_yosys(folder, name, script):
    """Run a Yosys script in a folder; its log is `<name>.log`."""
    (folder / f"{name}.ys").write_text(script)
    done = subprocess.run([sys.executable, yosys.__file__, "-ql", f"{name}.log", f"{name}.ys"], cwd=folder, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"Yosys failed on {folder / name}.ys:\n{done.stdout.strip()[-2000:]}")
