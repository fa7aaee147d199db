# SPDX-License-Identifier: Apache-2.0
"""Contracts of the KV cache's data side: what overlaps waits, and no address lies where it must not."""

from amaranth.hdl import Mux, Signal

from golden.paging import Move, Part
from sim.formal.contract import Contract

__all__ = ["DispatcherRules", "RunsRules", "StoreRules", "TagsRules"]


class Transfers(Contract):
    """What the controller sees to."""

    def sound(self, config, ranges, moves):
        """Slots are some slots of a block that there is, and one comes after the other."""
        slots, move = ranges.payload, moves.payload
        any_slot = 1 << 32          # of host memory: the host's word, so not to be trusted
        ends = {Move.COPY: (config.blocks, config.blocks), Move.OUT: (config.blocks, any_slot),
                Move.IN: (any_slot, config.blocks)}
        self.require("ranges hold", self.steady(ranges))
        self.require("moves hold", self.steady(moves))
        self.require("one at a time", ~(ranges.valid & moves.valid))
        self.require("ranges are of blocks that there are", ~ranges.valid | (
            (slots.block < config.blocks) & (slots.slots != 0)
            & (slots.first + slots.slots <= config.block_tokens)
            & (slots.layer < config.layers) & (slots.head < config.kv_heads)))
        self.require("moves are of blocks that there are", ~moves.valid | (
            (move.slots != 0) & (move.slots <= config.block_tokens) & ((move.kind != Move.COPY)
                                                                       | (move.source != move.target))
            & sum((move.kind == kind) & (move.source < source) & (move.target < target)
                  for kind, (source, target) in ends.items())))


class Slots(Contract):
    """What comes of some slots: so many beats, of so many segments."""

    def begin(self, m, block):
        """The item in hand, and how many of its beats are still to come."""
        i, config = block.i, block.config
        held = Signal(i.payload.shape())
        left = Signal(range(config.segments * config.segment_beats(config.block_tokens) + 1))
        with m.If(self.moves(i)):
            m.d.sync += held.eq(i.payload), left.eq(
                (i.payload.more + 1) * (config.scale_beats + i.payload.slots * (2 * config.row_beats)))
        self.require("i holds", self.steady(i))
        self.require("slots are of a segment", ~i.valid | (i.payload.slots != 0) & (i.payload.more < config.segments)
                     & (i.payload.first + i.payload.slots <= config.block_tokens))
        self.promise("o holds", self.steady(block.o))
        self.promise("what is left is on offer", block.o.valid == (left != 0))
        self.promise("slots are taken when the ones before them end", ~i.ready | (left == 0)
                     | self.moves(block.o) & (left == self.beats(block.o)))
        with m.If(self.moves(block.o) & ~self.moves(i)):
            m.d.sync += left.eq(left - self.beats(block.o))
        return held, left


class RunsRules(Slots):
    """Runs have exactly the beats of the slots, none twice, all within their segments."""

    def beats(self, o):
        return o.payload.beats

    def rules(self, m, block):
        o, each = block.o, block.config.segment_beats(block.config.block_tokens)
        held, left = self.begin(m, block)
        start, stop, end, last = (Signal(len(o.payload.address) + 1, name=name) for name in (
            "start", "stop", "end", "last"))
        m.d.comb += [
            start.eq(Mux(held.host, block.host_base, block.base) + held.segment * each),
            stop.eq(start + (held.more + 1) * each), end.eq(o.payload.address + o.payload.beats)]
        with m.If(self.moves(block.i)):
            m.d.sync += last.eq(0)
        with m.Elif(self.moves(o)):
            m.d.sync += last.eq(end)
        self.require("the pool begins at 0", block.base == 0)
        self.require("host memory begins behind", block.host_base == 512)
        self.require("segments are below host memory", held.segment < 64)
        self.promise("runs stay within their segments", ~o.valid | (o.payload.address >= start) & (end <= stop))
        self.promise("no run comes before another", ~o.valid | (o.payload.address >= last))
        self.promise("a run has beats", ~o.valid | (o.payload.beats != 0) & (o.payload.beats <= left))
        self.promise("the last one says so", ~o.valid | (o.payload.final == (o.payload.beats == left)))
        self.reach("a segment in one", self.moves(o) & (o.payload.beats == each))
        self.reach("a segment in parts", self.moves(o) & (held.slots == 1) & (held.first == 1) & o.payload.final)


class TagsRules(Slots):
    """As many tags as there are beats in the runs of the same slots."""

    def beats(self, o):
        return 1

    def rules(self, m, block):
        held, left = self.begin(m, block)
        self.promise("the last one says so", ~block.o.valid | (block.o.payload.last == (left == 1)))
        self.promise("slots are those asked for", ~block.o.valid | (block.o.payload.part == Part.SCALES) | (
            (block.o.payload.slot >= held.first) & (block.o.payload.slot - held.first < held.slots)))
        self.reach("two segments", self.moves(block.o) & (held.more == 1) & (left == 1))


class DispatcherRules(Transfers):
    """Any one claim of a transfer is followed, from when it is handed on until it is done."""

    def rules(self, m, block):
        config, ranges, moves = block.config, block.ranges, block.moves
        reads, writes, copies = block.reads, block.writes, block.copies
        self.sound(config, ranges, moves)

        # What is in hand came in last.
        slots, order = Signal.like(ranges.payload), Signal.like(moves.payload)
        of_moves, full = Signal(), Signal()
        out = self.moves(reads) | self.moves(writes) | self.moves(copies)
        beyond = of_moves & Mux(order.kind == Move.OUT, order.target >= config.host_blocks,
                                (order.kind == Move.IN) & (order.source >= config.host_blocks))
        with m.If(self.moves(ranges) | self.moves(moves)):
            m.d.sync += slots.eq(ranges.payload), order.eq(moves.payload), of_moves.eq(moves.valid), full.eq(1)
        with m.Elif(out | beyond):
            m.d.sync += full.eq(0)
        self.promise("no move beyond host memory begins", ~(copies.valid & beyond))
        self.promise("ranges go to whom they concern, unchanged", sum(
            port.valid & ((port.payload.first != slots.first) | (port.payload.slots != slots.slots)
                          | (slots.write != kind)) for kind, port in enumerate((reads, writes))) == 0)
        self.promise("one at a time, once", (reads.valid + writes.valid + copies.valid <= full)
                     & (~copies.valid | of_moves) & (~(reads.valid | writes.valid) | ~of_moves))
        for name, port in ("reads", reads), ("writes", writes), ("copies", copies):
            self.promise(f"{name} hold", self.steady(port))

        # The claims of what is handed on: a range's own, or a move's two.
        def claim(host, place, first, end, write, entry):
            return {"host": host, "place": place, "first": first, "end": end, "write": write, "entry": entry}

        end = Signal(range(2 * config.block_tokens + 1))
        m.d.comb += end.eq(slots.first + slots.slots)
        own = claim(0, slots.block, slots.first, end, slots.write, Mux(
            slots.write, writes.payload.entry, reads.payload.entry))
        source = claim(order.kind == Move.IN, order.source, 0, order.slots, 0, copies.payload.source_entry)
        target = claim(order.kind == Move.OUT, order.target, 0, order.slots, 1, copies.payload.target_entry)

        follow, which, followed = self.any(1, "follow"), self.any(1, "which"), Signal()
        kept = {key: Signal.like(order.source + slots.first, name=f"kept_{key}") for key in own}
        done = [getattr(block, f"{kind}_done") for kind in ("read", "write", "source", "target")]
        ended = sum(port.valid & (port.tag == kept["entry"]) for port in done)
        with m.If(out & follow & ~followed):
            m.d.sync += followed.eq(1)
            m.d.sync += [kept[key].eq(Mux(of_moves, Mux(which, target[key], source[key]), own[key])) for key in own]
        with m.Elif(ended != 0):
            m.d.sync += followed.eq(0)

        under_way, over = Signal(config.transfers), Signal(config.transfers)     # entries handed on and not done
        begun = Mux(of_moves, 1 << source["entry"] | 1 << target["entry"], 1 << own["entry"])
        m.d.sync += under_way.eq(under_way & ~over | Mux(out, begun, 0))
        for port in done:
            with m.If(port.valid):
                m.d.comb += over.bit_select(port.tag, 1).eq(1)
        same = sum(first.valid & second.valid & (first.tag == second.tag)
                   for n, first in enumerate(done) for second in done[:n])
        self.require("and is done once", same == 0)
        self.require("what is done was under way", over & ~under_way == 0)

        def meets(other):
            return ((other["host"] == kept["host"]) & (other["place"] == kept["place"])
                    & (other["write"] | kept["write"]) & (other["first"] < kept["end"])
                    & (kept["first"] < other["end"]))

        self.promise("no range begins that meets it", ~(followed & (reads.valid | writes.valid)) | ~meets(own))
        self.promise("no copy begins whose target meets it", ~(followed & copies.valid) | ~meets(target))
        self.promise("an entry has one claim", ~followed | ~(
            (reads.valid | writes.valid) & (own["entry"] == kept["entry"])
            | copies.valid & (target["entry"] == kept["entry"])))
        self.reach("another waits for it", followed & full & ~out & meets(own) & ~of_moves)
        self.reach("other slots of its block do not", followed & kept["write"] & writes.valid
                   & (slots.block == kept["place"]) & (kept["host"] == 0))


class StoreRules(Transfers):
    """I8: whatever is read or written lies in a block that the controller has named for that.

    Any one block is watched; the pool begins at 0, host memory a page behind it.
    """

    def rules(self, m, block):
        config, axi = block.config, block.axi
        ranges, moves, size = block.ranges, block.moves, block.config.block_bytes
        self.sound(config, ranges, moves)
        self.require("rows hold", self.steady(block.rows))
        self.require("the pool begins at 0", block.base == 0)
        self.require("host memory begins a page behind", block.host_base == 1)

        watched, host = self.some(8, "watched"), self.some(1, "host")
        move = moves.payload
        reads, writes = Signal(), Signal()      # named so far
        with m.If(self.moves(ranges) & ~host & (ranges.payload.block == watched)):
            m.d.sync += reads.eq(reads | ~ranges.payload.write), writes.eq(writes | ranges.payload.write)
        with m.If(self.moves(moves)):
            with m.If((host == (move.kind == Move.IN)) & (move.source == watched)):
                m.d.sync += reads.eq(1)
            with m.If((host == (move.kind == Move.OUT)) & (move.target == watched)):
                m.d.sync += writes.eq(1)
        begin = Signal(config.address_bits)
        m.d.comb += begin.eq(Mux(host, 4096, 0) + watched * size)
        self.require("what is watched is a block", watched < Mux(host, config.host_blocks, config.blocks))

        for way, named in ("ar", reads), ("aw", writes):
            valid, address, beats = (getattr(axi, way + part) for part in ("valid", "addr", "len"))
            end = Signal(config.address_bits, name=f"{way}_end")
            m.d.comb += end.eq(address + (beats + 1) * config.beat)
            self.promise(f"{way} leaves alone what was not named",
                         ~valid | named | (end <= begin) | (address >= begin + size))
            self.promise(f"{way} stays within the blocks", ~valid | (end <= config.blocks * size) | (
                (address >= 4096) & (end <= 4096 + config.host_blocks * size)))
            self.reach(f"{way} in the block", valid & named & (address >= begin) & (end <= begin + size))
