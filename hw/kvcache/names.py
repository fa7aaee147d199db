# SPDX-License-Identifier: Apache-2.0
"""Single blocks, by number or by hash."""

from golden.paging import Opcode, Status

__all__ = ["Names"]


class Names:
    """`PIN`, `UNPIN` and `EVICT`."""

    def _begin_named(self, m, given):
        m.d.comb += self.blocks.read(given.block), self.hashes.read(given.block)
        m.d.sync += self.found.eq(given.block), self.key.eq(given.hash)
        with m.If(given.by_hash != 0):
            m.next = "FIND"
        with m.Elif(given.block >= self.pool):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(given.block == 0):
            self._fail(m, Status.NULL_DEREF)
        with m.Else():
            m.next = "NAMED"

    def _named(self, m):
        row = self.blocks.row
        held, block, newer = self.inject
        with m.State("NAMED"):
            m.d.sync += self.key.eq(self.hashes.row), self.gone.eq(self.found), self.former.eq(row.tenant)
            with m.If(self._foreign(row)):
                self._fail(m, Status.XSEQ)
            with m.Elif((self.opcode != Opcode.UNPIN) & ~row.hashed):
                self._fail(m, Status.STALE_GEN)
            with m.Elif(self.opcode == Opcode.EVICT):
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, hashed=0))
                m.next = "FORGET"
            with m.Elif(self.opcode == Opcode.UNPIN):
                m.d.comb += self.blocks.read(self.found)
                m.d.sync += held.eq(1), block.eq(self.found), newer.eq(0), self.unpins.eq(1)
                m.d.sync += self.index.eq(0), self.end.eq(0)
                m.next = "WALK"
                with m.If(~row.pinned):
                    m.d.sync += held.eq(0), self.unpins.eq(0)
                    self._fail(m, Status.DOUBLE_FREE)
            with m.Elif(row.pinned | row.ref.all()):
                self._fail(m, Status.REF_OVERFLOW)
            with m.Else():
                m.d.comb += self.blocks.write(self.found, self._row(
                    m, self.blocks, row, ref=row.ref + 1, pinned=1, listed=0))
                m.d.comb += self.next.read(self.found), self.prev.read(self.found)
                m.next = "PINNED"
        with m.State("PINNED"):
            with m.If(row.listed):
                self._unlink(m, self.found)
            self._done(m, Opcode.PIN, block=self.found)
