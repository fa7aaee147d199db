# SPDX-License-Identifier: Apache-2.0
"""The accumulator memory below one group of columns."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hw.emit import Block
from hw.ram import Ram

__all__ = ["Accumulator", "wave"]


def wave(rows):
    """What travels beside a row of activations: the row of the block that it adds to.

    `first` starts a new sum in place of adding, `last` completes it. `parity` tells successive
    blocks apart.
    """
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "parity": 1, "row": range(rows)})


class Accumulator(Block):
    """Adds a group's sums in memory, exactly, one row a cycle, and keeps completed rows for the drain.

    Sums grow in one memory and are written to another when complete, so that the next block can
    begin while this one drains, and neither memory needs more than one read and one write a cycle. A
    row may be added to again 3 cycles after it was.

    Parameters
    ----------
    cols : int
    width_i, width : int
        Bits of an incoming sum and of an accumulated one.
    rows : int
        Rows of a block, at most.

    Members
    -------
    wave : In(wave(rows))
        One cycle ahead of the sums it belongs to.
    sums : In(ArrayLayout(signed(width_i), cols)), nans : In(cols)
    done : Out(2)
        Bit p: a row of the block of parity p has been completed; it can be read from the next cycle on.
    read : In(struct(en, row))
        Completed row to drain.
    o : Out(ArrayLayout(struct(sum, nan), cols))
        The row asked for in the cycle before.
    """

    def __init__(self, cols, width_i, width, rows):
        self.cols, self.width_i, self.width, self.rows = cols, width_i, width, rows
        self.entry = data.StructLayout({"sum": signed(width), "nan": 1})
        super().__init__({
            "wave": In(wave(rows)),
            "sums": In(data.ArrayLayout(signed(width_i), cols)),
            "nans": In(cols),
            "done": Out(2),
            "read": In(data.StructLayout({"en": 1, "row": range(rows)})),
            "o": Out(data.ArrayLayout(self.entry, cols)),
        })

    def elaborate(self, platform):
        m = Module()
        entries = data.ArrayLayout(self.entry, self.cols)
        m.submodules.growing = growing = Ram(entries.size, self.rows)
        m.submodules.complete = complete = Ram(entries.size, self.rows)

        adding, written = Signal.like(self.wave), Signal.like(self.wave)
        old, new = Signal(entries), Signal(entries, reset_less=True)
        m.d.sync += adding.eq(self.wave), written.eq(adding)
        m.d.comb += [
            growing.read_en.eq(self.wave.valid & ~self.wave.first),
            growing.read_address.eq(self.wave.row),
            old.eq(growing.read_data),
        ]
        for col in range(self.cols):
            total = Signal(signed(self.width), name=f"total{col}")
            m.d.comb += total.eq(Mux(adding.first, 0, old[col].sum) + self.sums[col])
            m.d.sync += new[col].eq(Cat(total, self.nans[col] | old[col].nan & ~adding.first))
        m.d.comb += [
            growing.write_en.eq(written.valid & ~written.last),
            complete.write_en.eq(written.valid & written.last),
            self.done.eq(Cat(complete.write_en & ~written.parity, complete.write_en & written.parity)),
            complete.read_en.eq(self.read.en),
            complete.read_address.eq(self.read.row),
            self.o.eq(complete.read_data),
        ]
        for ram in growing, complete:
            m.d.comb += ram.write_address.eq(written.row), ram.write_data.eq(new)
        return m
