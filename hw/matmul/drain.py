# SPDX-License-Identifier: Apache-2.0
"""From exact sums to results: one rounding to FP32, scales, bias, C, and a rounding to the output format."""

from itertools import accumulate

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.families import FAMILIES, FORMAT_CODES
from golden.formats import FORMATS
from hw.arith.aligned import EXACT_TAG
from hw.arith.convert import FromFp32
from hw.arith.fp32 import Add, FromFixed, Multiply
from hw.arith.pipeline import register
from hw.arith.scaled import FromScaled
from hw.matmul.accumulator import entry
from hw.matmul.ports import Error, Part, completion, result
from hw.matmul.walker import RESULT_FORMATS, finish, mx
from hw.stream import DeepQueue, Queue

__all__ = ["Drain", "Lane"]

ONE, MINUS_ZERO, NAN = 0x3F800000, 0x80000000, 0x7FC00000       # what leaves a product, a sum as it is


class Lane(Part):
    """Finishes one sum a cycle: `round(round32(i) * row_scale * column_scale + bias + c)`, each step rounded.

    Every operand is needed when its step comes: `at` cycles after `i`. `o` is there at `at["end"]`. Sums with
    tags have an exponent of their own.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    i : In(entry(config))
        The sum, or NaN.
    rounded : In(1)
        With MX: `i` is in FP32 already.
    row_scale, column_scale, bias, c : In(32)
        FP32; 1.0 and -0.0 change nothing.
    format : In(3)
        Output format, a value of `golden.families.FORMAT_CODES`, a cycle before the last step: it comes from afar.
    o : Out(32), nan : Out(1)
        The code, from bit 0, and whether the result is NaN.
    """

    def __init__(self, config):
        self.config, self.family = config, FAMILIES[config.family]
        steps = {"round": FromScaled if self.family.aligned else FromFixed, "row": Multiply, "column": Multiply,
                 "bias": Add, "c": Add, "convert": FromFp32}
        latencies = accumulate((step.latency for step in steps.values()), initial=0)
        self.round, self.at = steps["round"], dict(zip([*steps, "end"], latencies, strict=True))
        super().__init__({
            "i": In(entry(config)), **({"rounded": In(1)} if config.mx else {}),
            "row_scale": In(32), "column_scale": In(32), "bias": In(32), "c": In(32), "format": In(3),
            "o": Out(32), "nan": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.round = rounded = self.round(self.family.sum_bits(self.config.k_max), self.family.lsb)
        if self.family.aligned:
            m.d.comb += rounded.exponent.eq(self.i.tag - EXACT_TAG)
        m.submodules.row, m.submodules.column = row, column = Multiply(), Multiply()
        m.submodules.bias, m.submodules.c = bias, c = Add(), Add()
        m.submodules.convert = convert = FromFp32(tuple(FORMATS[name] for name in RESULT_FORMATS))

        nan, code, known = self.i.nan, self.i.sum[:32], self.rounded if self.config.mx else None
        for n in range(rounded.latency):
            nan = register(m, nan, f"nan{n}")
            if self.config.mx:
                code, known = register(m, code, f"code{n}"), register(m, known, f"known{n}")
        m.d.comb += [
            rounded.i.eq(self.i.sum),
            row.a.eq(Mux(nan, NAN, Mux(known, code, rounded.o) if self.config.mx else rounded.o)),
            row.b.eq(self.row_scale),
            column.a.eq(row.o), column.b.eq(self.column_scale),
            bias.a.eq(column.o), bias.b.eq(self.bias),
            c.a.eq(bias.o), c.b.eq(self.c),
            convert.i.eq(c.o), convert.format.eq(register(m, self.format, "format")),
            self.o.eq(convert.o), self.nan.eq(convert.nan),
        ]
        return m


class Drain(Part):
    """Reads completed rows out of the accumulators, finishes them and sends them off.

    Follows the block's last pass through the array at one turn, `drain` columns, a cycle. Results leave in
    row order, turn after turn.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    i : In(stream.Signature(struct(block, half, bad)))
        `block` is a `finish`.
    done : In(2)
        Bit p: a row of the block of parity p is complete in turn 0; in turn t it is at most t cycles later.
    bad : In(2)
        Bit p: something that should have gone into that block did not come.
    read : Out(struct(en, row)), turn : Out
        What to read from the accumulators, in turns of `drain` columns; the sums of turn `turn` must be there in the
        next cycle.
    sums : In(ArrayLayout(struct(sum, nan), drain))
    release : Out(2)
        Bit p: the block of parity p has been read.
    finished_with : Out(1)
        A block no longer needs its scales and bias.
    row_read, row_scale, column_read, column_scales, bias_read, bias, c, c_arrives
        To `Parameters`.
    results : Out(stream.Signature(result)), completions : Out(stream.Signature(completion))
    """

    def __init__(self, config):
        self.config = config
        row, turn = range(config.acc_rows), range(max(config.turns, 2))
        beat = config.drain * 32
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"block": finish(config), "half": 1, "bad": 1}))),
            "done": In(2), "bad": In(2),
            "read": Out(data.StructLayout({"en": 1, "row": row})), "turn": Out(turn),
            "sums": In(data.ArrayLayout(entry(config), config.drain)),
            "release": Out(2), "finished_with": Out(1),
            "row_read": Out(data.StructLayout({"half": 1, "row": row})), "row_scale": In(32),
            "column_read": Out(data.StructLayout({"half": 1, "turn": turn})), "column_scales": In(beat),
            "bias_read": Out(data.StructLayout({"half": 1, "turn": turn})), "bias": In(beat),
            "c": In(stream.Signature(data.StructLayout({"data": beat, "bad": 1}))), "c_arrives": In(1),
            "results": Out(stream.Signature(result(config))),
            "completions": Out(stream.Signature(completion())),
        })

    @property
    def depth(self):
        """Beats that can be under way, which is what the queue at the end must hold."""
        return 1 << ceil_log2(Lane(self.config).at["end"] + 8)

    def elaborate(self, platform):
        m = Module()
        config, depth = self.config, self.depth
        lanes = [Lane(config) for _ in range(config.drain)]
        at = lanes[0].at
        given, half = self.i.payload.block, self.i.payload.half

        # Completed rows of each block; its parity is the half of the parameters that it uses.
        done = [Signal(range(config.acc_rows + 1), name=f"done{n}") for n in range(2)]
        for n in range(2):
            with m.If(self.release[n]):
                m.d.sync += done[n].eq(0)
            with m.Elif(self.done[n]):
                m.d.sync += done[n].eq(done[n] + 1)

        # Issue: row after row, turn after turn, while there is room at the end of the pipeline.
        row, turn = Signal(range(config.acc_rows)), Signal(range(max(config.turns, 2)))
        under_way  = Signal(range(depth + 1))       # beats between here and the results
        c_level    = Signal(8)                      # beats of C that are here and not yet spoken for
        empty, issue, begins, ends_row, ends, sent = (Signal(name=name) for name in (
            "empty", "issue", "begins", "ends_row", "ends", "sent"))
        m.submodules.tags = tags = Queue(finish(config), 4)
        m.d.comb += [
            empty.eq(given.error != Error.NONE),
            begins.eq((row == 0) & (turn == 0)),
            issue.eq(self.i.valid & ~empty & (Mux(half, done[1], done[0]) > row) & (under_way != depth)
                     & (~given.accumulate | (c_level != 0)) & (~begins | tags.i.ready)),
            ends_row.eq((turn + 1) << ceil_log2(config.drain) >= given.cols),
            ends.eq(ends_row & (row + 1 == given.rows)),
            self.read.en.eq(issue), self.read.row.eq(row), self.turn.eq(turn),
            self.release.eq(Cat(issue & ends & ~half, issue & ends & half)),
            self.i.ready.eq(Mux(empty, tags.i.ready, issue & ends)),
            tags.i.valid.eq(Mux(empty, self.i.valid, issue & begins)),
            tags.i.payload.eq(given),
        ]
        with m.If(issue):
            m.d.sync += turn.eq(Mux(ends_row, 0, turn + 1)), row.eq(Mux(ends, 0, row + ends_row))
        m.d.sync += under_way.eq(under_way + issue - sent)
        m.d.sync += c_level.eq(c_level + self.c_arrives - (issue & given.accumulate))

        # Beside the lanes travels what their steps need; stage n is n cycles after the issue.
        beside = data.StructLayout({
            "valid": 1, "half": 1, "row": range(config.acc_rows), "turn": range(max(config.turns, 2)),
            "format": 3, "row_scaled": 1, "column_scaled": 1, "biased": 1, "accumulate": 1,
            "bad": 1, "end": 1, **mx(config)})
        stage = [Signal(beside, name=f"stage{n}") for n in range(at["end"] + 2)]
        bad = self.i.payload.bad | Mux(half, self.bad[1], self.bad[0])
        m.d.comb += [
            stage[0].valid.eq(issue), stage[0].half.eq(half), stage[0].row.eq(row), stage[0].turn.eq(turn),
            stage[0].bad.eq(ends & bad), stage[0].end.eq(ends),
            *(stage[0][name].eq(given[name])
              for name in ("format", "row_scaled", "column_scaled", "biased", "accumulate", *mx(config))),
        ]
        m.d.sync += [new.eq(old) for old, new in zip(stage, stage[1:], strict=False)]

        by_row, by_column, by_bias, by_c = (stage[1 + at[name]] for name in ("row", "column", "bias", "c"))
        m.d.comb += [
            self.row_read.half.eq(stage[at["row"]].half), self.row_read.row.eq(stage[at["row"]].row),
            self.column_read.half.eq(stage[at["column"]].half), self.column_read.turn.eq(stage[at["column"]].turn),
            self.bias_read.half.eq(stage[at["bias"]].half), self.bias_read.turn.eq(stage[at["bias"]].turn),
            self.finished_with.eq(stage[at["bias"]].valid & stage[at["bias"]].end),
            self.c.ready.eq(by_c.valid & by_c.accumulate),
        ]
        for n, lane in enumerate(lanes):
            m.submodules[f"lane{n}"] = lane
            m.d.comb += [
                lane.i.eq(self.sums[n]),
                *([lane.rounded.eq(stage[1 + at["round"]].mx)] if config.mx else []),
                lane.row_scale.eq(Mux(by_row.row_scaled, self.row_scale, ONE)),
                lane.column_scale.eq(Mux(by_column.column_scaled, self.column_scales.word_select(n, 32), ONE)),
                lane.bias.eq(Mux(by_bias.biased, self.bias.word_select(n, 32), MINUS_ZERO)),
                lane.c.eq(Mux(by_c.accumulate, self.c.payload.data.word_select(n, 32), MINUS_ZERO)),
                lane.format.eq(stage[at["convert"]].format),
            ]
        m.d.sync += stage[2 + at["c"]].bad.eq(by_c.bad | by_c.accumulate & self.c.payload.bad)

        # Pack, and wait for whoever takes the results.
        finished = data.StructLayout({"data": config.drain * 32, "nans": config.drain, "bad": 1})
        m.submodules.queue = queue = DeepQueue(finished, depth)
        last = stage[-1]
        m.d.comb += [
            queue.i.valid.eq(last.valid),
            queue.i.payload.nans.eq(Cat(lane.nan for lane in lanes)),
            queue.i.payload.bad.eq(last.bad),
        ]
        with m.Switch(last.format):
            for name in RESULT_FORMATS:
                with m.Case(FORMAT_CODES[name]):
                    m.d.comb += queue.i.payload.data.eq(Cat(lane.o[:FORMATS[name].width] for lane in lanes))

        self._send(m, queue.o, tags.o)
        m.d.comb += sent.eq(queue.o.valid & queue.o.ready)
        return m

    def _send(self, m, beats, tags):
        """Give finished beats their places, and commands their completions."""
        config, given = self.config, tags.payload
        row, turn = Signal(range(config.acc_rows)), Signal(range(max(config.turns, 2)))
        first, left = Signal(range(config.cols)), Signal(range(config.cols + 1))
        ends_row, ends, has_rows, free, passes = (
            Signal(name=name) for name in ("out_ends_row", "out_ends", "out_has_rows", "out_free", "out_passes"))
        valid_nans, nans, bad = Signal(config.drain), Signal(32), Signal()
        m.d.comb += [
            has_rows.eq(given.error == Error.NONE),
            first.eq(turn << ceil_log2(config.drain)),
            left.eq(given.cols - first),
            ends_row.eq(left <= config.drain),
            ends.eq(ends_row & (row + 1 == given.rows)),
            free.eq(~self.completions.valid),
            self.results.valid.eq(beats.valid & tags.valid & has_rows & free),
            self.results.payload.data.eq(beats.payload.data),
            self.results.payload.count.eq(Mux(ends_row, left, config.drain)),
            self.results.payload.row.eq(given.row + row),
            self.results.payload.column.eq(given.column + first),
            self.results.payload.tag.eq(given.tag),
            self.results.payload.last.eq(ends & given.end),
            passes.eq(self.results.valid & self.results.ready),
            beats.ready.eq(tags.valid & has_rows & free & self.results.ready),
            tags.ready.eq(Mux(has_rows, passes & ends, free)),
            *(valid_nans[n].eq(beats.payload.nans[n] & (n < self.results.payload.count))
              for n in range(config.drain)),
        ]
        with m.If(self.completions.ready):
            m.d.sync += self.completions.valid.eq(0)
        with m.If(passes):
            m.d.sync += [
                turn.eq(Mux(ends_row, 0, turn + 1)), row.eq(Mux(ends, 0, row + ends_row)),
                nans.eq(nans + sum(valid_nans)), bad.eq(bad | beats.payload.bad),
            ]
        with m.If(tags.valid & tags.ready & given.end):
            m.d.sync += [
                self.completions.valid.eq(1),
                self.completions.payload.tag.eq(given.tag),
                self.completions.payload.nans.eq(Mux(has_rows, nans + sum(valid_nans), 0)),
                self.completions.payload.error.eq(
                    Mux(has_rows, Mux(bad | beats.payload.bad, Error.RESPONSE, Error.NONE), given.error)),
                nans.eq(0), bad.eq(0),
            ]
