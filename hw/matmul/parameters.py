# SPDX-License-Identifier: Apache-2.0
"""Scales, bias and C: what finishing a block needs beside its sums."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hw.fetch import request
from hw.matmul.ports import Error, Part
from hw.matmul.walker import block, finish
from hw.ram import Ram
from hw.stream import DeepQueue, Queue

__all__ = ["Parameters", "longest_read"]

KINDS = ("row_scales", "column_scales", "bias", "c")


def row_scale_beats(config):
    """Beats of a block's row scales, at most."""
    return -(-config.acc_rows // config.drain)


def longest_read(config):
    """Consecutive beats in one read, at most."""
    return max(row_scale_beats(config), config.turns)


class Parameters(Part):
    """Reads a block's scales and bias ahead of its drain, and C during it.

    Row scales, column scales and bias go to memories with two halves, used in turn by the blocks
    that have results; C waits in a queue. The block is handed on when its memories are filled.

    Parameters
    ----------
    config : golden.config.Matmul
    c_depth : int
        Beats of C that can wait.

    Members
    -------
    i : In(stream.Signature(block))
    request : Out(stream.Signature(request)), beats : In(stream.Signature(struct(data, bad)))
    o : Out(stream.Signature(struct(block, half, bad)))
        `block` is a `finish`.
    release : In(1)
        A half is free again.
    row_read : In(struct(half, row)), row_scale : Out(32)
    column_read : In(struct(half, turn)), column_scales : Out(32 * drain)
    bias_read : In(struct(half, turn)), bias : Out(32 * drain)
        What was asked for in the cycle before.
    c : Out(stream.Signature(struct(data, bad))), c_arrives : Out(1)
        A beat of C will be there soon.
    """

    def __init__(self, config, c_depth):
        self.config, self.c_depth = config, c_depth
        self.width = config.drain * 32
        self.run = row_scale_beats(config)
        self.longest = longest_read(config)
        self.beat = data.StructLayout({"data": self.width, "bad": 1})
        turn_read = data.StructLayout({"half": 1, "turn": range(max(config.turns, 2))})
        super().__init__({
            "i": In(stream.Signature(block(config))),
            "request": Out(stream.Signature(request(self.longest, config.acc_rows))),
            "beats": In(stream.Signature(self.beat)),
            "o": Out(stream.Signature(data.StructLayout({"block": finish(config), "half": 1, "bad": 1}))),
            "release": In(1),
            "row_read": In(data.StructLayout({"half": 1, "row": range(config.acc_rows)})),
            "row_scale": Out(32),
            "column_read": In(turn_read), "column_scales": Out(self.width),
            "bias_read": In(turn_read), "bias": Out(self.width),
            "c": Out(stream.Signature(self.beat)), "c_arrives": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # What the block in hand reads, in order.
        given, how = self.i.payload, self.i.payload.finish
        wanted, turns, runs = Signal(4), Signal(range(config.turns + 1)), Signal(range(self.run + 1))
        m.d.comb += [
            wanted.eq(Mux(how.error != Error.NONE, 0,
                          Cat(how.row_scaled, how.column_scaled, how.biased, how.accumulate))),
            turns.eq((how.cols + config.drain - 1) >> ceil_log2(config.drain)),
            runs.eq((how.rows + config.drain - 1) >> ceil_log2(config.drain)),
        ]

        # Ask, and remember what was asked for; C's own count of beats is rows times turns.
        read = data.StructLayout({"kind": range(4), "beats": range(self.longest + 1),
                                  "rows": range(config.acc_rows + 1)})
        m.submodules.expected = expected = Queue(read, 4)
        asked, kind, rest = Signal(4), Signal(range(4)), Signal(4)
        m.d.comb += rest.eq(wanted & ~asked)
        for n in reversed(range(4)):
            with m.If(rest[n]):
                m.d.comb += kind.eq(n)
        asking = Signal()
        m.d.comb += [
            asking.eq(self.i.valid & rest.any()),
            self.request.valid.eq(asking & expected.i.ready),
            expected.i.valid.eq(asking & self.request.ready),
            self.request.payload.stride.eq(given.c_pitch),
            self.request.payload.rows.eq(Mux(kind == 3, how.rows, 1)),
            self.request.payload.beats.eq(Mux(kind == 0, runs, turns)),
            expected.i.payload.kind.eq(kind),
            expected.i.payload.beats.eq(self.request.payload.beats),
            expected.i.payload.rows.eq(self.request.payload.rows),
        ]
        with m.Switch(kind):
            for n, name in enumerate(KINDS):
                with m.Case(n):
                    m.d.comb += self.request.payload.address.eq(given[name])

        # The block follows its requests; a half is taken by each block that has results.
        m.submodules.blocks = blocks = Queue(data.StructLayout({"block": finish(config), "reads": 3}), 2)
        m.d.comb += [
            blocks.i.valid.eq(self.i.valid & ~rest.any()),
            blocks.i.payload.block.eq(how),
            blocks.i.payload.reads.eq(wanted[:3]),
            self.i.ready.eq(blocks.i.ready & ~rest.any()),
        ]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += asked.eq(asked | (1 << kind))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += asked.eq(0)

        # Take the beats to where they belong.
        got, beat, row = Signal(3), Signal(range(self.longest + 1)), Signal(range(config.acc_rows + 1))
        half, used, bad = Signal(), Signal(range(3)), Signal()
        head = expected.o.payload
        take, ends_row, ends, room = Signal(), Signal(), Signal(), Signal()
        m.submodules.c = c = DeepQueue(self.beat, self.c_depth)
        connect(m, c.o, flipped(self.c))
        m.d.comb += [
            room.eq(blocks.o.valid & (got != blocks.o.payload.reads) & (used != 2)),
            self.beats.ready.eq(expected.o.valid & Mux(head.kind == 3, c.i.ready, room)),
            take.eq(self.beats.valid & self.beats.ready),
            c.i.payload.eq(self.beats.payload),
            c.i.valid.eq(self.beats.valid & expected.o.valid & (head.kind == 3)),
            self.c_arrives.eq(c.i.valid & c.i.ready),
            ends_row.eq(beat + 1 == head.beats),
            ends.eq(ends_row & (row + 1 == head.rows)),
            expected.o.ready.eq(take & ends),
        ]
        with m.If(take):
            m.d.sync += beat.eq(Mux(ends_row, 0, beat + 1)), row.eq(Mux(ends, 0, row + ends_row))
            with m.If(head.kind != 3):
                m.d.sync += bad.eq(bad | self.beats.payload.bad)
                with m.If(ends):
                    m.d.sync += got.eq(got | (1 << head.kind)[:3])

        passes, result = Signal(), Signal()
        m.d.comb += [
            result.eq(blocks.o.payload.block.error == Error.NONE),
            self.o.valid.eq(blocks.o.valid & (got == blocks.o.payload.reads) & (~result | (used != 2))),
            self.o.payload.block.eq(blocks.o.payload.block),
            self.o.payload.half.eq(half),
            self.o.payload.bad.eq(bad),
            blocks.o.ready.eq(self.o.ready & self.o.valid),
            passes.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += used.eq(used + (passes & result) - self.release)
        with m.If(passes):
            m.d.sync += got.eq(0), bad.eq(0), half.eq(half ^ result)

        self._memories(m, take, head.kind, half, beat)
        return m

    def _memories(self, m, take, kind, half, beat):
        config = self.config
        depth = 1 << ceil_log2(self.run)
        m.submodules.row_scales = rows = Ram(self.width, 2 * depth)
        m.submodules.column_scales = columns = Ram(self.width, 2 * config.turns)
        m.submodules.bias = bias = Ram(self.width, 2 * config.turns)
        for n, (ram, size) in enumerate(((rows, depth), (columns, config.turns), (bias, config.turns))):
            m.d.comb += [
                ram.write_en.eq(take & (kind == n)),
                ram.write_address.eq(half * size + beat),
                ram.write_data.eq(self.beats.payload.data),
                ram.read_en.eq(1),
            ]
        lane = Signal(max(ceil_log2(config.drain), 1))
        m.d.sync += lane.eq(self.row_read.row % config.drain)
        m.d.comb += [
            rows.read_address.eq(self.row_read.half * depth + (self.row_read.row >> ceil_log2(config.drain))),
            self.row_scale.eq(rows.read_data.word_select(lane, 32)),
            columns.read_address.eq(self.column_read.half * config.turns + self.column_read.turn),
            self.column_scales.eq(columns.read_data),
            bias.read_address.eq(self.bias_read.half * config.turns + self.bias_read.turn),
            self.bias.eq(bias.read_data),
        ]
