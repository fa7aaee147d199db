# SPDX-License-Identifier: Apache-2.0
"""What the parts of an engine cost in area."""

import hashlib
from dataclasses import dataclass

from hw.emit import Verilog
from hw.flow import asic, liberty
from hw.flow.cache import remember
from hw.matmul.engine import Engine

__all__ = ["Area", "breakdown"]

PARTS = {"array": "array_*", "drain": "drain_*", "accumulators": "accumulator_*",
         "scales and bias": "parameters_*"}


@dataclass(frozen=True)
class Area:
    """Area of an engine.

    Attributes
    ----------
    unit : str
        "GE" (two-input NAND gates of the library), or "cells" where there is no library.
    library : str or None
    parts : dict of str to float
        By part; "control" is commands, loops and fetching. Memories are not among them.
    bits : int
        Memory.
    """

    unit: str
    library: str | None
    parts: dict
    bits: int

    @property
    def total(self):
        return sum(self.parts.values())


def breakdown(config, library=None, progress=lambda line: None):
    """The `Area` of the matmul engine of `config`, area recipe; remembered by its Verilog and library.

    Parameters
    ----------
    config : golden.config.Matmul
    library : path or None
        Liberty file.
    progress : callable
        Receives a line of text before each unit.
    """
    cells = liberty.read([library]) if library else None
    verilog = Verilog(Engine(config))
    key = repr((verilog.text, cells and cells.digest, asic.AREA))
    key = hashlib.sha256(key.encode()).hexdigest()
    return remember("area", key, lambda: _measure(verilog, cells, progress))


def _measure(verilog, cells, progress):
    def synthesize(top, **options):
        return asic.synthesize(verilog.text, top, cells, asic.AREA, PARTS.values(), **options)

    def size(report):
        return report.ge if cells else report.cells

    whole, parts = synthesize(verilog.tops[0], progress=progress), {}
    for part, pattern in PARTS.items():
        unit, = (unit for unit in whole.units if unit.name.startswith(pattern[:-1]))
        parts[part] = unit.count * size(synthesize(unit.name))
    parts["control"] = size(whole) - sum(parts.values())
    return Area("GE" if cells else "cells", cells and cells.name, parts, whole.total("bits"))
