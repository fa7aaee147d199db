# SPDX-License-Identifier: Apache-2.0
"""The accumulator memory below one group of columns."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hw.emit import Block
from hw.ram import Ram

__all__ = ["Accumulator", "wave"]


def wave(rows):
    """What travels beside a row of activations: which of the two halves and which row it adds to.

    `first` starts a new sum in place of adding, `last` completes it.
    """
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "half": 1, "row": range(rows)})


class Accumulator(Block):
    """Adds a group's sums into memory, exactly, one row a cycle, while the other half is drained.

    A row may be added to again 3 cycles after it was.

    Parameters
    ----------
    cols : int
    width_i, width : int
        Bits of an incoming sum and of an accumulated one.
    rows : int
        Rows in each half.

    Members
    -------
    wave : In(wave(rows))
        One cycle ahead of the sums it belongs to.
    sums : In(ArrayLayout(signed(width_i), cols)), nans : In(cols)
    done : Out(2)
        Bit h: a row of half h has been completed; it can be read from the next cycle on.
    read : In(struct)
        Row to drain, in the half that no wave is adding to.
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
            "read": In(data.StructLayout({"en": 1, "half": 1, "row": range(rows)})),
            "o": Out(data.ArrayLayout(self.entry, cols)),
        })

    def elaborate(self, platform):
        m = Module()
        entries = data.ArrayLayout(self.entry, self.cols)

        halves = [Ram(entries.size, self.rows) for _ in range(2)]
        adding, written = Signal.like(self.wave), Signal.like(self.wave)
        m.d.sync += adding.eq(self.wave), written.eq(adding)

        old, new = Signal(entries), Signal(entries, reset_less=True)
        m.d.comb += old.eq(Mux(adding.half, halves[1].read_data, halves[0].read_data))
        for col in range(self.cols):
            total = Signal(signed(self.width), name=f"total{col}")
            m.d.comb += total.eq(Mux(adding.first, 0, old[col].sum) + self.sums[col])
            m.d.sync += new[col].eq(Cat(total, self.nans[col] | old[col].nan & ~adding.first))

        draining = Signal()
        m.d.sync += draining.eq(self.read.half)
        m.d.comb += self.o.eq(Mux(draining, halves[1].read_data, halves[0].read_data))

        for n, half in enumerate(halves):
            m.submodules[f"half{n}"] = half
            adds = Signal(name=f"adds{n}")
            m.d.comb += [
                adds.eq(self.wave.valid & ~self.wave.first & (self.wave.half == n)),
                half.read_en.eq(adds | self.read.en & (self.read.half == n)),
                half.read_address.eq(Mux(adds, self.wave.row, self.read.row)),
                half.write_en.eq(written.valid & (written.half == n)),
                half.write_address.eq(written.row),
                half.write_data.eq(new),
                self.done[n].eq(half.write_en & written.last),
            ]
        return m
