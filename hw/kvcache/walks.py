# SPDX-License-Identifier: Apache-2.0
"""References, a block a cycle."""

from amaranth.hdl import Mux, Signal

from golden.paging import Opcode, State, Status

__all__ = ["Walks"]


class Walks:
    """`FORK`, and all commands that let go of blocks."""

    def _drop(self, m, row, length):
        """Let go of all entries behind `length`."""
        m.d.sync += [self.length.eq(length), self.index.eq(self._entries(row.length)),
                     self.end.eq(self._entries(length))]
        with m.If(row.state == State.SWAPPED):
            m.d.sync += self.end.eq(self._entries(row.length))
        m.next = "WALK"

    def _begin_truncate(self, m, given, row):
        self._drop(m, row, given.length)
        with m.If(given.length > row.length):
            self._fail(m, Status.OUT_OF_RANGE)

    def _begin_window(self, m, given, row):
        end = Signal(22)
        bottom = self._entries(given.sinks)
        seen = given.computed + 1 > given.window
        m.d.comb += end.eq(Mux(seen, (given.computed + 1 - given.window)[:21], 0) >> self.shift)
        m.d.sync += self.index.eq(end), self.end.eq(Mux(bottom < end, bottom, end))
        m.next = "WALK"
        with m.If(given.computed > row.length):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(given.window == 0):
            self._fail(m, Status.BAD_CFG)

    def _begin_fork(self, m, given, row):
        m.d.comb += self.sequences.read(given.target)
        m.next = "TARGET"

    def _walk(self, m):
        """Entries one after the other: read the entry, read its block's row, write that back."""
        config, given = self.config, self._given(Opcode.FORK)
        up, more, at = Signal(), Signal(), Signal(17)
        valid, entry = Signal(), Signal(17)                 # an entry comes out of its memory
        held, block = Signal(), Signal(range(config.blocks))   # a row comes out of its memory
        behind = Signal(17)                                 # the entry of that row
        newer = Signal()                                    # that row was written while it was read
        row, written, late = (Signal(self.blocks.row.shape(), name=name) for name in ("row", "written", "late"))
        unpins, last_ref = self.unpins, Signal()
        self.inject = held, block, newer

        # The free list
        ahead, batch = Signal(), Signal(range(config.blocks))
        first, cursor = Signal(range(config.blocks)), Signal(range(config.blocks))
        m.d.comb += [
            up.eq(self.opcode == Opcode.FORK),
            more.eq(Mux(up, self.index < self.end, self.index > self.end)),
            at.eq(Mux(up, self.index, self.index - 1)),
            row.eq(Mux(newer, late, self.blocks.row)),
            last_ref.eq(~up & (row.ref == 1)),
            written.eq(row),
            written.ref.eq(Mux(up, row.ref + 1, row.ref - 1)),
            written.pinned.eq(row.pinned & ~unpins),
            written.listed.eq(last_ref),
            ahead.eq(~row.hashed & ~self.lru_tail),
        ]
        gen, opened = self._opened(m, self.sequences.row, length=self.seq.length, holes=self.seq.holes)
        with m.State("TARGET"):
            m.d.sync += self.index.eq(0), self.end.eq(self._entries(self.seq.length))
            m.next = "WALK"
            with m.If(given.target >= config.sequences):
                self._fail(m, Status.BAD_SEQ)
            with m.Elif(self.sequences.row.state != State.CLOSED):
                self._fail(m, Status.SEQ_IN_USE)
        with m.State("WALK"):
            m.d.sync += valid.eq(more), entry.eq(at), held.eq(0)
            with m.If(more):
                m.d.comb += self.entries.read(self._entry(self.sid, at))
                m.d.sync += self.index.eq(Mux(up, self.index + 1, self.index - 1))
            with m.If(valid):
                m.d.comb += self.blocks.read(self.entries.row)
                m.d.sync += [held.eq(self.entries.row != 0), block.eq(self.entries.row), behind.eq(entry),
                             newer.eq(held & (block == self.entries.row)), late.eq(written)]
                with m.If(up):
                    m.d.comb += self.entries.write(self._entry(given.target[:len(self.sid)], entry), self.entries.row)
                with m.If(self.opcode == Opcode.WINDOW):
                    m.d.comb += self.entries.write(self._entry(self.sid, entry), 0)
                    m.d.sync += self.seq.holes.eq(1)
            with m.If(~more & ~valid):
                m.next = "WALKED"
            with m.If(held):
                with m.If(up & row.ref.all()):
                    m.d.sync += self.index.eq(behind), self.end.eq(0), valid.eq(0), held.eq(0)
                    self._fail(m, Status.REF_OVERFLOW, undo=True)
                with m.Else():
                    m.d.comb += self.blocks.write(block, written)
                with m.If(last_ref):
                    m.d.sync += self.got.eq(self.got + 1)
                    self._add(m, "frees")
                    with m.If(ahead):
                        m.d.sync += batch.eq(batch + 1), cursor.eq(block)
                        with m.If(batch == 0):
                            m.d.sync += first.eq(block)
                        with m.Else():
                            m.d.comb += self.next.write(cursor, block), self.prev.write(block, cursor)
                    with m.Else():
                        m.d.sync += self.count.eq(self.count + 1), self.tail.eq(block)
                        with m.If(self.count == 0):
                            m.d.sync += self.head.eq(block)
                        with m.Else():
                            m.d.comb += self.next.write(self.tail, block), self.prev.write(block, self.tail)
        with m.State("WALKED"):
            m.d.sync += batch.eq(0), self.unpins.eq(0)
            with m.If(batch != 0):
                m.d.sync += self.head.eq(first), self.count.eq(self.count + batch)
                with m.If(self.count == 0):
                    m.d.sync += self.tail.eq(cursor)
                with m.Else():
                    m.d.comb += self.next.write(cursor, self.head), self.prev.write(self.head, cursor)
            with m.Switch(self.opcode):
                with m.Case(Opcode.FORK):
                    m.d.comb += self.sequences.write(given.target, opened)
                    m.d.sync += self.wasted.eq(self.wasted + self._waste(self.seq.length))
                    self._done(m, Opcode.FORK, gen=gen)
                with m.Case(Opcode.UNPIN):
                    self._done(m, Opcode.UNPIN, block=self.found)
                with m.Default():
                    state = Mux(self.opcode == Opcode.FREE, State.CLOSED,
                                Mux(self.opcode == Opcode.PREEMPT, State.PREEMPTED,
                                    Mux(self.opcode == Opcode.SWAP_OUT, State.SWAPPED, self.seq.state)))
                    m.d.comb += self.sequences.write(self.sid, self._row(
                        m, self.sequences, self.seq, state=state, length=self.length,
                        holes=self.seq.holes & (self.length != 0)))
                    m.d.sync += self.wasted.eq(
                        self.wasted + Mux(self.opcode == Opcode.SWAP_OUT, 0, self._waste(self.length))
                        - Mux(self.seq.state == State.SWAPPED, 0, self._waste(self.seq.length)))
                    with m.If(self.opcode == Opcode.PREEMPT):
                        self._add(m, "preempts")
                    self._done(m, Opcode.FREE, freed=self.got)

    def _unlink(self, m, block):
        """Take a block out of the free list, its links being there."""
        with m.If(block == self.head):
            m.d.sync += self.head.eq(self.next.row)
        with m.Else():
            m.d.comb += self.next.write(self.prev.row, self.next.row)
        with m.If(block == self.tail):
            m.d.sync += self.tail.eq(self.prev.row)
        with m.Else():
            m.d.comb += self.prev.write(self.next.row, self.prev.row)
        m.d.sync += self.count.eq(self.count - 1)
