# SPDX-License-Identifier: Apache-2.0
"""Random commands for the KV cache, most of them sensible, and what they have covered."""

from collections import Counter
from itertools import permutations

from golden.paging import ARGUMENTS, COUNTERS, LENGTH, Command, Move, Opcode, State, Status, Table

__all__ = ["Coverage", "corners", "draw", "reorder"]

WEIGHTS = {
    Opcode.ALLOC_SEQ: 6, Opcode.LOOKUP: 6, Opcode.ATTACH: 10, Opcode.APPEND: 28, Opcode.COMMIT: 18, Opcode.FORK: 8,
    Opcode.STREAM: 6, Opcode.WRITE: 4, Opcode.TRUNCATE: 9, Opcode.WINDOW: 5, Opcode.FREE: 5, Opcode.PREEMPT: 2,
    Opcode.PIN: 4, Opcode.UNPIN: 2, Opcode.EVICT: 3, Opcode.SWAP_OUT: 2, Opcode.SWAP_IN: 4, Opcode.RESET_PREFIX: 1,
    Opcode.STAT: 3}
OPCODES, CHANCES = zip(*WEIGHTS.items(), strict=True)
EPOCH = 3000        # commands after which everything is let go
SPREAD = 0x9E37_79B9_7F4A_7C15      # so that every bit of a hash matters
SHARED = 1 << 6                     # so that two hashes share a bucket, of as many buckets or fewer
FOREIGN = 0.04      # how often a command names something that is not its own


def draw(rng, controller):
    """The next command, or the number of a sequence of which a stream ends.

    It follows from the state of the reference alone, so that most commands have something to do; now and
    then everything is closed, the hashes are forgotten, and it begins anew.

    Parameters
    ----------
    rng : random.Random
    controller : golden.kvcache.Controller
    """
    config, phase = controller.config, controller.counters["commands"] % EPOCH
    streaming = [sid for sid, each in enumerate(controller.sequences) if each.inflight]
    if streaming and (rng.random() < 0.15 or phase > EPOCH * 0.97):
        return rng.choice(streaming)
    opcode = rng.choices(OPCODES, CHANCES)[0]
    if phase > EPOCH * 0.97:
        opcode = rng.choice([Opcode.FREE, Opcode.FREE, Opcode.UNPIN, Opcode.RESET_PREFIX])

    states = (State.CLOSED,) if opcode == Opcode.ALLOC_SEQ else (State.SWAPPED,) if opcode == Opcode.SWAP_IN else (
        State.RUNNING, State.RUNNING, State.PREEMPTED, State.SWAPPED)[:3 + (opcode == Opcode.FREE)]
    sid = _pick(rng, [sid for sid, each in enumerate(controller.sequences) if each.state in states],
                config.sequences + 1)
    sequence = controller.sequences[sid] if sid < config.sequences else controller.sequences[0]
    tenant = sequence.tenant if opcode != Opcode.ALLOC_SEQ and rng.random() > FOREIGN else rng.choice([0, 0, 0, 1])
    if rng.random() < FOREIGN / 20:
        tenant = 1 << config.tenant_bits
    given = {"tag": rng.randrange(256), "tenant": tenant,
             "gen": rng.choices([0, sequence.gen, rng.randrange(256)], [80, 18, 2])[0]}
    if rng.random() < FOREIGN / 20:
        return Command(rng.choice([0, 20, 255, opcode | 1 << rng.randrange(5, 8)]), given)
    given |= _arguments(rng, controller, opcode, sid, sequence)
    operands = given.pop("operands", ())
    if rng.random() < FOREIGN / 4:
        given, operands = _garbled(rng, opcode, given, operands)
    return Command(opcode, given, operands)


def _garbled(rng, opcode, given, operands):
    """Arguments or operands of which one bit is wrong."""
    names = [name for name in ARGUMENTS[opcode] if name != "count" or opcode not in (Opcode.LOOKUP, Opcode.ATTACH)]
    if operands and rng.random() < 0.5:
        wrong = rng.randrange(len(operands))
        return given, tuple(each ^ 1 << rng.randrange(64) if n == wrong else each for n, each in enumerate(operands))
    if not names:
        return given, operands
    name, given = rng.choice(names), dict.fromkeys(ARGUMENTS[opcode], 0) | given
    return given | {name: given[name] ^ 1 << rng.randrange(ARGUMENTS[opcode][name])}, operands


def _pick(rng, some, end):
    """One of some numbers, or seldom any below `end`."""
    return rng.choice(some) if some and rng.random() > FOREIGN else rng.randrange(end)


def _hash(rng, index):
    """One of the few hashes that block `index` of a sequence may have."""
    return (index + SHARED * rng.choice([0, 0, 1])) * SPREAD % (1 << 64)


def _wide(rng, bits):
    """A number of any size."""
    return rng.randrange(1 << rng.randrange(bits + 1))


def _arguments(rng, controller, opcode, sid, sequence):
    """Arguments of an opcode, and the operands."""
    config, size, length = controller.config, controller.config.block_tokens, sequence.length
    match opcode:
        case Opcode.LOOKUP:
            hashes = [_hash(rng, index) for index in range(rng.randrange(config.table + 1))]
            return {"count": len(hashes), "operands": tuple(hashes)}
        case Opcode.ATTACH:
            hashes = [_hash(rng, index) for index in range(rng.randrange(config.table))]
            cached = [copies[0] for copies in (controller.cached.get((sequence.tenant, each)) for each in hashes)
                      if copies]
            count = rng.choice([0, len(cached), len(cached)])
            operands = [_pick(rng, [each, each, each, 0], config.blocks + 1) for each in cached[:count]]
            if rng.random() < FOREIGN:
                operands = operands[:1] * rng.randrange(config.table + 2)
            by_hash = rng.random() < 0.3
            if by_hash:
                operands = [controller.blocks[each].hash or 5 if each < config.blocks else 7 for each in operands]
            return {"sid": sid, "count": len(operands), "tokens": rng.randrange(2 * size), "by_hash": int(by_hash),
                    "operands": tuple(operands)}
        case Opcode.APPEND:
            return {"sid": sid, "tokens": rng.choice([0, 1, 1, 1, 2, size - 1, size, rng.randrange(3 * size)])}
        case Opcode.COMMIT:
            bare = [index for index, block in enumerate(sequence.entries[:length // size])
                    if block and controller.blocks[block].hash is None]
            index = _pick(rng, bare or [max(length // size - 1, 0)], config.table + 1)
            return {"sid": sid, "index": index, "hash": _hash(rng, index)}
        case Opcode.FORK:
            closed = [sid for sid, each in enumerate(controller.sequences) if each.state == State.CLOSED]
            return {"sid": sid, "target": _pick(rng, closed, config.sequences + 1)}
        case Opcode.STREAM | Opcode.WRITE:
            window = opcode == Opcode.STREAM and rng.random() < 0.3
            first = 0 if window else _pick(rng, range(max(length - rng.randrange(2 * size), 0), length), length + 2)
            given = {"sid": sid, "layer": _pick(rng, range(config.layers), config.layers + 1), "first": first,
                     "count": rng.choice([0, 1, rng.randrange(max(length - first, 1) + 1)])}
            if opcode == Opcode.STREAM:
                given |= {"heads": _pick(rng, range(1, 1 << config.kv_heads), 2 << config.kv_heads),
                          "window": int(window), "sinks": rng.choice([0, 0, rng.randrange(size), _wide(rng, 15)])}
            if window and rng.random() < 0.3:
                given["count"] = _wide(rng, LENGTH)
            return given
        case Opcode.TRUNCATE:
            pinned = [index * size + rng.randrange(size) for index, block in enumerate(sequence.entries)
                      if block and controller.blocks[block].pinned and (index + 1) * size <= length]
            if rng.random() < 0.5 and pinned:
                return {"sid": sid, "length": rng.choice(pinned)}
            return {"sid": sid, "length": _pick(rng, [max(length - rng.randrange(2 * size), 0)], length + 2)}
        case Opcode.WINDOW:
            return {"sid": sid, "computed": _pick(rng, [length], length + 2), "window": rng.randrange(2 * size),
                    "sinks": rng.choice([0, 1, size])}
        case Opcode.PIN | Opcode.UNPIN | Opcode.EVICT:
            known = [index for index, each in enumerate(controller.blocks) if each.tenant == sequence.tenant
                     and (each.pinned if opcode == Opcode.UNPIN else each.hash is not None)]
            pinned = [index for index in known if controller.blocks[index].pinned]
            if opcode == Opcode.EVICT and rng.random() < 0.7:
                known = pinned or known             # a pin without a hash is rare otherwise
            block = _pick(rng, known, config.blocks + 1)
            by_hash = block < config.blocks and controller.blocks[block].hash is not None and rng.random() < 0.3
            return {"by_hash": 1, "hash": controller.blocks[block].hash} if by_hash else {"block": block}
        case Opcode.SWAP_OUT | Opcode.SWAP_IN:
            return {"sid": sid, "slot": rng.randrange(1000)}
        case Opcode.RESET_PREFIX:
            return {}
        case Opcode.STAT:
            table = rng.randrange(len(Table) + 1)
            ends = {Table.COUNTER: len(COUNTERS) + 1, Table.BLOCK: config.blocks + 1, Table.HASH: config.blocks + 1}
            return {"table": table, "index": rng.randrange(ends.get(table, config.sequences + 1)),
                    "entry": rng.randrange(config.table + 1), "high": rng.randrange(2)}
    return {"sid": sid}


def reorder(player):
    """Take neighbours off the free list, in all orders, from its midst and from its tail.

    Parameters
    ----------
    player : sim.kvcache.Player
        One that has not begun.
    """
    def run(opcode, operands=(), **given):
        player.run(Command(opcode, given, tuple(operands)))

    size, blocks = player.config.block_tokens, []
    for sid, count in (0, 4), (1, 1):
        run(Opcode.ALLOC_SEQ, sid=sid)
        run(Opcode.APPEND, sid=sid, tokens=count * size)
        blocks.append(player.controller.sequences[sid].entries[:])
        for index in range(count):
            run(Opcode.COMMIT, sid=sid, index=index, hash=(8 * sid + index) * SPREAD % (1 << 64))
    run(Opcode.PREEMPT, sid=0)
    for n, order in enumerate(permutations(blocks[0])):
        if n == 12:
            run(Opcode.PREEMPT, sid=1)      # from now on another block is at the tail, now and then
        for each in order, blocks[0]:       # and back to where they were
            run(Opcode.ATTACH, each, sid=0, count=len(each))
            if each is order:
                player.dump()
            run(Opcode.PREEMPT, sid=0)
        if n > 12:
            run(Opcode.ATTACH, blocks[1], sid=1, count=1)
            run(Opcode.PREEMPT, sid=1)
    player.dump()


def corners(player):
    """What random commands seldom do: references at their most, streams at theirs, blocks at both ends of the list.

    Parameters
    ----------
    player : sim.kvcache.Player
        One that has not begun.
    """
    for each in _fewest, _references, _ends, _streams, _many:
        each(player, lambda opcode, operands=(), **given: player.run(Command(opcode, given, tuple(operands)))[0])
        player.dump()
        for sid in range(player.config.sequences):
            player.run(Command(Opcode.FREE, {"sid": sid}))
        player.run(Command(Opcode.RESET_PREFIX))
        player.dump()


def _cache(player, run, sid, count):
    """Open a sequence of some full blocks, all of them cached; return them."""
    run(Opcode.ALLOC_SEQ, sid=sid)
    run(Opcode.APPEND, sid=sid, tokens=count * player.config.block_tokens)
    for index in reversed(range(count)):
        run(Opcode.COMMIT, sid=sid, index=index, hash=(1 + SHARED * index) * SPREAD % (1 << 64))
    return list(player.controller.sequences[sid].entries)


def _fewest(player, run):
    """An `ATTACH` that is undone has never taken a block."""
    blocks = _cache(player, run, 0, 4)
    run(Opcode.PREEMPT, sid=0)
    for sid in 1, 2:
        run(Opcode.ALLOC_SEQ, sid=sid)
    run(Opcode.APPEND, sid=1, tokens=3 * player.config.block_tokens)
    run(Opcode.ATTACH, [*blocks, player.config.blocks], sid=2, count=5)


def _references(player, run):
    """A block that is held as often as it can be: nothing else may hold it, and `FORK` and `ATTACH` are undone."""
    size, table, most = player.config.block_tokens, player.config.table, (1 << player.config.ref_bits) - 1
    (block,) = _cache(player, run, 0, 1)
    for sid, ahead in enumerate((1, 2, table - 1), 1):
        run(Opcode.ALLOC_SEQ, sid=sid)
        run(Opcode.APPEND, sid=sid, tokens=ahead * size)
        run(Opcode.ATTACH, [block], sid=sid, count=1)
    for sid in range(4, 7):
        run(Opcode.ALLOC_SEQ, sid=sid)
        if run(Opcode.ATTACH, [block] * table, sid=sid, count=table).status:
            room = most - player.controller.blocks[block].ref
            run(Opcode.ATTACH, [block] * room, sid=sid, count=room)
        player.dump()
    for sid in range(6):
        run(Opcode.FORK, sid=sid, target=7)
    run(Opcode.PIN, block=block)
    run(Opcode.ATTACH, [player.controller.blocks[block].hash], sid=6, count=1, by_hash=1)
    player.dump()


def _ends(player, run):
    """Two cached blocks of one bucket are all of the free list: each is taken off it, twice, pinned and forgotten."""
    blocks = _cache(player, run, 0, 2)
    run(Opcode.PREEMPT, sid=0)
    for sid in range(1, 5):
        run(Opcode.ALLOC_SEQ, sid=sid)
        room = len(player.controller.free) - len(blocks)
        run(Opcode.APPEND, sid=sid, tokens=min(room, player.config.table) * player.config.block_tokens)
    for block in blocks * 2:
        run(Opcode.ATTACH, [block, block], sid=0, count=2)
        run(Opcode.PIN, block=block)
        player.dump()
        run(Opcode.PREEMPT, sid=0)
        run(Opcode.UNPIN, by_hash=1, hash=player.controller.blocks[block].hash)
        player.dump()
    for block in blocks * 2:
        for opcode in Opcode.PIN, Opcode.UNPIN:
            run(opcode, by_hash=1, hash=player.controller.blocks[block].hash)
            player.dump()
    for block in blocks:
        run(Opcode.EVICT, by_hash=1, hash=player.controller.blocks[block].hash)
        player.dump()


def _streams(player, run):
    """As many streams in flight as there may be, from all places, with slots ahead of them; and none that may be."""
    config, length = player.config, player.config.table * player.config.block_tokens
    run(Opcode.ALLOC_SEQ, sid=0)
    run(Opcode.APPEND, sid=0, tokens=length)
    for n in range(16):
        run(Opcode.STREAM, sid=0, heads=1 + n % ((1 << config.kv_heads) - 1), first=n % length, sinks=length - n,
            count=1)
        run(Opcode.STAT, table=Table.SEQUENCE, index=0)
    _retire(player, 0)
    for first, sinks in (length - 1, length), (length - 1, length - 2), (length - 2, 1):
        run(Opcode.STREAM, sid=0, heads=1, first=first, sinks=sinks)
    run(Opcode.TRUNCATE, sid=0, length=length - 1)
    for bit in range(LENGTH):
        run(Opcode.STREAM, sid=0, heads=1, count=1 << bit, window=1)
        run(Opcode.STREAM, sid=0, heads=1, first=1 << bit)
        run(Opcode.STREAM, sid=0, heads=1, count=1 << bit)
        _retire(player, 0)


def _retire(player, sid):
    """All streams of a sequence end."""
    while player.controller.sequences[sid].inflight:
        player.controller.retire(sid)
        player.log.append(sid)


def _many(player, run):
    """More operands than a sequence could have blocks."""
    _cache(player, run, 0, 1)
    run(Opcode.PREEMPT, sid=0)
    run(Opcode.LOOKUP, [SPREAD] * 4400, count=4400)


class Coverage:
    """Which statuses, copies on write and evictions commands have met.

    Attributes
    ----------
    seen : Counter
    """

    STATUSES = set(Status) - {Status.ECC_CE, Status.ECC_UE, Status.BUS_ERR}
    COPIES = {f"copy of a block {why}" for why in (
        "with another reference", "with another reference, pinned", "with another reference, cached",
        "with another reference, cached, pinned", "cached, pinned", "pinned", "while it streams")}
    PLACES = {f"written in place {why}" for why in ("", "after its hash was dropped")}
    EVICTIONS = {f"eviction by {opcode.name}" for opcode in (Opcode.APPEND, Opcode.ATTACH, Opcode.SWAP_IN)} | {
        "eviction by a copy", "refused for blocks, as a copy needs one"}
    ENDS = {f"hash dropped by {opcode.name}" for opcode in (Opcode.APPEND, Opcode.EVICT, Opcode.RESET_PREFIX)}
    ALL = {status.name for status in STATUSES} | COPIES | PLACES | EVICTIONS | ENDS

    def __init__(self):
        self.seen = Counter()

    def run(self, controller, command):
        """Run a command on the reference and note what it met; return its completion."""
        tail = self._tail(controller, command)
        evictions, events, moves = controller.counters["evictions"], len(controller.events), len(controller.moves)
        completion = controller.run(command)
        self.seen[Status(completion.status).name] += 1
        copied = any(move[0] == Move.COPY for move in controller.moves[moves:])
        if copied:
            others, cached, pinned, streams = tail
            why = ", ".join(what for what, so in (("with another reference", others), ("cached", cached),
                                                  ("pinned", pinned)) if so)
            self.seen[f"copy of a block {why}"] += 1
            self.seen["copy of a block while it streams"] += streams
        evicted = controller.counters["evictions"] - evictions
        if evicted:
            self.seen["eviction by a copy" if copied else f"eviction by {command.opcode.name}"] += 1
        elif len(controller.events) > events and command.opcode not in (Opcode.COMMIT, Opcode.ATTACH, Opcode.SWAP_IN):
            self.seen[f"hash dropped by {command.opcode.name}"] += 1
        if tail and not copied:
            others, cached, pinned, _ = tail
            if completion.status == Status.OUT_OF_BLOCKS and (others or pinned):
                self.seen["refused for blocks, as a copy needs one"] += 1
            elif not completion.status:
                self.seen["written in place " + "after its hash was dropped" * cached] += 1
        return completion

    def missing(self):
        """What has not been met."""
        return self.ALL - set(self.seen)

    def table(self):
        """The counts as lines of text."""
        return [f"{count:>9,}  {what}" for what, count in sorted(self.seen.items())]

    @staticmethod
    def _tail(controller, command):
        """How the last block is held that an `APPEND` writes to: by others, by its hash, its pin, a stream."""
        sid = command.arguments.get("sid", 0)
        if command.opcode != Opcode.APPEND or not command.arguments["tokens"] or sid >= len(controller.sequences):
            return None
        sequence = controller.sequences[sid]
        if sequence.length % controller.config.block_tokens == 0 or not sequence.entries[-1]:
            return None
        block = controller.blocks[sequence.entries[-1]]
        return (block.ref - block.pinned > 1, block.hash is not None, block.pinned,
                any(each.inflight for each in controller.sequences if sequence.entries[-1] in each.entries))
