# SPDX-License-Identifier: Apache-2.0
"""What decides, cycle by cycle, which weights the array loads and which rows it takes."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.families import FORMAT_CODES
from hw.arith.aligned import LEAD
from hw.matmul.accumulator import scale_sets, settling, spacing, wave
from hw.matmul.ports import Part
from hw.matmul.walker import aligned, load, mx, scale_beats, tile
from hw.ram import Ram

__all__ = ["Loader", "Sequencer"]


class Loader(Part):
    """Steers weight beats to their columns, a tile at a time, and MX scales to memories below them.

    Between tiles with aligned and with exact sums it leaves the array the time to tell them apart.

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
    aligned : Out(1)
        In family uni: of what kind the last beat was.
    scales, set : Out
        With MX: bit n if `codes` is the n-th beat of a tile's scales, and where the accumulators keep them.
    full : Out(1)
        A tile is complete in the shadow weights.
    bad : Out(1)
        Some of its beats did not come.
    swap : In(1)
        Takes the complete tile.
    """

    def __init__(self, config):
        self.config = config
        kinds = {name: Out(1) for name in aligned(config)}
        scales = ({"scales": Out(scale_beats(config)), "set": Out(range(scale_sets(config)))}
                  if config.mx else {})
        super().__init__({
            "tile": In(stream.Signature(load(config))),
            "beats": In(stream.Signature(data.StructLayout({"data": config.depth * 8, "bad": 1}))),
            "codes": Out(config.depth * 8), "format": Out(3), "columns": Out(config.cols),
            "full": Out(1), "bad": Out(1), "swap": In(1),
            **scales, **kinds,
        })

    def elaborate(self, platform):
        m = Module()
        beat    = Signal(range(self.config.cols))
        take    = Signal()
        scaling = Signal()      # this beat is of scales
        ends    = Signal()
        paired  = Signal()
        settled = Signal()
        m.d.comb += [
            self.codes.eq(self.beats.payload.data),
            self.format.eq(self.tile.payload.format),
            self.beats.ready.eq(self.tile.valid & (~self.full | self.swap) & settled),
            take.eq(self.beats.valid & self.beats.ready),
            ends.eq((beat + 1 == self.tile.payload.beats) & ~scaling),
            self.tile.ready.eq(take & ends),
        ]
        for col in range(self.config.cols):
            here = Mux(paired, beat << 1, beat) == Mux(paired, col & ~1, col)
            m.d.comb += self.columns[col].eq(take & ~scaling & here)

        with m.If(self.swap):
            m.d.sync += self.full.eq(0)
        with m.If(take):
            m.d.sync += beat.eq(Mux(ends, 0, beat + ~scaling)), self.bad.eq(self.beats.payload.bad)
            with m.If(ends):
                m.d.sync += self.full.eq(1)

        short = self.format == FORMAT_CODES["e2m1"]
        if aligned(self.config):
            last, gap = Signal(), Signal(range(LEAD + 1))   # kind of the last beat; cycles for it to land and be used
            m.d.comb += [
                paired.eq(short | self.tile.payload.aligned),
                self.aligned.eq(Mux(take, self.tile.payload.aligned, last)),
                settled.eq((self.tile.payload.aligned == last) | (gap == 0) & ~self.swap),
            ]
            m.d.sync += last.eq(self.aligned), gap.eq(Mux(take | self.swap, LEAD, gap - gap.any()))
        else:
            m.d.comb += paired.eq(short), settled.eq(1)

        if self.config.mx:
            scale = Signal.like(self.tile.payload.scales)   # beats of scales taken
            m.d.comb += [
                scaling.eq(scale != self.tile.payload.scales),
                *(self.scales[n].eq(take & scaling & (scale == n)) for n in range(len(self.scales))),
            ]
            with m.If(take):
                m.d.sync += scale.eq(Mux(ends, 0, scale + scaling)), self.set.eq(self.set + ends)

        return m


class Sequencer(Part):
    """Lets a tile's rows into the array, one a cycle, once its weights are loaded.

    Rows of a block's last pass replace the completed rows of the block before it, and wait until the
    drain has read those. MX scales of a tile's rows come ahead of them and wait in a memory. Between
    tiles of different kinds, array and accumulators come to rest.

    Parameters
    ----------
    config : golden.config.Matmul

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
    scale : Out(8)
        With MX: that of the row of the cycle before.
    bad : Out(1)
        The block of this row lacks something that did not come.
    drained : In(range(acc_rows)), release : In(1)
        Rows that the drain has read of its block; it has read the whole block.
    """

    def __init__(self, config):
        self.config, self.spacing = config, spacing(config)
        bits = config.row_bits
        super().__init__({
            "tile": In(stream.Signature(tile(config))),
            "rows": In(stream.Signature(data.StructLayout({"data": bits, "bad": 1}))),
            "full": In(1), "bad_weights": In(1), "swap": Out(1),
            "codes": Out(bits), "format": Out(3), "count": Out(range(config.depth + 1)),
            "wave": Out(wave(config)),
            "bad": Out(1),
            "drained": In(range(config.acc_rows)), "release": In(1),
            **({"scale": Out(8)} if config.mx else {}),
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
        scaling  = Signal()                 # the stream of rows is at the next tile's scales
        settled  = Signal()                 # the next tile may start, as far as its kind is concerned
        prepared = Signal()                 # its scales are here
        unscaled = Signal()                 # some of them did not come

        m.d.comb += [
            self.swap.eq(self.tile.valid & self.full & (left == 0) & (spare == 0) & settled & prepared),
            self.tile.ready.eq(self.swap),
            passing.eq(Mux(self.swap, given, current)),
            room.eq(~passing.last | (complete == 0) | (complete == 1) & (self.wave.row < self.drained)),
            self.rows.ready.eq((self.swap | (left != 0)) & room | scaling),
            take.eq(self.rows.valid & self.rows.ready & ~scaling),
            self.codes.eq(self.rows.payload.data),
            self.format.eq(passing.format),
            self.count.eq(passing.count),
            self.wave.valid.eq(take),
            self.wave.first.eq(passing.first),
            self.wave.last.eq(passing.last),
            self.wave.parity.eq(parity ^ (self.swap & given.first)),
            self.wave.row.eq(Mux(self.swap, 0, row)),
            self.bad.eq(spoiled & ~(self.swap & given.first) | self.swap & (self.bad_weights | unscaled)
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

        kinds = [*mx(self.config), *aligned(self.config)]
        if kinds:
            busy = Signal(range(settling(self.config)))     # cycles until the last row is written
            same = Cat(given[kind] == current[kind] for kind in kinds).all()
            m.d.comb += [settled.eq(same | (busy == 0)), *(self.wave[kind].eq(passing[kind]) for kind in kinds)]
            m.d.sync += busy.eq(Mux(take, settling(self.config) - 1, busy - busy.any()))
        else:
            m.d.comb += settled.eq(1)
        if self.config.mx:
            self._scales(m, given, left, take, scaling, prepared, unscaled)
        else:
            m.d.comb += prepared.eq(1)

        return m

    def _scales(self, m, given, left, take, scaling, prepared, unscaled):
        """Keep the scales of the next tile's rows until they enter."""
        size = self.config.row_bits // 8                # scales of a beat
        beats = -(-self.config.acc_rows // size)
        m.submodules.scales = ram = Ram(self.config.row_bits, max(beats, 2))
        beat, complete, received = Signal(range(beats)), Signal(), Signal()
        place = Signal(range(size))                     # in its beat, of the last row's scale
        set = Signal.like(self.wave.set, init=scale_sets(self.config) - 1)      # of the last tile
        m.d.comb += [
            scaling.eq(self.tile.valid & given.mx & (left == 0) & ~complete),
            prepared.eq(~given.mx | complete),
            received.eq(self.rows.valid & scaling),
            ram.write_en.eq(received),
            ram.write_address.eq(beat),
            ram.write_data.eq(self.rows.payload.data),
            ram.read_en.eq(take),
            ram.read_address.eq(self.wave.row >> ceil_log2(size)),
            self.scale.eq(ram.read_data.word_select(place, 8)),
            self.wave.set.eq(set + self.swap),
        ]
        m.d.sync += [
            place.eq(self.wave.row),
            set.eq(self.wave.set),
        ]
        with m.If(received):
            last = Signal()
            m.d.comb += last.eq((beat + 1) << ceil_log2(size) >= given.rows)
            m.d.sync += [
                beat.eq(Mux(last, 0, beat + 1)),
                complete.eq(last),
                unscaled.eq(unscaled | self.rows.payload.bad),
            ]
        with m.If(self.swap):
            m.d.sync += complete.eq(0), unscaled.eq(0)
