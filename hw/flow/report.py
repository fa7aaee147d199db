# SPDX-License-Identifier: Apache-2.0
"""A synthesis result as a table and as figures."""

from hw.flow import sta
from hw.flow.figures import figure

__all__ = ["critical", "figures", "fpga_figures", "fpga_table", "table", "timing"]


def timing(report, flat=False):
    """The longest path of each kind, longest first, of each unit alone; or, if `flat`, of everything joined, with paths
    across units. Nothing without a library."""
    if not report.library:
        return {}
    netlists = {unit.name: unit.netlist for unit in report.units if unit.netlist}
    if flat:
        return {report.top: sta.timing(sta.flatten(netlists, report.top, report.library), report.library)}
    return {name: sta.timing(sta.flatten({name: netlist}, name, report.library), report.library)
            for name, netlist in netlists.items()}


def critical(report, flat=False):
    """The longest path of each kind of the slowest unit; see `timing`."""
    return max(timing(report, flat).values(), key=_length, default=[])


def _length(paths):
    return paths[0].length if paths else 0.0


def table(report, timed=None):
    """Lines of text: a line a unit by falling area, the totals, what the top is made of, and the longest path cell by
    cell; `timed` as `timing` has it."""
    library = report.library
    yield f"{report.top}, recipe {report.recipe.name}, " + (
        f"library {library.name}, GE = {library.nand2.name} = {library.nand2.area:g} um2"
        if library else "generic gates: no library, so no areas")
    timed = timed or {}
    yield _row("module", "copies", "cells", "flops", "bits", "GE each", "GE", "share", "path ps")
    total = report.total("area")
    for unit in sorted(report.units, key=lambda unit: -unit.area * unit.count):
        areas = ("-", "-", "-")
        if library:
            each = library.ge(unit.area)
            areas = f"{each:.1f}", f"{each * unit.count:.1f}", f"{unit.area * unit.count / total:.1%}"
        yield _row(unit.name, unit.count, unit.cells.total() * unit.count, unit.flops * unit.count,
                   unit.bits * unit.count, *areas, f"{_length(timed.get(unit.name)):.0f}" if unit.name in timed else "")
    yield _row("total", "", report.cells, report.total("flops"), report.total("bits"), "",
               f"{report.ge:.1f}" if library else "-", "", "")
    if library:
        yield f"area {total:.1f} um2"
        if len(report.units) > 1:
            yield from _tree(report)
    slowest = max(timed, key=lambda name: _length(timed[name]), default=None)
    paths = timed.get(slowest, [])
    for path in paths:
        yield f"{slowest}: {path.kind} path {path.length:.0f} ps, clk-q and setup included, no wires"
    for step in paths[0].steps if paths else ():
        yield f"  {step.arrival:8.1f} ps  {step.edge:4}  {step.cell:24} {step.instance}"


def _tree(report):
    """Units with all that is in them, under those that use them; what is in several lines is in each."""
    total = report.total("area")
    yield _row("with all that is in it", "copies", "", "flops", "bits", "", "GE", "share", "")

    def rows(name, count, depth):
        area = report.inside(name, "area")
        yield _row("  " * depth + name, count, "", report.inside(name, "flops") * count,
                   report.inside(name, "bits") * count, "", f"{report.library.ge(area) * count:.1f}",
                   f"{area * count / total:.1%}", "")
        uses = report.unit(name).uses
        for each in sorted(uses, key=lambda each: -report.inside(each, "area") * uses[each]):
            if report.inside(each, "area") * uses[each] * count > total / 200:
                yield from rows(each, uses[each] * count, depth + 1)

    yield from rows(report.top, 1, 0)


def _row(name, *columns):
    widths = (7, 9, 8, 9, 10, 11, 6, 8)
    cells = (f" {column:>{width}}" for column, width in zip(columns, widths, strict=True))
    return f"{name:40}" + "".join(cells)


def figures(label, report, timed=None):
    """Figures named `<label>.<figure>.<recipe>`, or `.generic` without a library."""
    library, longest = report.library, max(map(_length, (timed or {}).values()), default=0)
    how = f"scripts/synthesize.py, {library.name if library else 'generic gates'}"
    case = report.recipe.name if library else "generic"
    values = [("cells", report.cells, ""), ("flops", report.total("flops"), ""),
              ("memory", report.total("bits"), "bit")]
    if library:
        values += [("ge", report.ge, "GE"), ("area", report.total("area"), "um2")]
        values += [(f"ge.{unit.name}", library.ge(unit.area) * unit.count, "GE") for unit in report.units]
    values += [("path_ps", longest, "ps")] if longest else []
    return [figure(f"{label}.{name}.{case}", round(value, 3), unit, how) for name, value, unit in values]


def fpga_table(use):
    """Lines of text for an `hw.flow.ecp5.Use`."""
    yield f"{use.top} on ECP5, {use.fmax:.1f} MHz"
    if use.path:
        yield "  longest path {:.1f} ns, {:.1f} of it wires, from {} to {}".format(*use.path)
    for name, count in use.used.items():
        if count:
            yield f"  {name:20} {count:7} of {use.available[name]:7} {count / use.available[name]:6.1%}"


def fpga_figures(label, use):
    """Figures named `<label>.<figure>.ecp5`."""
    values = [(name.lower(), count, "") for name, count in use.used.items() if count]
    values += [("fmax_mhz", round(use.fmax, 2), "MHz")] if use.fmax else []
    return [figure(f"{label}.{name}.ecp5", value, unit, "scripts/synthesize.py, nextpnr-ecp5, no pins")
            for name, value, unit in values]
