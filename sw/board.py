# SPDX-License-Identifier: Apache-2.0
"""A board with a tile, over a serial line (`golden.link`): `sw.runtime.device.Device` on hardware.

The line is any object with `write(bytes)`, `read(count)` and `pause()`; `Serial` is that of a real port.
"""

import os
import select
import time

import numpy as np

from golden.link import ANSWERS, OPERANDS, VERSION, Answer, Opcode, fingerprint, size
from golden.registers import State
from sw.runtime.device import DeviceError
from sw.runtime.hardware import Hardware

__all__ = ["Board", "Link", "LinkError", "Serial"]

_PIECE = 0x8000     # bytes of memory in one frame
SLOWEST = 1_000_000     # cycles a second that any board has


class LinkError(DeviceError):
    """The board did not answer, or not with OK. `answer` is what it said."""

    def __init__(self, message, answer=None):
        super().__init__(message)
        self.answer = answer


class Link:
    """What a host asks of a board.

    Parameters
    ----------
    line : object
        `write(bytes)`; `read(count)`, which returns fewer bytes if they do not come; `pause()`, which
        waits until the board has seen silence.
    """

    def __init__(self, line):
        self.line = line

    def ask(self, opcode, payload=b"", **operands):
        """One frame and its answer, as a dict of its fields.

        Raises
        ------
        LinkError
            After which the line is in step again.
        """
        frame = [bytes([opcode]), *(operands[name].to_bytes(count, "little")
                                    for name, count in OPERANDS[opcode].items())]
        self.line.write(b"".join(frame) + payload)
        answer = self._take(1)[0]
        if answer != Answer.OK:
            self.line.pause()
            raise LinkError(f"board: {opcode.name} was answered by {_name(answer)}", answer)
        taken, fields = self._take(size(ANSWERS[opcode])), {}
        for name, count in ANSWERS[opcode].items():
            fields[name], taken = int.from_bytes(taken[:count], "little"), taken[count:]
        return fields

    def write(self, address, content):
        """Put bytes into memory."""
        for at in range(0, len(content), _PIECE):
            piece = bytes(content[at:at + _PIECE])
            self.ask(Opcode.WRITE, piece, address=address + at, count=len(piece))

    def read(self, address, count):
        """Bytes of memory."""
        pieces = []
        for at in range(0, count, _PIECE):
            piece = min(_PIECE, count - at)
            self.ask(Opcode.READ, address=address + at, count=piece)
            pieces.append(self._take(piece))
        return b"".join(pieces)

    def _take(self, count):
        taken = self.line.read(count)
        if len(taken) != count:
            raise LinkError(f"board: {len(taken)} of {count} bytes came in time")
        return taken


def _name(answer):
    return Answer(answer).name if answer in set(Answer) else f"{answer:#x}"


class Board(Hardware):
    """A board that runs programs.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
        Checked against what the board says of itself.
    line : object
        See `Link`.

    Raises
    ------
    LinkError
        When the board is another one.
    """

    def __init__(self, layout, line):
        self.link = Link(line)
        about, chip = self.link.ask(Opcode.IDENTIFY), layout.chip
        if about["version"] != VERSION:
            raise LinkError(f"board: version is {about['version']}, not {VERSION}")
        if about["chip"] != fingerprint(chip):
            raise LinkError(f"board: was made from another configuration than {chip.name}")
        if about["memory"] < layout.size:
            raise LinkError(f"board: {layout.size} bytes of model and KV cache do not fit into {about['memory']}")
        super().__init__(layout)

    def write(self, address, data):
        self.link.write(address, data)

    def read(self, address, count):
        return np.frombuffer(self.link.read(address, count), np.uint8)

    def put(self, address, value):
        self.link.ask(Opcode.SET, register=address, value=value)

    def take(self, address):
        return self.link.ask(Opcode.GET, register=address)["value"]

    def wait(self, cycles):
        """As of `Hardware`; the line takes longer than a few cycles."""
        end = time.monotonic() + cycles / SLOWEST
        while not ((status := self.get("status"))["done"] or status["state"] == State.ERROR):
            if time.monotonic() > end:
                return None, False
        return None, True


class Serial:
    """A serial port of this machine (POSIX), 8N1.

    Parameters
    ----------
    path : str
        Such as /dev/ttyUSB0.
    baud : int
        One of the rates that the system knows.
    patience : float
        Seconds after which `read` gives up.
    """

    def __init__(self, path, baud=1_000_000, patience=1.0):
        import termios
        import tty

        rate = getattr(termios, f"B{baud}", None)
        if rate is None:
            raise ValueError(f"Serial: baud must be a rate that this system knows, not {baud}")
        self.patience = patience
        self.file = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.file)
        modes = termios.tcgetattr(self.file)
        modes[2] = modes[2] & ~(termios.CSTOPB | termios.PARENB | termios.CRTSCTS) | termios.CLOCAL
        modes[4] = modes[5] = rate
        termios.tcsetattr(self.file, termios.TCSANOW, modes)
        termios.tcflush(self.file, termios.TCIOFLUSH)

    def write(self, content):
        while content:
            content = content[os.write(self.file, content):]

    def read(self, count):
        taken = b""
        while len(taken) < count and select.select([self.file], [], [], self.patience)[0]:
            taken += os.read(self.file, count - len(taken))
        return taken

    def pause(self):
        time.sleep(0.1)
