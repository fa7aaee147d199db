# SPDX-License-Identifier: Apache-2.0
"""What decides, cycle by cycle, which weights the array loads and which rows it takes."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden.families import FORMAT_CODES
from hw.matmul.accumulator import wave
from hw.matmul.ports import Part
from hw.matmul.walker import load, tile

__all__ = ["Loader", "Sequencer"]


class Loader(Part):
    """Steers weight beats to their columns, a tile at a time.

    The first beat of the next tile is taken in the cycle in which the array swaps, at the earliest.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    tile : In(stream.Signature(load(config)))
    beats : In(stream.Signature(struct(data, bad)))
    codes, format, columns : Out
        This cycle's beat for the array; no bit of `columns` is set when there is none.
    full : Out(1)
        A tile is complete in the shadow weights.
    bad : Out(1)
        Some of its beats did not come.
    swap : In(1)
        Takes the complete tile.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "tile": In(stream.Signature(load(config))),
            "beats": In(stream.Signature(data.StructLayout({"data": config.depth * 8, "bad": 1}))),
            "codes": Out(config.depth * 8), "format": Out(3), "columns": Out(config.cols),
            "full": Out(1), "bad": Out(1), "swap": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        beat   = Signal(range(self.config.cols))
        take   = Signal()
        ends   = Signal()
        paired = Signal()
        m.d.comb += [
            self.codes.eq(self.beats.payload.data),
            self.format.eq(self.tile.payload.format),
            paired.eq(self.format == FORMAT_CODES["e2m1"]),
            self.beats.ready.eq(self.tile.valid & (~self.full | self.swap)),
            take.eq(self.beats.valid & self.beats.ready),
            ends.eq(beat + 1 == self.tile.payload.beats),
            self.tile.ready.eq(take & ends),
        ]
        for col in range(self.config.cols):
            m.d.comb += self.columns[col].eq(take & (Mux(paired, beat << 1, beat) == Mux(paired, col & ~1, col)))

        with m.If(self.swap):
            m.d.sync += self.full.eq(0)
        with m.If(take):
            m.d.sync += beat.eq(Mux(ends, 0, beat + 1)), self.bad.eq(self.beats.payload.bad)
            with m.If(ends):
                m.d.sync += self.full.eq(1)

        return m


class Sequencer(Part):
    """Lets a tile's rows into the array, one a cycle, once its weights are loaded.

    Rows of a block's last pass replace the completed rows of the block before it, and wait until the
    drain has read those.

    Parameters
    ----------
    config : golden.config.Matmul
    spacing : int
        Cycles that a row of the accumulators needs between two additions.

    Members
    -------
    tile : In(stream.Signature(tile(config)))
    rows : In(stream.Signature(struct(data, bad)))
    full : In(1), bad_weights : In(1)
        A tile's weights are loaded; some of them did not come.
    swap : Out(1)
        They become the active ones in this cycle.
    codes, format, count : Out
        This cycle's row for the array.
    wave : Out(wave)
        Where its sums go; valid when there is a row.
    bad : Out(1)
        The block of this row lacks something that did not come.
    drained : In(range(acc_rows)), release : In(1)
        Rows that the drain has read of its block; it has read the whole block.
    """

    def __init__(self, config, spacing=3):
        self.config, self.spacing = config, spacing
        bits = config.row_bits
        super().__init__({
            "tile": In(stream.Signature(tile(config))),
            "rows": In(stream.Signature(data.StructLayout({"data": bits, "bad": 1}))),
            "full": In(1), "bad_weights": In(1), "swap": Out(1),
            "codes": Out(bits), "format": Out(3), "count": Out(range(config.depth + 1)),
            "wave": Out(wave(config.acc_rows)),
            "bad": Out(1),
            "drained": In(range(config.acc_rows)), "release": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        given = self.tile.payload

        current  = Signal.like(given)       # the tile whose rows are under way
        passing  = Signal.like(given)       # the tile of this cycle's row
        left     = Signal(range(self.config.acc_rows + 1))
        row      = Signal(range(self.config.acc_rows))
        parity   = Signal(init=1)           # the first block is even
        complete = Signal(range(3))         # blocks of which all rows have entered, not yet drained
        spare    = Signal(range(self.spacing))      # cycles until the accumulators take these rows again
        spoiled  = Signal()
        room     = Signal()
        take     = Signal()

        m.d.comb += [
            self.swap.eq(self.tile.valid & self.full & (left == 0) & (spare == 0)),
            self.tile.ready.eq(self.swap),
            passing.eq(Mux(self.swap, given, current)),
            room.eq(~passing.last | (complete == 0) | (complete == 1) & (self.wave.row < self.drained)),
            self.rows.ready.eq((self.swap | (left != 0)) & room),
            take.eq(self.rows.valid & self.rows.ready),
            self.codes.eq(self.rows.payload.data),
            self.format.eq(passing.format),
            self.count.eq(passing.count),
            self.wave.valid.eq(take),
            self.wave.first.eq(passing.first),
            self.wave.last.eq(passing.last),
            self.wave.parity.eq(parity ^ (self.swap & given.first)),
            self.wave.row.eq(Mux(self.swap, 0, row)),
            self.bad.eq(spoiled & ~(self.swap & given.first) | self.swap & self.bad_weights
                        | take & self.rows.payload.bad),
        ]
        m.d.sync += [
            left.eq(Mux(self.swap, given.rows, left) - take),
            row.eq(self.wave.row + take),
            parity.eq(self.wave.parity),
            complete.eq(complete + (take & passing.last & (Mux(self.swap, given.rows, left) == 1)) - self.release),
            # Row r of the next tile enters r cycles after its swap at the earliest.
            spare.eq(Mux(take & (self.wave.row < self.spacing - 1), self.spacing - 1 - self.wave.row,
                         spare - spare.any())),
            spoiled.eq(self.bad),
        ]
        with m.If(self.swap):
            m.d.sync += current.eq(given)

        return m
