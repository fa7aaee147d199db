# SPDX-License-Identifier: Apache-2.0
"""A head's stream taken apart: keys, values, scales."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.formats import E8M0
from golden.paging import Part
from golden.scores import Widths
from hw.arith.pipeline import register
from hw.attention.ports import Error, beat, command, length
from hw.attention.scores import row
from hw.attention.weights import head, waiting
from hw.emit import Block
from hw.ram import Ram
from hw.stream import RamQueue

__all__ = ["HEADS", "Intake", "final", "values"]

HEADS = 4           # that may be under way
RELEASE = 10        # cycles after which no part needs a head's queries


def final():
    """How a head's stream ended."""
    return data.StructLayout({"tag": 8, "error": Error})


def values(kv):
    """A beat of a row of values: of which token of a group, in which slot; `closes` the group, with it or without."""
    widths = Widths(kv)
    return data.StructLayout({"valid": 1, "slot": range(widths.slots), "token": range(widths.tokens),
                              "beat": range(max(kv.row_beats, 2)), "closes": 1})


class Intake(Block):
    """Takes streams beat by beat as long as there is room, and tells what each is; then the next head's.

    A stream that ends early has its groups closed as they are; what a stream has too much is left out.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int

    Members
    -------
    commands : In(stream.Signature(command(kv, group))), beats : In(stream.Signature(beat(kv)))
    loads : Out(stream.Signature(range(group + 1))), full : In(2), release : Out(1)
        Of `Queries`.
    heads : Out(stream.Signature(head(group)))
    finals : Out(stream.Signature(final()))
    leaves : In(1)
        A head is done.
    retired : In(1), freed : In(1)
        A token's score, a group's values are no longer needed.
    takes_key : Out(1)
        In the next cycle there is a beat of keys.
    data : Out(8 * kv.beat), values : Out(values(kv))
    key : Out(1), key_beat : Out(range(row_beats)), a bit at least, key_slot : Out(1)
        With `data`.
    row : Out(row(kv, group))
        A cycle later, but for `bad`, which tells of the scales alone.
    error : Out(Error), error_tag : Out(8), clear : In(1)
    """

    def __init__(self, kv, group):
        self.kv, self.queries, self.widths = kv, group, Widths(kv)
        super().__init__({
            "commands": In(stream.Signature(command(kv, group))), "beats": In(stream.Signature(beat(kv))),
            "loads": Out(stream.Signature(range(group + 1))), "full": In(2), "release": Out(1),
            "heads": Out(stream.Signature(head(group))), "finals": Out(stream.Signature(final())),
            "leaves": In(1), "retired": In(1), "freed": In(1), "takes_key": Out(1),
            "data": Out(8 * kv.beat), "values": Out(values(kv)),
            "key": Out(1), "key_beat": Out(range(max(kv.row_beats, 2))), "key_slot": Out(1), "row": Out(row(kv, group)),
            "error": Out(Error), "error_tag": Out(8), "clear": In(1)})

    def elaborate(self, platform):
        m, kv, widths, group = Module(), self.kv, self.widths, self.queries
        size, depth = widths.tokens, waiting(kv)

        # The next command waits for its queries, whose load it begins: until it is taken, an older head has the slot.
        m.submodules.asked = asked = RamQueue(command(kv, group), 2)
        connect(m, flipped(self.commands), asked.i)
        next, now, loading, refused = asked.o.payload, Signal(command(kv, group)), Signal(), Signal()
        begins = Signal()
        m.d.comb += [
            refused.eq(~next.queries.matches(*range(1, group + 1))), asked.o.ready.eq(begins),
            self.loads.payload.eq(next.queries), self.loads.valid.eq(asked.o.valid & ~refused & ~loading),
        ]
        m.d.sync += loading.eq((loading | self.loads.valid & self.loads.ready) & ~begins)

        # Heads under way
        m.submodules.begun = begun = RamQueue(head(group), HEADS)
        m.submodules.ended = ended = RamQueue(final(), HEADS)
        connect(m, begun.o, flipped(self.heads))
        connect(m, ended.o, flipped(self.finals))
        heads, turn, error, ends, can, done = (
            Signal(range(HEADS + 1)), Signal(), Signal(Error), Signal(Error), Signal(), Signal())
        m.d.comb += [
            can.eq(asked.o.valid & (heads != HEADS) & (refused | loading & self.full.bit_select(turn, 1))),
            begun.i.valid.eq(begins), begun.i.payload.part.eq(next.part),
            begun.i.payload.sink.eq(next.sink),
            begun.i.payload.sink_valid.eq(Mux(refused, 0, next.sink_valid & (1 << next.queries) - 1)),
            ended.i.valid.eq(done), ended.i.payload.tag.eq(now.tag), ended.i.payload.error.eq(ends),
        ]
        m.d.sync += heads.eq(heads + begins - self.leaves)

        # The stream of the one in hand
        beat, accept, fits = self.beats.payload, Signal(), Signal()
        counts = Signal(length(kv), name="keys"), Signal(length(kv), name="rows")   # tokens that have come
        key, value = Signal(range(size)), Signal(range(size))               # likewise, of their groups
        at, of_row = Signal(range(max(kv.row_beats, kv.scale_beats, 2))), Signal()
        closed, ahead, slot = Signal(), Signal(range(kv.block_tokens // size + 3)), Signal(range(widths.slots))
        is_key, is_value, ends_row, key_closes, value_closes, empty, last_key, last_value = (
            Signal(name=name) for name in ("is_key", "is_value", "ends_row", "key_closes", "value_closes", "empty",
                                           "last_key", "last_value"))
        waits, groups = Signal(range(depth + 1)), Signal(range(widths.slots + 1))
        m.d.comb += [
            fits.eq((waits < depth - 1) & (groups != widths.slots)), accept.eq(self.beats.valid & self.beats.ready),
            of_row.eq(beat.part != Part.SCALES), ends_row.eq(of_row & (at == kv.row_beats - 1)),
            last_key.eq(counts[0] + 1 == now.tokens), last_value.eq(counts[1] + 1 == now.tokens),
            ends.eq(Mux((error == Error.NONE) & accept & beat.error, Error.DATA, error)),
        ]

        def leave():
            m.d.comb += done.eq(1), begins.eq(can)
            m.next = "HEAD"
            enter()

        def enter():
            with m.If(begins):
                m.next = "STREAM"
                with m.If(next.tokens == 0):
                    m.next = "CLOSE"

        def stop(state):
            m.d.sync += error.eq(Mux(error == Error.NONE, Error.LENGTH, error))
            m.next = state

        with m.FSM():
            with m.State("HEAD"):
                m.d.comb += begins.eq(can)
                enter()
            with m.State("STREAM"):
                m.d.comb += [
                    self.beats.ready.eq(fits),
                    is_key.eq(accept & (beat.part == Part.K) & ~closed), is_value.eq(accept & (beat.part == Part.V)),
                    key_closes.eq(is_key & ends_row & (last_key | (key == size - 1))),
                    value_closes.eq(is_value & ends_row & (last_value | (value == size - 1))),
                ]
                with m.If(accept):
                    m.d.sync += at.eq(Mux(ends_row | ~of_row & (at == kv.scale_beats - 1), 0, at + 1)), error.eq(ends)
                with m.If(is_value & ends_row & last_value):
                    with m.If(beat.last):
                        leave()
                    with m.Else():
                        stop("LEAVE_OUT")
                with m.Elif(accept & beat.last):
                    stop("CLOSE")
            with m.State("LEAVE_OUT"):
                m.d.comb += self.beats.ready.eq(1)
                with m.If(accept & beat.last):
                    leave()
            with m.State("CLOSE"):
                m.d.comb += [
                    key_closes.eq(~closed & fits), empty.eq(key_closes & (key == 0)), last_key.eq(1),
                    value_closes.eq(closed & (ahead != 0) & fits),
                ]
                with m.If(closed & (ahead == 0)):
                    leave()

        key_ends, value_ends = is_key & ends_row, is_value & ends_row
        m.d.sync += [
            counts[0].eq(counts[0] + key_ends), counts[1].eq(counts[1] + value_ends),
            key.eq(Mux(key_closes, 0, key + key_ends)), value.eq(Mux(value_closes, 0, value + value_ends)),
            closed.eq(closed | key_closes & last_key), ahead.eq(ahead + key_closes - value_closes),
            slot.eq(slot + value_closes), groups.eq(groups + value_closes - self.freed),
            waits.eq(waits + (key_ends | empty) - self.retired),
        ]
        with m.If(begins):
            m.d.sync += [
                now.eq(next), error.eq(Mux(refused, Error.COMMAND, Error.NONE)), turn.eq(turn ^ ~refused),
                *(each.eq(0) for each in (*counts, key, value, at, closed, ahead)),
            ]
            with m.If(refused):
                m.d.sync += now.queries.eq(0)

        # Its queries are needed as long as a key is under way.
        releases = Signal(RELEASE)
        m.d.sync += releases.eq(Cat(done & (now.queries != 0), releases))
        m.d.comb += self.release.eq(releases[-1])

        with m.If(self.clear):
            m.d.sync += self.error.eq(Error.NONE)
        with m.Elif(done & (ends != Error.NONE) & (self.error == Error.NONE)):
            m.d.sync += self.error.eq(ends), self.error_tag.eq(now.tag)

        # What the beat is, a cycle later
        seen = [(counts[0] < now.end[g]) & ((counts[0] >= now.first[g]) | (counts[0] < now.sinks)) & (g < now.queries)
                for g in range(group)]
        of_key, of_value = Signal(row(kv, group)), self.values
        m.d.comb += self.takes_key.eq(is_key)
        m.d.sync += [
            self.key.eq(is_key), self.key_beat.eq(at), self.key_slot.eq(~turn),
            of_key.valid.eq(is_key), of_key.starts.eq(at == 0), of_key.ends.eq(ends_row), of_key.seen.eq(Cat(seen)),
            of_key.closes.eq(key_closes), of_key.count.eq(key + key_ends), of_key.ends_head.eq(last_key),
            of_key.slot.eq(~turn),
            of_value.valid.eq(is_value), of_value.slot.eq(slot), of_value.token.eq(value), of_value.beat.eq(at),
            of_value.closes.eq(value_closes),
        ]
        m.d.comb += self.data.eq(register(m, beat.data, "data_held"))

        # Scales are kept for the block's keys; theirs come with the row.
        later = Signal(row(kv, group))
        m.d.sync += later.eq(of_key)
        m.d.comb += self.row.eq(later)
        if kv.scale_beats:
            self._scales(m, accept & ~of_row, at, beat.slot)
        return m

    def _scales(self, m, takes, at, slot):
        """The scales of a block's slots, two bytes of four each."""
        kv, o = self.kv, self.row
        count = kv.beat // 4
        m.submodules.scales = scales = Ram(16 * count, max(kv.scale_beats, 2))
        bits = ceil_log2(count)
        slot = register(m, slot, "slot_held")
        pair = scales.read_data.word_select(register(m, slot[:bits], "slot_kept"), 16)
        m.d.comb += [
            scales.write_en.eq(register(m, takes, "takes_scales")),
            scales.write_address.eq(register(m, at, "scales_at")),
            scales.write_data.eq(Cat(self.data[32 * n + 16 * half:32 * n + 16 * half + 8]
                                     for n in range(count) for half in range(2))),
            scales.read_en.eq(1), scales.read_address.eq(slot[bits:]),
            o.k_scale.eq(pair[:8]), o.v_scale.eq(pair[8:]),
            o.bad.eq((pair[:8] == E8M0.nan) | (pair[8:] == E8M0.nan)),
        ]
