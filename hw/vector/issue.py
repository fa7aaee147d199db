# SPDX-License-Identifier: Apache-2.0
"""Words of operands become beats, a beat a cycle as long as there is room for all that they will become."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.families import FORMAT_CODES
from golden.formats import E4M3, E8M0, FORMATS, FP32, MX_BLOCK
from golden.isa import K_MAX, LENGTH, ROWS, Operation, Quantize, Second
from hw.emit import Block
from hw.stream import Buffer
from hw.vector.back import tail
from hw.vector.ports import Part
from hw.vector.walker import work

__all__ = ["Issue", "Unpack", "beat"]


def beat(lanes):
    """A beat on its way: of x * y and so on, see `golden.isa`. With `again`, its row has been there before."""
    return data.StructLayout({"valid": 1, "operation": 3, "again": 1, "tail": tail(lanes)})


class Unpack(Block):
    """The beats in a stream of words; every row begins with a new word. Latency 1 cycle.

    It holds two words, so that `i.ready` waits for no choice of a beat: it depends on registers alone.

    Parameters
    ----------
    lanes : int

    Members
    -------
    i : In(stream.Signature(struct(data, bad)))
    format : In(3)
    same : In(1)
        All lanes take the same element.
    take, next, ends : In(1)
        The beat is used; the next one has other elements; it is the last of its row.
    o : Out(ArrayLayout(32, lanes)), valid : Out(1), bad : Out(1)
        Codes, anything above them.
    """

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"data": 32 * lanes, "bad": 1}))), "format": In(3),
            "same": In(1), "take": In(1), "next": In(1), "ends": In(1),
            "o": Out(data.ArrayLayout(32, lanes)), "valid": Out(1), "bad": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Buffer(self.i.payload.shape())
        connect(m, flipped(self.i), words.i)
        index, last, word = Signal(3), Signal(3), words.o.payload
        place, step = Signal(range(self.lanes)), Signal()       # of the byte that all take; on to other lanes' elements
        with m.Switch(self.format):
            for name, number in FORMAT_CODES.items():
                width = FORMATS[name].width
                with m.Case(number):
                    beats, codes = FP32.width // width, Signal(width * self.lanes, name=name)
                    one = codes.word_select(place, width) if width == E8M0.width else codes[:width]
                    m.d.comb += [
                        codes.eq(word.data.word_select(index[:ceil_log2(beats)], width * self.lanes)),
                        last.eq(beats - 1),
                        *(self.o[n].eq(Mux(self.same, one, codes.word_select(n, width)))
                          for n in range(self.lanes)),
                    ]
        with m.If(self.take):
            m.d.sync += [
                place.eq(Mux(self.ends, 0, place + (self.same & self.next))),
                index.eq(Mux(self.ends | step & (index == last), 0, index + step)),
            ]
        m.d.comb += [
            step.eq(self.next & (~self.same | place.all())),
            words.o.ready.eq(self.take & (self.ends | step & (index == last))),
            self.valid.eq(words.o.valid), self.bad.eq(word.bad & words.o.ready),
        ]
        return m


class Issue(Part):
    """Lets beats into the lanes. A beat needs room in the queue of those that are kept, and a row or block that is
    scaled needs room in the queues of those.

    Parameters
    ----------
    config : golden.config.Vector
    settle : int
        Cycles between two passes over a row, at least.

    Members
    -------
    work : In(stream.Signature(work()))
    x, y : In(stream.Signature(struct(data, bad)))
    kept_leaves, unit_leaves : In(1)
    codes : Out(ArrayLayout(ArrayLayout(32, lanes), 2)), o : Out(beat(lanes))
        Elements of x and y, and a cycle later the beat.
    """

    def __init__(self, config, settle):
        self.config, self.settle = config, settle
        words = data.StructLayout({"data": 32 * config.lanes, "bad": 1})
        super().__init__({
            "work": In(stream.Signature(work())), "x": In(stream.Signature(words)), "y": In(stream.Signature(words)),
            "kept_leaves": In(1), "unit_leaves": In(1), "o": Out(beat(config.lanes)),
            "codes": Out(data.ArrayLayout(data.ArrayLayout(32, config.lanes), 2)),
        })

    def elaborate(self, platform):
        m = Module()
        config, given = self.config, self.work.payload
        m.submodules.x, m.submodules.y = x, y = Unpack(config.lanes), Unpack(config.lanes)
        row, number, turn = Signal(ROWS), Signal(LENGTH), Signal(range(K_MAX + 1))     # turn: passes before this one
        take, ends, ends_row, ends_all = Signal(), Signal(), Signal(), Signal()
        kept, units = (Signal(range(most + 1), init=most) for most in (config.depth, config.units))    # room
        wait, second, scaled = Signal(range(self.settle + 1)), Signal(), Signal()
        per_block = MX_BLOCK // config.lanes
        fills = number[:ceil_log2(per_block)] == per_block - 1      # the beat is its block's last
        m.d.comb += [
            second.eq(given.second != Second.ABSENT), scaled.eq(given.second == Second.BLOCK),
            take.eq(self.work.valid & x.valid & (y.valid | ~second) & (kept != 0) & (units != 0) & (wait == 0)),
            ends.eq(number + 1 == given.beats),
            ends_row.eq(ends & (turn + 1 == given.passes)),
            ends_all.eq(ends_row & (row + 1 == given.rows)),
            self.work.ready.eq(take & ends_all),
            x.format.eq(given.x_format), x.take.eq(take), x.next.eq(1), x.ends.eq(ends),
            y.format.eq(Mux(scaled, FORMAT_CODES[E4M3.name], given.y_format)),      # bytes
            y.take.eq(take & second), y.ends.eq(ends),
            y.same.eq(scaled | (given.second == Second.ROW)),
            y.next.eq(Mux(scaled, fills, given.second != Second.ROW)),
        ]
        for unpack, words in ((x, flipped(self.x)), (y, flipped(self.y))):
            connect(m, words, unpack.i)
        with m.If(take):
            m.d.sync += [
                number.eq(Mux(ends, 0, number + 1)),
                turn.eq(Mux(ends_row, 0, turn + ends)),
                row.eq(Mux(ends_all, 0, row + ends_row)),
            ]
        with m.If(take & ends & ~ends_row):
            m.d.sync += wait.eq(self.settle - 1)
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)

        # What goes with the beat.
        top_k, block, bad, new = Signal(), Signal(), Signal(), Signal(beat(config.lanes))
        quantized = given.quantize != Quantize.NONE
        m.d.comb += [
            top_k.eq(given.operation == Operation.TOP_K),
            block.eq(given.quantize[1] & fills),
            new.valid.eq(take), new.operation.eq(given.operation), new.again.eq(turn != 0),
            new.tail.count.eq(Mux(ends, given.rest + 1, config.lanes)),
            new.tail.format.eq(given.result_format), new.tail.quantize.eq(given.quantize),
            new.tail.scaled.eq(quantized | top_k | (given.operation == Operation.RMS_NORM)
                               | (given.operation == Operation.SOFTMAX)),
            new.tail.coded.eq(quantized | top_k),
            new.tail.unit.eq(ends | block), new.tail.row.eq(ends_row), new.tail.end.eq(ends_all),
            new.tail.bad.eq(bad | x.bad | y.bad),
            self.codes[0].eq(x.o), self.codes[1].eq(y.o),
        ]
        with m.If(take):
            m.d.sync += bad.eq(new.tail.bad & ~ends_all)
        m.d.sync += [
            self.o.eq(new),
            kept.eq(kept - (take & (~top_k | ends)) + self.kept_leaves),
            units.eq(units - (take & new.tail.scaled & new.tail.unit) + self.unit_leaves),
        ]
        return m
