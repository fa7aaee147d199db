# SPDX-License-Identifier: Apache-2.0
"""References, a block a cycle."""

from amaranth.hdl import Mux, Signal

from golden.paging import Opcode, State, Status

__all__ = ["Walks"]


class Walks:
    """`FORK`, and all commands that let go of blocks."""

    def _drop(self, m, length):
        """Let go of all entries behind `length`."""
        m.d.sync += self.length.eq(length)
        self._ask(m)
        m.next = "WALK"

    def _begin_truncate(self, m, given, row):
        with m.If(given.length > row.length):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Else():
            self._drop(m, given.length)

    def _begin_window(self, m, given, row):
        with m.If(given.computed > row.length):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(given.window == 0):
            self._fail(m, Status.BAD_CFG)
        with m.Elif(self.end > self.index):
            m.d.sync += self.end.eq(self.index), self.length.eq(row.length)
            m.next = "WALK"
        with m.Else():
            self._drop(m, row.length)

    def _begin_fork(self, m, given, row):
        with m.If(given.target >= self.config.sequences):
            self._fail(m, Status.BAD_SEQ)
        with m.Elif(self.sequences.row.state != State.CLOSED):
            self._fail(m, Status.SEQ_IN_USE)
        with m.Else():
            self._ask(m)
            m.next = "WALK"

    def _prepare(self, m):
        """Entries one after the other: read the entry, read its block's row, write that back."""
        block = range(self.config.blocks)
        self.up, self.more, self.at = Signal(), Signal(), Signal(self.number)
        self.valid, self.entry = Signal(), Signal(self.number)          # an entry comes out of its memory
        self.holds, self.block, self.newer = Signal(), Signal(block), Signal()  # a row does; it is out of date
        self.unpins, self.batch = Signal(), Signal(block)               # blocks that will lead the free list
        m.d.comb += [
            self.up.eq(self.opcode == Opcode.FORK), self.more.eq(self.index != self.end),
            self.at.eq(Mux(self.up, self.index, self.index - 1))]
        m.d.sync += self.valid.eq(0), self.holds.eq(0)

    def _ask(self, m):
        """Read the next entry."""
        m.d.comb += self.entries.read(self._entry(self.sid, self.at))
        m.d.sync += self.valid.eq(self.more), self.entry.eq(self.at)
        with m.If(self.more):
            m.d.sync += self.index.eq(Mux(self.up, self.index + 1, self.at))

    def _walk(self, m):
        given, up = self._given(Opcode.FORK), self.up
        behind, overflow, last_ref = Signal(self.number), Signal(), Signal()    # entry of the row
        row, written, late = (Signal(self.blocks.row.shape(), name=name) for name in ("row", "written", "late"))

        # The free list
        ahead, batch = Signal(), self.batch
        first, cursor = Signal(range(self.config.blocks)), Signal(range(self.config.blocks))
        m.d.comb += [
            row.eq(Mux(self.newer, late, self.blocks.row)),
            overflow.eq(self.holds & up & row.ref.all()),
            last_ref.eq(self.holds & ~up & (row.ref == 1)),
            written.eq(row),
            written.ref.eq(Mux(up, row.ref + 1, row.ref - 1)),
            written.pinned.eq(row.pinned & ~self.unpins),
            ahead.eq(~row.hashed & ~self.lru_tail),
        ]
        gen, opened = self._opened(m, self.sequences.row, length=self.seq.length, holes=self.seq.holes)
        with m.State("WALK"):
            self._ask(m)
            m.d.comb += self.blocks.read(self.entries.row)
            m.d.sync += self.block.eq(self.entries.row), behind.eq(self.entry)
            m.d.sync += self.newer.eq(self.holds & (self.block == self.entries.row)), late.eq(written)
            with m.If(self.valid):
                m.d.sync += self.holds.eq(self.entries.row != 0)
                with m.If(up):
                    m.d.comb += self.entries.write(
                        self._entry(given.target[:len(self.sid)], self.entry), self.entries.row)
                with m.If(self.opcode == Opcode.WINDOW):
                    m.d.comb += self.entries.write(self._entry(self.sid, self.entry), 0)
                    m.d.sync += self.seq.holes.eq(1)
            with m.If(overflow):
                m.d.sync += self.index.eq(behind), self.end.eq(0), self.valid.eq(0), self.holds.eq(0)
                self._fail(m, Status.REF_OVERFLOW, undo=True)
            with m.Else():
                with m.If(self.holds):
                    m.d.comb += self.blocks.write(self.block, written)
                with m.If(~self.more & ~self.valid):            # this row is the last one
                    with m.Switch(self.opcode):
                        with m.Case(Opcode.FORK):
                            self._done(m, Opcode.FORK, then="WALKED", gen=gen)
                        with m.Case(Opcode.UNPIN):
                            m.next = "WALKED"
                        with m.Default():
                            self._done(m, Opcode.FREE, then="WALKED", freed=Mux(last_ref, self.got + 1, self.got))
            with m.If(last_ref):
                m.d.sync += self.got.eq(self.got + 1)
                self._add(m, "frees")
                with m.If(ahead):
                    m.d.sync += batch.eq(batch + 1), cursor.eq(self.block)
                    with m.If(batch == 0):
                        m.d.sync += first.eq(self.block)
                    with m.Else():
                        m.d.comb += self.next.write(cursor, self.block), self.prev.write(self.block, cursor)
                with m.Else():
                    m.d.sync += self.count.eq(self.count + 1), self.tail.eq(self.block)
                    with m.If(self.count == 0):
                        m.d.sync += self.head.eq(self.block)
                    with m.Else():
                        m.d.comb += self.next.write(self.tail, self.block), self.prev.write(self.block, self.tail)
        with m.State("WALKED"):
            m.d.sync += batch.eq(0), self.unpins.eq(0)
            m.next = "IDLE"
            with m.If(batch != 0):
                m.d.sync += self.head.eq(first), self.count.eq(self.count + batch)
                with m.If(self.count == 0):
                    m.d.sync += self.tail.eq(cursor)
                with m.Else():
                    m.d.comb += self.next.write(cursor, self.head), self.prev.write(self.head, cursor)
            with m.Switch(self.opcode):
                with m.Case(Opcode.FORK):
                    m.d.comb += self.sequences.write(given.target, opened)
                    self._wastes(m, self._waste(self.seq.length), 0)
                with m.Case(Opcode.UNPIN):
                    pass
                with m.Default():
                    state = Mux(self.opcode == Opcode.FREE, State.CLOSED,
                                Mux(self.opcode == Opcode.PREEMPT, State.PREEMPTED,
                                    Mux(self.opcode == Opcode.SWAP_OUT, State.SWAPPED, self.seq.state)))
                    m.d.comb += self.sequences.write(self.sid, self._row(
                        m, self.sequences, self.seq, state=state, length=self.length,
                        holes=self.seq.holes & (self.length != 0)))
                    self._wastes(m, Mux(self.opcode == Opcode.SWAP_OUT, 0, self._waste(self.length)),
                                 Mux(self.seq.state == State.SWAPPED, 0, self._waste(self.seq.length)))
                    with m.If(self.opcode == Opcode.PREEMPT):
                        self._add(m, "preempts")

    def _unlink(self, m, block, prior, later):
        """Take a block out of the free list, between these two."""
        with m.If(block == self.head):
            m.d.sync += self.head.eq(later)
        with m.Else():
            m.d.comb += self.next.write(prior, later)
        with m.If(block == self.tail):
            m.d.sync += self.tail.eq(prior)
        with m.Else():
            m.d.comb += self.prev.write(later, prior)
        m.d.sync += self.count.eq(self.count - 1)
