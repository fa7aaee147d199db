# SPDX-License-Identifier: Apache-2.0
"""A tile in simulation, on a board with memory: `sw.runtime.device.Device` on RTL.

The board is a C++ program around the model that Verilator makes of the tile (`tile.cpp`); Python writes memory and
registers, and waits for the interrupt.
"""

import struct
import subprocess
from dataclasses import dataclass

import numpy as np

from golden.isa import BYTES
from golden.registers import EVENTS
from hw.emit import Verilog
from hw.tile.tile import Tile
from sim.run import ROOT, make
from sw.runtime.device import DeviceError
from sw.runtime.hardware import PATIENCE, Hardware

__all__ = ["Rtl", "Written", "build", "events", "model", "part"]

# Modules that there are many of are compiled once; to the rest they are boxes all of whose outputs may depend on all
# inputs, hence the waiver.
BOXES = ("pe_", "lane", "finish", "dot_pair", "weight_", "scores_", "controller_")
OPTIONS = ["-Wno-UNOPTFLAT", "-O3", "--x-assign", "fast", "--x-initial", "fast",
           "-CFLAGS", "-std=c++20"]
SIMPLE = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1", "CFG_CXXFLAGS_PCH_I=-include"]
IDS = 8


def build(chip, latency=1, thorough=False):
    """The program of a board with a tile; `latency` cycles, of an ideal memory."""
    return model(Tile(chip), ("dram.h", "tile.cpp"), f"constexpr int BEAT = {chip.memory.channel};\n"
                 f"constexpr int LATENCY = {latency};\n{part(chip.dram)}", thorough)


def model(block, files, header, thorough=False):
    """The program of a big block: files of this folder, and what they include as `board.h`.

    One that is compiled as a whole, `thorough`, takes twice as long to make and a third less to run.
    """
    verilog = Verilog(block)
    boxes = "".join(f'hier_block -module "{name}"\n' for name in verilog.modules if name.startswith(BOXES))
    files = {name: (ROOT / "sim" / name).read_text() for name in files}
    files |= {f"{block.name}.sv": verilog.text, "board.h": f"#pragma once\n{header}"}
    if thorough:
        return make(block.name, files, OPTIONS) / block.name
    return make(block.name, {"boxes.vlt": "`verilator_config\n" + boxes, **files}, ["--hierarchical", *OPTIONS],
                variables=SIMPLE) / block.name


def part(dram):
    """What `dram.h` has to know of a `golden.config.Dram`."""
    numbers = "\n".join(f"constexpr {type(value).__name__.replace('float', 'double')} {name} = {value!r};"
                        for name, value in dram.model_dump().items() if not isinstance(value, str))
    return f"namespace part {{\n{numbers}\n}}\n"


def events(path):
    """What a trace notes: changes of events.

    Returns
    -------
    cycles : array (changes,) of uint64
    values : array (changes, events) of bool
        From that cycle on, by place in `golden.registers.EVENTS`.
    """
    size = -(-len(EVENTS) // 32) * 4
    found = np.fromfile(path, np.dtype([("cycle", "<u8"), ("events", "u1", size)]))
    return found["cycle"], np.unpackbits(found["events"], axis=1, bitorder="little")[:, :len(EVENTS)].astype(bool)


@dataclass(frozen=True)
class Written:
    """A burst that was written to memory: when, where, and beats read until then, by id."""

    cycle: int
    address: int
    read: tuple


class Rtl(Hardware):
    """A tile on a simulated board.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    latency : int
        Cycles, of an ideal memory.
    dram : bool
        The memory takes its time as `layout.chip.dram` says.
    thorough : bool
        The simulation is made for a long run, see `model`.

    Attributes
    ----------
    programs : list of bytes
        Images that ran during the last trace.
    """

    def __init__(self, layout, latency=1, dram=False, thorough=False):
        program = build(layout.chip, latency, thorough)
        self.process = subprocess.Popen([program, str(layout.size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.programs, self.traces = [], False
        if dram:
            self._order(b"D")
        super().__init__(layout)

    def close(self):
        """End the simulation."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def write(self, address, data):
        self._order(b"W" + struct.pack("<QQ", address, len(data)) + bytes(data))

    def read(self, address, count):
        return np.frombuffer(self._order(b"R" + struct.pack("<QQ", address, count), count), np.uint8)

    def run(self, address, count, patience=PATIENCE, how="stop"):
        if self.traces:
            self.programs.append(self.read(address, count * BYTES).tobytes())
        return super().run(address, count, patience, how)

    def put(self, address, value):
        self._order(b"S" + struct.pack("<II", address, value))

    def take(self, address):
        value, response = struct.unpack("<IB", self._order(b"G" + struct.pack("<I", address), 5))
        assert not response, address
        return value

    def wait(self, cycles):
        return struct.unpack("<QB", self._order(b"U" + struct.pack("<Q", cycles), 9))

    def written(self):
        """What was written to memory since it was asked last: list of `Written`."""
        count, = struct.unpack("<Q", self._order(b"L", 8))
        size = 8 * (2 + IDS)
        return [Written(cycle, address, tuple(read)) for cycle, address, *read in struct.iter_unpack(
            f"<{2 + IDS}Q", self._order(b"", count * size))]

    def trace(self, path=""):
        """Note in a file which events take place, from now on; without one, no more."""
        name = str(path).encode()
        self.traces = bool(name)
        if self.traces:
            self.programs = []
        self._order(b"T" + struct.pack("<Q", len(name)) + name)
        self.get("status")          # whose answer says that the file is there, or whole

    def _order(self, order, answer=0):
        try:
            self.process.stdin.write(order)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise DeviceError(f"the simulation has ended, {self.process.wait()}") from None
        found = self.process.stdout.read(answer) if answer else b""
        if len(found) < answer:
            raise DeviceError(f"the simulation has ended, {self.process.wait()}")
        return found
