# SPDX-License-Identifier: Apache-2.0
"""Where the slots of a block lie: their beats as runs of addresses, and what each beat is."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.paging import Part
from hw.axi import run
from hw.emit import Block
from hw.kvcache.ports import segment

__all__ = ["SCALE", "Runs", "Tags", "address", "beats", "most", "slots"]

SCALE = 4       # bytes of scales and checksums of a token


def address(config):
    """Bits of a beat's address."""
    return config.address_bits - ceil_log2(config.beat)


def most(config):
    """Beats of the longest run, a segment."""
    return config.segment_beats(config.block_tokens)


def beats(config):
    """Numbers of beats within a row, or within the scales of a segment."""
    return range(max(config.row_beats, config.scale_beats, 2))


def slots(config):
    """Slots of a segment, or of `more` + 1 segments that follow one another."""
    return {"first": config.slots, "slots": range(config.block_tokens + 1),
            "more": range(config.segments)}


class Runs(Block):
    """The runs of some slots in the order of addresses: as few as there are gaps. A run a cycle, an item at
    most every other cycle, latency 1.

    Parameters
    ----------
    config : golden.config.KvCache
    tag : int
        Bits that go along.

    Members
    -------
    i : In(stream.Signature(struct(host, segment, first, slots, more, tag)))
        `host`: of host memory.
    o : Out(stream.Signature(run(address, most, tag)))
        `final` is the last run of an item.
    base, host_base : In(address)
        Of the pool and of host memory, in beats; multiples of 4 KiB.
    """

    def __init__(self, config, tag=0):
        self.config, self.tag = config, tag
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "host": 1, "segment": segment(config), **slots(config), "tag": tag}))),
            "o": Out(stream.Signature(run(address(config), most(config), tag))),
            "base": In(address(config)),
            "host_base": In(address(config)),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        held = Signal(self.i.payload.shape(), reset_less=True)
        at, busy = Signal(address(config), reset_less=True), Signal()   # of this segment
        scales, row, size = config.scale_beats, config.row_beats, config.block_tokens
        each = most(config)
        part, begin, beats, ends = Signal(Part), Signal(range(each)), Signal(range(each + 1)), Signal()

        # From the first slot on, K follows its scales; all slots of K are followed by V.
        rows, ahead, whole = Signal(range(each + 1)), Signal(), Signal()
        m.d.comb += [
            rows.eq(held.slots * row), ahead.eq(held.first == 0), whole.eq(held.slots == size),
            ends.eq((part == Part.V) | whole),
        ]
        with m.Switch(part):
            with m.Case(Part.SCALES):
                m.d.comb += begin.eq(0), beats.eq(Mux(whole, each, scales + Mux(ahead, rows, 0)))
            with m.Case(Part.K):
                m.d.comb += begin.eq(scales + held.first * row), beats.eq(rows)
            with m.Case(Part.V):
                m.d.comb += begin.eq(scales + size * row + held.first * row), beats.eq(rows)
        m.d.comb += [
            self.o.valid.eq(busy),
            self.o.payload.address.eq(at + begin), self.o.payload.beats.eq(beats),
            self.o.payload.final.eq(ends & (held.more == 0)), self.o.payload.tag.eq(held.tag),
            self.i.ready.eq(~busy),
        ]

        def start(first):
            """The first part that is read by itself: without scales, K if it does not begin the segment."""
            return Mux(first == 0, Part.SCALES, Part.SCALES if scales else Part.K)

        with m.If(self.i.ready):
            m.d.sync += [
                busy.eq(self.i.valid), held.eq(self.i.payload), part.eq(start(self.i.payload.first)),
                at.eq(Mux(self.i.payload.host, self.host_base, self.base) + self.i.payload.segment * each)]
        with m.Elif(self.o.ready & ends):
            m.d.sync += held.more.eq(held.more - 1), at.eq(at + each), part.eq(start(held.first))
            m.d.sync += busy.eq(~self.o.payload.final)
        with m.Elif(self.o.ready):
            m.d.sync += part.eq(Mux((part == Part.SCALES) & ~ahead, Part.K, Part.V))
        return m


class Tags(Block):
    """What each beat of some slots is, in the order of `Runs`. A beat a cycle, latency 1.

    Parameters
    ----------
    config : golden.config.KvCache
    tag : ShapeLike
        What goes along.

    Members
    -------
    i : In(stream.Signature(struct(first, slots, more, tag)))
    o : Out(stream.Signature(struct(part, slot, beat, strobe, first, last, tag)))
        `beat` of the row or of the scales; `strobe`: bytes that belong to these slots; `first` and `last` of an
        item.
    """

    def __init__(self, config, tag):
        self.config, self.tag = config, tag
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({**slots(config), "tag": tag}))),
            "o": Out(stream.Signature(data.StructLayout({
                "part": 2, "slot": config.slots, "beat": beats(config), "strobe": config.beat,
                "first": 1, "last": 1, "tag": tag}))),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        held, busy, fresh = Signal(self.i.payload.shape(), reset_less=True), Signal(), Signal()
        part, row = Signal(Part), Signal(config.slots)    # row: from the first slot on
        beat = Signal(beats(config))
        row_ends, part_ends, ends = Signal(), Signal(), Signal()        # row: or the scales
        m.d.comb += [
            row_ends.eq(beat == Mux(part == Part.SCALES, max(config.scale_beats, 1), config.row_beats) - 1),
            part_ends.eq(row_ends & ((part == Part.SCALES) | (row + 1 == held.slots))),
            ends.eq(part_ends & (part == Part.V)),
            self.o.valid.eq(busy),
            self.o.payload.part.eq(part),
            self.o.payload.slot.eq(Mux(part == Part.SCALES, 0, held.first + row)),
            self.o.payload.beat.eq(beat),
            self.o.payload.first.eq(fresh),
            self.o.payload.last.eq(ends & (held.more == 0)),
            self.o.payload.tag.eq(held.tag),
            self.i.ready.eq(~busy | self.o.ready & self.o.payload.last),
            self.o.payload.strobe.eq(-1),
        ]
        if config.scale_beats:
            end = Signal(range(config.block_tokens + 1))
            m.d.comb += end.eq(held.first + held.slots)
            with m.If(part == Part.SCALES):
                for n in range(config.beat // SCALE):
                    slot = Signal(range(config.scale_beats * config.beat // SCALE), name=f"slot{n}")
                    m.d.comb += slot.eq(beat * (config.beat // SCALE) + n)
                    m.d.comb += self.o.payload.strobe.word_select(n, SCALE).eq(
                        ((slot >= held.first) & (slot < end)).replicate(SCALE))

        begin = Part.SCALES if config.scale_beats else Part.K
        with m.If(self.o.ready):
            m.d.sync += fresh.eq(0), beat.eq(Mux(row_ends, 0, beat + 1))
            with m.If(row_ends):
                m.d.sync += row.eq(Mux(part_ends, 0, row + 1))
            with m.If(part_ends):
                m.d.sync += part.eq(Mux(ends, begin, Mux(part == Part.SCALES, Part.K, Part.V)))
            with m.If(ends):
                m.d.sync += held.more.eq(held.more - 1)
        with m.If(self.i.ready):
            m.d.sync += busy.eq(self.i.valid), held.eq(self.i.payload), fresh.eq(1), beat.eq(0), row.eq(0)
            m.d.sync += part.eq(begin)
        return m
