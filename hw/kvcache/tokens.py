# SPDX-License-Identifier: Apache-2.0
"""New tokens: slots in the last block, or in new ones off the free list."""

from amaranth.hdl import Mux, Signal

from golden.paging import Move, Opcode, State, Status

__all__ = ["Tokens"]


class Tokens:
    """`APPEND`, and how all commands take new blocks."""

    def _too_long(self):
        """Whether a sequence's table has too few entries for its new length."""
        return self.length > self.config.table * self.config.block_tokens

    def _begin_append(self, m, given, row):
        tailed = Signal()
        m.d.comb += tailed.eq((given.tokens != 0) & (self._waste(row.length) != 0))
        m.d.comb += self.blocks.read(self.entries.row), self.hashes.read(self.entries.row)
        m.d.sync += [self.last.eq(self.entries.row), self.need.eq(self._entries(self.length) - self.held),
                     self.tailed.eq(tailed)]
        m.next = "HELD"
        with m.If(self._too_long()):
            self._fail(m, Status.OUT_OF_SEQ_TABLE)
        with m.Elif(tailed & (self.entries.row == 0)):
            self._fail(m, Status.NULL_DEREF)

    def _append(self, m):
        """The last block is not full: may it be written in place?"""
        row, shared, short, lacking = self.blocks.row, Signal(), Signal(), Signal(16)
        m.d.comb += [
            shared.eq(self.tailed & (row.ref > 1)),
            short.eq(Mux(shared, self.need >= self.count, self.need > self.count)),
            lacking.eq(Mux(shared, self.need - self.count + 1, self.need - self.count)),
        ]
        with m.State("HELD"):
            m.d.comb += [*self.ends.read(self._bucket(self.hashes.row)), *self.younger.read(self.last),
                         *self.older.read(self.last)]
            m.d.sync += [self.copied.eq(shared), self.key.eq(self.hashes.row), self.gone.eq(self.last),
                         self.former.eq(row.tenant)]
            with m.If(short):
                self._fail(m, Status.OUT_OF_BLOCKS, lacking)
            with m.Elif(shared):
                m.d.comb += self.blocks.write(self.last, self._row(m, self.blocks, row, ref=row.ref - 1))
                m.d.sync += self.need.eq(self.need + 1), self.index.eq(self.index - 1)
                m.next = "POP"
            with m.Else():
                with m.If(self.need == 0):
                    self._grown(m)
                with m.Else():
                    m.next = "POP"
                with m.If(self.tailed & row.hashed):
                    m.d.comb += self.blocks.write(self.last, self._row(m, self.blocks, row, hashed=0))
                    m.next = "FORGOTTEN"

    def _grown(self, m):
        """Store the new length; the command is done."""
        seq = self.seq
        with m.If(self.length != seq.length):
            m.d.comb += self.sequences.write(self.sid, self._row(
                m, self.sequences, seq, length=self.length, state=State.RUNNING))
        self._wastes(m, self._waste(self.length), self._waste(seq.length))
        self._done(m, Opcode.APPEND, blocks=self.got, copied=self.copied)

    def _pop(self, m):
        """Take `need` blocks off the free list, for the entries from `index` on."""
        config, row = self.config, self.blocks.row
        with m.State("POP"):
            m.d.comb += [rows.read(self.head) for rows in (
                self.next, self.blocks, self.hashes, self.younger, self.older)]
            m.next = "POPPED"
        with m.State("POPPED"):
            m.d.comb += [
                *self.blocks.write(self.head, self._row(m, self.blocks, ref=1, tenant=self.tenant)),
                *self.entries.write(self._entry(self.sid, self.index), self.head),
                *self.ends.read(self._bucket(self.hashes.row))]
            m.d.sync += [
                self.found.eq(self.head), self.head.eq(self.next.row), self.count.eq(self.count - 1),
                self.index.eq(self.index + 1), self.need.eq(self.need - 1), self.got.eq(self.got + 1),
                self.key.eq(self.hashes.row), self.gone.eq(self.head), self.former.eq(row.tenant)]
            self._add(m, "allocs")
            with m.If(self.copied & (self.got == 0)):
                m.next = "COPY"
            with m.Elif(self.opcode == Opcode.SWAP_IN):
                m.next = "ARRIVED"
            with m.Elif(self.need != 1):
                m.next = "POP"
            with m.Else():
                m.next = "GROWN"
            with m.If(row.hashed):
                self._add(m, "evictions")
                m.next = "FORGOTTEN"
        with m.State("COPY"):
            slots = self.seq.length[:self.shift] if self.shift else 0
            m.d.comb += [
                self.moves.valid.eq(1), self.moves.payload.kind.eq(Move.COPY), self.moves.payload.source.eq(self.last),
                self.moves.payload.target.eq(self.found), self.moves.payload.slots.eq(slots)]
            with m.If(self.moves.ready):
                each = config.copy_bytes(1) - config.copy_bytes(0)
                self._add(m, "cow")
                self._add(m, "cow_bytes", config.copy_bytes(0) + slots * each)
                m.next = "GROWN"
                with m.If(self.need != 0):
                    m.next = "POP"
        with m.State("GROWN"):
            self._grown(m)
