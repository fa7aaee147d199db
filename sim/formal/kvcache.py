# SPDX-License-Identifier: Apache-2.0
"""Invariants of `hw.kvcache.controller.Controller`, by induction over commands.

They hold when the controller is idle for the first time after a reset (`AfterReset`); and from any idle state in
which they hold, with any contents of the tables, any one command leads to an idle state in which they hold again
(`EachCommand`). So they hold between all commands, however many there were. A command takes a bounded number of
cycles while no port stalls, so that bounded runs decide this; that it is bounded is one of the properties.

Tables are registers here, in which every word can be seen, in place of memories.
"""

from amaranth.hdl import Array, Assume, Cat, Const, Instance, Module, Mux, Shape, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from golden.config import KvCache
from golden.paging import HEADER, Opcode, State, Status
from hw.kvcache.controller import Controller
from hw.kvcache.tables import Rows
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["AfterReset", "CYCLES", "Commands", "DEPTHS", "EachCommand", "SMALLEST", "TASKS", "commands"]

SMALLEST = KvCache(blocks=4, sequences=2, table=3, block_tokens=2, layers=1, kv_heads=1, head_dim=8, beat=8,
                   tenant_bits=1).model_copy(update={"hash_bits": 3})
"""Three blocks and the null block, two sequences of up to three, two hashes to a bucket."""


class Words(Component):
    """What `hw.ram.Ram` is, in registers that can be looked at."""

    def __init__(self, width, depth):
        self.words = [Signal(width, name=f"word{n}", reset_less=True) for n in range(depth)]
        address = ceil_log2(depth)
        super().__init__({
            "write_en": In(1), "write_address": In(address), "write_data": In(width),
            "read_en": In(1), "read_address": In(address), "read_data": Out(width)})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.read_en):
            m.d.sync += self.read_data.eq(Array(self.words)[self.read_address])
        with m.If(self.write_en):
            m.d.sync += Array(self.words)[self.write_address].eq(self.write_data)
        return m


class AfterReset(Controller):
    """A controller with its invariants inside."""

    @property
    def name(self):
        return "kvcache_after_reset"

    def _table(self, m, name, shape, depth):
        m.submodules[name] = ram = Words(Shape.cast(shape).width, max(depth, 2))
        return Rows(ram, shape)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.submodules.contract = self.invariants(self, assume=True)
        return m

    @property
    def invariants(self):
        return Invariants


class EachCommand(AfterReset):
    """One that begins in any idle state in which the invariants hold, takes a command, and is idle again."""

    def __init__(self, config, command):
        super().__init__(config)
        self.most = CYCLES[command]
        self.command = command.name.lower()

    @property
    def name(self):
        return f"kvcache_{self.command}"

    @property
    def invariants(self):
        return Step


class Tables:
    """What the tables mean: a value for each thing that commands can tell apart.

    Parameters
    ----------
    words : callable
        From a table of the controller to its words.
    """

    def __init__(self, m, controller, words, head, tail, count):
        config = self.config = controller.config
        self.m, self.head, self.tail, self.count, self.pool = m, head, tail, count, controller.pool

        def rows(table):
            shape, each = table.row.shape() if isinstance(table.row, data.View) else None, words(table)
            return [data.View(shape, word) if shape else word for word in each]

        self.sequences, self.blocks, self.hashes = map(rows, (
            controller.sequences, controller.blocks, controller.hashes))
        self.next, self.prev, self.younger, self.older, self.ends = map(rows, (
            controller.next, controller.prev, controller.younger, controller.older, controller.ends))
        entries, most = rows(controller.entries), 1 << controller.entry_bits
        self.entries = [entries[sid * most:sid * most + config.table] for sid in range(config.sequences)]
        self.controller = controller

    def name(self, value, shape=1):
        """A signal of this value."""
        named = Signal(shape)
        self.m.d.comb += named.eq(value)
        return named

    def at(self, rows, index):
        """A row by its number."""
        shape = rows[0].shape() if isinstance(rows[0], data.View) else None
        value = self.name(Array([each.as_value() if shape else each for each in rows])[index], len(
            rows[0].as_value() if shape else rows[0]))
        return data.View(shape, value) if shape else value

    def mapped(self, sid, index):
        """Whether an entry is its sequence's, and holds a reference."""
        row = self.sequences[sid]
        return self.has(sid, index) & ((row.state == State.RUNNING) | (row.state == State.PREEMPTED))

    def has(self, sid, index):
        return (index * self.config.block_tokens) < self.sequences[sid].length

    def owned(self, block):
        return (self.blocks[block].ref != 0) | self.blocks[block].hashed

    def listed(self):
        """The free list, as far as it may go."""
        found, block = [], self.head
        for _ in range(self.config.blocks - 1):
            found.append(block)
            block = self.at(self.next, block)
        return found

    def chain(self, bucket):
        """Blocks of a bucket's list, the oldest first, as far as it may go."""
        found, block = [], self.ends[bucket].head
        for _ in range(self.config.blocks - 1):
            found.append(block)
            block = self.at(self.younger, block)
        return found

    def in_bucket(self, block, bucket):
        return self.blocks[block].hashed & (self.controller._bucket(self.hashes[block]) == bucket)


def total(bits):
    """How many of them are set."""
    return sum(bits, Const(0))


def invariants(t):
    """What holds between commands, by name."""
    config, pool = t.config, range(1, t.config.blocks)
    sids, indices = range(config.sequences), range(config.table)
    found, count = t.listed(), t.count
    yield "I1: a block counts the entries that hold it and its pin", all_of(
        t.blocks[block].ref == total([t.mapped(sid, index) & (t.entries[sid][index] == block)
                                      for sid in sids for index in indices]) + t.blocks[block].pinned
        for block in pool)
    free = [(t.blocks[block].ref == 0) & (block < t.pool) for block in pool]
    yield "I2, I3: the free list has each block without references once", (count == total(free)) & all_of(
        ~free[block - 1] | any_of((place < count) & (each == block) for place, each in enumerate(found))
        for block in pool)
    yield "I3: its links agree", all_of(
        (place >= count) | (each != 0) & (each < t.pool) for place, each in enumerate(found)) & all_of(
        (place + 1 >= count) | (t.at(t.prev, later) == each)
        for place, (each, later) in enumerate(zip(found, found[1:], strict=False))) & all_of(
        (count != place + 1) | (t.tail == each) for place, each in enumerate(found))
    yield "I5: a pin is a reference", all_of(~t.blocks[block].pinned | (t.blocks[block].ref != 0) for block in pool)
    for bucket, ends in enumerate(t.ends):
        members = [t.in_bucket(block, bucket) for block in pool]
        chain, size = t.chain(bucket), t.name(total(members), range(config.blocks))
        yield f"I6: bucket {bucket} lists the cached blocks of its hashes, each once", (
            (ends.head == 0) == (size == 0)) & all_of(
            ~member | any_of((place < size) & (each == block) for place, each in enumerate(chain))
            for block, member in zip(pool, members, strict=True)) & all_of(
            (place + 1 >= size) | (t.at(t.older, later) == each)
            for place, (each, later) in enumerate(zip(chain, chain[1:], strict=False))) & all_of(
            (size != place + 1) | (ends.tail == each) for place, each in enumerate(chain))
    yield "I8: an entry is a block of its sequence's tenant", all_of(
        ~t.mapped(sid, index) | (t.entries[sid][index] == 0) | (
            t.at(t.blocks, t.entries[sid][index]).tenant == t.sequences[sid].tenant)
        for sid in sids for index in indices)
    yield "I9: the null block is nobody's, and nor is any beyond the pool", all_of(
        (t.blocks[block].ref == 0) & ~t.blocks[block].hashed & ~t.blocks[block].pinned
        if block == 0 else (block < t.pool) | (t.blocks[block].ref == 0) & ~t.blocks[block].hashed
        for block in range(config.blocks))
    yield "I9: an entry is empty only where a sequence is known to have such", all_of(
        t.sequences[sid].holes | ~t.has(sid, index) | (t.entries[sid][index] != 0)
        for sid in sids for index in indices)
    yield "entries are blocks of the pool", all_of(
        ~t.has(sid, index) | (t.entries[sid][index] < t.pool) for sid in sids for index in indices)
    yield "I10: a sequence fits its table, and has tokens in memory while it runs", all_of(
        (each.length <= config.table * config.block_tokens) & (
            (each.state != State.CLOSED) & (each.state != State.PREEMPTED) | (each.length == 0))
        for each in t.sequences)
    yield "sequences that are closed or swapped out are not read", all_of(
        ((each.state != State.CLOSED) & (each.state != State.SWAPPED)) | (each.inflight == 0) for each in t.sequences)


def equal(now, then):
    """Whether two `Tables` mean the same: what commands can tell apart, the order of lists included."""
    config, pool = now.config, range(1, now.config.blocks)
    yield all_of(one.as_value() == other.as_value() for one, other in zip(now.sequences, then.sequences, strict=True))
    yield all_of(~now.has(sid, index) | (now.entries[sid][index] == then.entries[sid][index])
                 for sid in range(config.sequences) for index in range(config.table))
    for block in pool:
        one, other = now.blocks[block], then.blocks[block]
        yield (one.ref == other.ref) & (one.hashed == other.hashed) & (one.pinned == other.pinned) & (
            ~now.owned(block) | (one.tenant == other.tenant)) & (
            ~one.hashed | (now.hashes[block] == then.hashes[block]))
    yield now.count == then.count
    yield all_of((place >= now.count) | (one == other)
                 for place, (one, other) in enumerate(zip(now.listed(), then.listed(), strict=True)))
    for bucket in range(len(now.ends)):
        size = now.name(total([now.in_bucket(block, bucket) for block in pool]), range(config.blocks))
        yield all_of((place >= size) | (one == other) for place, (one, other) in enumerate(
            zip(now.chain(bucket), then.chain(bucket), strict=True)))


def all_of(conditions):
    return Cat(*conditions).all()


def any_of(conditions):
    return Cat(*conditions).any()


class Invariants(Contract):
    """They hold whenever the controller is idle."""

    def rules(self, m, block):
        self.now = Tables(m, block, lambda table: table.ram.words, block.head, block.tail, block.count)
        idle = block.fsm.ongoing("IDLE")
        self.held = []
        for name, holds in invariants(self.now):
            held = self.now.name(holds)
            self.held.append(held)
            self.promise(name, ~idle | held)
        self.promise("no data of the null block, nor of one that is not the sequence's (I8, I9)",
                     ~block.ranges.valid | self.allowed(block, block.ranges.payload.block))
        self.promise("what is written has no other reader (I4)",
                     ~(block.ranges.valid & block.ranges.payload.write) | self.alone(block.ranges.payload.block))

    def allowed(self, block, number):
        """Whether the command's sequence is the tenant's, and has this block, which is not the null block."""
        t, given = self.now, block._given(Opcode.STREAM)
        return (number != 0) & any_of(
            (block.sid == sid) & (t.sequences[sid].tenant == block.tenant) & (
                (given.gen == 0) | (given.gen == t.sequences[sid].gen)) & any_of(
                t.mapped(sid, index) & (t.entries[sid][index] == number) for index in range(t.config.table))
            for sid in range(t.config.sequences))

    def alone(self, number):
        row = self.now.at(self.now.blocks, number)
        return (row.ref == 1) & ~row.hashed


class Step(Invariants):
    """From any idle state in which they hold."""

    def rules(self, m, block):
        super().rules(m, block)
        idle, begins, taken, refused, at = block.fsm.ongoing("IDLE"), Signal(), Signal(), Signal(), Signal(8)
        m.submodules.begins = Instance("initstate", o_Y=begins)
        quiet = [block.asked.valid, block.judged.valid, block.valid, block.holds, block.unpins, block.forgets,
                 block.batch, block.left, block.swept, block.waited, block.missed]
        m.d.comb += Assume(~begins | idle & all_of(self.held) & all_of(each == 0 for each in quiet)
                           & ~taken & ~refused & (at == 0) & block.vacant)
        moves = self.moves(block.i) | block.fsm.ongoing("RETIRE")
        m.d.sync += taken.eq(taken | moves), refused.eq(refused | (block.refused != Status.OK))
        m.d.sync += at.eq(Mux(taken, at + 1, 0))
        m.d.comb += Assume(~(taken & block.i.valid)), Assume(~(taken & block.retire.valid & idle))

        # What there was
        kept = {}
        def keep(value):
            if id(value) not in kept:
                kept[id(value)] = then = Signal.like(value)
                with m.If(begins):
                    m.d.sync += then.eq(value)
            return kept[id(value)]
        was = Tables(m, block, lambda table: [keep(word) for word in table.ram.words], *map(
            keep, (block.head, block.tail, block.count)))
        ended = self.now.name(taken & idle & ~self.moves(block.i))
        self.promise("what was quiet is so again", ~ended | all_of(each == 0 for each in quiet if (
            each is not block.missed and each is not block.waited)))
        looks = (block.opcode == Opcode.LOOKUP) | (block.opcode == Opcode.STAT)
        same = self.now.name(all_of(equal(self.now, was)))
        self.promise("I7: a command that is refused, or only looks, changes nothing",
                     ~(ended & (refused | looks)) | same)
        new = was.count - self.now.count
        popped = Signal(16)
        with m.If(block.done):
            m.d.sync += popped.eq(block.payload)
        self.promise("I10: as many blocks are taken as the completion says",
                     ~(ended & ~refused & (block.opcode == Opcode.APPEND)) | (popped == new))
        self.promise("I11: a command ends", (at <= block.most) | ended)
        self.reach("a command that is carried out", ended & ~refused)
        self.reach("a command that is refused", ended & refused)


class Commands(Contract):
    """What a host does: any commands of one kind with as many operands as there may be, and nothing stalls."""

    opcode = None

    def rules(self, m, block):
        given = data.View(data.StructLayout(HEADER), block.i.payload[:32])
        count = {Opcode.LOOKUP: block.i.payload[32:48], Opcode.ATTACH: block.i.payload[48:64]}.get(self.opcode, 0)
        self.require("the pool and the policy are steady", (block.pool == block.config.blocks) & (
            block.lru_tail == self.some(1, "policy")))
        self.require("what a host says", block.operands.valid & ~block.retire.valid & (
            ~block.i.valid | (count <= block.config.table + 1) & (
                (given.opcode == self.opcode) if self.opcode else 1)))
        self.require("nothing stalls", Cat(
            getattr(block, name).ready for name in ("o", "hits", "ranges", "moves", "events")).all())


CYCLES = {
    Opcode.ALLOC_SEQ: 4, Opcode.COMMIT: 5, Opcode.STAT: 5, Opcode.RESET_PREFIX: 9, Opcode.PIN: 9, Opcode.UNPIN: 9,
    Opcode.EVICT: 9, Opcode.FREE: 9, Opcode.PREEMPT: 9, Opcode.TRUNCATE: 9, Opcode.WINDOW: 9, Opcode.LOOKUP: 16,
    Opcode.FORK: 18, Opcode.APPEND: 18, Opcode.SWAP_OUT: 18, Opcode.WRITE: 24, Opcode.ATTACH: 34, Opcode.SWAP_IN: 34,
    Opcode.STREAM: 34}
"""From when a command is taken until the controller is idle again, at most, at this size, while no port stalls."""
DEPTHS = {opcode: cycles + 2 for opcode, cycles in CYCLES.items()} | {
    Opcode.LOOKUP: 13, Opcode.FORK: 13, Opcode.APPEND: 13, Opcode.SWAP_OUT: 14, Opcode.WRITE: 16, Opcode.ATTACH: 13,
    Opcode.SWAP_IN: 14, Opcode.STREAM: 16}
"""Cycles that are looked at. Where all would take hours it is fewer: shorter courses of the command end within."""


def commands(opcode):
    """The contract of one kind of command from any idle state."""
    return type(f"{opcode.name}", (Commands,), {"opcode": opcode, "resets": False})


SIMPLE = ("counters_*",)       # what they count is nothing to the tables
TASKS = [
    Task(AfterReset(SMALLEST), Commands, depth=12, cover=0, cut=SIMPLE),
    *(Task(EachCommand(SMALLEST, opcode), commands(opcode), depth=depth, cover=depth,
           cut=() if opcode == Opcode.STAT else SIMPLE) for opcode, depth in DEPTHS.items())]
