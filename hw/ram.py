# SPDX-License-Identifier: Apache-2.0
"""The one memory of the project, so that one place maps to SRAM macros, block RAM or a count of bits."""

from amaranth.hdl import Module
from amaranth.lib import memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.emit import Block

__all__ = ["Ram"]


class Ram(Block):
    """Memory with one write port and one read port, both synchronous.

    Read data appears one cycle after `read_en` and stays until the next read. A read and a write of
    the same address in one cycle read the old word. The contents are not reset and start undefined.

    Its module is called `ram_<width>x<depth>`, and `_<granularity>` if that is less than a word: put an SRAM macro's
    wrapper of that name in its place.

    Parameters
    ----------
    width : int
        Bits per word.
    depth : int
        Words; addresses at or above it read undefined data, and writes to them are lost.
    granularity : int
        Bits that can be written alone; by default a word.

    Members
    -------
    write_en : In(width // granularity)
    write_address : In(ceil_log2(depth))
    write_data : In(width)
    read_en : In(1)
    read_address : In(ceil_log2(depth))
    read_data : Out(width)
    """

    def __init__(self, width, depth, granularity=None):
        if width < 1:
            raise ValueError(f"Ram: width must be at least 1 bit, not {width!r}")
        if depth < 2:
            raise ValueError(f"Ram: depth must be at least 2 words, not {depth!r}")
        if granularity is not None and (granularity < 1 or width % granularity):
            raise ValueError(f"Ram: granularity must divide the {width} bits of a word, not {granularity!r}")
        self.width, self.depth, self.granularity = width, depth, granularity or width
        address = ceil_log2(depth)
        super().__init__({
            "write_en": In(width // self.granularity),
            "write_address": In(address),
            "write_data": In(width),
            "read_en": In(1),
            "read_address": In(address),
            "read_data": Out(width),
        })

    @property
    def name(self):
        parts = f"_{self.granularity}" if self.granularity < self.width else ""
        return f"ram_{self.width}x{self.depth}{parts}"

    @property
    def identity(self):
        return type(self), self.width, self.depth, self.granularity

    def elaborate(self, platform):
        m = Module()

        m.submodules.words = words = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write = words.write_port(granularity=self.granularity)
        read = words.read_port()
        m.d.comb += [
            write.en.eq(self.write_en),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            read.en.eq(self.read_en),
            read.addr.eq(self.read_address),
            self.read_data.eq(read.data),
        ]

        return m
