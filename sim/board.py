# SPDX-License-Identifier: Apache-2.0
"""A board in simulation, by its two pins: the line that `sw.board` talks to."""

import struct
import subprocess

from hw.board.board import Board
from sim.tile import model
from sw.board import LinkError

__all__ = ["Line"]


class Line:
    """The serial line of a simulated board. Time passes only while something is asked of it.

    Parameters
    ----------
    chip, memory, divisor, patience
        As of `hw.board.board.Board`.
    """

    def __init__(self, chip, memory, divisor=4, patience=400):
        board = Board(chip, memory, divisor, patience)
        self.patience = board.patience
        self.process = subprocess.Popen([model(board, ("board.cpp",), f"constexpr int DIVISOR = {divisor};\n")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self):
        """End the simulation."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def write(self, content):
        self._order(b"W" + struct.pack("<Q", len(content)) + bytes(content))

    def read(self, count):
        come, = struct.unpack("<Q", self._order(b"R" + struct.pack("<QQ", count, 4 * self.patience), 8))
        return self._order(b"", come)

    def pause(self):
        self.hold(2 * self.patience, 1)

    def hold(self, cycles, level):
        """Let cycles pass with the line at a level."""
        self._order(b"L" + struct.pack("<QB", cycles, level))

    def break_off(self, byte):
        """Send a byte without its stop bit."""
        self._order(b"B" + bytes([byte]))

    @property
    def cycles(self):
        """Cycles since the begin."""
        return struct.unpack("<Q", self._order(b"C", 8))[0]

    def _order(self, order, answer=0):
        try:
            self.process.stdin.write(order)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise LinkError(f"the simulation has ended, {self.process.wait()}") from None
        found = self.process.stdout.read(answer) if answer else b""
        if len(found) < answer:
            raise LinkError(f"the simulation has ended, {self.process.wait()}")
        return found
