# SPDX-License-Identifier: Apache-2.0
"""The loops of a GEMM: one command becomes tiles to load and multiply and blocks to drain."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.families import FAMILIES, FORMAT_CODES
from hw.fetch import ADDRESS, request
from hw.matmul.ports import Error, Part, command

__all__ = ["RESULT_FORMATS", "Walker", "aligned", "block", "finish", "load", "mx", "scale_beats", "tile"]

RESULT_FORMATS = ("fp32", "bf16", "e4m3", "e5m2", "int8")


def load(config):
    """Weights of one tile: beats to come, in which format, after how many beats of MX scales."""
    scales = {"scales": range(scale_beats(config) + 1)} if config.mx else {}
    return data.StructLayout({"beats": range(config.cols + 1), "format": 3, **scales, **aligned(config)})


def scale_beats(config):
    """Beats of MX scales ahead of a tile's weights, at most: a byte a column."""
    return -(-config.cols // config.depth) if config.mx else 0


def tile(config):
    """One pass of `rows` activation rows of `count` elements, `first` and `last` of its sums, and of which kind."""
    return data.StructLayout({"rows": range(config.acc_rows + 1), "count": range(config.depth + 1),
                              "format": 3, "first": 1, "last": 1, **mx(config), **aligned(config)})


def mx(config):
    """The field that tells MX GEMMs from others, where there are any."""
    return {"mx": 1} if config.mx else {}


def aligned(config):
    """The field that tells GEMMs with aligned sums from exact ones, where there are any."""
    return {"aligned": 1} if FAMILIES[config.family].aligned else {}


def finish(config):
    """Results that are drained together: `rows` x `cols` from (`row`, `column`), and how to finish them.

    `end` is the last of its command; one with an error has no results.
    """
    return data.StructLayout({
        "tag": 8, "error": Error, "end": 1, "format": 3,
        "row": 16, "column": 16, "rows": range(config.acc_rows + 1), "cols": range(config.cols + 1),
        "row_scaled": 1, "column_scaled": 1, "biased": 1, "accumulate": 1, **mx(config),
    })


def block(config):
    """A block of results and where to find what finishing it needs."""
    return data.StructLayout({
        "finish": finish(config),
        "row_scales": ADDRESS, "column_scales": ADDRESS, "bias": ADDRESS, "c": ADDRESS, "c_pitch": ADDRESS,
    })


class Walker(Part):
    """Checks commands and walks their loops: N block, M block, K block.

    Makes one tile a cycle as long as all that listen take it. A refused command makes a block with
    its error and nothing else, so that its completion comes in order.

    A block of fewer than `cols` rows would wait for its weights, so the one ahead of it leaves `cols`
    rows to it. What the array finishes last is drained alone, so the last block is kept small where that
    is free: its first `cols` rows come after the others, as loading their weights again takes no longer
    than the rows do.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    i : In(stream.Signature(command))
    weights, activations : Out(stream.Signature(request))
        What to read for a tile. With MX, the scales of a tile's rows are read ahead of them.
    load, tile : Out(stream.Signature)
        What to do with it.
    block : Out(stream.Signature(block))
        With the first tile of a block.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(command(config))),
            "weights": Out(stream.Signature(request(config.cols + scale_beats(config), 1))),
            "load": Out(stream.Signature(load(config))),
            "activations": Out(stream.Signature(request(1, config.acc_rows))),
            "tile": Out(stream.Signature(tile(config))),
            "block": Out(stream.Signature(block(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config, family, given = self.config, FAMILIES[self.config.family], self.i.payload

        # A step waits here until all of its listeners have it.
        outputs = [self.weights, self.load, self.activations, self.tile, self.block]
        waiting = Signal(len(outputs))
        taken, free = Signal(len(outputs)), Signal()
        for n, output in enumerate(outputs):
            m.d.comb += output.valid.eq(waiting[n]), taken[n].eq(output.ready)
        rows_read = self.activations.payload
        if config.mx:       # two requests on one stream
            scales_read = Signal.like(rows_read, name="scales_read")
            rows_read = Signal.like(rows_read, name="rows_read")
            scales_wait = Signal()
            m.d.comb += [
                self.activations.payload.eq(Mux(scales_wait, scales_read, rows_read)),
                taken[outputs.index(self.activations)].eq(self.activations.ready & ~scales_wait),
            ]
            m.d.sync += scales_wait.eq(scales_wait & ~self.activations.ready)
        m.d.comb += free.eq((waiting & ~taken) == 0)
        m.d.sync += waiting.eq(waiting & ~taken)

        walking  = Signal()
        n_left, m_left, k_left = (Signal(16, name=f"{name}_left") for name in "nmk")
        row, column, first_row = Signal(16), Signal(16), Signal(16)
        a, a_row = Signal(ADDRESS), Signal(ADDRESS)     # of this slice, and of its block's first
        w, w_block = Signal(ADDRESS), Signal(ADDRESS)
        c, c_column = Signal(ADDRESS), Signal(ADDRESS)
        last_n, last_m, last_k, first_k = Signal(), Signal(), Signal(), Signal()
        upper, lower = Signal(), Signal()               # parts of a last block: all but its first rows, these
        short  = Signal()                               # leaves `cols` rows to the next block
        whole  = Signal(range(config.acc_rows + 1))     # rows of a block that is not the last
        rows   = Signal(range(config.acc_rows + 1))
        cols   = Signal(range(config.cols + 1))
        count  = Signal(range(config.depth + 1))
        beats  = Signal(range(config.cols + 1))
        scales = Signal(range(max(scale_beats(config), 1) + 1))     # beats of MX scales ahead of the weights
        w_next = Signal(ADDRESS)
        depth  = Signal(range(config.depth + 1))            # of a tile
        a_step = Signal(range(config.row_bits // 8 + 1))    # from one slice to the next, in bytes
        paired = given.w_format == FORMAT_CODES["e2m1"]     # two columns a beat
        if family.aligned:
            is_aligned = Signal()
            m.d.comb += [
                is_aligned.eq(self._is_aligned(given)),
                depth.eq(Mux(is_aligned, config.depth // 4, config.depth)),
                a_step.eq(Mux(given.a_format == FORMAT_CODES["bf16"], config.depth // 2, depth)),
            ]
            paired = paired | is_aligned
        else:
            m.d.comb += depth.eq(config.depth), a_step.eq(config.row_bits // 8)
        m.d.comb += [
            last_n.eq(n_left <= config.cols),
            upper.eq(last_n & (m_left <= config.acc_rows) & (m_left >= 2 * config.cols) & ~lower),
            last_m.eq((m_left <= config.acc_rows) & ~upper),
            last_k.eq(k_left <= depth),
            rows.eq(Mux(lower, config.cols, Mux(upper, m_left - config.cols, Mux(last_m, m_left, whole)))),
            short.eq((m_left < config.acc_rows + config.cols) if config.acc_rows >= 2 * config.cols else 0),
            whole.eq(config.acc_rows - Mux(short, config.cols, 0)),
            cols.eq(Mux(last_n, n_left, config.cols)),
            count.eq(Mux(last_k, k_left, depth)),
            beats.eq(Mux(paired, (cols + 1) >> 1, cols)),
            first_row.eq(row + Mux(upper, config.cols, 0)),
            w_next.eq(w + (beats + scales) * config.depth),
        ]

        def below(pitch):
            """From a block to the next one below it."""
            return pitch * config.acc_rows - Mux(short, pitch * config.cols, 0)

        error = Signal(Error)
        m.d.comb += error.eq(self._check(given))
        with m.If(~walking & self.i.valid & free):
            m.d.sync += [
                walking.eq(error == Error.NONE),
                n_left.eq(given.n), m_left.eq(given.m), k_left.eq(given.k), first_k.eq(1),
                row.eq(0), column.eq(0),
                a.eq(given.a), a_row.eq(given.a),
                w.eq(given.w), w_block.eq(given.w),
                c.eq(given.c), c_column.eq(given.c),
            ]
            with m.If(error != Error.NONE):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    waiting[-1].eq(1),
                    self.block.payload.eq(0),
                    self.block.payload.finish.tag.eq(given.tag),
                    self.block.payload.finish.error.eq(error),
                    self.block.payload.finish.end.eq(1),
                ]

        with m.If(walking & free):
            m.d.sync += waiting.eq(Mux(first_k, 0b11111, 0b01111))
            m.d.sync += [
                self.weights.payload.address.eq(w),
                self.weights.payload.beats.eq(beats + scales),
                self.weights.payload.rows.eq(1),
                self.load.payload.beats.eq(beats),
                self.load.payload.format.eq(given.w_format),
                rows_read.address.eq(a + Mux(upper, given.a_pitch * config.cols, 0)),
                rows_read.stride.eq(given.a_pitch),
                rows_read.beats.eq(1),
                rows_read.rows.eq(rows),
                self.tile.payload.rows.eq(rows),
                self.tile.payload.count.eq(count),
                self.tile.payload.format.eq(given.a_format),
                self.tile.payload.first.eq(first_k),
                self.tile.payload.last.eq(last_k),
                self.block.payload.finish.tag.eq(given.tag),
                self.block.payload.finish.error.eq(Error.NONE),
                self.block.payload.finish.end.eq(last_n & last_m),
                self.block.payload.finish.format.eq(given.y_format),
                self.block.payload.finish.row.eq(first_row),
                self.block.payload.finish.column.eq(column),
                self.block.payload.finish.rows.eq(rows),
                self.block.payload.finish.cols.eq(cols),
                self.block.payload.row_scales.eq(given.row_scales + (first_row << 2)),
                self.block.payload.column_scales.eq(given.column_scales + (column << 2)),
                self.block.payload.bias.eq(given.bias + (column << 2)),
                self.block.payload.c.eq(c + Mux(upper, given.c_pitch * config.cols, 0)),
                self.block.payload.c_pitch.eq(given.c_pitch),
                *(self.block.payload.finish[name].eq(given[name])
                  for name in ("row_scaled", "column_scaled", "biased", "accumulate", *mx(config))),
            ]
            if family.aligned:
                m.d.sync += self.load.payload.aligned.eq(is_aligned), self.tile.payload.aligned.eq(is_aligned)
            if config.mx:
                beat = config.row_bits // 8
                a_scales = Signal(ADDRESS)              # of this K block, unless it is the first
                m.d.comb += scales.eq(Mux(given.mx, (cols + config.depth - 1) >> ceil_log2(config.depth), 0))
                m.d.sync += [
                    self.load.payload.scales.eq(scales),
                    self.tile.payload.mx.eq(given.mx),
                    scales_wait.eq(given.mx),
                    scales_read.address.eq(Mux(first_k, given.a_scales, a_scales) + first_row),
                    scales_read.stride.eq(beat),
                    scales_read.beats.eq(1),
                    scales_read.rows.eq((rows + beat - 1) >> ceil_log2(beat)),
                    a_scales.eq(Mux(first_k, given.a_scales, a_scales) + given.a_scales_pitch),
                ]

            m.d.sync += first_k.eq(last_k), w.eq(w_next)
            with m.If(~last_k):
                m.d.sync += k_left.eq(k_left - depth), a.eq(a + a_step)
            with m.Else():
                m.d.sync += k_left.eq(given.k)
            with m.If(last_k):
                m.d.sync += lower.eq(upper)
            with m.If(last_k & upper):
                m.d.sync += a.eq(a_row), w.eq(w_block)
            with m.If(last_k & ~last_m & ~upper):
                a_next = Signal(ADDRESS)
                m.d.comb += a_next.eq(a_row + below(given.a_pitch))
                m.d.sync += [
                    m_left.eq(m_left - whole), row.eq(row + whole),
                    a.eq(a_next), a_row.eq(a_next), w.eq(w_block),
                    c.eq(c + below(given.c_pitch)),
                ]
            with m.If(last_k & last_m):
                m.d.sync += [
                    m_left.eq(given.m), row.eq(0),
                    n_left.eq(n_left - config.cols), column.eq(column + config.cols),
                    a.eq(given.a), a_row.eq(given.a), w_block.eq(w_next),
                    c.eq(c_column + 4 * config.cols), c_column.eq(c_column + 4 * config.cols),
                ]
            with m.If(last_k & last_m & last_n):
                m.d.sync += walking.eq(0)
                m.d.comb += self.i.ready.eq(1)

        return m

    def _is_aligned(self, given):
        """Whether a command's sums are aligned."""
        return _any(each == FORMAT_CODES[name] for each in (given.a_format, given.w_format)
                    for name in FAMILIES[self.config.family].aligned)

    def _check(self, given):
        """The error of a command, or `Error.NONE`."""
        config, family = self.config, FAMILIES[self.config.family]

        def outside(value, maximum):
            return (value == 0) | (value > maximum if maximum < (1 << len(value)) - 1 else 0)

        def unknown(value, names):
            return ~_any(value == FORMAT_CODES[name] for name in names)

        unscalable = given.mx & self._is_aligned(given) if config.mx and family.aligned else 0
        return Mux(outside(given.m, config.m_max) | outside(given.n, config.n_max) | (given.k == 0),
                   Error.DIMENSION, Mux(
            (given.k != 0) & outside(given.k, config.k_max), Error.DEPTH, Mux(
                unknown(given.a_format, family.activations) | unknown(given.w_format, family.weights)
                | unknown(given.y_format, RESULT_FORMATS) | unscalable, Error.FORMAT, Error.NONE)))


def _any(flags):
    result = False
    for flag in flags:
        result = flag | result
    return result
