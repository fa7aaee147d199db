# SPDX-License-Identifier: Apache-2.0
"""A synthesis result as a table and as figures."""

from hw.flow import sta
from hw.flow.figures import figure

__all__ = ["critical", "figures", "fpga_figures", "fpga_table", "table"]


def critical(report, flat=False):
    """The longest path of each kind, longest first; nothing without a library.

    Those of the slowest unit, or, if `flat`, of everything joined, with paths across units.
    """
    if not report.library:
        return []
    netlists = {unit.name: unit.netlist for unit in report.units if unit.netlist}
    if flat:
        return sta.timing(sta.flatten(netlists, report.top, report.library), report.library)
    each = [sta.timing(sta.flatten({name: netlist}, name, report.library), report.library)
            for name, netlist in netlists.items()]
    return max(each, key=lambda paths: paths[0].length if paths else 0.0)


def table(report, paths=()):
    """Lines of text: a line a unit by falling area, the totals, and the longest path cell by cell."""
    library = report.library
    yield f"{report.top}, recipe {report.recipe.name}, " + (
        f"library {library.name}, GE = {library.nand2.name} = {library.nand2.area:g} um2"
        if library else "generic gates: no library, so no areas")
    yield _row("module", "copies", "cells", "flops", "bits", "GE each", "GE", "share")
    total = report.total("area")
    for unit in sorted(report.units, key=lambda unit: -unit.area * unit.count):
        areas = ("-", "-", "-")
        if library:
            each = library.ge(unit.area)
            areas = f"{each:.1f}", f"{each * unit.count:.1f}", f"{unit.area * unit.count / total:.1%}"
        yield _row(unit.name, unit.count, unit.cells.total() * unit.count, unit.flops * unit.count,
                   unit.bits * unit.count, *areas)
    yield _row("total", "", report.cells, report.total("flops"), report.total("bits"), "",
               f"{report.ge:.1f}" if library else "-", "")
    if library:
        yield f"area {total:.1f} um2"
    for path in paths:
        yield f"{path.kind} path {path.length:.0f} ps, clk-q and setup included, no wires"
    for step in paths[0].steps if paths else ():
        yield f"  {step.arrival:8.1f} ps  {step.edge:4}  {step.cell:24} {step.instance}"


def _row(name, *columns):
    widths = (7, 9, 8, 9, 10, 11, 6)
    cells = (f" {column:>{width}}" for column, width in zip(columns, widths, strict=True))
    return f"{name:40}" + "".join(cells)


def figures(label, report, paths=()):
    """Figures named `<label>.<figure>.<recipe>`, or `.generic` without a library."""
    library = report.library
    how = f"scripts/synthesize.py, {library.name if library else 'generic gates'}"
    case = report.recipe.name if library else "generic"
    values = [("cells", report.cells, ""), ("flops", report.total("flops"), ""),
              ("memory", report.total("bits"), "bit")]
    if library:
        values += [("ge", report.ge, "GE"), ("area", report.total("area"), "um2")]
        values += [(f"ge.{unit.name}", library.ge(unit.area) * unit.count, "GE") for unit in report.units]
    values += [("path_ps", paths[0].length, "ps")] if paths else []
    return [figure(f"{label}.{name}.{case}", round(value, 3), unit, how) for name, value, unit in values]


def fpga_table(use):
    """Lines of text for an `hw.flow.ecp5.Use`."""
    yield f"{use.top} on ECP5, {use.fmax:.1f} MHz"
    for name, count in use.used.items():
        if count:
            yield f"  {name:20} {count:7} of {use.available[name]:7} {count / use.available[name]:6.1%}"


def fpga_figures(label, use):
    """Figures named `<label>.<figure>.ecp5`."""
    values = [(name.lower(), count, "") for name, count in use.used.items() if count]
    values += [("fmax_mhz", round(use.fmax, 2), "MHz")] if use.fmax else []
    return [figure(f"{label}.{name}.ecp5", value, unit, "scripts/synthesize.py, nextpnr-ecp5, no pins")
            for name, value, unit in values]
