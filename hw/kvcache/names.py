# SPDX-License-Identifier: Apache-2.0
"""Single blocks, by number or by hash."""

from amaranth.hdl import Signal

from golden.paging import Opcode, Status

__all__ = ["Names"]


class Names:
    """`PIN`, `UNPIN` and `EVICT`."""

    def _begin_named(self, m, given):
        """The block is read; one that is named by its hash may be further down the bucket's list."""
        row, ends, by_hash, same = self.blocks.row, self.ends.row, given.by_hash != 0, Signal()
        m.d.comb += same.eq(self._same(row, given.hash[:self.config.hash_bits]))
        m.d.sync += self.key.eq(self.hashes.row), self.gone.eq(self.found), self.former.eq(row.tenant)
        with m.If(by_hash & ((self.found == 0) | ~same & (self.found == ends.tail))):
            self._fail(m, Status.STALE_GEN)
        with m.Elif(by_hash & ~same):
            self._probe(m, self.younger.row)
        with m.Elif(~by_hash & (given.block >= self.pool)):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(~by_hash & (given.block == 0)):
            self._fail(m, Status.NULL_DEREF)
        with m.Elif(self._foreign(row)):
            self._fail(m, Status.XSEQ)
        with m.Elif((self.opcode != Opcode.UNPIN) & ~row.hashed):
            self._fail(m, Status.STALE_GEN)
        with m.Elif(self.opcode == Opcode.EVICT):
            m.d.comb += [*self.blocks.write(self.found, self._row(m, self.blocks, row, hashed=0)),
                         *self.ends.read(self._bucket(self.hashes.row)), *self.younger.read(self.found),
                         *self.older.read(self.found)]
            m.next = "FORGOTTEN"
        with m.Elif(self.opcode == Opcode.UNPIN):
            m.d.comb += self.blocks.read(self.found)
            m.d.sync += self.holds.eq(1), self.block.eq(self.found), self.newer.eq(0), self.unpins.eq(1)
            m.next = "WALK"
            with m.If(~row.pinned):
                m.d.sync += self.holds.eq(0), self.unpins.eq(0)
                self._fail(m, Status.DOUBLE_FREE)
        with m.Elif(row.pinned | row.ref.all()):
            self._fail(m, Status.REF_OVERFLOW)
        with m.Else():
            m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, ref=row.ref + 1, pinned=1))
            m.next = "PINNED"

    def _named(self, m):
        with m.State("PINNED"):
            with m.If(self.blocks.row.ref == 0):
                self._unlink(m, self.found, self.prev.row, self.next.row)
            self._done(m, Opcode.PIN, block=self.found)
