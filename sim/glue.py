# SPDX-License-Identifier: Apache-2.0
"""C++ programs around simulated meshes: how they are built, and what they are told in `glue.h`."""

from golden.packet import HEADER
from hw.emit import Verilog
from sim.run import ROOT, make

__all__ = ["build", "constants", "fields", "port", "table"]

# Each kind of router is compiled once, whatever the size of the mesh; to the mesh it is a box all of whose outputs
# may depend on all inputs, hence the waiver.
OPTIONS = ["--hierarchical", "-Wno-UNOPTFLAT", "-O3", "--x-assign", "fast", "--x-initial", "fast",
           "-CFLAGS", "-std=c++20"]


def build(block, boxes, program, glue):
    """Have a program around a block ready; return its path.

    Parameters
    ----------
    block : Block
    boxes : tuple of str
        How the names of the modules begin that are compiled by themselves.
    program : str
        Of this folder, without `.cpp`.
    glue : iterable of str
        Lines of `glue.h`.
    """
    verilog = Verilog(block)
    control = "`verilator_config\n" + "".join(
        f'hier_block -module "{name}"\n' for name in verilog.modules if name.startswith(boxes))
    folder = make(block.name, {
        "boxes.vlt": control, f"{block.name}.sv": verilog.text, "glue.h": "\n".join(glue) + "\n",
        f"{program}.cpp": (ROOT / "sim" / f"{program}.cpp").read_text()}, OPTIONS)
    for each in folder.rglob("*.gch"):      # precompiled headers of each box: a gigabyte and more, of no more use
        each.unlink(missing_ok=True)
    return folder / block.name


def constants(noc):
    """What any of them needs: sizes, and where the fields of a header are."""
    yield "#pragma once"
    yield '#include "Vtop.h"'
    yield "struct Field { int first, bits; };"
    for name, value in (("WIDTH", noc.width), ("HEIGHT", noc.height), ("NODES", noc.width * noc.height),
                        ("VCS", noc.vcs), ("DEPTH", noc.depth), ("KINDS", len(noc.classes))):
        yield f"constexpr int {name} = {value};"
    yield "namespace header {"
    yield from fields(HEADER)
    yield "}"


def fields(sizes):
    """Where the fields of a layout are, given their bits by name."""
    first = 0
    for name, bits in sizes.items():
        yield f"constexpr Field {name}{{{first}, {bits}}};"
        first += bits


def table(values):
    """Numbers as an initializer."""
    return f"{{{', '.join(map(table, values))}}}" if isinstance(values, list | tuple) else str(int(values))


def port(name):
    """A port's name as Verilator has it."""
    return name.replace("__", "___05F")
