# SPDX-License-Identifier: Apache-2.0
"""Single blocks, by number or by hash."""

from amaranth.hdl import Mux, Signal

from golden.paging import Event, Opcode, Status

__all__ = ["Names"]


class Names:
    """`PIN`, `UNPIN` and `EVICT`."""

    def _begin_named(self, m, given):
        """The block is read: what speaks against it, or whether it is further down the bucket's list."""
        row, by_hash, same, last = self.blocks.row, given.by_hash != 0, Signal(), Signal()
        m.d.comb += [
            same.eq(self._same(row, given.hash[:self.config.hash_bits])),
            last.eq((self.found == 0) | (self.found == self.ends.row.tail)),
            *self.ends.read(self._bucket(self.hashes.row)), *self.older.read(self.found)]
        status = Mux(self._foreign(row), Status.XSEQ, Mux(
            (self.opcode != Opcode.UNPIN) & ~row.hashed, Status.STALE_GEN, Mux(
                (self.opcode == Opcode.UNPIN) & ~row.pinned, Status.DOUBLE_FREE, Mux(
                    (self.opcode == Opcode.PIN) & (row.pinned | row.ref.all()), Status.REF_OVERFLOW, Status.OK))))
        m.d.sync += [
            self.key.eq(self.hashes.row), self.gone.eq(self.found), self.former.eq(row.tenant),
            self.further.eq(by_hash & ~same & ~last), self.lost.eq(by_hash & (~same | (self.found == 0))),
            self.objection.eq(Mux(by_hash, status, Mux(
                given.block >= self.pool, Status.OUT_OF_RANGE, Mux(given.block == 0, Status.NULL_DEREF, status))))]
        m.next = "NAMED"

    def _named(self, m):
        row = self.blocks.row
        with m.State("NAMED"):
            with m.If(self.further):
                self._probe(m, self.younger.row)
                m.next = "BEGIN"
            with m.Elif(self.lost):
                self._fail(m, Status.STALE_GEN)
            with m.Elif(self.objection != Status.OK):
                self._fail(m, self.objection)
            with m.Elif(self.opcode == Opcode.EVICT):
                with m.If(self._tell(m, Event.REMOVED, block=self.gone, tenant=self.former, hash=self.key)):
                    m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, hashed=0))
                    self._leave(m)
                    self._done(m, Opcode.EVICT, block=self.found)
            with m.Elif(self.opcode == Opcode.UNPIN):
                m.d.sync += self.holds.eq(1), self.block.eq(self.found), self.newer.eq(0), self.unpins.eq(1)
                m.d.comb += self.blocks.read(self.found)
                self._done(m, Opcode.UNPIN, then="WALK", block=self.found)
            with m.Else():
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, ref=row.ref + 1, pinned=1))
                with m.If(row.ref == 0):
                    self._unlink(m, self.found, self.prev.row, self.next.row)
                self._done(m, Opcode.PIN, block=self.found)
