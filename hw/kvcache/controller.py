# SPDX-License-Identifier: Apache-2.0
"""The control of the KV cache: commands in, tables in memories, completions out."""

from amaranth.hdl import Array, Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.paging import (
    ARGUMENTS,
    COUNTERS,
    HEADER,
    PAYLOADS,
    Event,
    Opcode,
    State,
    Status,
)
from hw.emit import Block
from hw.kvcache.hashes import Hashes
from hw.kvcache.names import Names
from hw.kvcache.ports import COMMAND, OPERAND, completion, event, move, range_
from hw.kvcache.prefixes import Prefixes
from hw.kvcache.readings import Readings
from hw.kvcache.spans import Spans
from hw.kvcache.swaps import Swaps
from hw.kvcache.tables import ON_BLOCKS, Rows, among
from hw.kvcache.tokens import Tokens
from hw.kvcache.walks import Walks

__all__ = ["Controller"]

ON_SEQUENCES = (Opcode.ATTACH, Opcode.APPEND, Opcode.COMMIT, Opcode.FORK, Opcode.STREAM, Opcode.WRITE,
                Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT, Opcode.SWAP_IN)
WHEN_QUIET = (Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT)
WHEREVER = (Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_IN)    # the sequence may be in host memory
GAUGES = ("free", "free_min", "head", "tail", "wasted_slots")


class Controller(Tokens, Hashes, Prefixes, Walks, Swaps, Names, Spans, Readings, Block):
    """Carries out commands one after the other, as `golden.kvcache` says.

    A new block costs two cycles, a cached one that it replaces three more; `FORK` and all that drops blocks
    take one a cycle.

    Parameters
    ----------
    config : golden.config.KvCache

    Members
    -------
    i : In(stream.Signature(128))
        Commands.
    operands : In(stream.Signature(64))
        What follows `LOOKUP` and `ATTACH`: hashes or blocks.
    o : Out(stream.Signature(completion))
    hits : Out(stream.Signature)
        Blocks that a `LOOKUP` finds, ahead of its completion.
    ranges, moves, events : Out(stream.Signature)
    retire : In(stream.Signature)
        A sequence of which a stream has ended.
    error : Out
        The first command that was refused since `clear`: status, opcode, sequence.
    clear : In(1)
    pool : In(range(config.blocks + 1))
        Blocks there are, the null block among them: at least 2 and at most `config.blocks`. It is steady
        from reset on.
    lru_tail : In(1)
        The policy: whether all blocks join the tail of the free list. Steady, too.
    """

    def __init__(self, config):
        self.config = config
        block = range(config.blocks)
        super().__init__({
            "i": In(stream.Signature(COMMAND)),
            "operands": In(stream.Signature(OPERAND)),
            "o": Out(stream.Signature(completion())),
            "hits": Out(stream.Signature(block)),
            "ranges": Out(stream.Signature(range_(config))),
            "moves": Out(stream.Signature(move(config))),
            "events": Out(stream.Signature(event(config))),
            "retire": In(stream.Signature(range(max(config.sequences, 2)))),
            "error": Out(data.StructLayout({"status": 8, "opcode": 8, "sid": 16, "number": 32})),
            "clear": In(1),
            "pool": In(range(config.blocks + 1)),
            "lru_tail": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        self.shift = ceil_log2(config.block_tokens)
        block, length = range(config.blocks), range(config.table * config.block_tokens + 1)
        self.entry_bits = ceil_log2(config.table)
        self.buckets = 1 << ceil_log2(config.blocks)

        # Tables
        self.sequences = Rows(m, "sequences", data.StructLayout({
            "state": 2, "tenant": config.tenant_bits, "gen": 8, "length": length, "inflight": 4, "holes": 1}),
            config.sequences)
        self.entries = Rows(m, "entries", ceil_log2(config.blocks), config.sequences << self.entry_bits)
        self.blocks = Rows(m, "blocks", data.StructLayout({
            "ref": config.ref_bits, "hashed": 1, "pinned": 1, "listed": 1, "tenant": config.tenant_bits}),
            config.blocks)
        self.next, self.prev, self.younger, self.older = (
            Rows(m, name, ceil_log2(config.blocks), config.blocks) for name in ("next", "prev", "younger", "older"))
        self.hashes = Rows(m, "hashes", config.hash_bits, config.blocks)
        self.ends = Rows(m, "ends", data.StructLayout({"head": block, "tail": block}), self.buckets)

        # The free list
        self.head, self.tail = Signal(block), Signal(block)
        self.count, self.fewest = Signal(block), Signal(block)
        with m.If(self.count < self.fewest):
            m.d.sync += self.fewest.eq(self.count)

        # The command
        self.word = Signal(COMMAND)
        header = self._view(HEADER)
        self.opcode, self.tag, self.tenant = header.opcode, header.tag, header.tenant[:config.tenant_bits]
        self.gen = header.gen
        self.sid = self.word[32:32 + max(ceil_log2(config.sequences), 1)]
        self.seq = Signal.like(self.sequences.row)
        self.left = Signal(17)                                          # operands to come
        self.index, self.end = Signal(17), Signal(17)                   # entries
        self.need = Signal(17)                                          # blocks to pop
        self.length = Signal(length)                                    # that of the sequence afterwards
        self.got, self.copied = Signal(16), Signal()
        self.idle, self.step = Signal(17), Signal(17)
        self.missed, self.unpins = Signal(), Signal()
        self.first, self.slots, self.sinks = Signal(21), Signal(21), Signal(21)
        self.checks, self.heads, self.beats = Signal(), Signal(config.kv_heads), Signal(40)
        self.last, self.found, self.gone = Signal(block), Signal(block), Signal(block)
        self.former = Signal(config.tenant_bits)                        # owner of the block that is gone
        self.key = Signal(config.hash_bits)

        self.counters = {name: Signal(64, name=f"count_{name}") for name in COUNTERS if name not in GAUGES}
        self.wasted = Signal(32)
        gauges = {"free": self.count, "free_min": self.fewest, "wasted_slots": self.wasted,
                  "head": Mux(self.count == 0, 0, self.head), "tail": Mux(self.count == 0, 0, self.tail)}
        self.readings = Array(self.counters.get(name, gauges.get(name)) for name in COUNTERS)
        self.done, self.refused, self.payload = Signal(), Signal(8), Signal(48)
        self._complete(m)

        with m.FSM(init="SWEEP"):
            self._sweep(m)
            self._idle(m)
            self._check(m)
            self._append(m)
            self._pop(m)
            self._forget(m)
            self._find(m)
            self._attach(m)
            self._commit(m)
            self._walk(m)
            self._swap(m)
            self._named(m)
            self._lookup(m)
            self._stream(m)
            self._stat(m)
            self._undo(m)
        return m

    # Words

    def _view(self, fields):
        """The command's first fields by name."""
        layout = data.StructLayout(fields)
        return data.View(layout, self.word[:Shape.cast(layout).width])

    def _given(self, opcode):
        return self._view(HEADER | ARGUMENTS[opcode])

    def _row(self, m, rows, like=None, **fields):
        """A row to write: all zero, or `like` another, but for some fields."""
        row = Signal(rows.row.shape(), name="row")
        m.d.comb += row.eq(like if like is not None else 0)
        m.d.comb += [row[name].eq(value) for name, value in fields.items()]
        return row

    def _entry(self, sid, index):
        """Address of an entry."""
        return Cat(Value.cast(index)[:self.entry_bits], sid)

    def _entries(self, length):
        """How many entries so many tokens take."""
        return (length + self.config.block_tokens - 1) >> self.shift

    def _waste(self, length):
        return (-Value.cast(length))[:self.shift] if self.shift else 0

    def _done(self, m, opcode, **payload):
        packed = Signal(data.StructLayout(PAYLOADS[opcode]), name="packed") if PAYLOADS[opcode] else Signal(1)
        m.d.comb += [packed[name].eq(value) for name, value in payload.items()]
        m.d.comb += self.done.eq(1), self.payload.eq(packed)
        m.next = "IDLE"

    def _fail(self, m, status, shortfall=0, undo=False):
        """Refuse the command, once its operands are gone."""
        m.d.comb += self.refused.eq(status), self.payload.eq(shortfall)
        m.next = "UNDO" if undo else "DRAIN"

    def _complete(self, m):
        """The completion, what is counted, and the first error."""
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.done | (self.refused != Status.OK)):
            m.d.sync += [self.o.valid.eq(1), self.o.payload.tag.eq(self.tag), self.o.payload.status.eq(self.refused),
                         self.o.payload.payload.eq(self.payload)]
        for status in Status:
            if status != Status.OK:
                with m.If(self.refused == status):
                    self._add(m, f"error_{status.name.lower()}")
        with m.If(self.refused == Status.OUT_OF_BLOCKS):
            self._add(m, "oom")
        with m.If(self.clear):
            m.d.sync += self.error.eq(0)
        with m.Elif((self.refused != Status.OK) & (self.error.status == Status.OK)):
            m.d.sync += [self.error.status.eq(self.refused), self.error.opcode.eq(self.opcode),
                         self.error.sid.eq(Mux(
                             among(self.opcode, ON_SEQUENCES) | (self.opcode == Opcode.ALLOC_SEQ),
                             self.word[32:48], 0)), self.error.number.eq(self.counters["commands"])]

    def _add(self, m, name, value=1):
        m.d.sync += self.counters[name].eq(self.counters[name] + value)

    def _foreign(self, row):
        """Whether a block is another tenant's."""
        return ((row.ref != 0) | row.hashed) & (row.tenant != self.tenant)

    # Beginnings

    def _sweep(self, m):
        """After reset all is free; the same states forget all hashes."""
        config = self.config
        at, forgets = Signal(range(max(self.buckets, config.sequences) + 1)), Signal()
        self.forgets = forgets
        with m.State("SWEEP"):
            m.d.sync += at.eq(at + 1)
            with m.If(at < self.buckets):
                m.d.comb += self.ends.write(at, 0)
            with m.If(at < config.blocks):
                m.d.comb += self.blocks.write(at, self._row(m, self.blocks, listed=(at != 0) & (at < self.pool)))
                with m.If(~forgets):
                    m.d.comb += self.next.write(at, at + 1), self.prev.write(at, at - 1)
            with m.If((at < config.sequences) & ~forgets):
                m.d.comb += self.sequences.write(at, 0)
            with m.If(at == max(self.buckets, config.sequences) - 1):
                m.d.sync += at.eq(0)
                with m.If(forgets):
                    m.next = "CLEARED"
                with m.Else():
                    m.d.sync += [self.head.eq(1), *(each.eq(self.pool - 1) for each in (
                        self.tail, self.count, self.fewest))]
                    m.next = "IDLE"
        with m.State("CLEARED"):
            m.d.comb += self.events.valid.eq(1), self.events.payload.kind.eq(Event.CLEARED)
            with m.If(self.events.ready):
                m.d.sync += forgets.eq(0)
                self._done(m, Opcode.RESET_PREFIX)

    def _idle(self, m):
        count = self._given(Opcode.ATTACH)
        incoming = data.View(count.shape(), self.i.payload[:Shape.cast(count.shape()).width])
        looked = data.View(data.StructLayout(HEADER | ARGUMENTS[Opcode.LOOKUP]), self.i.payload[:48])
        with m.State("IDLE"):
            with m.If(self.retire.valid):
                m.d.comb += self.sequences.read(self.retire.payload)
                m.next = "RETIRE"
            with m.Elif(self.i.valid & (~self.o.valid | self.o.ready)):
                m.d.comb += self.i.ready.eq(1), self.sequences.read(self.i.payload[32:])
                m.d.sync += [
                    self.word.eq(self.i.payload), self.got.eq(0), self.copied.eq(0),
                    self.left.eq(Mux(incoming.opcode == Opcode.ATTACH, incoming.count,
                                     Mux(incoming.opcode == Opcode.LOOKUP, looked.count, 0)))]
                self._add(m, "commands")
                m.next = "CHECK"
        with m.State("RETIRE"):
            m.d.comb += self.retire.ready.eq(1)
            m.d.comb += self.sequences.write(self.retire.payload, self._row(
                m, self.sequences, self.sequences.row, inflight=self.sequences.row.inflight - 1))
            m.next = "IDLE"
        with m.State("DRAIN"):
            m.d.comb += self.operands.ready.eq(self.left != 0)
            with m.If(self.left == 0):
                m.next = "IDLE"
            with m.Elif(self.operands.valid):
                m.d.sync += self.left.eq(self.left - 1)

    def _check(self, m):
        """The sequence's row is there: what is refused for it, and the first step of all others."""
        config, row = self.config, self.sequences.row
        known, sequenced, quiet, wherever = Signal(), Signal(), Signal(), Signal()
        status = Signal(8)
        named = self._given(Opcode.APPEND).sid
        m.d.comb += [
            known.eq(among(self.opcode, Opcode) & (self._view(HEADER).tenant >> config.tenant_bits == 0)),
            sequenced.eq(among(self.opcode, ON_SEQUENCES)),
            quiet.eq(among(self.opcode, WHEN_QUIET)),
            wherever.eq(among(self.opcode, WHEREVER)),
            status.eq(self._refusal(
                row, named, quiet & (row.inflight != 0) | ~wherever & (row.state == State.SWAPPED))),
        ]
        with m.State("CHECK"):
            m.d.sync += self.seq.eq(row), self.length.eq(row.length)
            with m.If(~known):
                self._fail(m, Status.BAD_CFG)
            with m.Elif(sequenced & (status != Status.OK)):
                self._fail(m, status)
            with m.Else(), m.Switch(self.opcode):
                for opcode, begin in (
                        (Opcode.ALLOC_SEQ, self._begin_alloc), (Opcode.APPEND, self._begin_append),
                        (Opcode.ATTACH, self._begin_attach), (Opcode.COMMIT, self._begin_commit),
                        (Opcode.FORK, self._begin_fork), (Opcode.STREAM, self._begin_stream),
                        (Opcode.WRITE, self._begin_write), (Opcode.TRUNCATE, self._begin_truncate),
                        (Opcode.WINDOW, self._begin_window), (Opcode.SWAP_OUT, self._begin_swap_out),
                        (Opcode.SWAP_IN, self._begin_swap_in), (Opcode.LOOKUP, self._begin_lookup),
                        (Opcode.RESET_PREFIX, self._begin_reset), (Opcode.STAT, self._begin_stat)):
                    with m.Case(opcode):
                        begin(m, self._given(opcode), row)
                with m.Case(Opcode.FREE, Opcode.PREEMPT):
                    self._drop(m, row, 0)
                with m.Case(*ON_BLOCKS):
                    self._begin_named(m, self._given(Opcode.PIN))

    def _refusal(self, row, sid, busy):
        """Why a command may not touch a sequence."""
        return Mux((sid >= self.config.sequences) | (row.state == State.CLOSED), Status.BAD_SEQ,
                   Mux(row.tenant != self.tenant, Status.XSEQ,
                       Mux((self.gen != 0) & (self.gen != row.gen), Status.STALE_GEN,
                           Mux(busy, Status.BUSY, Status.OK))))

    def _opened(self, m, row, **fields):
        """The row of a sequence that is opened where `row` was."""
        gen = Signal(8, name="gen")
        m.d.comb += gen.eq(Mux(row.gen == 255, 1, row.gen + 1))
        return gen, self._row(m, self.sequences, state=State.RUNNING, tenant=self.tenant, gen=gen, **fields)

    def _begin_alloc(self, m, given, row):
        with m.If(given.sid >= self.config.sequences):
            self._fail(m, Status.BAD_SEQ)
        with m.Elif(row.state != State.CLOSED):
            self._fail(m, Status.SEQ_IN_USE)
        with m.Else():
            gen, opened = self._opened(m, row)
            m.d.comb += self.sequences.write(self.sid, opened)
            self._done(m, Opcode.ALLOC_SEQ, gen=gen)

    def _begin_reset(self, m, given, row):
        m.d.sync += self.forgets.eq(1)
        m.next = "SWEEP"
        with m.If(self.count != self.pool - 1):
            m.d.sync += self.forgets.eq(0)
            self._fail(m, Status.BUSY)
