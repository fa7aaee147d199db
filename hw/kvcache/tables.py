# SPDX-License-Identifier: Apache-2.0
"""What all parts of the controller stand on."""

from amaranth.lib import data

from golden.paging import Opcode

__all__ = ["ON_BLOCKS", "Rows", "among"]

ON_BLOCKS = (Opcode.PIN, Opcode.UNPIN, Opcode.EVICT)


class Rows:
    """A `hw.ram.Ram` of rows, read and written by one statement each."""

    def __init__(self, ram, shape):
        self.ram = ram
        self.row = data.View(shape, self.ram.read_data) if isinstance(shape, data.Layout) else self.ram.read_data

    def read(self, address):
        return [self.ram.read_en.eq(1), self.ram.read_address.eq(address)]

    def write(self, address, row):
        return [self.ram.write_en.eq(1), self.ram.write_address.eq(address), self.ram.write_data.eq(row)]


def among(value, members):
    """Whether a value is one of some."""
    result = False
    for member in members:
        result = (value == member) | result
    return result
