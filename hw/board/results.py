# SPDX-License-Identifier: Apache-2.0
"""Where results go in memory."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from golden.families import FORMAT_CODES
from golden.formats import FORMATS
from hw.fetch import ADDRESS, write
from hw.matmul.ports import Part, result

__all__ = ["Results"]


class Results(Part):
    """Turns results into writes: that of row i and column j goes to `y + i * y_pitch + j * bytes`.

    Latency 2 cycles, one result beat a cycle. `y`, `y_pitch` and `y_format` hold while results come.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    i : In(stream.Signature(result(config)))
    y, y_pitch : In(32)
        Bytes.
    y_format : In(3)
        A value of `golden.families.FORMAT_CODES`.
    o : Out(stream.Signature(write(4 * config.drain)))
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(result(config))),
            "y": In(ADDRESS), "y_pitch": In(ADDRESS), "y_format": In(3),
            "o": Out(stream.Signature(write(4 * config.drain))),
        })

    def elaborate(self, platform):
        m = Module()
        double = Signal(2)                      # how often to double a count of results for one of bytes
        with m.Switch(self.y_format):
            for name, code in FORMAT_CODES.items():
                with m.Case(code):
                    m.d.comb += double.eq(FORMATS[name].width // 16)

        moves = Signal()
        m.d.comb += moves.eq(~self.o.valid | self.o.ready)
        m.d.comb += self.i.ready.eq(moves)
        row, column = Signal(ADDRESS, reset_less=True), Signal(ADDRESS, reset_less=True)
        held, valid = Signal.like(self.o.payload, reset_less=True), Signal()
        with m.If(moves):
            m.d.sync += [
                valid.eq(self.i.valid),
                row.eq(self.i.payload.row * self.y_pitch),
                column.eq(self.y + (self.i.payload.column << double)),
                held.data.eq(self.i.payload.data), held.count.eq(self.i.payload.count << double),
                self.o.valid.eq(valid),
                self.o.payload.data.eq(held.data), self.o.payload.count.eq(held.count),
                self.o.payload.address.eq(row + column),
            ]
        return m
