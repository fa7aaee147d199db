# SPDX-License-Identifier: Apache-2.0
"""A tile in simulation, on a board with memory: `sw.runtime.device.Device` on RTL.

The board is a C++ program around the model that Verilator makes of the tile (`tile.cpp`); Python writes memory and
registers, and waits for the interrupt.
"""

import struct
import subprocess
from dataclasses import dataclass

import numpy as np

from golden.isa import Engine, Error
from golden.registers import COUNTERS, REGISTERS
from hw.emit import Verilog
from hw.sequencer.sequencer import State
from hw.tile.tile import Tile
from sim.run import ROOT, make
from sw.runtime.device import Device, DeviceError

__all__ = ["Rtl", "Written", "build", "part"]

# Modules that there are many of are compiled once; to the rest they are boxes all of whose outputs may depend on all
# inputs, hence the waiver.
BOXES = ("pe_", "lane", "finish", "dot_pair", "weight_", "scores_", "controller_")
OPTIONS = ["--hierarchical", "-Wno-UNOPTFLAT", "-O3", "--x-assign", "fast", "--x-initial", "fast",
           "-CFLAGS", "-std=c++20"]
AT = {each.name: each for each in REGISTERS}
SIMPLE = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1", "CFG_CXXFLAGS_PCH_I=-include"]
PATIENCE = 1 << 40      # cycles: the tile's own watchdog comes long before
STOPPING = 4            # times the tile's patience, in which it has stopped
IDS = 8


def build(chip, latency=1):
    """The program of a board with a tile; `latency` cycles, of an ideal memory."""
    tile = Tile(chip)
    verilog = Verilog(tile)
    boxes = "".join(f'hier_block -module "{name}"\n' for name in verilog.modules if name.startswith(BOXES))
    files = {"boxes.vlt": "`verilator_config\n" + boxes, f"{tile.name}.sv": verilog.text, "board.h": "\n".join([
        "#pragma once", f"constexpr int BEAT = {chip.memory.channel};", f"constexpr int LATENCY = {latency};",
        part(chip.dram)])}
    for name in "dram.h", "tile.cpp":
        files[name] = (ROOT / "sim" / name).read_text()
    return make(tile.name, files, OPTIONS, variables=SIMPLE) / tile.name


def part(dram):
    """What `dram.h` has to know of a `golden.config.Dram`."""
    numbers = "\n".join(f"constexpr {type(value).__name__.replace('float', 'double')} {name} = {value!r};"
                        for name, value in dram.model_dump().items() if not isinstance(value, str))
    return f"namespace part {{\n{numbers}\n}}\n"


@dataclass(frozen=True)
class Written:
    """A burst that was written to memory: when, where, and beats read until then, by id."""

    cycle: int
    address: int
    read: tuple


class Rtl(Device):
    """A tile on a simulated board.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    latency : int
        Cycles, of an ideal memory.
    dram : bool
        The memory takes its time as `layout.chip.dram` says.
    """

    def __init__(self, layout, latency=1, dram=False):
        self.chip = layout.chip
        self.process = subprocess.Popen([build(layout.chip, latency), str(layout.size)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        if dram:
            self._order(b"D")
        self.set("kv_base", value=layout.at["kv"] >> 12)

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
        """As of `Device`; a program that has not ended after `patience` cycles is given up, by `stop` or `reset`."""
        self.set("address", value=address)
        self.set("count", value=count)
        self.set("control", start=1, interrupt=1)
        cycles, ended = self._wait(patience)
        if not ended:
            self.set("control", interrupt=1, **{how: 1})
            _, ended = self._wait(STOPPING * self.chip.sequencer.patience)
        status, error, detail = self.get("status"), self.get("error"), self.get("detail")["value"]
        if not ended:
            raise DeviceError(f"hung at instruction {status['pc']}, {State(status['state']).name}")
        self.set("control", clear=1, interrupt=1)
        if status["error"]:
            code, engine = Error(error["code"]), Engine(error["engine"])
            raise DeviceError(f"instruction {error['pc']}, {engine.name}: {code.name}, {detail}",
                              code, engine, error["pc"])
        assert status["done"]
        return cycles

    def reset(self):
        self.set("control", reset=1, interrupt=1)
        while State(self.get("status")["state"]) not in (State.IDLE, State.ERROR):
            self._wait(1)

    def _wait(self, cycles):
        """Let so many pass, or as many as it takes until the interrupt; how many, and whether it has come."""
        return struct.unpack("<QB", self._order(b"U" + struct.pack("<Q", cycles), 9))

    def set(self, register, **fields):
        """Write a register: its fields by name, others 0."""
        value = sum(fields.pop(field.name, 0) << field.at for field in AT[register].fields)
        assert not fields, fields
        self._order(b"S" + struct.pack("<II", AT[register].address, value))

    def get(self, register):
        """The fields of a register."""
        value, response = struct.unpack("<IB", self._order(b"G" + struct.pack("<I", AT[register].address), 5))
        assert not response, register
        return {field.name: value >> field.at & (1 << field.bits) - 1 for field in AT[register].fields}

    @property
    def counters(self):
        """All counters by name."""
        found = {}
        for index, name in enumerate(COUNTERS):
            self.set("counter", index=index)
            self._wait(2 * len(COUNTERS) + 4)
            found[name] = self.get("counter_low")["value"] | self.get("counter_high")["value"] << 32
        return found

    def written(self):
        """What was written to memory since it was asked last: list of `Written`."""
        count, = struct.unpack("<Q", self._order(b"L", 8))
        size = 8 * (2 + IDS)
        return [Written(cycle, address, tuple(read)) for cycle, address, *read in struct.iter_unpack(
            f"<{2 + IDS}Q", self._order(b"", count * size))]

    def trace(self, path=""):
        """Note in a file which events take place, from now on; without one, no more."""
        name = str(path).encode()
        self._order(b"T" + struct.pack("<Q", len(name)) + name)

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
