# SPDX-License-Identifier: Apache-2.0
"""A tile in hardware, simulated or not, by its registers."""

from abc import abstractmethod

from golden.isa import Engine, Error
from golden.registers import COUNTERS, REGISTERS, State
from sw.runtime.device import Device, DeviceError

__all__ = ["PATIENCE", "Hardware"]

PATIENCE = 1 << 40      # cycles: the tile's own watchdog comes long before
STOPPING = 4            # times the tile's patience, in which it has stopped
AT = {each.name: each for each in REGISTERS}


class Hardware(Device):
    """A tile whose registers a host can reach.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    """

    def __init__(self, layout):
        self.chip = layout.chip
        self.set("kv_base", value=layout.at["kv"] >> 12)

    @abstractmethod
    def put(self, address, value):
        """Write the register at an address."""

    @abstractmethod
    def take(self, address):
        """Read it."""

    @abstractmethod
    def wait(self, cycles):
        """Until the interrupt, or for so many cycles; how many have passed, if it is known, and whether it has come."""

    def run(self, address, count, patience=PATIENCE, how="stop"):
        """As of `Device`; a program that has not ended after `patience` cycles is given up, by `stop` or `reset`."""
        self.set("address", value=address)
        self.set("count", value=count)
        self.set("control", start=1, interrupt=1)
        cycles, ended = self.wait(patience)
        if not ended:
            self.set("control", interrupt=1, **{how: 1})
            _, ended = self.wait(STOPPING * self.chip.sequencer.patience)
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
        while self.get("status")["state"] not in (State.IDLE, State.ERROR):
            self.wait(1)

    def set(self, register, **fields):
        """Write a register: its fields by name, others 0."""
        value = sum(fields.pop(field.name, 0) << field.at for field in AT[register].fields)
        assert not fields, fields
        self.put(AT[register].address, value)

    def get(self, register):
        """The fields of a register."""
        value = self.take(AT[register].address)
        return {field.name: value >> field.at & (1 << field.bits) - 1 for field in AT[register].fields}

    @property
    def counters(self):
        """All counters by name."""
        found = {}
        for index, name in enumerate(COUNTERS):
            self.set("counter", index=index)
            self.wait(2 * len(COUNTERS) + 4)
            found[name] = self.get("counter_low")["value"] | self.get("counter_high")["value"] << 32
        return found
