# SPDX-License-Identifier: Apache-2.0
"""The control of the KV cache: commands in, tables in memories, completions out."""

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
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
from hw.kvcache.counters import Counters
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
from hw.ram import Ram
from hw.stream import Buffer

__all__ = ["Controller"]

ON_SEQUENCES = (Opcode.ATTACH, Opcode.APPEND, Opcode.COMMIT, Opcode.FORK, Opcode.STREAM, Opcode.WRITE,
                Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT, Opcode.SWAP_IN)
WHEN_QUIET = (Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT)
WHEREVER = (Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_IN)    # the sequence may be in host memory
WITH_OPERANDS = (Opcode.LOOKUP, Opcode.ATTACH)
GAUGES = ("free", "free_min", "head", "tail", "wasted_slots")


class Controller(Tokens, Hashes, Prefixes, Walks, Swaps, Names, Spans, Readings, Block):
    """Carries out commands one after the other, as `golden.kvcache` says.

    A command's row of the table of sequences, and what else is known to be needed, is read as the command is
    taken; judged in the cycle after (`CHECK`); and what the command does begins in the third (`BEGIN`).
    `docs/kvcache.md` has the cycles of each. Some completions leave while the tables are still brought up to
    date; the next command waits for that.

    Parameters
    ----------
    config : golden.config.KvCache
    patience : int
        Cycles in which the next operand must come; a command whose operands do not is refused with `BUS_ERR`.

    Members
    -------
    i : In(stream.Signature(128))
        Commands.
    operands : In(stream.Signature(64))
        What follows `LOOKUP` and `ATTACH`: hashes or blocks.
    o : Out(stream.Signature(completion))
    hits : Out(stream.Signature)
        Blocks that a `LOOKUP` finds, as many as its completion says.
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

    def __init__(self, config, patience=1 << 16):
        self.config, self.patience = config, patience
        self.shift = ceil_log2(config.block_tokens)
        self.entry_bits = ceil_log2(config.table)
        self.number = range(config.table + 2)                           # of entries
        self.buckets = 1 << ceil_log2(config.blocks)
        super().__init__(self.ports())

    def ports(self):
        """Members of the signature."""
        config, block = self.config, range(self.config.blocks)
        return {
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
        }

    def elaborate(self, platform):
        m = Module()
        config = self.config
        block, length = range(config.blocks), range(config.table * config.block_tokens + 1)
        for name, (shape, depth) in self.tables().items():
            setattr(self, name, self._table(m, name, shape, depth))

        # The free list
        self.head, self.tail = Signal(block), Signal(block)
        self.count, self.fewest = Signal(block), Signal(block)

        # The command
        self.word = Signal(COMMAND)
        header = self._view(HEADER)
        self.opcode = header.opcode[:ceil_log2(max(Opcode) + 1)]        # `_check` looks at the other bits
        self.tag, self.tenant, self.gen = header.tag, header.tenant[:config.tenant_bits], header.gen
        self.sid = self.word[32:32 + max(ceil_log2(config.sequences), 1)]
        self.seq = Signal.like(self.sequences.row)
        self.verdict = Signal(Status)                                   # on the command's sequence
        self.held = Signal(self.number)                                 # entries of the sequence
        self.left = Signal(16)                                          # operands to come
        self.index, self.end = Signal(self.number), Signal(self.number) # entries
        self.need = Signal(16)                                          # blocks to pop
        self.length = Signal(26)                                        # that of the sequence afterwards
        self.got, self.copied = Signal(16), Signal()
        self.step, self.beyond = Signal(self.number), Signal()
        self.first, self.slots, self.sinks = Signal(21), Signal(21), Signal(length)
        self.rest = Signal(signed(22))                                  # slots from the first one on
        beats = 2 * config.table * config.kv_heads * config.segment_beats(config.block_tokens)  # with sinks, at most
        self.checks, self.heads, self.beats = Signal(), Signal(config.kv_heads), Signal(range(beats + 1))
        self.last, self.found, self.gone = Signal(block), Signal(block), Signal(block)
        self.former = Signal(config.tenant_bits)                        # owner of the block that is gone
        self.key = Signal(config.hash_bits)
        self.done, self.refused, self.payload = Signal(), Signal(Status), Signal(48)

        self.tailed = Signal()
        self.further, self.lost, self.objection = Signal(), Signal(), Signal(Status)   # of a block that is named
        self._count(m)
        self._complete(m)
        self._listen(m)
        self._take(m)
        self._prepare(m)
        with m.FSM(init="SWEEP") as self.fsm:
            self._sweep(m)
            self._idle(m)
            self._check(m)
            self._begin(m)
            self._append(m)
            self._pop(m)
            self._forget(m)
            self._commit(m)
            self._prefix(m)
            self._walk(m)
            self._swap(m)
            self._named(m)
            self._stream(m)
            self._stat(m)
            self._undo(m)
        return m

    def tables(self):
        """Shape and number of the rows of each table, by name."""
        config = self.config
        block, length = range(config.blocks), range(config.table * config.block_tokens + 1)
        links = {name: (ceil_log2(config.blocks), config.blocks) for name in ("next", "prev", "younger", "older")}
        return {
            "sequences": (data.StructLayout({
                "state": 2, "tenant": config.tenant_bits, "gen": 8, "length": length, "inflight": 4, "holes": 1}),
                config.sequences),
            "entries": (ceil_log2(config.blocks), config.sequences << self.entry_bits),
            "blocks": (data.StructLayout({
                "ref": config.ref_bits, "hashed": 1, "pinned": 1, "tenant": config.tenant_bits,
                "first": 1, "last": 1}), config.blocks),    # of the free list, when `ATTACH` took the block off it
            **links, "hashes": (config.hash_bits, config.blocks),
            "ends": (data.StructLayout({"head": block, "tail": block}), self.buckets),
        }

    def _table(self, m, name, shape, depth):
        """Rows in a memory of their own."""
        m.submodules[name] = ram = Ram(Shape.cast(shape).width, max(depth, 2))
        return Rows(ram, shape)

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

    def _done(self, m, opcode, then="IDLE", **payload):
        packed = Signal(data.StructLayout(PAYLOADS[opcode]), name="packed") if PAYLOADS[opcode] else Signal(1)
        m.d.comb += [packed[name].eq(value) for name, value in payload.items()]
        m.d.comb += self.done.eq(1), self.payload.eq(packed)
        m.next = then

    def _fail(self, m, status, shortfall=0, undo=False):
        """Refuse the command, once its operands are gone."""
        m.d.comb += self.refused.eq(status), self.payload.eq(shortfall), self.flush.eq(1)
        m.next = "UNDO" if undo else "DRAIN"

    def _complete(self, m):
        """The completion, and the first error."""
        m.submodules.completions = buffer = Buffer(completion())
        connect(m, buffer.o, flipped(self.o))
        self.vacant = buffer.i.ready
        m.d.comb += [
            buffer.i.valid.eq(self.done | (self.refused != Status.OK)), buffer.i.payload.tag.eq(self.tag),
            buffer.i.payload.status.eq(self.refused), buffer.i.payload.payload.eq(self.payload)]
        went, refused = Signal(), Signal(Status)                        # a cycle later
        m.d.sync += went.eq(self.done), refused.eq(self.refused)
        with m.If(went & (self.count < self.fewest)):
            m.d.sync += self.fewest.eq(self.count)
        with m.If(self.clear):
            m.d.sync += self.error.eq(0)
        with m.Elif((refused != Status.OK) & (self.error.status == Status.OK)):
            opcode = self._view(HEADER).opcode
            named = among(opcode, ON_SEQUENCES) | (opcode == Opcode.ALLOC_SEQ)
            m.d.sync += [self.error.status.eq(refused), self.error.opcode.eq(opcode),
                         self.error.sid.eq(Mux(named, self.word[32:48], 0)),
                         self.error.number.eq(self.counters.commands)]

    def _count(self, m):
        """Counters and gauges."""
        config = self.config
        bits = {"cow_bytes": config.copy_bytes(config.block_tokens).bit_length(), "stream_beats": len(self.beats),
                "query_tokens": 16 + self.shift, "hit_tokens": config.block_tokens.bit_length()}
        m.submodules.counters = self.counters = Counters(tuple(
            (name, 0 if name in GAUGES else bits.get(name, 1), self.begins(name)) for name in COUNTERS),
            config.counter_bits)
        self.wasted = Signal(range(config.sequences * config.block_tokens))
        self.change = Signal(signed(self.shift + 2))
        m.d.sync += self.change.eq(0), self.wasted.eq(self.wasted + self.change)
        for status in Status:
            if status != Status.OK:
                with m.If(self.refused == status):
                    self._add(m, f"error_{status.name.lower()}")
        with m.If(self.refused == Status.OUT_OF_BLOCKS):
            self._add(m, "oom")
        with m.If(self.done | (self.refused != Status.OK)):
            self._add(m, "commands")

    def begins(self, name):
        """What a counter begins with: a command counts itself."""
        return int(name == "commands")

    def _add(self, m, name, value=1):
        m.d.comb += self.counters.add[name].eq(value)

    def _wastes(self, m, after, before):
        """Slots that hold nothing change in number."""
        m.d.sync += self.change.eq(Value.cast(after).as_unsigned() - before if self.shift else 0)

    def _foreign(self, row):
        """Whether a block is another tenant's."""
        return ((row.ref != 0) | row.hashed) & (row.tenant != self.tenant)

    # Beginnings

    def _sweep(self, m):
        """After reset all is free; the same states forget all hashes."""
        config = self.config
        self.swept, self.forgets = Signal(range(max(self.buckets, config.sequences) + 1)), Signal()
        at, forgets = self.swept, self.forgets
        with m.State("SWEEP"):
            m.d.sync += at.eq(at + 1)
            with m.If(at < self.buckets):
                m.d.comb += self.ends.write(at, 0)
            with m.If(at < config.blocks):
                m.d.comb += self.blocks.write(at, 0)
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
            with m.If(self._tell(m, Event.CLEARED)):
                m.d.sync += forgets.eq(0)
                self._done(m, Opcode.RESET_PREFIX)

    def _idle(self, m):
        incoming = data.View(data.StructLayout(HEADER | ARGUMENTS[Opcode.ATTACH]), self.i.payload[:85])
        looked = data.View(data.StructLayout(HEADER | ARGUMENTS[Opcode.LOOKUP]), self.i.payload[:48])
        commit = data.View(data.StructLayout(HEADER | ARGUMENTS[Opcode.COMMIT]), self.i.payload[:128])
        with m.State("IDLE"):
            m.d.comb += [*self.entries.read(self._entry(commit.sid[:len(self.sid)], commit.index)),
                         *self.ends.read(self._bucket(commit.hash))]
            with m.If(self.retire.valid):
                m.d.comb += self.sequences.read(self.retire.payload)
                m.next = "RETIRE"
            with m.Elif(self.i.valid & self.vacant):
                m.d.comb += self.i.ready.eq(1), self.sequences.read(commit.sid)
                m.d.sync += [
                    self.word.eq(self.i.payload), self.got.eq(0), self.copied.eq(0), self.missed.eq(0),
                    self.left.eq(Mux(incoming.opcode == Opcode.ATTACH, incoming.count,
                                     Mux(looked.opcode == Opcode.LOOKUP, looked.count, 0)))]
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
        """The sequence's row is there: what is refused for it, and what all commands reckon with."""
        config, row, header = self.config, self.sequences.row, self._view(HEADER)
        known, sequenced, quiet, wherever = Signal(), Signal(), Signal(), Signal()
        append, attach, window = (self._given(opcode) for opcode in (Opcode.APPEND, Opcode.ATTACH, Opcode.WINDOW))
        m.d.comb += [
            known.eq(among(header.opcode, Opcode) & (header.tenant >> config.tenant_bits == 0)),
            sequenced.eq(among(self.opcode, ON_SEQUENCES)),
            quiet.eq(among(self.opcode, WHEN_QUIET)),
            wherever.eq(among(self.opcode, WHEREVER)),
        ]
        status = self._refusal(row, append.sid, quiet & (row.inflight != 0) | ~wherever & (row.state == State.SWAPPED))
        held, more = Signal(self.number), Signal(25)
        bottom, seen, upper = Signal(self.number), Signal(22), Signal(self.number)
        m.d.comb += [
            held.eq(self._entries(row.length)),
            more.eq(Mux(self.opcode == Opcode.ATTACH, attach.tokens + (attach.count << self.shift), append.tokens)),
            bottom.eq(Mux(window.sinks > config.table * config.block_tokens, config.table,
                          self._entries(window.sinks))), seen.eq(window.computed + 1 - window.window),
            upper.eq(Mux(seen[-1], 0, seen[:-1] >> self.shift)),
        ]
        with m.State("CHECK"):
            m.d.sync += [
                self.seq.eq(row), self.held.eq(held), self.length.eq(row.length + more),
                self.verdict.eq(Mux(~known, Status.BAD_CFG, Mux(sequenced, status, Status.OK))),
                self.beyond.eq((row.length >> self.shift) <= self._given(Opcode.COMMIT).index),
                self.looks.eq(self.opcode == Opcode.LOOKUP),
                self.by_hash.eq((self.opcode == Opcode.LOOKUP) | attach.by_hash)]
            self._measure(m, row)
            m.next = "BEGIN"

            # From entry to entry
            m.d.sync += self.index.eq(0), self.end.eq(0)
            with m.Switch(self.opcode):
                with m.Case(Opcode.FORK):
                    m.d.sync += self.end.eq(held)
                    m.d.comb += self.sequences.read(self._given(Opcode.FORK).target)
                with m.Case(Opcode.SWAP_OUT, Opcode.SWAP_IN):
                    m.d.sync += self.end.eq(held)
                with m.Case(Opcode.FREE, Opcode.PREEMPT):
                    m.d.sync += self.index.eq(held), self.end.eq(Mux(row.state == State.SWAPPED, held, 0))
                with m.Case(Opcode.TRUNCATE):
                    m.d.sync += self.index.eq(held), self.end.eq(self._entries(self._given(Opcode.TRUNCATE).length))
                with m.Case(Opcode.WINDOW):
                    m.d.sync += self.index.eq(upper), self.end.eq(bottom)
                with m.Case(Opcode.APPEND, Opcode.ATTACH):
                    m.d.sync += self.index.eq(held), self.end.eq(held)
                    m.d.comb += self.entries.read(self._entry(self.sid, row.length >> self.shift))
                with m.Case(Opcode.COMMIT):
                    self._probe(m, self.entries.row)
                with m.Case(*ON_BLOCKS):
                    named = self._given(Opcode.PIN)
                    self._probe(m, Mux(named.by_hash != 0, self.ends.row.head, named.block))
                with m.Case(Opcode.STAT):
                    with m.If(known):
                        self._begin_stat(m)

            with m.If(among(self.opcode, WITH_OPERANDS)):
                m.d.comb += self.takes.eq(1)

    def _begin(self, m):
        """The first step of all commands."""
        with m.State("BEGIN"):
            with m.If(among(self.opcode, WITH_OPERANDS)):
                m.d.comb += self.takes.eq(1)
            with m.If(self.verdict != Status.OK):
                self._fail(m, self.verdict)
            with m.Else(), m.Switch(self.opcode):
                for opcode, begin in (
                        (Opcode.ALLOC_SEQ, self._begin_alloc), (Opcode.APPEND, self._begin_append),
                        (Opcode.ATTACH, self._begin_attach), (Opcode.COMMIT, self._begin_commit),
                        (Opcode.FORK, self._begin_fork), (Opcode.STREAM, self._begin_stream),
                        (Opcode.WRITE, self._begin_write), (Opcode.TRUNCATE, self._begin_truncate),
                        (Opcode.WINDOW, self._begin_window), (Opcode.SWAP_OUT, self._begin_swap_out),
                        (Opcode.SWAP_IN, self._begin_swap_in), (Opcode.LOOKUP, self._begin_lookup),
                        (Opcode.RESET_PREFIX, self._begin_reset)):
                    with m.Case(opcode):
                        begin(m, self._given(opcode), self.seq)
                with m.Case(Opcode.FREE, Opcode.PREEMPT):
                    self._drop(m, 0)
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
        with m.If(self.count != self.pool - 1):
            self._fail(m, Status.BUSY)
        with m.Else():
            m.d.sync += self.forgets.eq(1)
            m.next = "SWEEP"
