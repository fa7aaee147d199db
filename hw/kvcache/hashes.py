# SPDX-License-Identifier: Apache-2.0
"""Cached blocks: a bucket for the hashes that end alike, with a list of its blocks, the oldest first."""

from amaranth.hdl import Mux, Value
from amaranth.lib.wiring import connect, flipped
from amaranth.utils import ceil_log2

from golden.paging import Event, Opcode, Status
from hw.kvcache.ports import event
from hw.stream import Buffer

__all__ = ["Hashes"]


class Hashes:
    """`COMMIT`, and how a block is forgotten."""

    def _bucket(self, key):
        return Value.cast(key)[:ceil_log2(self.buckets)]

    def _probe(self, m, block):
        """Read all about a block."""
        m.d.comb += [rows.read(block) for rows in (self.blocks, self.hashes, self.younger, self.next, self.prev)]
        m.d.sync += self.found.eq(block)

    def _same(self, row, key):
        """Whether a block of a bucket that was read has this hash, and is the tenant's."""
        return (self.hashes.row == key) & (row.tenant == self.tenant)

    def _tell(self, m, kind, **fields):
        """Emit an event; whether there is room for it."""
        m.d.comb += self.told.i.valid.eq(1), self.told.i.payload.kind.eq(kind)
        m.d.comb += [self.told.i.payload[name].eq(value) for name, value in fields.items()]
        return self.told.i.ready

    def _listen(self, m):
        m.submodules.told = self.told = Buffer(event(self.config))
        connect(m, self.told.o, flipped(self.events))

    def _leave(self, m):
        """Take the block that is `gone`, with hash `key`, out of its bucket."""
        first, last = self.ends.row.head == self.gone, self.ends.row.tail == self.gone
        with m.If(first | last):
            m.d.comb += self.ends.write(self._bucket(self.key), self._row(
                m, self.ends, head=Mux(first, Mux(last, 0, self.younger.row), self.ends.row.head),
                tail=Mux(last, Mux(first, 0, self.older.row), self.ends.row.tail)))
        with m.If(~first):
            m.d.comb += self.younger.write(self.older.row, self.younger.row)
        with m.If(~last):
            m.d.comb += self.older.write(self.younger.row, self.older.row)

    def _forget(self, m):
        """A block is no longer cached; go on with what the command wants."""
        with m.State("FORGOTTEN"), m.If(self._tell(
                m, Event.REMOVED, block=self.gone, tenant=self.former, hash=self.key)):
            self._leave(m)
            with m.If(self.copied & (self.got == 1)):
                m.next = "COPY"
            with m.Elif(self.opcode == Opcode.SWAP_IN):
                m.next = "ARRIVED"
            with m.Elif(self.need != 0):
                m.next = "POP"
            with m.Elif(self.got == 0):     # an append in place, that was done at once
                m.next = "IDLE"
            with m.Else():
                m.next = "GROWN"

    def _begin_commit(self, m, given, row):
        block, ends, empty = self.blocks.row, self.ends.row, self.ends.row.head == 0
        key = given.hash[:self.config.hash_bits]
        with m.If(self.beyond):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(self.found == 0):
            self._fail(m, Status.NULL_DEREF)
        with m.Elif(block.hashed):
            m.d.sync += self.lost.eq(self.hashes.row != key)
            m.next = "AGAIN"
        with m.Else(), m.If(self._tell(m, Event.STORED, block=self.found, tenant=self.tenant, hash=key)):
            m.d.comb += [
                *self.blocks.write(self.found, self._row(m, self.blocks, block, hashed=1)),
                *self.hashes.write(self.found, key),
                *self.ends.write(self._bucket(key), self._row(
                    m, self.ends, head=Mux(empty, self.found, ends.head), tail=self.found))]
            with m.If(~empty):
                m.d.comb += self.younger.write(ends.tail, self.found), self.older.write(self.found, ends.tail)
            self._done(m, Opcode.COMMIT, block=self.found)

    def _commit(self, m):
        with m.State("AGAIN"):
            with m.If(self.lost):
                self._fail(m, Status.WRITE_SHARED)
            with m.Else():
                self._done(m, Opcode.COMMIT, block=self.found)
