# SPDX-License-Identifier: Apache-2.0
"""Transfers of sequences to host memory and back."""

from amaranth.hdl import Mux, Signal

from golden.paging import Move, Opcode, State, Status

__all__ = ["Swaps"]


class Swaps:
    """`SWAP_OUT` and `SWAP_IN`."""

    def _begin_swap_out(self, m, given, row):
        m.d.sync += self.length.eq(row.length)
        m.next = "OUT"

    def _begin_swap_in(self, m, given, row):
        m.d.sync += self.need.eq(0), self.step.eq(0)
        m.next = "COUNT"
        with m.If(row.state != State.SWAPPED):
            self._fail(m, Status.BAD_SEQ)

    def _swap(self, m):
        """Entries from the first to the last; for `SWAP_IN` twice, as it must know how many blocks it takes."""
        size, given = self.config.block_tokens, self._given(Opcode.SWAP_OUT)
        host, last, slots = Signal(32), Signal(), Signal(range(size + 1))       # of the entry that is read
        partial = self.seq.length[:self.shift] if self.shift else 0
        m.d.comb += slots.eq(Mux(last & (partial != 0), partial, size))

        def move(kind, source, target):
            payload = self.moves.payload
            m.d.comb += [self.moves.valid.eq(1), payload.kind.eq(kind), payload.source.eq(source),
                         payload.target.eq(target), payload.slots.eq(slots)]

        def read(index, state):
            m.d.comb += self.entries.read(self._entry(self.sid, index))
            m.d.sync += host.eq(given.slot + index), last.eq(index + 1 == self.held)
            m.next = state

        with m.State("OUT"):
            read(self.index, "OUTGOING")
            with m.If(self.index == self.end):
                m.d.sync += self.end.eq(0)
                m.next = "WALK"
        with m.State("OUTGOING"):
            with m.If(self.entries.row != 0):
                move(Move.OUT, self.entries.row, host)
            with m.If((self.entries.row == 0) | self.moves.ready):
                m.d.sync += self.index.eq(self.index + 1)
                m.next = "OUT"
        with m.State("COUNT"):
            read(self.step, "COUNTED")
            with m.If(self.step == self.end):
                m.next = "IN"
                with m.If(self.need > self.count):
                    self._fail(m, Status.OUT_OF_BLOCKS, self.need - self.count)
        with m.State("COUNTED"):
            m.d.sync += self.step.eq(self.step + 1), self.need.eq(self.need + (self.entries.row != 0))
            m.next = "COUNT"
        with m.State("IN"):
            read(self.index, "INCOMING")
            with m.If(self.index == self.end):
                m.d.comb += self.sequences.write(self.sid, self._row(
                    m, self.sequences, self.seq, state=State.RUNNING))
                self._wastes(m, self._waste(self.seq.length), 0)
                self._done(m, Opcode.SWAP_IN, blocks=self.got)
        with m.State("INCOMING"):
            m.next = "POP"
            with m.If(self.entries.row == 0):
                m.d.sync += self.index.eq(self.index + 1)
                m.next = "IN"
        with m.State("ARRIVED"):
            move(Move.IN, host, self.found)
            with m.If(self.moves.ready):
                m.next = "IN"
