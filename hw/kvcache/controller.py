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
    STAT,
    Event,
    Move,
    Opcode,
    State,
    Status,
    Table,
)
from hw.emit import Block
from hw.kvcache.ports import COMMAND, OPERAND, completion, event, move, range_
from hw.ram import Ram

__all__ = ["Controller"]

ON_SEQUENCES = (Opcode.ATTACH, Opcode.APPEND, Opcode.COMMIT, Opcode.FORK, Opcode.STREAM, Opcode.WRITE,
                Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT, Opcode.SWAP_IN)
WHEN_QUIET = (Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT)
WHEREVER = (Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_IN)    # the sequence may be in host memory
ON_BLOCKS = (Opcode.PIN, Opcode.UNPIN, Opcode.EVICT)
GAUGES = ("free", "free_min", "head", "tail", "wasted_slots")


class Rows:
    """A `Ram` of rows, read and written by one statement each."""

    def __init__(self, m, name, shape, depth):
        self.ram = m.submodules[name] = Ram(Shape.cast(shape).width, max(depth, 2))
        self.row = data.View(shape, self.ram.read_data) if isinstance(shape, data.Layout) else self.ram.read_data

    def read(self, address):
        return [self.ram.read_en.eq(1), self.ram.read_address.eq(address)]

    def write(self, address, row):
        return [self.ram.write_en.eq(1), self.ram.write_address.eq(address), self.ram.write_data.eq(row)]


class Controller(Block):
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
        self.checks, self.beats = Signal(), Signal(40)
        self.last, self.found, self.gone = Signal(block), Signal(block), Signal(block)
        self.former = Signal(config.tenant_bits)                        # owner of the block that is gone
        self.key = Signal(config.hash_bits)

        self.counters = {name: Signal(64, name=f"count_{name}") for name in COUNTERS if name not in GAUGES}
        self.wasted = Signal(32)
        zero = {"free": self.count, "free_min": self.fewest, "wasted_slots": self.wasted,
                "head": Mux(self.count == 0, 0, self.head), "tail": Mux(self.count == 0, 0, self.tail)}
        self.readings = Array(self.counters.get(name, zero.get(name)) for name in COUNTERS)
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
                         self.error.sid.eq(self.word[32:48]), self.error.number.eq(self.counters["commands"])]

    def _add(self, m, name, value=1):
        m.d.sync += self.counters[name].eq(self.counters[name] + value)

    # Beginnings

    def _sweep(self, m):
        """After reset all is free; the same states forget all hashes."""
        config = self.config
        at, forgets = Signal(range(max(self.buckets, config.sequences) + 1)), Signal()
        self.sweep_at, self.forgets = at, forgets
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
            known.eq(_among(self.opcode, Opcode) & (self._view(HEADER).tenant >> config.tenant_bits == 0)),
            sequenced.eq(_among(self.opcode, ON_SEQUENCES)),
            quiet.eq(_among(self.opcode, WHEN_QUIET)),
            wherever.eq(_among(self.opcode, WHEREVER)),
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

    # Tokens

    def _begin_append(self, m, given, row):
        total, need = Signal(22), Signal(17)
        m.d.comb += total.eq(row.length + given.tokens), need.eq(self._entries(total) - self._entries(row.length))
        m.d.sync += [self.length.eq(total), self.need.eq(need), self.index.eq(self._entries(row.length))]
        with m.If(self._entries(total) > self.config.table):
            self._fail(m, Status.OUT_OF_SEQ_TABLE)
        with m.Elif((given.tokens != 0) & (self._waste(row.length) != 0)):
            m.d.comb += self.entries.read(self._entry(self.sid, row.length >> self.shift))
            m.next = "TAIL"
        with m.Elif(need > self.count):
            self._fail(m, Status.OUT_OF_BLOCKS, need - self.count)
        with m.Elif(need == 0):
            self._done(m, Opcode.APPEND)
        with m.Else():
            m.next = "POP"

    def _append(self, m):
        """The last block is not full: may it be written in place?"""
        row, need = self.blocks.row, Signal(17)
        shared = Signal()
        m.d.comb += shared.eq(row.ref > 1), need.eq(self.need + shared)
        with m.State("TAIL"):
            m.d.comb += self.blocks.read(self.entries.row), self.hashes.read(self.entries.row)
            m.d.sync += self.last.eq(self.entries.row)
            m.next = "HELD"
            with m.If(self.entries.row == 0):
                self._fail(m, Status.NULL_DEREF)
        with m.State("HELD"):
            m.d.sync += self.copied.eq(shared)
            with m.If(need > self.count):
                self._fail(m, Status.OUT_OF_BLOCKS, need - self.count)
            with m.Elif(shared):
                m.d.comb += self.blocks.write(self.last, self._row(m, self.blocks, row, ref=row.ref - 1))
                m.d.sync += self.need.eq(need), self.index.eq(self.index - 1)
                m.next = "POP"
            with m.Elif(row.hashed):
                m.d.comb += self.blocks.write(self.last, self._row(m, self.blocks, row, hashed=0))
                m.d.sync += self.key.eq(self.hashes.row), self.gone.eq(self.last), self.former.eq(row.tenant)
                m.next = "FORGET"
            with m.Elif(self.need != 0):
                m.next = "POP"
            with m.Else():
                self._grown(m)

    def _grown(self, m):
        """Store the new length; the command is done."""
        seq = self.seq
        with m.If(self.length != seq.length):
            m.d.comb += self.sequences.write(self.sid, self._row(
                m, self.sequences, seq, length=self.length, state=State.RUNNING))
        m.d.sync += self.wasted.eq(self.wasted + self._waste(self.length) - self._waste(seq.length))
        self._done(m, Opcode.APPEND, blocks=self.got, copied=self.copied)

    def _pop(self, m):
        """Take `need` blocks off the free list, for the entries from `index` on."""
        config, row = self.config, self.blocks.row
        with m.State("POP"):
            m.d.comb += self.next.read(self.head), self.blocks.read(self.head), self.hashes.read(self.head)
            m.next = "POPPED"
        with m.State("POPPED"):
            m.d.comb += [
                self.blocks.write(self.head, self._row(m, self.blocks, ref=1, tenant=self.tenant)),
                self.entries.write(self._entry(self.sid, self.index), self.head)]
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
                m.next = "FORGET"
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

    # Hashes: each bucket has a list of its blocks, the oldest first

    def _bucket(self, key):
        return Value.cast(key)[:ceil_log2(self.buckets)]

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
                with m.If(_among(self.opcode, ON_BLOCKS)):
                    self._done(m, Opcode.EVICT, block=gone)
                with m.Elif(self.copied & (self.got == 1)):
                    m.next = "COPY"
                with m.Elif(self.opcode == Opcode.SWAP_IN):
                    m.next = "ARRIVED"
                with m.Elif(self.need != 0):
                    m.next = "POP"
                with m.Else():
                    m.next = "GROWN"

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

    def _begin_commit(self, m, given, row):
        m.d.comb += self.entries.read(self._entry(self.sid, given.index))
        m.next = "COMMIT"
        with m.If(((given.index + 1) << self.shift) > row.length):
            self._fail(m, Status.OUT_OF_RANGE)

    # Prefixes

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

    def _begin_attach(self, m, given, row):
        total, entries = Signal(26), Signal(26)
        m.d.comb += [total.eq(row.length + given.tokens + (given.count << self.shift)),
                     entries.eq(self._entries(row.length))]
        m.d.sync += [self.length.eq(total), self.need.eq(self._entries(total) - entries - given.count),
                     self.index.eq(entries), self.end.eq(entries), self.idle.eq(0)]
        m.next = "ATTACH"
        with m.If(self._waste(row.length) != 0):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(self._entries(total) > self.config.table):
            self._fail(m, Status.OUT_OF_SEQ_TABLE)

    def _attach(self, m):
        """Entries beyond the length are nobody's: hits wait there until all of them are known to be sound.

        References are taken at once, and given back if one is not; blocks leave the free list at the end.
        """
        row, given, step = self.blocks.row, self._given(Opcode.ATTACH), self.step
        with m.State("ATTACH"):
            block = self.operands.payload[:16]
            with m.If(self.left == 0):
                m.next = "FITS"
            with m.Elif(self.operands.valid):
                m.d.comb += self.operands.ready.eq(1)
                m.d.comb += self.blocks.read(block)
                m.d.sync += self.left.eq(self.left - 1), self.key.eq(self.operands.payload)
                m.next = "FIND"
                with m.If(~given.by_hash):
                    m.d.sync += self.found.eq(block)
                    m.next = "HIT"
                    with m.If(block == 0):
                        m.d.comb += self.entries.write(self._entry(self.sid, self.index), 0)
                        m.d.sync += self.index.eq(self.index + 1), self.seq.holes.eq(1)
                        m.next = "ATTACH"
                    with m.Elif(block >= self.pool):
                        self._fail(m, Status.OUT_OF_RANGE, undo=True)
        with m.State("HIT"):
            with m.If(self._foreign(row)):
                self._fail(m, Status.XSEQ, undo=True)
            with m.Elif(~row.hashed):
                self._fail(m, Status.STALE_GEN, undo=True)
            with m.Elif(row.ref.all()):
                self._fail(m, Status.REF_OVERFLOW, undo=True)
            with m.Else():
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, ref=row.ref + 1))
                m.d.comb += self.entries.write(self._entry(self.sid, self.index), self.found)
                m.d.sync += self.index.eq(self.index + 1), self.idle.eq(self.idle + (row.ref == 0))
                m.next = "ATTACH"
        with m.State("FITS"):
            short = Signal(18)
            m.d.comb += short.eq(self.need + self.idle)
            m.d.sync += step.eq(self.end)
            with m.If(short > self.count):
                self._fail(m, Status.OUT_OF_BLOCKS, (short - self.count)[:18], undo=True)
            with m.Elif(self.idle != 0):
                m.next = "LEAVE"
            with m.Elif(self.need != 0):
                m.next = "POP"
            with m.Else():
                m.next = "GROWN"
        with m.State("LEAVE"):
            m.d.comb += self.entries.read(self._entry(self.sid, step))
            m.next = "LEAVING"
            with m.If(step == self.index):
                m.next = "GROWN"
                with m.If(self.need != 0):
                    m.next = "POP"
        with m.State("LEAVING"):
            block = self.entries.row
            m.d.comb += self.blocks.read(block), self.next.read(block), self.prev.read(block)
            m.d.sync += self.found.eq(block), step.eq(step + 1)
            m.next = "LEFT"
        with m.State("LEFT"):
            with m.If((self.found != 0) & row.listed):
                self._unlink(m, self.found)
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, listed=0))
            m.next = "LEAVE"

    def _foreign(self, row):
        """Whether a block is another tenant's."""
        return ((row.ref != 0) | row.hashed) & (row.tenant != self.tenant)

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

    def _undo(self, m):
        """Give back the references of entries `end` to `index`."""
        row = self.blocks.row
        with m.State("UNDO"):
            m.d.comb += self.entries.read(self._entry(self.sid, self.index - 1))
            m.d.sync += self.index.eq(self.index - 1)
            m.next = "UNDOING"
            with m.If(self.index == self.end):
                m.next = "DRAIN"
        with m.State("UNDOING"):
            m.d.comb += self.blocks.read(self.entries.row)
            m.d.sync += self.found.eq(self.entries.row)
            m.next = "UNDONE"
        with m.State("UNDONE"):
            with m.If(self.found != 0):
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, ref=row.ref - 1))
            m.next = "UNDO"

    # A block a cycle

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

    # Host memory

    def _begin_swap_out(self, m, given, row):
        m.d.sync += self.index.eq(0), self.end.eq(self._entries(row.length))
        m.next = "OUT"

    def _begin_swap_in(self, m, given, row):
        m.d.sync += self.index.eq(0), self.end.eq(self._entries(row.length)), self.need.eq(0), self.step.eq(0)
        m.next = "COUNT"
        with m.If(row.state != State.SWAPPED):
            self._fail(m, Status.BAD_SEQ)

    def _swap(self, m):
        """Entries from the first to the last; for `SWAP_IN` twice, as it must know how many blocks it takes."""
        size, given, entry = self.config.block_tokens, self._given(Opcode.SWAP_OUT), Signal(17, name="swapped")
        host, left, slots = Signal(32), Signal(21), Signal(range(size + 1))
        m.d.comb += [
            entry.eq(self.index - (self.opcode == Opcode.SWAP_IN)),     # whose index has moved on
            host.eq(given.slot + entry), left.eq(self.seq.length - (entry << self.shift)),
            slots.eq(Mux(left < size, left, size))]

        def move(kind, source, target):
            payload = self.moves.payload
            m.d.comb += [self.moves.valid.eq(1), payload.kind.eq(kind), payload.source.eq(source),
                         payload.target.eq(target), payload.slots.eq(slots)]

        def read(index, state):
            m.d.comb += self.entries.read(self._entry(self.sid, index))
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
                m.d.sync += self.wasted.eq(self.wasted + self._waste(self.seq.length))
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

    # Blocks by name

    def _begin_named(self, m, given):
        m.d.comb += self.blocks.read(given.block), self.hashes.read(given.block)
        m.d.sync += self.found.eq(given.block), self.key.eq(given.hash)
        with m.If(given.by_hash != 0):
            m.next = "FIND"
        with m.Elif(given.block >= self.pool):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(given.block == 0):
            self._fail(m, Status.NULL_DEREF)
        with m.Else():
            m.next = "NAMED"

    def _named(self, m):
        row = self.blocks.row
        held, block, newer = self.inject
        with m.State("NAMED"):
            m.d.sync += self.key.eq(self.hashes.row), self.gone.eq(self.found), self.former.eq(row.tenant)
            with m.If(self._foreign(row)):
                self._fail(m, Status.XSEQ)
            with m.Elif((self.opcode != Opcode.UNPIN) & ~row.hashed):
                self._fail(m, Status.STALE_GEN)
            with m.Elif(self.opcode == Opcode.EVICT):
                m.d.comb += self.blocks.write(self.found, self._row(m, self.blocks, row, hashed=0))
                m.next = "FORGET"
            with m.Elif(self.opcode == Opcode.UNPIN):
                m.d.comb += self.blocks.read(self.found)
                m.d.sync += held.eq(1), block.eq(self.found), newer.eq(0), self.unpins.eq(1)
                m.d.sync += self.index.eq(0), self.end.eq(0)
                m.next = "WALK"
                with m.If(~row.pinned):
                    m.d.sync += held.eq(0), self.unpins.eq(0)
                    self._fail(m, Status.DOUBLE_FREE)
            with m.Elif(row.pinned | row.ref.all()):
                self._fail(m, Status.REF_OVERFLOW)
            with m.Else():
                m.d.comb += self.blocks.write(self.found, self._row(
                    m, self.blocks, row, ref=row.ref + 1, pinned=1, listed=0))
                m.d.comb += self.next.read(self.found), self.prev.read(self.found)
                m.next = "PINNED"
        with m.State("PINNED"):
            with m.If(row.listed):
                self._unlink(m, self.found)
            self._done(m, Opcode.PIN, block=self.found)

    def _begin_reset(self, m, given, row):
        m.d.sync += self.forgets.eq(1)
        m.next = "SWEEP"
        with m.If(self.count != self.pool - 1):
            m.d.sync += self.forgets.eq(0)
            self._fail(m, Status.BUSY)

    # Slots in the order of attention

    def _begin_stream(self, m, given, row):
        config = self.config
        first, count, seen = Signal(21), Signal(21), Signal(21)
        m.d.comb += [
            seen.eq(Mux(given.count < row.length, given.count, row.length)),
            first.eq(Mux(given.window, row.length - seen, given.first)),
            count.eq(Mux(given.window, seen, Mux(given.count != 0, given.count, Mux(
                first < row.length, row.length - first, 0))))]
        with m.If(row.inflight.all()):
            self._fail(m, Status.BUSY)
        with m.Elif((given.layer >= config.layers) | (given.heads == 0) | (given.heads >> config.kv_heads != 0)):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Elif(given.window & (given.count == 0)):
            self._fail(m, Status.BAD_CFG)
        with m.Else():
            sinks = Mux(given.sinks < first, given.sinks, first)
            self._span(m, row, first, count, sinks, row.holes)

    def _begin_write(self, m, given, row):
        with m.If(given.layer >= self.config.layers):
            self._fail(m, Status.OUT_OF_RANGE)
        with m.Else():
            self._span(m, row, given.first, given.count, 0, 1)

    def _span(self, m, row, first, count, sinks, checks):
        """Go through `sinks` slots and the ones from `first` on; twice where an entry may be refused."""
        m.d.sync += [self.first.eq(first), self.slots.eq(count), self.sinks.eq(sinks), self.checks.eq(checks),
                     self.beats.eq(0)]
        m.next = "SPAN"
        with m.If((count == 0) | (first + count > row.length)):
            self._fail(m, Status.OUT_OF_RANGE)

    def _stream(self, m):
        config, row, size = self.config, self.blocks.row, self.config.block_tokens
        at, left, leads = Signal(21), Signal(21), Signal()
        slot, slots, end = Signal(range(size)), Signal(range(size + 1)), Signal()
        block = self.ranges.payload.block
        writes = self.opcode == Opcode.WRITE
        m.d.comb += [
            slot.eq(at[:self.shift] if self.shift else 0),
            slots.eq(Mux(left < size - slot, left, size - slot)),
            end.eq(~leads & (left == slots)),
            self.ranges.payload.block.eq(self.entries.row), self.ranges.payload.first.eq(slot),
            self.ranges.payload.slots.eq(slots), self.ranges.payload.write.eq(writes),
            self.ranges.payload.end.eq(end)]
        each, heads = 2 * config.row_beats, self._given(Opcode.STREAM).heads[:config.kv_heads]
        total = Signal(48)
        m.d.comb += total.eq(self.beats * Mux(writes, config.kv_heads, _count(heads)))

        def advance():
            m.d.sync += at.eq(at + slots), left.eq(left - slots)
            m.next = "SLOTS"
            with m.If(left == slots):
                m.d.sync += at.eq(self.first), left.eq(self.slots), leads.eq(0)
                with m.If(~leads):
                    m.d.sync += self.checks.eq(0)
                    m.next = "SPAN"
                    with m.If(~self.checks):
                        m.next = "SPANNED"

        with m.State("SPAN"):
            m.d.sync += [leads.eq(self.sinks != 0), at.eq(Mux(self.sinks != 0, 0, self.first)),
                         left.eq(Mux(self.sinks != 0, self.sinks, self.slots))]
            m.next = "SLOTS"
        with m.State("SLOTS"):
            m.d.comb += self.entries.read(self._entry(self.sid, at >> self.shift))
            m.next = "RANGE"
        with m.State("RANGE"):
            with m.If(~self.checks):
                m.d.comb += self.ranges.valid.eq(1)
                with m.If(self.ranges.ready):
                    m.d.sync += self.beats.eq(self.beats + config.scale_beats + slots * each)
                    advance()
            with m.Elif(block == 0):
                self._fail(m, Status.NULL_DEREF)
            with m.Elif(writes):
                m.d.comb += self.blocks.read(block)
                m.next = "ALONE"
            with m.Else():
                advance()
        with m.State("ALONE"):
            with m.If((row.ref > 1) | row.hashed):
                self._fail(m, Status.WRITE_SHARED)
            with m.Else():
                advance()
        with m.State("SPANNED"):
            with m.If(~writes):
                m.d.comb += self.sequences.write(self.sid, self._row(
                    m, self.sequences, self.seq, inflight=self.seq.inflight + 1))
                self._add(m, "stream_beats", total)
            self._done(m, Opcode.STREAM, beats=total)

    # What is seen from outside

    def _begin_stat(self, m, given, row):
        m.d.comb += [*self.sequences.read(given.index), *self.blocks.read(given.index), *self.next.read(given.index),
                     *self.hashes.read(given.index)]
        with m.Switch(given.table):
            with m.Case(Table.COUNTER):
                self._value(m, given, self.readings[given.index])
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

    def _value(self, m, given, value):
        wide = Signal(64, name="wide")
        m.d.comb += wide.eq(value)
        self._done(m, Opcode.STAT, value=Mux(given.high, wide >> 48, wide[:48]))

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
                    next=Mux(row.listed & (given.index != self.tail), self.next.row, 0)))


def _among(value, members):
    """Whether a value is one of some."""
    result = False
    for member in members:
        result = (value == member) | result
    return result


def _count(bits):
    """How many bits are set."""
    return sum(bits[1:], bits[0]) if len(bits) > 1 else bits[0]
