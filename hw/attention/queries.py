# SPDX-License-Identifier: Apache-2.0
"""Queries as integers that share an exponent, as `golden.attention` defines them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.formats import FP32
from golden.scores import Widths
from hw.arith.formats import Float
from hw.arith.largest import largest_of
from hw.arith.pipeline import register
from hw.arith.shift import shift_right
from hw.attention.ports import operand
from hw.emit import Block
from hw.ram import Ram

__all__ = ["Queries"]


class Queries(Block):
    """Holds the queries of two heads: one's are in use while the next's come in, a word a cycle.

    A row waits until all of it has come and its largest exponent is known. It is converted while the next one comes:
    each word is read in time before it is written over. A slot is full `head_dim / lanes` + 3 cycles after its last
    word.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int
        Queries of a head, at most.

    Members
    -------
    loads : In(stream.Signature(range(group + 1)))
        Rows that follow in `i`, 1 to `group`, for the next slot; slots take turns, 0 is first. Taken when that is free.
    i : In(stream.Signature(32 * kv.lanes))
        FP32; `head_dim / lanes` words a row.
    full : Out(2)
        Slots whose queries are complete.
    release : In(1)
        The slot that was complete first is free again.
    exponents : Out(ArrayLayout(ArrayLayout(8, group), 2))
        The shared exponent of each slot's queries, biased.
    nan : Out(ArrayLayout(group, 2))
        Which of each slot's queries are NaN; not those that were not given.
    read_en : In(1), read_slot : In(1), read_beat : In(range(kv.row_beats)), a bit at least
    operands : Out(ArrayLayout(ArrayLayout(operand(kv), elements), group))
        The elements of each query that meet those of the given beat of a row, one cycle after `read_en` and until the
        next. Undefined beyond `head_dim` and in queries that were not given.
    """

    def __init__(self, kv, group):
        if group < 1:
            raise ValueError(f"Queries: group must be at least 1, not {group!r}")
        self.kv, self.group, self.widths = kv, group, Widths(kv)
        operands = data.ArrayLayout(operand(kv), self.widths.elements)
        super().__init__({
            "loads": In(stream.Signature(range(group + 1))),
            "i": In(stream.Signature(32 * kv.lanes)),
            "full": Out(2),
            "release": In(1),
            "exponents": Out(data.ArrayLayout(data.ArrayLayout(FP32.exponent, group), 2)),
            "nan": Out(data.ArrayLayout(group, 2)),
            "read_en": In(1), "read_slot": In(1), "read_beat": In(range(max(kv.row_beats, 2))),
            "operands": Out(data.ArrayLayout(operands, group)),
        })

    def elaborate(self, platform):
        m = Module()
        kv, lanes, bits = self.kv, self.kv.lanes, self.widths.operand
        chunks = kv.head_dim // lanes                   # of a row
        kept = data.StructLayout({"mantissa": bits, "exponent": FP32.exponent, "sign": 1})

        # In: a row into memory; a cycle later its words so far have met in their largest exponent.
        m.submodules.row = row = Ram(lanes * kept.size, max(chunks, 2))
        left, held = Signal(range(self.group + 1)), Signal(range(3))        # rows to come; slots taken
        at, takes, ends, loads = Signal(range(max(chunks, 2))), Signal(), Signal(), Signal()
        first, nan, closes = Signal(reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        tops = [Signal(FP32.exponent, name=f"top{n}", reset_less=True) for n in range(min(lanes, 2))]
        most, before = Signal(FP32.exponent), Signal(FP32.exponent, reset_less=True)
        exponents, bad = [], [nan & (at != 0)]
        for n in range(lanes):
            x, exponent = Float(FP32)(self.i.payload.word_select(n, 32)), Signal(FP32.exponent, name=f"exponent{n}")
            low, *high = x.mantissa[-bits:]          # `low` only matters where nothing is shifted out
            mantissa = Cat(low & ~Cat(high).all(), high)            # not to be rounded beyond all bits
            m.d.comb += [
                exponent.eq(Mux(x.exponent.all(), 0, x.exponent)),
                row.write_data.word_select(n, kept.size).eq(
                    Cat(mantissa, exponent, x.sign)),
            ]
            exponents.append(exponent)
            bad.append(x.exponent.all())
        m.d.comb += [
            self.loads.ready.eq((left == 0) & (held != 2)), loads.eq(self.loads.valid & self.loads.ready),
            self.i.ready.eq(left != 0), takes.eq(self.i.valid & self.i.ready), ends.eq(at == chunks - 1),
            row.write_en.eq(takes), row.write_address.eq(at),
            most.eq(largest_of(m, [*tops, Mux(first, 0, before)])),
        ]
        m.d.sync += held.eq(held + loads - self.release), before.eq(most)
        with m.If(loads):
            m.d.sync += left.eq(self.loads.payload)
        with m.If(takes):
            m.d.sync += at.eq(Mux(ends, 0, at + 1)), left.eq(left - ends)
            m.d.sync += first.eq(at == 0), nan.eq(Cat(bad).any()), closes.eq(left == 1)
            m.d.sync += (top.eq(largest_of(m, exponents[n::2])) for n, top in enumerate(tops))

        # Out of memory: at once, and without a pause.
        starts, place, going = Signal(), Signal.like(at), Signal()
        m.d.comb += going.eq(starts | (place != 0)), row.read_en.eq(going), row.read_address.eq(place)
        m.d.sync += starts.eq(takes & ends)
        with m.If(going):
            m.d.sync += place.eq(Mux(place == chunks - 1, 0, place + 1))

        # Converted, each row for its query.
        shared, shared_nan = Signal(FP32.exponent, reset_less=True), Signal(reset_less=True)
        slot, query, last = Signal(init=1), Signal(range(max(self.group, 2))), Signal(init=1)
        valid, word, ended = Signal(), register(m, place, "word"), Signal()
        m.d.comb += ended.eq(valid & (word == chunks - 1))
        m.d.sync += valid.eq(going)
        with m.If(starts):
            m.d.sync += [
                shared.eq(most), shared_nan.eq(nan), last.eq(closes), slot.eq(slot ^ last),
                query.eq(Mux(last, 0, query + 1)),
            ]
        elements = []
        for n in range(lanes):
            x, places = kept(row.read_data.word_select(n, kept.size)), Signal(FP32.exponent, name=f"places{n}")
            amount, element = Signal(4, name=f"amount{n}"), Signal(operand(kv), name=f"element{n}")
            shifted = shift_right(m, Cat(x.mantissa, Const(1, 2)), amount, f"shifted{n}_")
            m.d.comb += [
                places.eq(shared - x.exponent),
                amount.eq(places[:4] | (places[4:].any() | (x.exponent == 0)).replicate(4)),
                element.magnitude.eq(shifted[1:] + shifted[0]), element.sign.eq(x.sign),
            ]
            elements.append(element)
        for n in range(2):
            with m.If(ended & (slot == n)):
                for q in range(self.group):
                    with m.If(query == q):
                        m.d.sync += self.exponents[n][q].eq(shared), self.nan[n][q].eq(shared_nan)
                    with m.Elif(query == 0):
                        m.d.sync += self.nan[n][q].eq(0)

        # Into the slots, of which each query and each word of a beat has a memory.
        writes, finished, older = Signal(), Signal(), Signal()
        m.d.sync += writes.eq(valid), finished.eq(ended & last)
        converted, slot, query, word = (register(m, value, name) for value, name in (
            (Cat(elements), "converted"), (slot, "to_slot"), (query, "to_query"), (word, "to_word")))
        banks = min(self.widths.elements // lanes, chunks)
        bank, beat = word[:ceil_log2(banks)], word[ceil_log2(banks):]
        for q in range(self.group):
            for n in range(banks):
                m.submodules[f"ram{q}_{n}"] = ram = Ram(lanes * (bits + 1), 2 * kv.row_beats)
                m.d.comb += [
                    ram.write_en.eq(writes & (query == q) & (bank == n)), ram.write_data.eq(converted),
                    ram.write_address.eq(Cat(slot, beat)),
                    ram.read_en.eq(self.read_en), ram.read_address.eq(Cat(self.read_slot, self.read_beat)),
                    self.operands[q].as_value().word_select(n, ram.width).eq(ram.read_data),
                ]
        with m.If(self.release):
            m.d.sync += older.eq(~older), self.full.bit_select(older, 1).eq(0)
        with m.If(finished):
            m.d.sync += self.full.bit_select(slot, 1).eq(1)
        return m
