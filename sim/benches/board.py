# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.board.board.Board` through its two pins: the host that drives a real board drives this one."""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, FallingEdge

from golden import matmul as golden
from golden.link import ANSWERS, Answer, Opcode, size
from sim.stream import reset
from sw.board import Host, LinkError

CONFIG, GEMMS, DIVISOR, PATIENCE = pickle.loads(Path(os.environ["BOARD"]).read_bytes())


class Line:
    """The two pins as what `sw.board.Host` talks to; `read` and `write` block a thread of their own."""

    def __init__(self, dut):
        self.dut, self.received = dut, bytearray()
        cocotb.start_soon(self._receive())

    async def send(self, byte, stop=1):
        for bit in (0, *(byte >> n & 1 for n in range(8)), stop):
            self.dut.rx.value = bit
            await ClockCycles(self.dut.clk, DIVISOR)
        self.dut.rx.value = 1

    async def _receive(self):
        while True:
            await FallingEdge(self.dut.tx)
            await ClockCycles(self.dut.clk, DIVISOR // 2)
            byte = 0
            for n in range(8):
                await ClockCycles(self.dut.clk, DIVISOR)
                byte |= int(self.dut.tx.value) << n
            await ClockCycles(self.dut.clk, DIVISOR)
            assert int(self.dut.tx.value), "the board sent a byte without a stop bit"
            self.received.append(byte)

    @resume
    async def write(self, content):
        for byte in content:
            await self.send(byte)

    @resume
    async def read(self, count):
        have = -1
        while have < len(self.received) < count:        # a byte takes 10 bits, and so does asking for one
            have = len(self.received)
            await ClockCycles(self.dut.clk, 30 * DIVISOR + 2 * PATIENCE)
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    @resume
    async def pause(self):
        await ClockCycles(self.dut.clk, 2 * PATIENCE)


async def begin(dut):
    dut.rx.value = 1
    await reset(dut)
    await ClockCycles(dut.clk, 2 * DIVISOR)
    return Line(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def gemms(dut):
    """Whole GEMMs, bit for bit as golden has them."""
    line = await begin(dut)

    def run():
        host = Host(line, CONFIG)
        for tag, gemm in enumerate(GEMMS):
            y, status = host.matmul(gemm, tag)
            expected, nans = golden.matmul(CONFIG.family, gemm)
            assert (y == expected).all(), f"GEMM {tag} {gemm.shape}: {(y != expected).sum()} results differ"
            assert status["tag"] == tag and status["nans"] == nans
            assert not (status["error"] or status["fault"])
            assert status["cycles"] >= golden.cycles(CONFIG, gemm.shape, w_format=gemm.w_format)

    await bridge(run)()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def memory(dut):
    """Bytes come back from any address, and only those written have changed."""
    line = await begin(dut)

    def run():
        host = Host(line, CONFIG)
        host.write(0, bytes(range(100)))
        host.write(37, b"\xaa" * 5)
        assert host.read(0, 100) == bytes(range(37)) + b"\xaa" * 5 + bytes(range(42, 100))
        assert host.read(99, 1) == b"c"
        assert host.read(7, 0) == b""
        host.write(host.memory - 3, b"end")
        assert host.read(host.memory - 3, 3) == b"end"

    await bridge(run)()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def mistakes(dut):
    """Everything that can go wrong on the line is answered, and the next frame is understood."""
    line = await begin(dut)

    @resume
    async def bad_stop(byte):
        await line.send(byte, stop=0)

    @resume
    async def glitch():
        dut.rx.value = 0
        await ClockCycles(dut.clk, 1)
        dut.rx.value = 1
        await ClockCycles(dut.clk, 20 * DIVISOR)

    def answered(answer):
        assert line.read(1) == bytes([answer])
        line.pause()
        about = host.ask(Opcode.IDENTIFY)
        assert about["memory"] == host.memory and not line.received

    def refused(answer, opcode, **operands):
        try:
            host.ask(opcode, **operands)
        except LinkError as error:
            assert error.answer == answer
        else:
            raise AssertionError(f"{opcode.name} was not refused")

    def run():
        for opcode in (0, 6, 0x55, 0xFF):
            line.write(bytes([opcode]))
            answered(Answer.OPCODE)
        line.write(b"\x77 and more that nobody reads")
        answered(Answer.OPCODE)
        bad_stop(Opcode.STATUS)
        answered(Answer.FRAMING)
        for before in (b"\x02\0", b"\x02\x10\0\0\0\x04\0ab"):         # among operands, among bytes to write
            line.write(before)
            answered(Answer.TIMEOUT)
            line.write(before)
            bad_stop(0x42)
            answered(Answer.FRAMING)
        glitch()
        assert not line.received
        refused(Answer.ADDRESS, Opcode.READ, address=host.memory - 1, count=2)
        refused(Answer.ADDRESS, Opcode.READ, address=0xFFFFFFFF, count=2)
        refused(Answer.ADDRESS, Opcode.WRITE, address=host.memory, count=1)

        # Commands: refused by the engine, given twice, reaching beyond the memory.
        host.start(tag=9, m=0, n=1, k=1)
        assert host.wait()["error"] == 1
        host.start(tag=7, m=CONFIG.m_max // 2, n=8, k=CONFIG.k_max, a_format=2, w_format=2)
        refused(Answer.BUSY, Opcode.START, m=1, n=1, k=1)
        line.write(bytes([Opcode.STATUS]))
        status = line.read(1 + size(ANSWERS[Opcode.STATUS]))
        assert status[0] == Answer.OK and status[1] == 1 and status[3] == 7

    host = await bridge(Host)(line, CONFIG)
    await bridge(run)()
