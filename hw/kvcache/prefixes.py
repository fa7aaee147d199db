# SPDX-License-Identifier: Apache-2.0
"""Cached blocks for a new sequence, all or none."""

from amaranth.hdl import Signal

from golden.paging import Opcode, Status

__all__ = ["Prefixes"]


class Prefixes:
    """`ATTACH`."""

    def _begin_attach(self, m, given, row):
        total, entries = Signal(26), Signal(26)
        m.d.comb += [total.eq(row.length + given.tokens + (given.count << self.shift)),
                     entries.eq(self._entries(row.length))]
        m.d.sync += [self.length.eq(total), self.need.eq(self._entries(total) - entries - given.count),
                     self.index.eq(entries), self.end.eq(entries), self.idle.eq(0)]
        m.next = "ATTACH"
        with m.If(self._waste(row.length) != 0):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(self._entries(total) > self.config.table):
            self._fail(m, Status.OUT_OF_SEQ_TABLE)

    def _attach(self, m):
        """Entries beyond the length are nobody's: hits wait there until all of them are known to be sound.

        References are taken at once, and given back if one is not; blocks leave the free list at the end.
        """
        row, given, step = self.blocks.row, self._given(Opcode.ATTACH), self.step
        with m.State("ATTACH"):
            block = self.operands.payload[:16]
            with m.If(self.left == 0):
                m.next = "FITS"
            with m.Elif(self.operands.valid):
                m.d.comb += self.operands.ready.eq(1)
                m.d.comb += self.blocks.read(block)
                m.d.sync += self.left.eq(self.left - 1), self.key.eq(self.operands.payload)
                m.next = "FIND"
                with m.If(~given.by_hash):
                    m.d.sync += self.found.eq(block)
                    m.next = "HIT"
                    with m.If(block == 0):
                        m.d.comb += self.entries.write(self._entry(self.sid, self.index), 0)
                        m.d.sync += self.index.eq(self.index + 1), self.seq.holes.eq(1)
                        m.next = "ATTACH"
                    with m.Elif(block >= self.pool):
                        self._fail(m, Status.OUT_OF_RANGE, undo=True)
        with m.State("HIT"):
            with m.If(self._foreign(row)):
                self._fail(m, Status.XSEQ, undo=True)
            with m.Elif(~row.hashed):
                self._fail(m, Status.STALE_GEN, undo=True)
            with m.Elif(row.ref.all()):
                self._fail(m, Status.REF_OVERFLOW, undo=True)
            with m.Else():
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, ref=row.ref + 1))
                m.d.comb += self.entries.write(self._entry(self.sid, self.index), self.found)
                m.d.sync += self.index.eq(self.index + 1), self.idle.eq(self.idle + (row.ref == 0))
                m.next = "ATTACH"
        with m.State("FITS"):
            short = Signal(18)
            m.d.comb += short.eq(self.need + self.idle)
            m.d.sync += step.eq(self.end)
            with m.If(short > self.count):
                self._fail(m, Status.OUT_OF_BLOCKS, (short - self.count)[:18], undo=True)
            with m.Elif(self.idle != 0):
                m.next = "LEAVE"
            with m.Elif(self.need != 0):
                m.next = "POP"
            with m.Else():
                m.next = "GROWN"
        with m.State("LEAVE"):
            m.d.comb += self.entries.read(self._entry(self.sid, step))
            m.next = "LEAVING"
            with m.If(step == self.index):
                m.next = "GROWN"
                with m.If(self.need != 0):
                    m.next = "POP"
        with m.State("LEAVING"):
            block = self.entries.row
            m.d.comb += self.blocks.read(block), self.next.read(block), self.prev.read(block)
            m.d.sync += self.found.eq(block), step.eq(step + 1)
            m.next = "LEFT"
        with m.State("LEFT"):
            with m.If((self.found != 0) & row.listed):
                self._unlink(m, self.found)
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, listed=0))
            m.next = "LEAVE"

    def _undo(self, m):
        """Give back the references of entries `end` to `index`."""
        row = self.blocks.row
        with m.State("UNDO"):
            m.d.comb += self.entries.read(self._entry(self.sid, self.index - 1))
            m.d.sync += self.index.eq(self.index - 1)
            m.next = "UNDOING"
            with m.If(self.index == self.end):
                m.next = "DRAIN"
        with m.State("UNDOING"):
            m.d.comb += self.blocks.read(self.entries.row)
            m.d.sync += self.found.eq(self.entries.row)
            m.next = "UNDONE"
        with m.State("UNDONE"):
            with m.If(self.found != 0):
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, ref=row.ref - 1))
            m.next = "UNDO"
