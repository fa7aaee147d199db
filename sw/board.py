# SPDX-License-Identifier: Apache-2.0
"""A board's host: memory, commands and whole GEMMs over a serial line (`golden.link`).

The line is any object with `write(bytes)`, `read(count)` and `pause()`; `Serial` is that of a real port.
"""

import os
import select
import time

import numpy as np

from golden.families import FORMAT_CODES
from golden.formats import FORMATS
from golden.link import ANSWERS, OPERANDS, VERSION, Answer, Opcode, size
from golden.matmul import PARAMETERS, activation_image, weight_image

__all__ = ["Host", "LinkError", "Serial"]

_PIECE = 0x8000     # bytes of memory in one frame
_FLAGS = dict(zip(("row_scaled", "column_scaled", "biased", "accumulate"), PARAMETERS, strict=True))


class LinkError(RuntimeError):
    """The board did not answer, or not with OK. `answer` is what it said."""

    def __init__(self, message, answer=None):
        super().__init__(message)
        self.answer = answer


class Host:
    """What a host asks of a board.

    Parameters
    ----------
    line : object
        `write(bytes)`; `read(count)`, which returns fewer bytes if they do not come; `pause()`, which
        waits until the board has seen silence.
    config : golden.config.Matmul
        Of the board's engine; checked against what the board says.

    Attributes
    ----------
    memory : int
        Bytes on the board.

    Raises
    ------
    LinkError
        When the board is another one.
    """

    def __init__(self, line, config):
        self.line, self.config = line, config
        about = self.ask(Opcode.IDENTIFY)
        expected = {"version": VERSION} | {name: getattr(config, name) for name in about if hasattr(config, name)}
        for name, value in expected.items():
            if about[name] != value:
                raise LinkError(f"board: {name} is {about[name]}, not {value} as in the configuration")
        self.memory = about["memory"]

    def ask(self, opcode, payload=b"", **operands):
        """One frame and its answer, as a dict of its fields.

        Raises
        ------
        LinkError
            After which the line is in step again.
        """
        sizes = OPERANDS[opcode]
        frame = [bytes([opcode]), *(int(operands.get(name, 0)).to_bytes(sizes[name], "little") for name in sizes)]
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

    def start(self, **operands):
        """Give the engine a command: the operands of START."""
        self.ask(Opcode.START, **operands)

    def wait(self, polls=10_000):
        """Ask for the status until the command is done, and return it.

        Raises
        ------
        LinkError
            When it is not done after so many questions; one takes 0.13 ms or more.
        """
        for _ in range(polls):
            status = self.ask(Opcode.STATUS)
            if not status["busy"]:
                return status
        raise LinkError(f"board: command {status['tag']} is not done after {status['cycles']} cycles")

    def matmul(self, gemm, tag=0):
        """Run a GEMM.

        Parameters
        ----------
        gemm : golden.matmul.Gemm

        Returns
        -------
        y : array (M, N) of codes
        status : dict
            The answer to STATUS: errors, NaN and cycles.

        Raises
        ------
        ValueError
            When it does not fit into the memory.
        """
        m, n, _ = gemm.shape
        image, operands = self._place(gemm)
        fmt = FORMATS[gemm.y_format]
        y, y_pitch = len(image), n * fmt.width // 8
        if y + m * y_pitch > self.memory:
            raise ValueError(f"board: a GEMM of {y + m * y_pitch} bytes does not fit into {self.memory}")
        self.write(0, image)
        self.start(tag=tag, y=y, y_pitch=y_pitch, **operands)
        status = self.wait(60)
        codes = np.frombuffer(self.read(y, m * y_pitch), np.dtype(fmt.dtype).newbyteorder("<"))
        return codes.reshape(m, n).astype(fmt.dtype), status

    def _place(self, gemm):
        """Operands as one image of memory, and the command that speaks of them."""
        image, config = bytearray(), self.config
        slack = bytes(max(config.row_bits // 8, 4 * config.drain))      # whole beats are read past an end

        def place(content):
            image.extend(bytes(-len(image) % len(slack)))
            address = len(image)
            image.extend(content + slack)
            return address

        content, pitch = activation_image(config, gemm.a_format, gemm.a)
        operands = dict(zip("mnk", gemm.shape, strict=True))
        operands |= {f"{name}_format": FORMAT_CODES[getattr(gemm, f"{name}_format")] for name in "awy"}
        operands |= {"a": place(content), "a_pitch": pitch,
                     "w": place(weight_image(config, gemm.w_format, gemm.w, None, gemm.a_format)),
                     "c_pitch": 4 * gemm.shape[1]}
        for flag, name in _FLAGS.items():
            if (values := getattr(gemm, name)) is not None:
                operands |= {flag: 1, name: place(np.asarray(values, "<f4").tobytes())}
        return bytes(image), operands

    def _take(self, count):
        taken = self.line.read(count)
        if len(taken) != count:
            raise LinkError(f"board: {len(taken)} of {count} bytes came in time")
        return taken


def _name(answer):
    return Answer(answer).name if answer in set(Answer) else f"{answer:#x}"


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
