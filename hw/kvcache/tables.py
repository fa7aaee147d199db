# SPDX-License-Identifier: Apache-2.0
"""What all parts of the controller stand on."""

from amaranth.hdl import Shape
from amaranth.lib import data

from golden.paging import Opcode
from hw.ram import Ram

__all__ = ["ON_BLOCKS", "Rows", "among"]

ON_BLOCKS = (Opcode.PIN, Opcode.UNPIN, Opcode.EVICT)


class Rows:
    """A `Ram` of rows, read and written by one statement each."""

    def __init__(self, m, name, shape, depth):
        self.ram = m.submodules[name] = Ram(Shape.cast(shape).width, max(depth, 2))
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
