# SPDX-License-Identifier: Apache-2.0
"""Synthesis to standard cells, hierarchical: a big array costs one processing element.

Each unit of the hierarchy (see `hw.flow.hierarchy`) is mapped once and counted as often as it is
used. Three recipes serve the same Verilog. `area` puts the library's full-adder cells wherever a row
of full adders or a carry chain appears and lets abc save the rest; `speed` leaves all to abc, which
is told the period; `balanced` maps for area, then buffers and sizes for the period. All replace
enables by clock gates where the library has them.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace

from hw.flow import sta, yosys
from hw.flow.cache import remember
from hw.flow.hierarchy import Hierarchy

__all__ = ["AREA", "BALANCED", "RECIPES", "SPEED", "Attempt", "Recipe", "Report", "Unit", "synthesize"]


@dataclass(frozen=True)
class Attempt:
    """One way through the mapper.

    Attributes
    ----------
    abc : str
        Script of abc, commands apart by `; `; `{D}` becomes `-D <ps>` where the recipe has a period.
    adders : str
        What becomes full-adder cells: "none", "rows" (`carry_save_*`) or "all" (carry chains too).
    effort : float
        Share of the period that abc is told; below 1 where it does not see a path whole.
    """

    abc: str
    adders: str = "none"
    effort: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How to map a unit: attempts, of which the best counts.

    The best is the smallest that meets the period, or the fastest if none does.

    Attributes
    ----------
    name : str
    attempts : tuple of Attempt
    period : float
        Target in ps, clk-q and setup included; 0 for none.
    gate : int
        Least number of flops sharing an enable that get a clock gate; 0 for no clock gates.
    """

    name: str
    attempts: tuple
    period: float = 0
    gate: int = 4

    def at(self, period):
        """The same recipe for another period."""
        return replace(self, period=period)


_TIDY = "strash; ifraig; scorr; dc2; dch -f; "
_SIZE = "; topo; buffer -c; upsize {D}; dnsize {D}"
_SMALL = _TIDY + "amap -m -F 8 -A 10"
AREA = Recipe("area", (
    Attempt(_SMALL, "all"),
    Attempt(_TIDY + "amap -m -F 4 -E 0", "all"),
    Attempt(_TIDY + "map -a", "all"),
))
SPEED = Recipe("speed", (
    Attempt(_SMALL + _SIZE, "rows"),
    Attempt("strash; dch; map -B 0.9 {D}" + _SIZE, "rows"),
    Attempt("strash; dch; map -B 0.9 {D}" + _SIZE, "rows", 0.8),
    Attempt(_SMALL + _SIZE),
    Attempt(_TIDY + "map -B 0.9 {D}" + _SIZE),
    Attempt("strash; dch; map -B 0.9 {D}" + _SIZE),
    Attempt("strash; dch; map -B 0.9 {D}" + _SIZE, effort=0.8),
), period=1400)
BALANCED = Recipe("balanced", (
    Attempt(_TIDY + "map -a" + _SIZE),
    Attempt("strash; &get -n; &dch -f; &nf; &put" + _SIZE),
), period=1400)
RECIPES = {recipe.name: recipe for recipe in (AREA, SPEED, BALANCED)}


@dataclass
class Unit:
    """One module as mapped, without the units it uses.

    Attributes
    ----------
    name : str
    count : int
        Copies in the whole.
    cells : Counter
        Library cells by type.
    area : float
        um2 of one copy; 0 when there is no library.
    flops : int
    bits : int
        Memory bits of one copy.
    netlist : dict
        The module in Yosys' JSON form.
    uses : Counter
        Copies of other units in one copy of it.
    """

    name: str
    count: int
    cells: Counter
    area: float
    flops: int
    bits: int
    netlist: dict
    uses: Counter


@dataclass
class Report:
    """The outcome: `units`, leaves first, and their totals."""

    top: str
    recipe: Recipe
    library: object         # Library, or None for generic cells
    units: list

    def total(self, what):
        """Sum over all copies of `area`, `flops` or `bits`."""
        return sum(getattr(unit, what) * unit.count for unit in self.units)

    def inside(self, name, what):
        """Sum of `area`, `flops` or `bits` over one copy of a unit and all that it uses."""
        unit = self.unit(name)
        return getattr(unit, what) + sum(count * self.inside(each, what) for each, count in unit.uses.items())

    def unit(self, name):
        return next(unit for unit in self.units if unit.name == name)

    @property
    def cells(self):
        return sum(unit.cells.total() * unit.count for unit in self.units)

    @property
    def ge(self):
        return self.library.ge(self.total("area")) if self.library else None


def synthesize(text, top, library=None, recipe=AREA, keep=(), whole=False, progress=lambda line: None):
    """Map `top` and everything below it.

    Parameters
    ----------
    text : str
        Verilog of all modules.
    top : str
    library : Library or None
        None counts Yosys' generic gates, which have no area.
    recipe : Recipe
    keep : iterable of str
        Patterns of modules to report on lines of their own.
    whole : bool
        Do all else as one unit, whatever is in it more than once.
    progress : callable
        Receives a line of text before each unit.

    Raises
    ------
    RuntimeError
        When Yosys fails, leaves a cell unmapped, or the area is zero.
    """
    hierarchy = Hierarchy(text, top, keep, whole)
    units = []
    for name in hierarchy.units:
        module, count = hierarchy.modules[name], hierarchy.counts[name]
        if module.bits:
            units.append(Unit(name, count, Counter(), 0.0, 0, module.bits, {}, Counter()))
        else:
            progress(f"{recipe.name}: {name}")
            units.append(_unit(hierarchy, name, library, recipe))
    report = Report(top, recipe, library, units)
    if not (report.total("area") if library else report.cells):
        raise RuntimeError(f"synthesis of {top} left no cells: is its output used?")
    return report


def _unit(hierarchy, name, library, recipe):
    """The best of what attempts make of a module."""
    units = _attempts(hierarchy, name, library, recipe)
    if not recipe.period or not library:
        return min(units, key=lambda unit: unit.area)

    def best(units):
        lengths = [sta.period({name: unit.netlist}, name, library) for unit in units]
        return min(zip(lengths, units, strict=True), key=lambda pair: (
            (0, pair[1].area) if pair[0] <= recipe.period else (1, pair[0])))

    length, unit = best(units)
    fences = hierarchy.fences(name)
    if length > recipe.period and fences:
        length, unit = best([unit, *_attempts(hierarchy, name, library, recipe, fences)])
    return unit


def _attempts(hierarchy, name, library, recipe, fences=""):
    """The `Unit` that each attempt makes of a module.

    To abc a net that goes to many other units is a single output, which it leaves without buffers. With `fences`, each
    of these units takes an output of its own.
    """
    attempts = recipe.attempts if library else recipe.attempts[:1]
    script, files = _script(name, hierarchy.source(name), library, recipe, attempts, fences)
    key = hashlib.sha256(repr((script, files, library and library.digest)).encode()).hexdigest()
    if library:
        script = script.replace("cells.lib", str(library.file()))
    results = [f"netlist{n}.json" for n in range(len(attempts))]
    netlists = remember("synthesis", key, lambda: yosys.run(script, files, results))
    kept = hierarchy.parts(name)[1]
    return [_measure(name, hierarchy.counts[name], json.loads(netlist)["modules"][name], kept, library)
            for netlist in netlists]


def _measure(name, count, netlist, kept, library):
    """The `Unit` of a mapped module that uses the units `kept`."""
    cells = Counter(cell["type"] for cell in netlist["cells"].values() if cell["type"] not in kept)
    cells.pop("$scopeinfo", None)
    if not library:
        return Unit(name, count, cells, 0.0, sum(n for cell, n in cells.items() if "DFF" in cell), 0, netlist, kept)
    for cell in cells:
        if cell not in library.cells:
            raise RuntimeError(f"synthesis of {name} left {cell}, which {library.name} does not have")
    area = sum(library.cells[cell].area * n for cell, n in cells.items())
    flops = sum(n for cell, n in cells.items() if library.cells[cell].is_flop)
    return Unit(name, count, cells, area, flops, 0, netlist, kept)


def _script(top, source, library, recipe, attempts, fences=""):
    """(Yosys script, its files) for one unit; attempt `n` leaves `netlist<n>.json`."""
    source = re.sub(r"^module carry_save_(\d+)\b.*?^endmodule", _CARRY_SAVE, source, flags=re.M | re.S)
    files = {"unit.sv": source}
    steps = [
        "read_liberty -lib -ignore_miss_func cells.lib" if library else "",
        "read_verilog -sv -icells unit.sv",
        f"hierarchy -check -top {top}",
        "synth -flatten -run begin:fine -noalumacc -noshare",
        "booth t:$mul r:A_WIDTH>=8 %i r:B_WIDTH>=8 %i; alumacc; opt",
        "opt -fast -full; memory_map; opt -full",
        "design -save start",
    ]
    if library:
        avoid = " ".join(f"-dont_use {cell.name}" for cell in library.cells.values() if cell.unusable)
        budget = max(recipe.period - sta.overhead(library), 1)
        files |= {"fences.v": fences} if fences else {}
        files["drive"] = f"set_driving_cell {library.buffer.name}\nset_load {sta.launch(library)[2]:.2f}\n"
        if library.full_adder:
            files |= {"ripple.v": _RIPPLE, "split.v": _SPLIT, "adder.v": _adder(library.full_adder)}
    for n, attempt in enumerate(attempts):
        steps += ["design -load start"]
        if library and library.full_adder:
            steps += _ADDERS[attempt.adders]
        fast = "-map +/techmap.v -map +/choices/sklansky.v" if recipe.period else ""
        steps += [f"techmap {fast}; opt -fast; opt -purge"]
        if library:
            if recipe.gate and library.clock_gate:
                steps += [f"clockgate -liberty cells.lib -min_net_size {recipe.gate}; opt -fast"]
            period = f"-D {budget * attempt.effort:.0f}" if recipe.period else ""
            files[f"abc{n}"] = attempt.abc.replace("{D}", period).replace("; ", "\n") + "\n"
            steps += [f"dfflibmap -liberty cells.lib {avoid}; opt; setundef -zero",
                      *["techmap -max_iter 1 -map fences.v"] * bool(fences),
                      f"abc -liberty cells.lib {avoid} -constr drive -script abc{n} {period}"]
        else:
            steps += ["abc -g cmos; opt -fast"]
        steps += ["splitnets; opt_clean -purge", f"write_json netlist{n}.json"]
    return "\n".join(steps) + "\n", files


_ROWS = ["techmap -map split.v; opt -fast"] * 4 + ["techmap -map adder.v"]
_ADDERS = {"none": [], "rows": _ROWS, "all": ["techmap -map ripple.v; opt -fast", *_ROWS]}

_CARRY_SAVE = r"""module carry_save_\1 (input [\1-1:0] a, b, c, output [\1-1:0] s, k);
  \\$fa #(.WIDTH(\1)) row (.A(a), .B(b), .C(c), .X(k), .Y(s));
endmodule"""

_RIPPLE = r"""
(* techmap_celltype = "$alu" *)
module ripple (A, B, CI, BI, X, Y, CO);
  parameter A_SIGNED = 0, B_SIGNED = 0, A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1;
  (* force_downto *) input [A_WIDTH-1:0] A;
  (* force_downto *) input [B_WIDTH-1:0] B;
  input CI, BI;
  (* force_downto *) output [Y_WIDTH-1:0] X, Y, CO;
  wire [Y_WIDTH-1:0] a, b, extended;
  wire [Y_WIDTH:0] carry;
  \$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(Y_WIDTH)) pa (.A(A), .Y(a));
  \$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(Y_WIDTH)) pb (.A(B), .Y(extended));
  assign b = extended ^ {Y_WIDTH{BI}};
  assign X = a ^ b;
  assign CO = carry[Y_WIDTH:1];
  assign carry[0] = CI;
  genvar i;
  generate for (i = 0; i < Y_WIDTH; i = i + 1)
    \$fa #(.WIDTH(1)) bit (.A(a[i]), .B(b[i]), .C(carry[i]), .X(carry[i+1]), .Y(Y[i]));
  endgenerate
endmodule
"""

_SPLIT = r"""
(* techmap_celltype = "$fa" *)
module split (A, B, C, X, Y);
  parameter WIDTH = 1, _TECHMAP_CONSTMSK_A_ = 0, _TECHMAP_CONSTMSK_B_ = 0, _TECHMAP_CONSTMSK_C_ = 0;
  (* force_downto *) input [WIDTH-1:0] A, B, C;
  (* force_downto *) output [WIDTH-1:0] X, Y;
  localparam [WIDTH-1:0] KNOWN = _TECHMAP_CONSTMSK_A_ | _TECHMAP_CONSTMSK_B_ | _TECHMAP_CONSTMSK_C_;
  wire _TECHMAP_FAIL_ = WIDTH == 1 && !KNOWN;
  genvar i;
  generate for (i = 0; i < WIDTH; i = i + 1)
    if (KNOWN[i]) begin
      assign X[i] = (A[i] & B[i]) | (A[i] & C[i]) | (B[i] & C[i]);
      assign Y[i] = A[i] ^ B[i] ^ C[i];
    end else
      \$fa #(.WIDTH(1)) bit (.A(A[i]), .B(B[i]), .C(C[i]), .X(X[i]), .Y(Y[i]));
  endgenerate
endmodule
"""


def _adder(adder):
    """Techmap rule from a one-bit `$fa` to the library's cell."""
    a, b, c = adder.inputs
    return f"""
(* techmap_celltype = "$fa" *)
module full_adder (A, B, C, X, Y);
  parameter WIDTH = 1;
  input A, B, C;
  output X, Y;
  wire carry, sum;
  assign X = {"~" * adder.carry_inverted}carry;
  assign Y = {"~" * adder.sum_inverted}sum;
  {adder.cell.name} bit (.{a}(A), .{b}(B), .{c}(C), .{adder.carry}(carry), .{adder.sum}(sum));
endmodule
"""
