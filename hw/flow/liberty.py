# SPDX-License-Identifier: Apache-2.0
"""Standard-cell libraries read from Liberty files, with cells recognised by what they do.

Cell names differ between libraries, functions do not: a two-input NAND is the smallest cell whose
truth table is 0111, a full adder the smallest with a parity and a majority output. Times are in
picoseconds and capacitances in femtofarads whatever the file's units are.

Source: Liberty User Guide 2017.06, volume 1, chapters 5 (pins), 9 (timing) and 4 (lookup tables).
"""

import fnmatch
import gzip
import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hw.flow.cache import remember, store

__all__ = ["Adder", "Arc", "Cell", "Group", "Library", "Pin", "Table", "parse", "read", "truth"]


# The syntax: groups, which hold attributes and groups.

@dataclass
class Group:
    """`name (arguments) { attributes and groups }`."""

    name: str
    arguments: list
    attributes: dict = field(default_factory=dict)      # name -> string, or list of strings
    groups: list = field(default_factory=list)

    def all(self, *names):
        return [group for group in self.groups if group.name in names]

    def __getitem__(self, name):
        return self.attributes[name]

    def get(self, name, default=None):
        return self.attributes.get(name, default)

    def lines(self, indent=""):
        """Liberty text, a line at a time."""
        yield f"{indent}{self.name} ({', '.join(map(_quote, self.arguments))}) {{"
        for name, value in self.attributes.items():
            if isinstance(value, list):
                yield f"{indent}  {name} ({', '.join(map(_quote, value))});"
            else:
                yield f"{indent}  {name} : {_quote(value)};"
        for group in self.groups:
            yield from group.lines(indent + "  ")
        yield f"{indent}}}"


_COMMENT = re.compile(r"/\*.*?\*/|\\\r?\n|//[^\n]*", re.S)
_STATEMENT = re.compile(r"""[\s;]*(?:
    (?P<end>\}) |
    (?P<name>[\w.]+)\s*(?:
        :\s*(?P<value>"[^"]*"|[^;"{}\n]*)\s*;? |
        \((?P<arguments>(?:"[^"]*"|[^()"])*)\)\s*(?P<open>\{)?))""", re.X)
_ARGUMENT = re.compile(r'"([^"]*)"|([^\s,"]+)')
_BRACE = re.compile(r"[{}]")
_SKIPPED = re.compile(r"internal_power|leakage_\w+|\w*power_lut\w*|\w*ccs\w*|\w*ccb\w*|receiver_\w+|"
                      r"output_current_\w+|compact_\w+|pg_pin|em_\w+|"
                      r"(default_)?(operating_conditions|wire_load\w*)")


def parse(text):
    """The library group of Liberty `text`, without power, noise and current-source groups."""
    text = _COMMENT.sub(" ", text)
    stack, position = [Group("", [])], 0
    while len(stack) > 1 or not stack[0].groups:
        found = _STATEMENT.match(text, position)
        if not found:
            line = text[position:position + 60].strip()
            raise ValueError(f"liberty: cannot read {line!r}" if line else "liberty: a group is not closed")
        position = found.end()
        name, group = found["name"], stack[-1]
        if found["end"]:
            stack.pop()
        elif found["value"] is not None:
            if not _SKIPPED.fullmatch(name):
                group.attributes[name] = found["value"].strip().strip('"')
        else:
            arguments = [quoted or plain for quoted, plain in _ARGUMENT.findall(found["arguments"])]
            if _SKIPPED.fullmatch(name):
                position = _closing(text, position) if found["open"] else position
            elif not found["open"]:
                group.attributes[name] = arguments
            else:
                stack.append(Group(name, arguments))
                group.groups.append(stack[-1])
    return stack[0].groups[0]


def _closing(text, position):
    depth = 1
    for brace in _BRACE.finditer(text, position):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.end()
    raise ValueError("liberty: a group is not closed")


def _quote(value):
    return value if re.fullmatch(r"[\w.+-]+", value) else f'"{value}"'


# The meaning: cells with functions and timing tables.

@dataclass(frozen=True)
class Table:
    """A nonlinear delay table: `values[i, j]` at input slew `slew[i]` and load `load[j]`.

    In a setup table `slew` belongs to the data pin and `load` is the slew of the clock.
    """

    slew: np.ndarray
    load: np.ndarray
    values: np.ndarray

    def __call__(self, slew, load):
        """Bilinear interpolation, extrapolated beyond the ends, for two numbers."""
        i, u = _place(self.slew, slew)
        j, v = _place(self.load, load)
        low, high = self.values[i], self.values[min(i + 1, len(self.slew) - 1)]
        k = min(j + 1, len(self.load) - 1)
        return (low[j] * (1 - u) + high[j] * u) * (1 - v) + (low[k] * (1 - u) + high[k] * u) * v


def _place(axis, x):
    if len(axis) == 1:
        return 0, 0.0
    i = int(np.clip(np.searchsorted(axis, x) - 1, 0, len(axis) - 2))
    return i, (x - axis[i]) / (axis[i + 1] - axis[i])


@dataclass(frozen=True)
class Arc:
    """Timing from pin `source` to the pin that has the arc; `tables` by Liberty's names."""

    source: str
    kind: str           # "combinational", "rising_edge", "setup_rising", ...
    sense: str          # "positive_unate", "negative_unate", "non_unate"
    tables: dict


@dataclass(frozen=True)
class Pin:
    name: str
    direction: str
    capacitance: float          # fF
    function: str | None
    clock: bool
    arcs: tuple


@dataclass(frozen=True)
class Cell:
    name: str
    area: float                 # um2
    pins: dict
    register: Group | None      # its `ff`, `latch` or `statetable` group
    gate: str | None            # clock_gating_integrated_cell
    unusable: bool              # dont_use

    @property
    def inputs(self):
        return [pin.name for pin in self.pins.values() if pin.direction == "input"]

    @property
    def outputs(self):
        return [pin.name for pin in self.pins.values() if pin.direction == "output"]

    @property
    def is_flop(self):
        return self.register is not None and self.register.name in ("ff", "ff_bank")

    @cached_property
    def functions(self):
        """Truth table of every output, as by `truth`; empty for cells with state."""
        if self.register is not None or len(self.inputs) > 6:
            return {}
        functions = {name: self.pins[name].function for name in self.outputs}
        return {name: truth(f, self.inputs) for name, f in functions.items() if f is not None}


@dataclass(frozen=True)
class Adder:
    """A full-adder cell and the roles of its pins; outputs may be the complements."""

    cell: Cell
    inputs: tuple
    sum: str
    sum_inverted: bool
    carry: str
    carry_inverted: bool


def truth(function, pins):
    """Truth table of a Liberty Boolean expression as an integer.

    Bit `n` is the output when pin `i` has the value of bit `i` of `n`.
    """
    rows = range(1 << len(pins))
    ones = (1 << len(rows)) - 1
    words = {pin: sum(((n >> i) & 1) << n for n in rows) for i, pin in enumerate(pins)}
    words |= {"0": 0, "1": ones}
    tokens = re.findall(r"\w+|\S", function) + [""]

    def either():
        value = both()
        while tokens[0] in ("+", "|"):
            tokens.pop(0)
            value |= both()
        return value

    def both():
        value = parity()
        while tokens[0] not in ("", "+", "|", ")"):
            if tokens[0] in ("&", "*"):
                tokens.pop(0)
            value &= parity()
        return value

    def parity():
        value = factor()
        while tokens[0] == "^":
            tokens.pop(0)
            value ^= factor()
        return value

    def factor():
        token = tokens.pop(0)
        if token == "!":
            return ones ^ factor()
        if token == "(":
            value = either()
            tokens.pop(0)
        elif token in words:
            value = words[token]
        else:
            raise ValueError(f"liberty: {token!r} in function {function!r} is not one of the pins {pins}")
        while tokens[0] == "'":
            tokens.pop(0)
            value ^= ones
        return value

    return either()


_INVERTER, _BUFFER, _NAND2 = 0b01, 0b10, 0b0111
_PARITY3, _MAJORITY3 = 0b10010110, 0b11101000


class Library:
    """All cells of a technology.

    Parameters
    ----------
    group : Group
        Parsed library group.
    dont_use : tuple of str
        Shell patterns of cells that synthesis may not choose, besides those marked in the file.

    Attributes
    ----------
    name : str
    cells : dict of str to Cell
    digest : str
        Of the text that synthesis sees: equal digests, equal results.
    """

    def __init__(self, group, dont_use=()):
        self.name = group.arguments[0]
        time, capacitance = _units(group)
        templates = {g.arguments[0]: g for g in group.all("lu_table_template")}
        self.cells = {}
        for cell in group.all("cell"):
            name = cell.arguments[0]
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in dont_use):
                cell.attributes["dont_use"] = "true"
            self.cells[name] = _cell(cell, templates, time, capacitance)
        self.text = "\n".join(group.lines()) + "\n"
        self.digest = hashlib.sha256(self.text.encode()).hexdigest()

    def smallest(self, wanted):
        """The usable cell of least area for which `wanted(cell)` holds, or None."""
        found = [cell for cell in self.cells.values() if not cell.unusable and cell.area and wanted(cell)]
        return min(found, key=lambda cell: (cell.area, cell.name), default=None)

    def _gate(self, what, table, count):
        cell = self.smallest(lambda c: len(c.inputs) == count and list(c.functions.values()) == [table])
        if cell is None:
            raise ValueError(f"library {self.name} has no usable {what}")
        return cell

    @cached_property
    def nand2(self):
        """The two-input NAND, whose area is one gate equivalent."""
        return self._gate("two-input NAND", _NAND2, 2)

    @cached_property
    def buffer(self):
        return self._gate("buffer", _BUFFER, 1)

    @cached_property
    def inverter(self):
        return self._gate("inverter", _INVERTER, 1)

    @cached_property
    def flop(self):
        """The plain rising-edge D flop: no reset, set, enable or scan."""
        def plain(cell):
            return (cell.is_flop and len(cell.inputs) == 2 and not cell.register.get("clear")
                    and not cell.register.get("preset") and not cell.gate
                    and cell.register["clocked_on"].strip("()") in cell.inputs)
        cell = self.smallest(plain)
        if cell is None:
            raise ValueError(f"library {self.name} has no usable D flop")
        return cell

    @cached_property
    def clock_gate(self):
        """The rising-edge latch-based clock gate, or None."""
        return self.smallest(lambda c: (c.gate or "").startswith("latch_posedge"))

    @cached_property
    def full_adder(self):
        """The full adder as an `Adder`, or None."""
        def role(cell, table):
            return next(((pin, value != table) for pin, value in cell.functions.items()
                         if value in (table, 255 - table)), None)
        cell = self.smallest(lambda c: len(c.inputs) == 3 and role(c, _PARITY3) and role(c, _MAJORITY3))
        return cell and Adder(cell, tuple(cell.inputs), *role(cell, _PARITY3), *role(cell, _MAJORITY3))

    def tie(self, value):
        """(cell, pin) that drives a constant 0 or 1, or None."""
        ties = [(cell, pin) for cell in self.cells.values() if not cell.inputs     # often marked dont_use
                for pin, table in cell.functions.items() if table == value]
        return min(ties, key=lambda tie: tie[0].area, default=None)

    def file(self):
        """Path of `text` as a file, for the tools that read Liberty themselves."""
        return store("liberty", f"{self.digest}.lib", self.text)

    def ge(self, area):
        """Gate equivalents of an area in um2."""
        return area / self.nand2.area


def _units(group):
    """Factors from the file's units to ps and fF."""
    scales = {"s": 1e12, "ms": 1e9, "us": 1e6, "ns": 1e3, "ps": 1.0, "fs": 1e-3}
    number, unit = re.fullmatch(r"([\d.]+)\s*(\w+)", group.get("time_unit", "1ns")).groups()
    count, farads = group.get("capacitive_load_unit", ["1", "pf"])
    return float(number) * scales[unit], float(count) * {"ff": 1.0, "pf": 1e3}[farads.lower()]


def _cell(group, templates, time, capacitance):
    pins = {}
    for pin in group.all("pin"):
        arcs = tuple(_arc(timing, templates, time, capacitance) for timing in pin.all("timing"))
        for name in pin.arguments:
            pins[name] = Pin(name, pin.get("direction"), float(pin.get("capacitance", 0)) * capacitance,
                             pin.get("function"), pin.get("clock") == "true",
                             tuple(arc for arc in arcs if arc.tables))
    register = next(iter(group.all("ff", "ff_bank", "latch", "latch_bank", "statetable")), None)
    return Cell(group.arguments[0], float(group.get("area", 0)), pins, register,
                group.get("clock_gating_integrated_cell"), group.get("dont_use") == "true")


def _arc(group, templates, time, capacitance):
    tables = {table.name: _table(table, templates, time, capacitance) for table in group.groups
              if re.fullmatch("cell_(rise|fall)|(rise|fall)_(transition|constraint)", table.name)}
    return Arc(group.get("related_pin", ""), group.get("timing_type", "combinational"),
               group.get("timing_sense", "non_unate"), tables)


def _table(group, templates, time, capacitance):
    template = templates.get(group.arguments[0]) if group.arguments else None
    template = template or Group("", [])
    axes = [template.get(f"variable_{n}") for n in (1, 2)]
    index = [group.get(f"index_{n}", template.get(f"index_{n}")) for n in (1, 2)]
    values = _numbers(group["values"]) * time
    axes = {name: _numbers(ticks) for name, ticks in zip(axes, index, strict=True) if name and ticks}
    if values.size == 1:                                            # a scalar, whatever its axes
        return Table(np.zeros(1), np.zeros(1), values.reshape(1, 1))
    loads = {"total_output_net_capacitance": capacitance, "related_pin_transition": time}
    constraint = "constrained_pin_transition" in axes
    load = next((n for n in axes if n in loads and (constraint or n != "related_pin_transition")), None)
    slew = next((n for n in axes if n != load), None)
    values = values.reshape([len(ticks) for ticks in axes.values()])
    if load and next(iter(axes)) == load:
        values = values.T
    one = np.zeros(1)
    shape = (len(axes[slew]) if slew else 1, len(axes[load]) if load else 1)
    return Table(axes[slew] * time if slew else one, axes[load] * loads[load] if load else one,
                 values.reshape(shape))


def _numbers(strings):
    return np.array(" ".join(strings).replace(",", " ").split(), dtype=float)


def read(files, dont_use=()):
    """A `Library` from one or several Liberty files (`.lib` or `.lib.gz`) of one technology.

    Parsing is remembered under `build/` until a file or this module changes.
    """
    if not files:
        raise ValueError("liberty: files must name at least one Liberty file, not none")
    digest = hashlib.sha256(Path(__file__).read_bytes() + repr(dont_use).encode())
    contents = []
    for file in map(Path, files):
        if not file.is_file():
            raise ValueError(f"liberty: {file} is not a file")
        contents.append(file.read_bytes())
        digest.update(contents[-1])

    def make():
        texts = [gzip.decompress(c) if c[:2] == b"\x1f\x8b" else c for c in contents]
        groups = [parse(text.decode(errors="replace")) for text in texts]
        return Library(_merge(groups), tuple(dont_use))
    return remember("liberty", digest.hexdigest(), make)


def _merge(groups):
    """One library group: units of the first, cells and templates of all, the first of a name wins."""
    merged, seen = replace(groups[0], groups=[]), set()
    for group in groups:
        if _units(group) != _units(merged):
            raise ValueError(f"liberty: {group.arguments[0]} has other units than {merged.arguments[0]}")
        for part in group.groups:
            key = (part.name, *part.arguments)
            if key not in seen:
                seen.add(key)
                merged.groups.append(part)
    merged.groups.sort(key=lambda part: part.name == "cell")
    return merged
