# SPDX-License-Identifier: Apache-2.0
"""The KV-cache controller a second time, naively: commands change a copy of everything, token by token, and the
copy is thrown away when they fail. References are counted afresh whenever somebody asks."""

import copy
from collections import Counter
from dataclasses import dataclass, field


class FailError(Exception):
    """A command that fails, with the name of its status and the blocks that it lacks."""


@dataclass
class Seq:
    tenant: int
    gen: int
    n: int = 0
    map: dict = field(default_factory=dict)     # index -> block, where there is one
    streams: int = 0
    mode: str = "RUNNING"


@dataclass
class World:
    seqs: dict = field(default_factory=dict)
    gens: dict = field(default_factory=dict)
    pins: set = field(default_factory=set)
    tags: dict = field(default_factory=dict)    # block -> (tenant, hash, when)
    place: dict = field(default_factory=dict)   # block -> its rank among the free ones
    owner: dict = field(default_factory=dict)
    now: int = 0
    lacking: int = 0


class Naive:
    """Takes commands like `golden.kvcache.Controller.run`; returns status name and payload."""

    def __init__(self, config):
        self.config, self.size = config, config.block_tokens
        self.world = World(place={block: block for block in range(1, config.blocks)})

    def run(self, command):
        given = dict(command.arguments)
        self.tenant, self.gen = given.pop("tenant", 0), given.pop("gen", 0)
        given.pop("tag", 0)
        if not 1 <= command.opcode < 19 or self.tenant >= 2 ** self.config.tenant_bits:
            return "BAD_CFG", {}
        before, self.world = self.world, copy.deepcopy(self.world)
        try:
            found = getattr(self, command.opcode.name.lower())(given, command.operands) or {}
            if self.world.lacking:
                raise FailError("OUT_OF_BLOCKS", self.world.lacking)
            return "OK", found
        except FailError as no:
            self.world = before
            return no.args[0], {"shortfall": no.args[1]} if no.args[1:] else {}

    # views

    def uses(self):
        held = Counter(block for seq in self.world.seqs.values() if seq.mode != "SWAPPED" for block in seq.map.values())
        held.update(self.world.pins)
        return held

    def free_list(self):
        held = self.uses()
        return sorted((block for block in range(1, self.config.blocks) if not held[block]), key=self.world.place.get)

    def table(self, seq):
        return [seq.map.get(index, 0) for index in range(-(-seq.n // self.size))]

    # helpers

    def seq(self, given, quiet=False, home=True):
        seq = self.world.seqs.get(given["sid"])
        if seq is None:
            raise FailError("BAD_SEQ")
        if seq.tenant != self.tenant:
            raise FailError("XSEQ")
        if self.gen and self.gen != seq.gen:
            raise FailError("STALE_GEN")
        if quiet and seq.streams or home and seq.mode == "SWAPPED":
            raise FailError("BUSY")
        return seq

    def ranked(self, blocks):
        """Blocks that were let go, in this order, among the free ones."""
        held = self.uses()
        gone = [block for block in blocks if not held[block]]
        gone = list(dict.fromkeys(reversed(gone)))[::-1]            # a block named twice goes the last time
        for block in gone:
            self.world.place[block] = max(self.world.place.values()) + 1
        if self.config.policy == "unhashed_head":
            for block in reversed([block for block in gone if block not in self.world.tags]):
                self.world.place[block] = min(self.world.place.values()) - 1
        return {"freed": len(gone)}

    def take(self):
        free = self.free_list()
        if not free:
            self.world.lacking += 1
            return -self.world.lacking
        self.world.tags.pop(free[0], None)
        self.world.owner[free[0]] = self.tenant
        return free[0]

    def drop(self, seq, keep):
        """Keep the first tokens only."""
        gone = [seq.map.pop(index) for index in sorted(seq.map, reverse=True) if index * self.size >= keep]
        away, seq.n = seq.mode == "SWAPPED", keep
        return {"freed": 0} if away else self.ranked(gone)

    def put(self, seq, tokens):
        """One token after the other."""
        taken = copied = 0
        for _ in range(tokens):
            index, slot = divmod(seq.n, self.size)
            if slot == 0:
                seq.map[index] = self.take()
                taken += 1
            elif seq.map.get(index, 0) > 0 and self.uses()[seq.map[index]] > 1:
                seq.map[index] = self.take()
                taken, copied = taken + 1, 1
            elif index not in seq.map:
                raise FailError("NULL_DEREF")
            elif seq.map[index] in self.world.tags:
                del self.world.tags[seq.map[index]]
            seq.n += 1
        if tokens:
            seq.mode = "RUNNING"
        return taken, copied

    def room(self, seq, tokens):
        if seq.n + tokens > self.config.table * self.size:
            raise FailError("OUT_OF_SEQ_TABLE")

    def find(self, hash):
        copies = [(when, block) for block, (tenant, known, when) in self.world.tags.items()
                  if (tenant, known) == (self.tenant, hash)]
        return min(copies)[1] if copies else None

    def block(self, number):
        if number >= self.config.blocks:
            raise FailError("OUT_OF_RANGE")
        if number == 0:
            raise FailError("NULL_DEREF")
        if (self.uses()[number] or number in self.world.tags) and self.world.owner[number] != self.tenant:
            raise FailError("XSEQ")
        return number

    def cached_block(self, given):
        if given.get("by_hash"):
            block = self.find(given["hash"])
        else:
            block = self.block(given.get("block", 0))
        if block not in self.world.tags:
            raise FailError("STALE_GEN")
        return block

    def limit(self):
        most = 2 ** (self.config.sequences + 1).bit_length() - 1
        if any(count > most for count in self.uses().values()):
            raise FailError("REF_OVERFLOW")

    def positions(self, seq, first, last):
        """Entries of some tokens: by index, (block, tokens)."""
        found = {}
        for token in range(first, last):
            index = token // self.size
            if index not in seq.map:
                raise FailError("NULL_DEREF")
            found[index] = found.get(index, 0) + 1
        return [(seq.map[index], tokens) for index, tokens in found.items()]

    def beats(self, parts):
        return sum(self.config.scale_beats + tokens * 2 * self.config.row_beats for _, tokens in parts)

    # commands

    def alloc_seq(self, given, _):
        return self.opened(given["sid"], Seq(self.tenant, 0))

    def opened(self, sid, seq):
        if sid >= self.config.sequences:
            raise FailError("BAD_SEQ")
        if sid in self.world.seqs:
            raise FailError("SEQ_IN_USE")
        seq.gen = self.world.gens[sid] = self.world.gens.get(sid, 0) % 255 + 1
        self.world.seqs[sid] = seq
        return {"gen": seq.gen}

    def fork(self, given, _):
        seq = self.seq(given)
        found = self.opened(given["target"], Seq(self.tenant, 0, seq.n, dict(seq.map)))
        self.limit()
        return found

    def lookup(self, given, hashes):
        hits = []
        for hash in hashes:
            if (block := self.find(hash)) is None:
                break
            hits.append(block)
        held = self.uses()
        return {"hits": len(hits), "idle": sum(not held[block] for block in hits)}

    def attach(self, given, names):
        seq = self.seq(given)
        if seq.n % self.size:
            raise FailError("OUT_OF_RANGE")
        self.room(seq, len(names) * self.size + given["tokens"])
        for name in names:
            if name or given["by_hash"]:
                block = self.cached_block({"by_hash": given["by_hash"], "hash": name, "block": name})
                seq.map[seq.n // self.size] = block
            seq.n += self.size
            seq.mode = "RUNNING"
            self.limit()
        return {"blocks": self.put(seq, given["tokens"])[0]}

    def append(self, given, _):
        seq = self.seq(given)
        self.room(seq, given["tokens"])
        blocks, copied = self.put(seq, given["tokens"])
        return {"blocks": blocks, "copied": copied}

    def commit(self, given, _):
        seq, index = self.seq(given), given["index"]
        if (index + 1) * self.size > seq.n:
            raise FailError("OUT_OF_RANGE")
        if index not in seq.map:
            raise FailError("NULL_DEREF")
        block = seq.map[index]
        self.world.now += 1
        if self.world.tags.setdefault(block, (self.tenant, given["hash"], self.world.now))[1] != given["hash"]:
            raise FailError("WRITE_SHARED")
        return {"block": block}

    def stream(self, given, _):
        seq = self.seq(given)
        if seq.streams == 15:
            raise FailError("BUSY")
        if given["layer"] >= self.config.layers or not 0 < given["heads"] < 2 ** self.config.kv_heads:
            raise FailError("OUT_OF_RANGE")
        first, last = given["first"], given["first"] + given["count"]
        if given["window"]:
            if not given["count"]:
                raise FailError("BAD_CFG")
            first, last = max(seq.n - given["count"], 0), seq.n
        elif not given["count"]:
            last = seq.n
        if first >= last or last > seq.n:
            raise FailError("OUT_OF_RANGE")
        parts = self.positions(seq, 0, min(given["sinks"], first)) + self.positions(seq, first, last)
        seq.streams += 1
        return {"beats": given["heads"].bit_count() * self.beats(parts)}

    def write(self, given, _):
        seq = self.seq(given)
        if given["layer"] >= self.config.layers or not given["count"] or given["first"] + given["count"] > seq.n:
            raise FailError("OUT_OF_RANGE")
        for token in range(given["first"], given["first"] + given["count"]):
            (block, _), = self.positions(seq, token, token + 1)
            if self.uses()[block] > 1 or block in self.world.tags:
                raise FailError("WRITE_SHARED")
        parts = self.positions(seq, given["first"], given["first"] + given["count"])
        return {"beats": self.config.kv_heads * self.beats(parts)}

    def truncate(self, given, _):
        seq = self.seq(given, quiet=True)
        if given["length"] > seq.n:
            raise FailError("OUT_OF_RANGE")
        return self.drop(seq, given["length"])

    def window(self, given, _):
        seq = self.seq(given, quiet=True)
        if given["computed"] > seq.n:
            raise FailError("OUT_OF_RANGE")
        if not given["window"]:
            raise FailError("BAD_CFG")
        seen = [token for token in range(len(self.table(seq)) * self.size)      # the slots to come as well
                if token < given["sinks"] or token > given["computed"] - given["window"]]
        kept = {token // self.size for token in seen}
        gone = [seq.map.pop(index) for index in sorted(seq.map, reverse=True) if index not in kept]
        return self.ranked(gone)

    def free(self, given, _):
        found = self.drop(self.seq(given, quiet=True, home=False), 0)
        del self.world.seqs[given["sid"]]
        return found

    def preempt(self, given, _):
        seq = self.seq(given, quiet=True, home=False)
        found, seq.mode = self.drop(seq, 0), "PREEMPTED"
        return found

    def pin(self, given, _):
        block = self.cached_block(given)
        if block in self.world.pins:
            raise FailError("REF_OVERFLOW")
        self.world.pins.add(block)
        self.limit()
        return {"block": block}

    def unpin(self, given, _):
        block = self.cached_block(given) if given.get("by_hash") else self.block(given.get("block", 0))
        if block not in self.world.pins:
            raise FailError("DOUBLE_FREE")
        self.world.pins.remove(block)
        self.ranked([block])
        return {"block": block}

    def evict(self, given, _):
        block = self.cached_block(given)
        del self.world.tags[block]
        return {"block": block}

    def swap_out(self, given, _):
        seq = self.seq(given, quiet=True)
        seq.mode = "SWAPPED"
        return self.ranked([seq.map[index] for index in sorted(seq.map, reverse=True)])

    def swap_in(self, given, _):
        seq = self.seq(given, home=False)
        if seq.mode != "SWAPPED":
            raise FailError("BAD_SEQ")
        seq.mode, indices = "RUNNING", sorted(seq.map)
        seq.map = {}
        for index in indices:
            seq.map[index] = self.take()
        return {"blocks": len(indices)}

    def reset_prefix(self, given, _):
        if self.uses():
            raise FailError("BUSY")
        self.world.tags = {}
