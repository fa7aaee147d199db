# SPDX-License-Identifier: Apache-2.0
"""The KV-cache controller, command by command: what each does to the tables, and what it refuses.

Keys and values live in blocks of `block_tokens` tokens, for all layers and heads. A sequence has a table of
blocks; a block counts the references that tables and a pin hold. A block without any is on the free list,
whose head goes first. A full block may be cached: it keeps a hash of all tokens up to its end, and a new
sequence that begins with the same tokens maps it again, even off the free list. Block 0 is the null block:
an entry of 0 is one that a window has emptied, and a link of 0 ends a list.

Blocks come back deepest first. With the policy `lru_tail` they go to the tail of the free list; with
`unhashed_head` only the cached ones do, and the others to its head, so that they are used up first.

A command is refused for the first of these that applies: opcode, tenant's range, sequence, tenant,
generation, busy, arguments from left to right, room in the block table, entries from the first to the last,
free blocks. A command that is refused changes nothing but counters and the first error.
"""

from collections import Counter
from dataclasses import dataclass, field

from golden.paging import (
    ARGUMENTS,
    COUNTERS,
    PAYLOADS,
    SHORTFALL,
    STAT,
    Completion,
    Event,
    Move,
    Opcode,
    State,
    Status,
    Table,
    pack,
)

__all__ = ["Block", "Controller", "Sequence"]

INFLIGHT = 15       # streams of a sequence that may be in flight


class CommandError(Exception):
    """A command that changes nothing."""

    def __init__(self, status, block=0, shortfall=0):
        self.status, self.block, self.shortfall = status, block, shortfall


@dataclass
class Sequence:
    """A row of the table of sequences, and its block table.

    Attributes
    ----------
    entries : list of int
        A block for every `block_tokens` of `length`; 0 where a window has left it behind.
    gen : int
        Generation, 1 to 255: counts how often it was opened.
    inflight : int
        Streams that have not ended.
    """

    state: State = State.CLOSED
    tenant: int = 0
    gen: int = 0
    length: int = 0
    inflight: int = 0
    entries: list = field(default_factory=list)


@dataclass
class Block:
    """A row of the table of blocks.

    Attributes
    ----------
    ref : int
        Entries that hold it, and its pin.
    tenant : int
        Whose it is, while it has a reference or a hash.
    hash : int or None
        Of all tokens up to its end, while it is cached.
    """

    ref: int = 0
    tenant: int = 0
    hash: int | None = None
    pinned: bool = False


class Controller:
    """The reference of the KV-cache controller.

    Parameters
    ----------
    config : golden.config.KvCache

    Attributes
    ----------
    sequences : list of Sequence
    blocks : list of Block
    free : list of int
        Free blocks, the next one first.
    cached : dict of (tenant, hash) to list of int
        Blocks with that hash, the oldest first: that one is found.
    counters : dict of str to int
    hits : list of int
        What the last `LOOKUP` has found.
    ranges : list of (block, first slot, slots)
        What the last `STREAM` reads of each head, or the last `WRITE` writes.
    events : list of (Event, block, tenant, hash)
    moves : list of (Move, source, target, slots)
        Transfers that the data side owes, in order; sources and targets are blocks or host slots.
    error : dict or None
        The first command refused: its status, sequence, block, opcode and number.
    """

    def __init__(self, config):
        self.config = config
        self.sequences = [Sequence() for _ in range(config.sequences)]
        self.blocks = [Block() for _ in range(config.blocks)]
        self.free = list(range(1, config.blocks))
        self.cached = {}
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.hits, self.ranges, self.events, self.moves = [], [], [], []
        self.error = None
        self._fewest = len(self.free)

    def run(self, command):
        """Carry out a `golden.paging.Command`; return its `Completion`."""
        given = dict.fromkeys(ARGUMENTS.get(command.opcode, ()), 0) | command.arguments
        tag, tenant, gen = (given.pop(name, 0) for name in ("tag", "tenant", "gen"))
        self.counters["commands"] += 1
        try:
            if command.opcode not in ARGUMENTS or tenant >> self.config.tenant_bits:
                raise CommandError(Status.BAD_CFG)
            self.tenant, self.gen, self.operands = tenant, gen, command.operands
            found = getattr(self, f"_{Opcode(command.opcode).name.lower()}")(**given) or {}
            self._fewest = min(self._fewest, len(self.free))
            return Completion(tag, Status.OK, pack(PAYLOADS[command.opcode], found))
        except CommandError as refused:
            status = refused.status
            self.counters[f"error_{status.name.lower()}"] += 1
            self.counters["oom"] += status == Status.OUT_OF_BLOCKS
            self.error = self.error or {
                "status": status, "sid": given.get("sid", 0), "block": refused.block,
                "opcode": command.opcode, "number": self.counters["commands"] & (1 << self.config.counter_bits) - 1}
            return Completion(tag, status, pack(SHORTFALL, {"shortfall": refused.shortfall}))

    def retire(self, sid):
        """The data side has read the last beat of one of the sequence's streams."""
        self.sequences[sid].inflight -= 1

    # Sequences

    def _alloc_seq(self, sid):
        return {"gen": self._open(sid, 0, []).gen}

    def _fork(self, sid, target):
        source = self._sequence(sid)
        self._check_closed(target)
        self._check_refs(source.entries)
        for block in filter(None, source.entries):
            self.blocks[block].ref += 1
        return {"gen": self._open(target, source.length, source.entries).gen}

    def _free(self, sid):
        freed = self._truncate_to(self._sequence(sid, idle=True, home=False), 0)
        self.sequences[sid].state = State.CLOSED
        return {"freed": freed}

    def _preempt(self, sid):
        freed = self._truncate_to(self._sequence(sid, idle=True, home=False), 0)
        self.sequences[sid].state = State.PREEMPTED
        self.counters["preempts"] += 1
        return {"freed": freed}

    def _truncate(self, sid, length):
        sequence = self._sequence(sid, idle=True)
        if length > sequence.length:
            raise CommandError(Status.OUT_OF_RANGE)
        return {"freed": self._truncate_to(sequence, length)}

    def _window(self, sid, computed, window, sinks):
        """Empty the entries that hold no token before `sinks` and none that a query at `computed` sees."""
        sequence, size = self._sequence(sid, idle=True), self.config.block_tokens
        if computed > sequence.length:
            raise CommandError(Status.OUT_OF_RANGE)
        if not window:
            raise CommandError(Status.BAD_CFG)
        first, end = -(-sinks // size), max(computed - window + 1, 0) // size
        gone = [block for block in sequence.entries[first:end] if block]
        sequence.entries[first:end] = [0] * len(sequence.entries[first:end])
        return {"freed": self._release(gone[::-1])}

    def _swap_out(self, sid, slot):
        sequence = self._sequence(sid, idle=True)
        live = [(index, block) for index, block in enumerate(sequence.entries) if block]
        self.moves += [(Move.OUT, block, slot + index, self._used(sequence, index)) for index, block in live]
        sequence.state = State.SWAPPED
        return {"freed": self._release([block for _, block in live][::-1])}

    def _swap_in(self, sid, slot):
        sequence = self._sequence(sid, home=False)
        if sequence.state != State.SWAPPED:
            raise CommandError(Status.BAD_SEQ)
        live = [index for index, block in enumerate(sequence.entries) if block]
        self._check_free(len(live))
        for index in live:
            sequence.entries[index] = self._pop()
            self.moves.append((Move.IN, slot + index, sequence.entries[index], self._used(sequence, index)))
        sequence.state = State.RUNNING
        return {"blocks": len(live)}

    # Tokens

    def _append(self, sid, tokens):
        sequence = self._sequence(sid)
        blocks = self._check_room(sequence, tokens)
        tail = self._tail(sequence) if tokens else 0
        copied = bool(tail) and self.blocks[tail].ref > 1
        blocks += copied
        self._check_free(blocks)
        if copied:
            target = sequence.entries[-1] = self._pop()
            slots = self._used(sequence, len(sequence.entries) - 1)
            self.blocks[tail].ref -= 1
            self.moves.append((Move.COPY, tail, target, slots))
            self.counters["cow"] += 1
            self.counters["cow_bytes"] += self.config.copy_bytes(slots)
        elif tail:
            self._forget(tail)
        self._grow(sequence, tokens)
        return {"blocks": blocks, "copied": int(copied)}

    def _attach(self, sid, count, tokens, by_hash):
        """Map blocks off the free list or not; the tokens behind them are part of all or nothing."""
        sequence, size = self._sequence(sid), self.config.block_tokens
        if sequence.length % size:
            raise CommandError(Status.OUT_OF_RANGE)
        blocks = self._check_room(sequence, count * size + tokens) - count
        hits = []
        for each in self.operands:
            hits.append(self._hit(each, by_hash) if each or by_hash else 0)
            self._check_refs(hits)
        idle = {block for block in hits if block and not self.blocks[block].ref}
        self._check_free(blocks, len(self.free) - len(idle))
        for block in filter(None, hits):
            self._hold(block)
        sequence.entries += hits
        sequence.length += count * size
        if count:
            sequence.state = State.RUNNING
        self._grow(sequence, tokens)
        return {"blocks": blocks}

    def _commit(self, sid, index, hash):
        sequence = self._sequence(sid)
        block = self._entry(sequence, index)
        if (index + 1) * self.config.block_tokens > sequence.length:
            raise CommandError(Status.OUT_OF_RANGE)
        if not block:
            raise CommandError(Status.NULL_DEREF)
        hash = self._hash(hash)
        if self.blocks[block].hash is None:
            self.blocks[block].hash = hash
            self.cached.setdefault((self.tenant, hash), []).append(block)
            self.events.append((Event.STORED, block, self.tenant, hash))
        elif self.blocks[block].hash != hash:
            raise CommandError(Status.WRITE_SHARED, block=block)
        return {"block": block}

    def _stream(self, sid, layer, heads, first, count, sinks, window):
        sequence = self._sequence(sid)
        if sequence.inflight == INFLIGHT:
            raise CommandError(Status.BUSY)
        if layer >= self.config.layers or not heads or heads >> self.config.kv_heads:
            raise CommandError(Status.OUT_OF_RANGE)
        if window:
            if not count:
                raise CommandError(Status.BAD_CFG)
            count = min(count, sequence.length)
            first = sequence.length - count
        count = count or max(sequence.length - first, 0)
        if not count or first + count > sequence.length:
            raise CommandError(Status.OUT_OF_RANGE)
        self.ranges = self._slots(sequence, 0, min(sinks, first)) + self._slots(sequence, first, count)
        sequence.inflight += 1
        beats = heads.bit_count() * sum(self.config.segment_beats(slots) for *_, slots in self.ranges)
        self.counters["stream_beats"] += beats
        return {"beats": beats}

    def _write(self, sid, layer, first, count):
        sequence = self._sequence(sid)
        if layer >= self.config.layers or not count or first + count > sequence.length:
            raise CommandError(Status.OUT_OF_RANGE)
        self.ranges = self._slots(sequence, first, count, alone=True)
        return {"beats": self.config.kv_heads * sum(self.config.segment_beats(slots) for *_, slots in self.ranges)}

    # Cached blocks

    def _lookup(self, count):
        self.hits = []
        for each in self.operands:
            if not (copies := self.cached.get((self.tenant, self._hash(each)))):
                break
            self.hits.append(copies[0])
        size = self.config.block_tokens
        self.counters["lookups"] += 1
        self.counters["query_tokens"] += count * size
        self.counters["hit_tokens"] += len(self.hits) * size
        return {"hits": len(self.hits), "idle": sum(not self.blocks[block].ref for block in self.hits)}

    def _pin(self, block, by_hash, hash):
        block = self._named(block, by_hash, hash)
        if self.blocks[block].pinned:
            raise CommandError(Status.REF_OVERFLOW, block=block)
        self._check_refs([block])
        self._hold(block)
        self.blocks[block].pinned = True
        return {"block": block}

    def _unpin(self, block, by_hash, hash):
        block = self._named(block, by_hash, hash, cached=False)
        if not self.blocks[block].pinned:
            raise CommandError(Status.DOUBLE_FREE, block=block)
        self.blocks[block].pinned = False
        self._release([block])
        return {"block": block}

    def _evict(self, block, by_hash, hash):
        block = self._named(block, by_hash, hash)
        self._forget(block)
        return {"block": block}

    def _reset_prefix(self):
        if len(self.free) < len(self.blocks) - 1:
            raise CommandError(Status.BUSY)
        for block in self.blocks:
            block.hash = None
        self.cached.clear()
        self.events.append((Event.CLEARED, 0, 0, 0))

    # What is seen from outside

    def _stat(self, table, index, entry, high):
        if table == Table.COUNTER:
            if index >= len(COUNTERS):
                raise CommandError(Status.OUT_OF_RANGE)
            value = self.gauges()[COUNTERS[index]]
        elif table == Table.SEQUENCE:
            sequence = self._sequence(index, home=False)
            value = pack(STAT[table], {name: getattr(sequence, name) for name in STAT[table]})
        elif table == Table.ENTRY:
            value = self._entry(self._sequence(index, home=False), entry)
        elif table in (Table.BLOCK, Table.HASH):
            self._check_block(index)
            value = self._block_row(index) if table == Table.BLOCK else self.blocks[index].hash or 0
        else:
            raise CommandError(Status.OUT_OF_RANGE)
        return {"value": value >> 48 if high else value & (1 << 48) - 1}

    def gauges(self):
        """All counters by name, and what changes both ways."""
        size, most = self.config.block_tokens, (1 << self.config.counter_bits) - 1
        return {name: count & most for name, count in self.counters.items()} | {
            "free": len(self.free), "free_min": self._fewest,
            "head": self.free[0] if self.free else 0, "tail": self.free[-1] if self.free else 0,
            "wasted_slots": sum(-each.length % size for each in self.sequences if each.state == State.RUNNING)}

    def _block_row(self, index):
        block, next = self.blocks[index], 0
        if index in self.free:
            next = (self.free + [0])[self.free.index(index) + 1]
        return pack(STAT[Table.BLOCK], {"ref": block.ref, "hashed": int(block.hash is not None), "next": next,
                                        "pinned": int(block.pinned), "tenant": self._owner(index)})

    def tables(self):
        """All state that commands can tell apart, as plain values."""
        return {
            "sequences": [(each.state, each.tenant, each.gen, each.length, each.inflight, tuple(each.entries))
                          for each in self.sequences],
            "blocks": [(each.ref, self._owner(index), each.hash, each.pinned)
                       for index, each in enumerate(self.blocks)],
            "free": list(self.free),
            "cached": {key: list(copies) for key, copies in self.cached.items()},
        }

    # What may be refused

    def _sequence(self, sid, *, idle=False, home=True):
        """The sequence, if the command may touch it: `idle`, no stream in flight; `home`, not swapped out."""
        if sid >= len(self.sequences) or self.sequences[sid].state == State.CLOSED:
            raise CommandError(Status.BAD_SEQ)
        sequence = self.sequences[sid]
        if sequence.tenant != self.tenant:
            raise CommandError(Status.XSEQ)
        if self.gen not in (0, sequence.gen):
            raise CommandError(Status.STALE_GEN)
        if idle and sequence.inflight or home and sequence.state == State.SWAPPED:
            raise CommandError(Status.BUSY)
        return sequence

    def _check_closed(self, sid):
        if sid >= len(self.sequences):
            raise CommandError(Status.BAD_SEQ)
        if self.sequences[sid].state != State.CLOSED:
            raise CommandError(Status.SEQ_IN_USE)

    def _check_block(self, block):
        if block >= len(self.blocks):
            raise CommandError(Status.OUT_OF_RANGE)
        if not block:
            raise CommandError(Status.NULL_DEREF)
        row = self.blocks[block]
        if (row.ref or row.hash is not None) and row.tenant != self.tenant:
            raise CommandError(Status.XSEQ, block=block)

    def _check_refs(self, blocks):
        """Each block can take as many more references as it is named."""
        most = (1 << self.config.ref_bits) - 1
        for block, more in Counter(filter(None, blocks)).items():
            if self.blocks[block].ref + more > most:
                raise CommandError(Status.REF_OVERFLOW, block=block)

    def _check_room(self, sequence, tokens):
        """New blocks for as many more tokens."""
        entries = -(-(sequence.length + tokens) // self.config.block_tokens)
        if entries > self.config.table:
            raise CommandError(Status.OUT_OF_SEQ_TABLE)
        return entries - len(sequence.entries)

    def _check_free(self, blocks, free=None):
        free = len(self.free) if free is None else free
        if blocks > free:
            raise CommandError(Status.OUT_OF_BLOCKS, shortfall=blocks - free)

    def _entry(self, sequence, index):
        if index >= len(sequence.entries):
            raise CommandError(Status.OUT_OF_RANGE)
        return sequence.entries[index]

    def _tail(self, sequence):
        """The block that the next token shares with others of its sequence, or 0."""
        if sequence.length % self.config.block_tokens == 0:
            return 0
        if not sequence.entries[-1]:
            raise CommandError(Status.NULL_DEREF)
        return sequence.entries[-1]

    def _slots(self, sequence, first, count, alone=False):
        """(block, first slot, slots) of some tokens; `alone`, in blocks that nobody else reads."""
        size, ranges = self.config.block_tokens, []
        while count:
            index, slot = divmod(first, size)
            slots = min(size - slot, count)
            if not (block := sequence.entries[index]):
                raise CommandError(Status.NULL_DEREF)
            if alone and (self.blocks[block].ref > 1 or self.blocks[block].hash is not None):
                raise CommandError(Status.WRITE_SHARED, block=block)
            ranges.append((block, slot, slots))
            first, count = first + slots, count - slots
        return ranges

    def _hit(self, name, by_hash):
        """A cached block of this tenant, by its hash or its number."""
        if by_hash:
            if not (copies := self.cached.get((self.tenant, self._hash(name)))):
                raise CommandError(Status.STALE_GEN)
            return copies[0]
        self._check_block(name)
        if self.blocks[name].hash is None:
            raise CommandError(Status.STALE_GEN, block=name)
        return name

    def _named(self, block, by_hash, hash, cached=True):
        """The block that a command names."""
        if by_hash or cached:
            return self._hit(hash if by_hash else block, by_hash)
        self._check_block(block)
        return block

    # What changes the tables

    def _open(self, sid, length, entries):
        self._check_closed(sid)
        gen = self.sequences[sid].gen % 255 + 1
        self.sequences[sid] = Sequence(State.RUNNING, self.tenant, gen, length, 0, list(entries))
        return self.sequences[sid]

    def _grow(self, sequence, tokens):
        """Reserve slots, in new blocks where the last one is full."""
        sequence.length += tokens
        while len(sequence.entries) * self.config.block_tokens < sequence.length:
            sequence.entries.append(self._pop())
        if tokens:
            sequence.state = State.RUNNING

    def _truncate_to(self, sequence, length):
        """Drop the blocks behind `length` tokens; how many became free."""
        kept = -(-length // self.config.block_tokens)
        gone = [] if sequence.state == State.SWAPPED else [block for block in sequence.entries[kept:] if block]
        del sequence.entries[kept:]
        sequence.length = length
        return self._release(gone[::-1])

    def _pop(self):
        """Take the head of the free list, whatever it has cached."""
        block = self.free.pop(0)
        row = self.blocks[block]
        self.counters["allocs"] += 1
        self.counters["evictions"] += row.hash is not None
        self._forget(block)
        row.ref, row.tenant = 1, self.tenant
        return block

    def _hold(self, block):
        """One reference more, off the free list if it is the first."""
        if not self.blocks[block].ref:
            self.free.remove(block)
        self.blocks[block].ref += 1

    def _release(self, blocks):
        """One reference less for each; those without any join the free list. How many did."""
        freed = []
        for block in blocks:
            self.blocks[block].ref -= 1
            if not self.blocks[block].ref:
                freed.append(block)
        ahead = [block for block in freed if self.blocks[block].hash is None
                 and self.config.policy == "unhashed_head"]
        self.free[:0] = ahead
        self.free += [block for block in freed if block not in ahead]
        self.counters["frees"] += len(freed)
        return len(freed)

    def _forget(self, block):
        """A block is no longer cached."""
        row = self.blocks[block]
        if row.hash is not None:
            key = row.tenant, row.hash
            self.cached[key].remove(block)
            if not self.cached[key]:
                del self.cached[key]
            self.events.append((Event.REMOVED, block, row.tenant, row.hash))
            row.hash = None

    def _owner(self, index):
        row = self.blocks[index]
        return row.tenant if row.ref or row.hash is not None else 0

    def _hash(self, hash):
        return hash & (1 << self.config.hash_bits) - 1

    def _used(self, sequence, index):
        """Slots of an entry that hold tokens."""
        return min(sequence.length - index * self.config.block_tokens, self.config.block_tokens)

    # What always holds between commands

    def check(self):
        """Assert invariants I1 to I6 and I9 of the tables, from scratch."""
        held = Counter(block for each in self.sequences if each.state != State.SWAPPED
                       for block in each.entries if block)
        held.update(index for index, block in enumerate(self.blocks) if block.pinned)
        for index, block in enumerate(self.blocks):
            assert block.ref == held[index], f"I1: block {index} counts {block.ref} references of {held[index]}"
        listed = set(self.free)
        assert len(listed) == len(self.free), "I3: a block is twice on the free list"
        assert listed == {index for index, block in enumerate(self.blocks) if index and not block.ref}, \
            "I2: the free list is not the blocks without references"
        assert len(self.free) + len(held) + 1 == len(self.blocks), "I3: blocks are lost"
        for each in self.sequences:
            assert len(each.entries) == -(-each.length // self.config.block_tokens), \
                "I10: a table does not fit its length"
            assert len(each.entries) <= self.config.table, "I10: a table is too long"
            for block in filter(None, each.entries):
                assert each.state == State.SWAPPED or self.blocks[block].tenant == each.tenant, \
                    f"I8: block {block} is mapped by another tenant"
        tagged = {block: key for key, copies in self.cached.items() for block in copies}
        assert tagged == {index: (block.tenant, block.hash) for index, block in enumerate(self.blocks)
                          if block.hash is not None}, "I6: tags and hashes differ"
        assert sum(map(len, self.cached.values())) == len(tagged), "I6: a block has two tags"
        assert 0 not in listed and not self.blocks[0].ref and 0 not in tagged, "I9: the null block is in use"
