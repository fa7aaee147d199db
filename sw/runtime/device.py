# SPDX-License-Identifier: Apache-2.0
"""A tile and its memory, as a host sees them: on the reference, or on simulated hardware."""

from abc import ABC, abstractmethod

import numpy as np

from golden.isa import BYTES, Engine, IsaError
from golden.tile import Tile, TileError

__all__ = ["Device", "DeviceError", "Golden"]


class DeviceError(RuntimeError):
    """A program that the tile refused or gave up, and what the tile says of it.

    Attributes
    ----------
    error : golden.isa.Error or None
        None when it is not the tile that says so.
    engine : golden.isa.Engine or None
    pc : int or None
    """

    def __init__(self, message, error=None, engine=None, pc=None):
        super().__init__(message)
        self.error, self.engine, self.pc = error, engine, pc


class Device(ABC):
    """Memory that a host reads and writes, and a tile that runs programs from it."""

    @abstractmethod
    def write(self, address, data):
        """Bytes to memory."""

    @abstractmethod
    def read(self, address, count):
        """Bytes of memory: uint8 array."""

    @abstractmethod
    def run(self, address, count):
        """Run the program of `count` instructions at an address, to its end.

        Returns
        -------
        int or None
            Cycles that it took, where there are cycles.

        Raises
        ------
        DeviceError
        """

    @abstractmethod
    def reset(self):
        """Whatever has been before: all engines at rest, and a KV cache without sequences."""


class Golden(Device):
    """The reference.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    """

    def __init__(self, layout):
        self.tile = Tile(layout.chip, layout.size, layout.at["kv"])

    def write(self, address, data):
        self.tile.memory[address:address + len(data)] = np.frombuffer(data, np.uint8)

    def read(self, address, count):
        return self.tile.memory[address:address + count].copy()

    def run(self, address, count):
        try:
            self.tile.run(self.read(address, count * BYTES).tobytes())
        except TileError as error:
            raise DeviceError(str(error), error.error, error.engine, error.pc) from None
        except IsaError as error:
            raise DeviceError(str(error), error.error, Engine.CONTROL, error.pc) from None

    def reset(self):
        self.tile.reset()
