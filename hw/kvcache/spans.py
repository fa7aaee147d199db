# SPDX-License-Identifier: Apache-2.0
"""Slots in the order of attention."""

from amaranth.hdl import Mux, Signal, signed

from golden.paging import LENGTH, Opcode, Status

__all__ = ["Spans"]


class Spans:
    """`STREAM` and `WRITE`."""

    def _measure(self, m, row):
        """Which slots are meant, from the row as it comes out of its table."""
        given, write = self._given(Opcode.STREAM), self._given(Opcode.WRITE)
        writes = self.opcode == Opcode.WRITE
        ahead, rest = Signal(signed(LENGTH + 2)), Signal(signed(LENGTH + 2))
        first, count = Mux(writes, write.first, given.first), Mux(writes, write.count, given.count)
        m.d.comb += ahead.eq(row.length - count), rest.eq(row.length - first)       # of the last ones; of all
        m.d.sync += self.rest.eq(rest)
        with m.If(~writes & given.window):
            m.d.sync += [self.first.eq(Mux(ahead < 0, 0, ahead)), self.slots.eq(Mux(ahead < 0, row.length, count)),
                         self.rest.eq(row.length)]
        with m.Else():
            m.d.sync += self.first.eq(first), self.slots.eq(Mux(writes | (count != 0), count, Mux(rest < 0, 0, rest)))

    def _begin_stream(self, m, given, row):
        config = self.config
        with m.If(row.inflight.all()):
            self._fail(m, Status.BUSY)
        with m.Elif((given.layer >= config.layers) | (given.heads == 0) | (given.heads >> config.kv_heads != 0)):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(given.window & (given.count == 0)):
            self._fail(m, Status.BAD_CFG)
        with m.Else():
            self._span(m, Mux(given.sinks < self.first, given.sinks, self.first), row.holes)

    def _begin_write(self, m, given, row):
        with m.If(given.layer >= self.config.layers):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Else():
            self._span(m, 0, 1)

    def _span(self, m, sinks, checks):
        """Go through `sinks` slots and the ones from `first` on, once for each head; ahead of that once more,
        where an entry may be refused."""
        m.d.sync += [self.sinks.eq(sinks), self.checks.eq(checks),
                     self.heads.eq(self._given(Opcode.STREAM).heads), self.beats.eq(0)]
        m.next = "SPAN"
        with m.If((self.slots == 0) | (self.slots > self.rest)):
            self._fail(m, Status.OUT_OF_RANGE)

    def _stream(self, m):
        config, row, size = self.config, self.blocks.row, self.config.block_tokens
        at, left, leads = Signal.like(self.sinks), Signal.like(self.sinks), Signal()
        slot, slots, end = Signal(range(size)), Signal(range(size + 1)), Signal()
        block, given = self.ranges.payload.block, self._given(Opcode.STREAM)    # WRITE begins as STREAM does
        writes, opens = self.opcode == Opcode.WRITE, Signal()
        remaining = Signal(config.kv_heads)                                     # heads after this one
        m.d.comb += [
            slot.eq(at[:self.shift] if self.shift else 0),
            slots.eq(Mux(left < size - slot, left, size - slot)),
            end.eq(~leads & (left == slots)),
            remaining.eq(Mux(writes, 0, self.heads & (self.heads - 1))),
            self.ranges.payload.block.eq(self.entries.row), self.ranges.payload.first.eq(slot),
            self.ranges.payload.slots.eq(slots), self.ranges.payload.write.eq(writes),
            self.ranges.payload.sid.eq(self.sid), self.ranges.payload.layer.eq(given.layer),
            self.ranges.payload.opens.eq(opens), self.ranges.payload.closes.eq(end),
            self.ranges.payload.end.eq(end & (remaining == 0))]
        each = 2 * config.row_beats
        total = Signal.like(self.beats)
        m.d.comb += total.eq(self.beats * Mux(writes, config.kv_heads, 1))

        def advance():
            m.d.sync += at.eq(at + slots), left.eq(left - slots), opens.eq(0)
            m.next = "SLOTS"
            with m.If(left == slots):
                m.d.sync += at.eq(self.first), left.eq(self.slots), leads.eq(0)
                with m.If(~leads):
                    m.d.sync += self.checks.eq(0)
                    m.next = "SPAN"
                    with m.If(~self.checks):
                        m.d.sync += self.heads.eq(remaining)
                        with m.If(remaining == 0):
                            m.next = "SPANNED"

        with m.State("SPAN"):
            m.d.sync += [opens.eq(1), leads.eq(self.sinks != 0), at.eq(Mux(self.sinks != 0, 0, self.first)),
                         left.eq(Mux(self.sinks != 0, self.sinks, self.slots))]
            m.next = "SLOTS"
        with m.State("SLOTS"):
            m.d.comb += self.entries.read(self._entry(self.sid, at >> self.shift))
            m.next = "RANGE"
        with m.State("RANGE"):
            for head in reversed(range(config.kv_heads)):
                with m.If(self.heads[head]):
                    m.d.comb += self.ranges.payload.head.eq(head)       # the lowest
            with m.If(~self.checks):
                m.d.comb += self.ranges.valid.eq(1)
                with m.If(self.ranges.ready):
                    m.d.sync += self.beats.eq(self.beats + config.scale_beats + slots * each)
                    advance()
            with m.Elif(block == 0):
                self._fail(m, Status.NULL_DEREF)
            with m.Elif(writes):
                m.d.comb += self.blocks.read(block)
                m.next = "ALONE"
            with m.Else():
                advance()
        with m.State("ALONE"):
            with m.If((row.ref > 1) | row.hashed):
                self._fail(m, Status.WRITE_SHARED)
            with m.Else():
                advance()
        with m.State("SPANNED"):
            with m.If(~writes):
                m.d.comb += self.sequences.write(self.sid, self._row(
                    m, self.sequences, self.seq, inflight=self.seq.inflight + 1))
                self._add(m, "stream_beats", total)
            self._done(m, Opcode.STREAM, beats=total)
