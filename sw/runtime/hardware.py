# SPDX-License-Identifier: Apache-2.0
"""A tile in hardware, simulated or not, by its registers."""

from abc import abstractmethod

from golden.isa import Engine, Error
from golden.registers import COUNTERS, REGISTERS
from sw.runtime.device import Device, DeviceError

__all__ = ["Hardware"]

AT = {each.name: each for each in REGISTERS}


class Hardware(Device):
    """A tile whose registers a host can reach.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    """

    def __init__(self, layout):
        self.set("kv_base", value=layout.at["kv"] >> 12)

    @abstractmethod
    def put(self, address, value):
        """Write the register at an address."""

    @abstractmethod
    def take(self, address):
        """Read it."""

    @abstractmethod
    def wait(self):
        """Until the interrupt; the cycles that took, or None."""

    @abstractmethod
    def rest(self, cycles):
        """Let some cycles pass."""

    def run(self, address, count):
        self.set("address", value=address)
        self.set("count", value=count)
        self.set("control", start=1, interrupt=1)
        cycles = self.wait()
        status, error = self.get("status"), self.get("error")
        if status["error"]:
            detail = self.get("detail")["value"]
            self.set("control", clear=1, interrupt=1)
            raise DeviceError(f"instruction {error['pc']}, {Engine(error['engine']).name}: "
                              f"{Error(error['code']).name}, {detail}")
        assert status["done"]
        self.set("control", clear=1, interrupt=1)
        if status["fault"]:
            raise DeviceError("an address was beyond the scratchpad")
        return cycles

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
            self.rest(2 * len(COUNTERS) + 4)
            found[name] = self.get("counter_low")["value"] | self.get("counter_high")["value"] << 32
        return found
