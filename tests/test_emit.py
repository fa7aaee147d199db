# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
import subprocess
import sys

import pytest
from amaranth.hdl import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from pyslang import ast, syntax

from golden.config import load
from hw.emit import LINT_WAIVERS, Block, Verilog, verilog
from hw.matmul.engine import Engine
from hw.ram import Ram
from hw.stream import Buffer, DeepQueue, Queue
from sim.run import ROOT, verilator

PAIR = data.StructLayout({"low": 3, "high": 5})


class Inner(wiring.Component):
    """A component that is not a block."""

    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(~self.i)
        return m


class Pipe(Block):
    """Three buffers, and an inner component on the way."""

    def __init__(self, shape, depths=(2, 2, 2)):
        self.shape, self.depths = shape, depths
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        end = flipped(self.i)
        for n, depth in enumerate(self.depths):
            m.submodules[f"stage{n}"] = stage = Queue(self.shape, depth)
            connect(m, end, stage.i)
            end = stage.o
        m.submodules.inner = inner = Inner()
        m.d.comb += [inner.i.eq(end.payload), self.o.payload.eq(inner.o),
                     self.o.valid.eq(end.valid), end.ready.eq(self.o.ready)]
        return m


class Two(Block):
    """A register in a domain of its own and an array of ports."""

    def __init__(self):
        super().__init__({"i": In(signed_pair := data.ArrayLayout(4, 2)), "o": Out(signed_pair).array(2)})

    def elaborate(self, platform):
        m = Module()
        m.d.fast += self.o[0].eq(self.i)
        m.d.sync += self.o[1].eq(self.i)
        return m


class Named(Block):
    """A block that chooses its name, badly."""

    name = "fixed"

    def __init__(self, width):
        super().__init__({"o": Out(width)})

    def elaborate(self, platform):
        return Module()


class Parent(Block):
    """Two blocks of one name."""

    def __init__(self):
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.a, m.submodules.b = Named(1), Named(2)
        return m


class Silent(Block):
    """A block that leaves its output undriven, at its initial value."""

    def __init__(self):
        super().__init__({"i": In(4), "o": Out(4, init=5)})

    def elaborate(self, platform):
        return Module()


def engine(**changes):
    return Engine(load(ROOT / "configs" / "nano.toml").matmul.model_copy(update=changes))


BLOCKS = {
    "queue": lambda: Queue(PAIR, 3),
    "deep_queue": lambda: DeepQueue(8, 100),
    "ram": lambda: Ram(8, 100),
    "pipe": lambda: Pipe(PAIR),
    "two": Two,
    "silent": Silent,
    "engine": engine,
    "engine_int8": lambda: engine(family="int8"),
    "engine_fp4": lambda: engine(family="fp4"),
}


@pytest.fixture(scope="module", params=BLOCKS)
def emitted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    made = Verilog(BLOCKS[request.param]())
    return made, folder, made.write(folder)


def test_lint_is_clean(emitted):
    made, folder, files = emitted
    program, _ = verilator()
    waivers = [f"-Wno-{waiver}" for waiver in LINT_WAIVERS]
    done = subprocess.run([program, "--lint-only", "-Wall", *waivers, "--top-module", made.tops[0],
                           "-f", f"{made.tops[0]}.f"], cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_pyslang_reads_it_without_a_word(emitted):
    made, _, _ = emitted
    compilation = ast.Compilation()
    compilation.addSyntaxTree(syntax.SyntaxTree.fromText(made.text))
    found = [str(problem.code) for problem in compilation.getAllDiagnostics() if problem.isError()]
    assert not found
    tops = [instance.name for instance in compilation.getRoot().topInstances]
    assert tops == made.tops


def test_ports_json_is_what_pyslang_sees(emitted):
    made, folder, _ = emitted
    compilation = ast.Compilation()
    compilation.addSyntaxTree(syntax.SyntaxTree.fromText(made.text))
    (top,) = compilation.getRoot().topInstances
    seen = [(port.name, "input" if port.direction == ast.ArgumentDirection.In else "output",
             port.type.bitWidth) for port in top.body.portList]
    described = json.loads((folder / "ports.json").read_text())[made.tops[0]]
    assert [(port["name"], port["direction"], port["width"]) for port in described] == seen


def test_text_does_not_depend_on_the_process():
    code = "import sys, tests.test_emit as t; sys.stdout.write(t.verilog(t.engine()))"
    texts = {subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True,
                                     env={**os.environ, "PYTHONHASHSEED": seed}) for seed in "12"}
    assert texts == {verilog(engine())}


def test_names_and_order():
    made = Verilog(Pipe(unsigned(8), (2, 3, 2)))
    assert list(made.modules) == [
        "queue_8x2", "queue_8x3", "pipe_unsigned_8_2_3_2__inner", "pipe_unsigned_8_2_3_2"]
    assert made.text.count("  queue_8x2 stage") == 2
    assert ".Pipe(shape=unsigned(8), depths=(2, 3, 2))\nmodule pipe_unsigned_8_2_3_2(" in made.text
    assert made.modules["queue_8x2"].startswith(
        "// hw.stream.Queue(shape=unsigned(8), depth=2)\n"
        "module queue_8x2(clk, rst, i__payload, i__valid, i__ready, o__payload, o__valid, o__ready);\n")


def test_names_are_plain_words(emitted):
    made, _, _ = emitted
    escaped = re.findall(r"\\(\S+)", made.text)      # signals whose name is a keyword, such as `new`
    assert all(re.fullmatch(r"[a-z]+", name) for name in escaped)


def test_module_count_does_not_grow_with_copies():
    few, many = Verilog(Pipe(8, (2,) * 2)), Verilog(Pipe(8, (2,) * 40))
    assert len(few.modules) == len(many.modules) == 3


def test_shapes_of_one_width_share_a_module():
    class Both(Block):
        def __init__(self):
            super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(PAIR))})

        def elaborate(self, platform):
            m = Module()
            m.submodules.a, m.submodules.b = a, b = Buffer(8), Buffer(PAIR)
            connect(m, flipped(self.i), a.i)
            m.d.comb += [b.i.payload.eq(a.o.payload), b.i.valid.eq(a.o.valid), a.o.ready.eq(b.i.ready)]
            connect(m, b.o, flipped(self.o))
            return m
    assert list(Verilog(Both()).modules) == ["buffer_8x2", "both"]


def test_several_tops_share_modules():
    made = Verilog(Pipe(8), Queue(8, 2), Ram(8, 4))
    assert made.tops == ["pipe_8_2_2_2", "queue_8x2", "ram_8x4"]
    assert list(made.modules) == ["queue_8x2", "pipe_8_2_2_2__inner", "pipe_8_2_2_2", "ram_8x4"]


def test_registers_have_no_initial_value():
    assert not re.search(r"initial|reg [^;]*=", verilog(engine()))


def test_undriven_output_stays_an_output_at_its_initial_value():
    assert "output [3:0] o;\n" in verilog(Silent()) and "assign o = 4'h5;" in verilog(Silent())


def test_streams_and_fields_in_ports():
    ports = {port["name"]: port for port in Verilog(Queue(PAIR, 2)).ports["queue_8x2"]}
    assert ports["clk"] == {"name": "clk", "direction": "input", "width": 1}
    assert ports["o__payload"] == {
        "name": "o__payload", "direction": "output", "width": 8, "stream": "o",
        "fields": {"low": {"offset": 0, "width": 3}, "high": {"offset": 3, "width": 5}}}
    assert ports["i__ready"] == {"name": "i__ready", "direction": "output", "width": 1, "stream": "i"}
    assert list(port["name"] for port in Verilog(Two()).ports["two"]) == [
        "clk", "fast_clk", "fast_rst", "rst", "i", "o__0", "o__1"]


def test_one_file_or_many(tmp_path):
    made = Verilog(Pipe(8))
    many = [path.name for path in made.write(tmp_path / "many", "pipe")]
    assert many == ["queue_8x2.sv", "pipe_8_2_2_2__inner.sv", "pipe_8_2_2_2.sv",
                    "ports.json", "pipe.f", "pipe.core"]
    one = [path.name for path in made.write(tmp_path / "one", "pipe", split=False)]
    assert one == ["pipe.sv", "ports.json", "pipe.f", "pipe.core"]
    assert (tmp_path / "many" / "pipe.f").read_text().split() == many[:3]
    core = (tmp_path / "many" / "pipe.core").read_text()
    assert core.startswith("CAPI=2:\nname: poblano:generated:pipe:")
    assert re.findall(r"(?m)^  (\w+):", core[core.index("targets:"):]) == ["default", "lint", "sim", "synth"]


def test_unchanged_files_are_left_alone(tmp_path):
    file = Verilog(Ram(8, 4)).write(tmp_path)[0]
    os.utime(file, (1, 1))
    Verilog(Ram(8, 4)).write(tmp_path)
    assert file.stat().st_mtime == 1


def test_two_modules_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"^'fixed' would name two different modules: .*=1.* and .*=2"):
        Verilog(Parent())


def test_live_object_argument_is_refused():
    with pytest.raises(TypeError, match="^Pipe: argument shape=<object .* has no stable repr"):
        Pipe(object())


def test_failure_of_yosys_is_shown(monkeypatch):
    monkeypatch.setenv("YOSYS", f"{sys.executable} -c 'print(\"out of luck\"); exit(1)'")
    with pytest.raises(RuntimeError, match="failed:\nout of luck$"):
        Verilog(Ram(8, 4))
