# SPDX-License-Identifier: Apache-2.0
"""What is seen from outside."""

from amaranth.hdl import Mux, Signal
from amaranth.lib import data

from golden.paging import COUNTERS, STAT, Opcode, Status, Table

__all__ = ["Readings"]


class Readings:
    """`STAT`."""

    def _begin_stat(self, m):
        given = self._given(Opcode.STAT)
        m.d.comb += [*self.sequences.read(given.index), *self.blocks.read(given.index), *self.next.read(given.index),
                     *self.hashes.read(given.index)]
        with m.Switch(given.table):
            with m.Case(Table.COUNTER):
                m.next = "CHECK"
                with m.If(self.counters.settled):
                    self._value(m, given, self._reading(m, given.index))
                with m.If(given.index >= len(COUNTERS)):
                    self._fail(m, Status.OUT_OF_RANGE)
            with m.Case(Table.SEQUENCE, Table.ENTRY):
                m.next = "ABOUT_SEQUENCE"
            with m.Case(Table.BLOCK, Table.HASH):
                m.next = "ABOUT_BLOCK"
                with m.If(given.index >= self.pool):
                    self._fail(m, Status.OUT_OF_RANGE)
                with m.Elif(given.index == 0):
                    self._fail(m, Status.NULL_DEREF)
            with m.Default():
                self._fail(m, Status.OUT_OF_RANGE)

    def _stat(self, m):
        given = self._given(Opcode.STAT)
        row, seq = self.blocks.row, self.sequences.row

        def packed(table, **values):
            view = Signal(data.StructLayout(STAT[table]), name="view")
            m.d.comb += [view[name].eq(value) for name, value in values.items()]
            return view.as_value()

        with m.State("ABOUT_SEQUENCE"):
            status = Signal(8)
            m.d.comb += status.eq(self._refusal(seq, given.index, 0))
            m.d.comb += self.entries.read(self._entry(given.index[:len(self.sid)], given.entry))
            with m.If(status != Status.OK):
                self._fail(m, status)
            with m.Elif(given.table == Table.SEQUENCE):
                self._value(m, given, packed(Table.SEQUENCE, **{
                    name: seq[name] for name in STAT[Table.SEQUENCE]}))
            with m.Elif(given.entry >= self._entries(seq.length)):
                self._fail(m, Status.OUT_OF_RANGE)
            with m.Else():
                m.next = "ABOUT_ENTRY"
        with m.State("ABOUT_ENTRY"):
            self._value(m, given, self.entries.row)
        with m.State("ABOUT_BLOCK"):
            owned = (row.ref != 0) | row.hashed
            with m.If(self._foreign(row)):
                self._fail(m, Status.XSEQ)
            with m.Elif(given.table == Table.HASH):
                self._value(m, given, Mux(row.hashed, self.hashes.row, 0))
            with m.Else():
                self._value(m, given, packed(
                    Table.BLOCK, ref=row.ref, hashed=row.hashed, pinned=row.pinned,
                    tenant=Mux(owned, row.tenant, 0),
                    next=Mux((row.ref == 0) & (given.index != self.tail), self.next.row, 0)))

    def _reading(self, m, index):
        """A counter or a gauge."""
        empty, value = self.count == 0, Signal(64, name="reading")
        m.d.comb += self.counters.index.eq(index), value.eq(self.counters.value)
        gauges = {"free": self.count, "free_min": self.fewest, "wasted_slots": self.wasted,
                  "head": Mux(empty, 0, self.head), "tail": Mux(empty, 0, self.tail)}
        with m.Switch(index):
            for name, gauge in gauges.items():
                with m.Case(COUNTERS.index(name)):
                    m.d.comb += value.eq(gauge)
        return value

    def _value(self, m, given, value):
        wide = Signal(64, name="wide")
        m.d.comb += wide.eq(value)
        self._done(m, Opcode.STAT, value=Mux(given.high, wide >> 48, wide[:48]))
