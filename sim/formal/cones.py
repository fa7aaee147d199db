# SPDX-License-Identifier: Apache-2.0
"""Combinational paths between the ports of a block, in the netlist of its Verilog.

`valid` must never wait for `ready`: two blocks that both wait hang, and combinational loops close outside of
either. No simulation shows the absence of such a path; the netlist does.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from pathlib import Path

from hw.emit import Verilog

__all__ = ["cones", "waits"]

# Cells down to single gates but for arithmetic, of which every output counts as depending on every input.
SCRIPT = """\
read_verilog -sv design.sv
hierarchy -check -top {top}
proc
flatten
opt_expr
opt_clean
simplemap
opt_clean
write_json design.json
"""
CLOCKED = ("CLK", "C")      # ports that only registers have, by the names of Yosys' cells


def cones(block):
    """Which outputs follow each input within the same cycle.

    Parameters
    ----------
    block : Block

    Returns
    -------
    dict of str to set of str
        By input port, the output ports.
    """
    top = _netlist(block)
    readers, outputs = defaultdict(set), defaultdict(set)
    for cell in top["cells"].values():
        directions, connections = cell["port_directions"], cell["connections"]
        if _holds(cell):
            continue
        driven = [bit for port, bits in connections.items() if directions[port] == "output" for bit in bits]
        for port, bits in connections.items():
            if directions[port] == "input":
                for bit in bits:
                    readers[bit].update(driven)
    for name, port in top["ports"].items():
        if port["direction"] == "output":
            for bit in port["bits"]:
                outputs[bit].add(name)

    found = {}
    for name, port in top["ports"].items():
        if port["direction"] == "input":
            seen = set(bit for bit in port["bits"] if isinstance(bit, int))
            rest = deque(seen)
            while rest:
                fresh = readers[rest.popleft()] - seen
                seen |= fresh
                rest.extend(fresh)
            found[name] = set().union(*(outputs[bit] for bit in seen))
    return found


def waits(block):
    """Streams that answer within the cycle: pairs of a `ready` into the block and a `valid` or `ready` out of it
    that depends on it.
    """
    return sorted((i, o) for i, outputs in cones(block).items() if i.endswith("ready")
                  for o in outputs if o.endswith(("valid", "ready")))


def _holds(cell):
    """Whether a cell's outputs change with a clock alone."""
    if cell["type"] == "$memrd_v2":
        return "1" in cell["parameters"]["CLK_ENABLE"]
    return any(port in cell["connections"] for port in CLOCKED)


def _netlist(block):
    """The flat top module, as Yosys writes it in JSON."""
    emitted = Verilog(block)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "design.sv").write_text(emitted.text)
        (folder / "design.ys").write_text(SCRIPT.format(top=block.name))
        yosys = Path(__file__).with_name("yosys.py")
        done = subprocess.run([sys.executable, yosys, "-ql", "design.log", "design.ys"], cwd=folder, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"Yosys failed on {block.name}:\n{done.stdout[-2000:]}")
        return json.loads((folder / "design.json").read_text())["modules"][block.name]
