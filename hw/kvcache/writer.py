# SPDX-License-Identifier: Apache-2.0
"""New tokens: rows of K and V into memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.paging import Status
from hw.axi import Writes, writing
from hw.emit import Block
from hw.kvcache.ports import done, write
from hw.kvcache.quantizer import Quantizer
from hw.kvcache.runs import SCALE, address, most
from hw.stream import Queue

__all__ = ["Writer"]

BURST = 16      # beats


class Writer(Block):
    """Writes the rows that come in to slots: of each token K of all heads, then V of all heads.

    Parameters
    ----------
    config : golden.config.KvCache

    Members
    -------
    i : In(stream.Signature(write(config)))
    rows : In(stream.Signature(32 * config.lanes))
        FP32, `config.lanes` elements at a time.
    done : Out(done(config))
    nans : Out(range(config.lanes + 1))
        Elements that became NaN in this cycle.
    memory : Out(writing(address, beat))
    base : In(address)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(write(config))),
            "rows": In(stream.Signature(32 * config.lanes)),
            "done": Out(done(config)),
            "nans": Out(range(config.lanes + 1)),
            "memory": Out(writing(address(config), config.beat)),
            "base": In(address(config)),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        m.submodules.quantizer = quantizer = Quantizer(config.format, config.head_dim, config.lanes, config.beat)
        m.submodules.writes = writes = Writes(
            address(config), config.beat, most(config), BURST, len(self.i.payload.entry))
        m.submodules.given = given = Queue(write(config), 4)
        connect(m, flipped(self.rows), quantizer.i)
        connect(m, flipped(self.i), given.i)
        connect(m, writes.memory, flipped(self.memory))
        m.d.comb += [
            self.done.valid.eq(writes.done.valid), self.done.tag.eq(writes.done.tag),
            self.done.status.eq(Mux(writes.done.error, Status.BUS_ERR, Status.OK)),
            self.nans.eq(quantizer.nans),
        ]

        # The row in hand
        asked, row = given.o.payload, quantizer.o.payload
        slot, left = Signal(config.slots), Signal(range(config.block_tokens + 1))
        head, values = Signal(range(config.kv_heads)), Signal()             # values: V, not K
        at = Signal(address(config))                                        # of its segment
        final, entry = Signal(), Signal.like(asked.entry)
        last_head, run, beat = head == config.kv_heads - 1, writes.i.payload, writes.data.payload
        m.d.comb += final.eq((left == 1) & values & last_head), run.tag.eq(entry)
        per_beat = config.beat // SCALE

        def following():
            """The next row, or the next slots."""
            m.d.sync += head.eq(Mux(last_head, 0, head + 1)), values.eq(values ^ last_head)
            m.d.sync += at.eq(Mux(last_head, at - (config.kv_heads - 1) * most(config), at + most(config)))
            with m.If(last_head & values):
                m.d.sync += slot.eq(slot + 1), left.eq(left - 1)
            m.next = "ROW"
            with m.If(final):
                m.next = "IDLE"

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += given.o.ready.eq(1)
                m.d.sync += [
                    slot.eq(asked.first), left.eq(asked.slots), entry.eq(asked.entry), head.eq(0), values.eq(0),
                    at.eq(self.base + asked.segment * most(config))]
                with m.If(given.o.valid):
                    m.next = "ROW"
            with m.State("ROW"):
                begin = config.scale_beats + Mux(values, config.block_tokens * config.row_beats, 0)
                m.d.comb += [
                    writes.i.valid.eq(1), run.address.eq(at + begin + slot * config.row_beats),
                    run.beats.eq(config.row_beats), run.final.eq(final if not config.scale_beats else 0)]
                with m.If(writes.i.ready):
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += [
                    writes.data.valid.eq(quantizer.o.valid), beat.data.eq(row.data), beat.strobe.eq(-1),
                    quantizer.o.ready.eq(writes.data.ready & (~row.last if config.scale_beats else 1))]
                with m.If(quantizer.o.valid & writes.data.ready & row.last):
                    if config.scale_beats:
                        m.next = "SCALE"
                    else:
                        following()
            if config.scale_beats:
                with m.State("SCALE"):
                    both = Signal()
                    place = Signal(range(2 * per_beat))         # of two bytes in their beat
                    m.d.comb += [
                        place.eq(Cat(values, slot)[:ceil_log2(2 * per_beat)]),
                        both.eq(writes.i.ready & writes.data.ready),
                        writes.i.valid.eq(both), writes.data.valid.eq(both), quantizer.o.ready.eq(both),
                        run.address.eq(at + (slot >> ceil_log2(per_beat))), run.beats.eq(1), run.final.eq(final),
                        beat.data.eq(Cat(row.scale, row.checksum).replicate(2 * per_beat)),
                        beat.strobe.eq(Const(0b11, config.beat) << (place << 1))]
                    with m.If(both):
                        following()
        return m
