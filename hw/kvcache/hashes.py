# SPDX-License-Identifier: Apache-2.0
"""Cached blocks: a bucket for the hashes that end alike, with a list of its blocks, the oldest first."""

from amaranth.hdl import Mux, Signal, Value
from amaranth.utils import ceil_log2

from golden.paging import Event, Opcode, Status
from hw.kvcache.tables import ON_BLOCKS, among

__all__ = ["Hashes"]


class Hashes:
    """`COMMIT` and `LOOKUP`, and how a block is found and forgotten."""

    def _bucket(self, key):
        return Value.cast(key)[:ceil_log2(self.buckets)]

    def _find(self, m):
        """The oldest block of this tenant with hash `key`."""
        tail = Signal(range(self.config.blocks), name="bucket_tail")

        def step(block):
            m.d.comb += self.hashes.read(block), self.blocks.read(block), self.younger.read(block)
            m.d.sync += self.found.eq(block)
            m.next = "COMPARE"

        with m.State("FIND"):
            m.d.comb += self.ends.read(self._bucket(self.key))
            m.next = "BUCKET"
        with m.State("BUCKET"):
            m.d.sync += tail.eq(self.ends.row.tail)
            m.next = "MISSED"
            with m.If(self.ends.row.head != 0):
                step(self.ends.row.head)
        with m.State("COMPARE"):
            with m.If((self.hashes.row == self.key) & (self.blocks.row.tenant == self.tenant)):
                with m.Switch(self.opcode):
                    with m.Case(Opcode.ATTACH):
                        m.next = "HIT"
                    with m.Case(Opcode.LOOKUP):
                        m.next = "LOOKED"
                    with m.Default():
                        m.next = "NAMED"
            with m.Elif(self.found == tail):
                m.next = "MISSED"
            with m.Else():
                step(self.younger.row)
        with m.State("MISSED"):
            with m.Switch(self.opcode):
                with m.Case(Opcode.ATTACH):
                    self._fail(m, Status.STALE_GEN, undo=True)
                with m.Case(Opcode.LOOKUP):
                    m.d.sync += self.missed.eq(1)
                    m.next = "LOOKUP"
                with m.Default():
                    self._fail(m, Status.STALE_GEN)

    def _forget(self, m):
        """Take a block with hash `key` out of its bucket, then go on with what the command wants."""
        gone, first, last = self.gone, Signal(), Signal()
        m.d.comb += first.eq(self.ends.row.head == gone), last.eq(self.ends.row.tail == gone)
        with m.State("FORGET"):
            m.d.comb += self.ends.read(self._bucket(self.key)), self.younger.read(gone), self.older.read(gone)
            m.next = "FORGOTTEN"
        with m.State("FORGOTTEN"):
            m.d.comb += [
                self.events.valid.eq(1), self.events.payload.kind.eq(Event.REMOVED),
                self.events.payload.block.eq(gone), self.events.payload.tenant.eq(self.former),
                self.events.payload.hash.eq(self.key)]
            with m.If(self.events.ready):
                with m.If(first | last):
                    m.d.comb += self.ends.write(self._bucket(self.key), self._row(
                        m, self.ends, head=Mux(first, Mux(last, 0, self.younger.row), self.ends.row.head),
                        tail=Mux(last, Mux(first, 0, self.older.row), self.ends.row.tail)))
                with m.If(~first):
                    m.d.comb += self.younger.write(self.older.row, self.younger.row)
                with m.If(~last):
                    m.d.comb += self.older.write(self.younger.row, self.older.row)
                with m.If(among(self.opcode, ON_BLOCKS)):
                    self._done(m, Opcode.EVICT, block=gone)
                with m.Elif(self.copied & (self.got == 1)):
                    m.next = "COPY"
                with m.Elif(self.opcode == Opcode.SWAP_IN):
                    m.next = "ARRIVED"
                with m.Elif(self.need != 0):
                    m.next = "POP"
                with m.Else():
                    m.next = "GROWN"

    def _begin_commit(self, m, given, row):
        m.d.comb += self.entries.read(self._entry(self.sid, given.index))
        m.next = "COMMIT"
        with m.If(((given.index + 1) << self.shift) > row.length):
            self._fail(m, Status.OUT_OF_RANGE)

    def _commit(self, m):
        row = self.blocks.row
        with m.State("COMMIT"):
            m.d.comb += self.blocks.read(self.entries.row), self.hashes.read(self.entries.row)
            m.d.sync += self.found.eq(self.entries.row), self.key.eq(self._given(Opcode.COMMIT).hash)
            m.next = "MARK"
            with m.If(self.entries.row == 0):
                self._fail(m, Status.NULL_DEREF)
        with m.State("MARK"):
            with m.If(~row.hashed):
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, hashed=1))
                m.d.comb += self.hashes.write(self.found, self.key), self.ends.read(self._bucket(self.key))
                m.next = "STORE"
            with m.Elif(self.hashes.row == self.key):
                self._done(m, Opcode.COMMIT, block=self.found)
            with m.Else():
                self._fail(m, Status.WRITE_SHARED)
        with m.State("STORE"):
            empty = self.ends.row.head == 0
            m.d.comb += [
                self.events.valid.eq(1), self.events.payload.kind.eq(Event.STORED),
                self.events.payload.block.eq(self.found), self.events.payload.tenant.eq(self.tenant),
                self.events.payload.hash.eq(self.key)]
            with m.If(self.events.ready):
                m.d.comb += self.ends.write(self._bucket(self.key), self._row(
                    m, self.ends, head=Mux(empty, self.found, self.ends.row.head), tail=self.found))
                with m.If(~empty):
                    m.d.comb += self.younger.write(self.ends.row.tail, self.found)
                    m.d.comb += self.older.write(self.found, self.ends.row.tail)
                self._done(m, Opcode.COMMIT, block=self.found)

    def _begin_lookup(self, m, given, row):
        m.d.sync += self.need.eq(0), self.missed.eq(0)
        self._add(m, "lookups")
        self._add(m, "query_tokens", given.count << self.shift)
        m.next = "LOOKUP"

    def _lookup(self, m):
        with m.State("LOOKUP"):
            with m.If(self.left == 0):
                self._done(m, Opcode.LOOKUP, hits=self.got, idle=self.need)
            with m.Else():
                m.d.comb += self.operands.ready.eq(1)
                with m.If(self.operands.valid):
                    m.d.sync += self.left.eq(self.left - 1), self.key.eq(self.operands.payload)
                    with m.If(~self.missed):
                        m.next = "FIND"
        with m.State("LOOKED"):
            m.d.comb += self.hits.valid.eq(1), self.hits.payload.eq(self.found)
            with m.If(self.hits.ready):
                m.d.sync += self.got.eq(self.got + 1), self.need.eq(self.need + (self.blocks.row.ref == 0))
                self._add(m, "hit_tokens", self.config.block_tokens)
                m.next = "LOOKUP"
