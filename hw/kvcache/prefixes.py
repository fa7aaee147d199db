# SPDX-License-Identifier: Apache-2.0
"""Cached blocks for a new sequence, all or none."""

from amaranth.hdl import Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import connect, flipped

from golden.paging import Opcode, Status
from hw.stream import Buffer

__all__ = ["Prefixes"]


class Prefixes:
    """`LOOKUP` and `ATTACH`: their operands pass a pipeline, one a cycle.

    One is taken, and its bucket read; then its block, or the bucket's oldest; then that is judged. While a
    bucket's list is followed to another block, those behind wait.
    """

    def _take(self, m):
        """The pipeline, while `takes`, up to what is known of the block; `flush` empties it."""
        config, block = self.config, range(self.config.blocks)
        operand = data.StructLayout({"valid": 1, "hash": config.hash_bits, "block": block, "null": 1, "outside": 1})
        self.takes, self.flush = Signal(), Signal()
        self.asked, self.judged = Signal(operand), Signal(operand)      # its bucket was read; its block was read
        asked = self.asked
        self.by_hash, self.looks, none = Signal(), Signal(), Signal()
        by_hash, looks = self.by_hash, self.looks
        bucket_tail, same = Signal(block), Signal()
        self.row, self.prior, self.later = Signal(self.blocks.row.shape()), Signal(block), Signal(block)
        self.goes_on, self.missing, self.missed = Signal(), Signal(), Signal()
        self.blocked, self.ended = Signal(), Signal()
        probe = Signal(block)

        # What was read, unless the operand ahead has changed it in that cycle
        again, follows, precedes = Signal(), Signal(), Signal()
        self.written, late = (Signal(self.blocks.row.shape(), name=name) for name in ("written", "late_row"))
        self.writes, self.unlinks = Signal(), Signal()
        late_prior, late_later = Signal(block), Signal(block)

        m.submodules.hit_buffer = self.hit = Buffer(block)
        connect(m, self.hit.o, flipped(self.hits))
        m.d.comb += [
            self.row.eq(Mux(again, late, self.blocks.row)),
            self.later.eq(Mux(follows, late_later, self.next.row)),
            self.prior.eq(Mux(precedes, late_prior, self.prev.row)),
            same.eq(self._same(self.blocks.row, self.judged.hash) & ~none),
            self.goes_on.eq(self.judged.valid & by_hash & ~same & ~none & (self.found != bucket_tail)),
            self.missing.eq(by_hash & ~same),
            self.blocked.eq(self.goes_on | self.judged.valid & looks & same & ~self.hit.i.ready),
            self.ended.eq((self.left == 0) & ~asked.valid),
            probe.eq(Mux(self.goes_on, self.younger.row, Mux(by_hash, self.ends.row.head, asked.block))),
        ]
        with m.If(self.takes):
            with m.If(self.goes_on | ~self.blocked):
                self._probe(m, probe)
                m.d.sync += [
                    again.eq(self.writes & (probe == self.found)), late.eq(self.written),
                    follows.eq(self.unlinks & (probe == self.prior) & (self.found != self.head)),
                    precedes.eq(self.unlinks & (probe == self.later) & (self.found != self.tail)),
                    late_later.eq(self.later), late_prior.eq(self.prior)]
            with m.If(~self.blocked):
                payload, comes = self.operands.payload, self.operands.valid & (self.left != 0)
                m.d.comb += [*self.ends.read(self._bucket(payload)), self.operands.ready.eq(self.left != 0)]
                m.d.sync += [
                    self.left.eq(self.left - comes), self.judged.eq(asked),
                    none.eq(self.ends.row.head == 0), bucket_tail.eq(self.ends.row.tail),
                    asked.valid.eq(comes & ~self.missed), asked.hash.eq(payload), asked.block.eq(payload),
                    asked.null.eq(payload == 0), asked.outside.eq(payload >= self.pool)]
        # Whether an operand that was announced does not come
        self.waited = Signal(range(self.patience))
        self.late = self.waited == self.patience - 1
        m.d.sync += self.waited.eq(Mux((self.left != 0) & ~self.operands.valid & ~self.late, self.waited + 1, 0))
        with m.If(self.late):
            m.d.sync += self.left.eq(0)
        with m.If(self.flush):
            m.d.sync += asked.valid.eq(0), self.judged.valid.eq(0)

    def _begin_lookup(self, m, given, row):
        m.d.sync += self.need.eq(0)
        self._add(m, "lookups")
        self._add(m, "query_tokens", given.count << self.shift)
        m.next = "PREFIX"
        with m.If(given.count == 0):
            self._done(m, Opcode.LOOKUP)

    def _begin_attach(self, m, given, row):
        partial = Signal()
        m.d.comb += partial.eq(self._waste(row.length) != 0)
        m.d.sync += self.need.eq(self._entries(self.length) - self.held - given.count)
        m.next = "PREFIX"
        with m.If(partial):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(self._too_long()):
            self._fail(m, Status.OUT_OF_SEQ_TABLE)
        with m.Elif(given.count == 0):
            m.next = "FITS"

    def _prefix(self, m):
        """Judge a block.

        `ATTACH` takes references and leaves the free list at once, and undoes all that if a later block is
        refused. Until then entries beyond the length are nobody's.
        """
        row, judged, hit = self.row, self.judged, Signal()
        free, null, outside, sound = row.ref == 0, Signal(), Signal(), Signal()
        m.d.comb += [
            null.eq(judged.null & ~self.by_hash), outside.eq(judged.outside & ~self.by_hash),
            sound.eq(null | ~(outside | self.missing | self._foreign(row) | ~row.hashed | row.ref.all())),
            self.written.eq(row), self.written.ref.eq(row.ref + 1),
            self.written.first.eq(Mux(free, self.found == self.head, row.first)),
            self.written.last.eq(Mux(free, self.found == self.tail, row.last))]
        with m.State("PREFIX"):
            m.d.comb += self.takes.eq(1)
            with m.If(self.looks):
                m.d.comb += hit.eq(judged.valid & ~self.missing), self.hit.i.valid.eq(hit)
                m.d.comb += self.hit.i.payload.eq(self.found)
                with m.If(judged.valid & self.missing & ~self.goes_on):
                    m.d.comb += self.flush.eq(1)
                    m.d.sync += self.missed.eq(1)
                with m.If(hit & ~self.blocked):
                    m.d.sync += self.got.eq(self.got + 1), self.need.eq(self.need + free)
                    self._add(m, "hit_tokens", self.config.block_tokens)
                with m.If(self.ended & ~self.blocked):
                    self._done(m, Opcode.LOOKUP, hits=Mux(hit, self.got + 1, self.got),
                               idle=Mux(hit & free, self.need + 1, self.need))
            with m.Else():
                with m.If(self.ended & ~self.blocked):
                    m.next = "FITS"
                with m.If(judged.valid & ~self.goes_on & sound):
                    m.d.comb += self.entries.write(self._entry(self.sid, self.index), Mux(null, 0, self.found))
                    m.d.sync += self.index.eq(self.index + 1), self.seq.holes.eq(self.seq.holes | null)
                    with m.If(~null):
                        m.d.comb += *self.blocks.write(self.found, self.written), self.writes.eq(1)
                    with m.If(~null & free):
                        m.d.comb += self.unlinks.eq(1)
                        self._unlink(m, self.found, self.prior, self.later)
                with m.Elif(judged.valid & ~self.goes_on):
                    self._fail(m, Mux(outside, Status.OUT_OF_RANGE, Mux(
                        self.missing, Status.STALE_GEN, Mux(
                            self._foreign(row), Status.XSEQ, Mux(
                                ~row.hashed, Status.STALE_GEN, Status.REF_OVERFLOW)))), undo=True)
            with m.If(self.late):
                self._fail(m, Status.BUS_ERR, undo=True)
        with m.State("FITS"):
            with m.If(self.need > self.count):
                self._fail(m, Status.OUT_OF_BLOCKS, (self.need - self.count)[:16], undo=True)
            with m.Elif(self.need != 0):
                m.next = "POP"
            with m.Else():
                self._grown(m)

    def _undo(self, m):
        """Give back the references of entries `end` to `index`, the last one first.

        A block whose only one that was goes back where it was on the free list: its own links still say where.
        """
        row = self.blocks.row
        with m.State("UNDO"):
            m.d.comb += self.entries.read(self._entry(self.sid, self.index - 1))
            m.d.sync += self.index.eq(self.index - 1)
            m.next = "UNDOING"
            with m.If(self.index == self.end):
                m.next = "DRAIN"
        with m.State("UNDOING"):
            self._probe(m, self.entries.row)
            m.next = "UNDONE"
        with m.State("UNDONE"):
            m.next = "UNDO"
            with m.If(self.found != 0):
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, ref=row.ref - 1))
                with m.If(row.ref == 1):
                    m.d.sync += self.count.eq(self.count + 1)
                    with m.If(row.first):
                        m.d.sync += self.head.eq(self.found)
                    with m.Else():
                        m.d.comb += self.next.write(self.prev.row, self.found)
                    with m.If(row.last):
                        m.d.sync += self.tail.eq(self.found)
                    with m.Else():
                        m.d.comb += self.prev.write(self.next.row, self.found)
