# SPDX-License-Identifier: Apache-2.0
"""Where instructions wait for their turn, and for each other."""

from functools import reduce
from itertools import zip_longest
from operator import or_

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.isa import BODY, WAITS, WORDS
from hw.emit import Block
from hw.instructions import completion, instruction
from hw.ram import Ram

__all__ = ["COUNT", "Queues"]

COUNT = 12      # bits of the count of completed ones
PAIR = 2        # counts in a word
SETTLED = 3     # cycles after `begin`: it is among those in the memory


class Queues(Block):
    """A queue for each engine; its head leaves when all that it waits for has completed.

    The queues share a memory, in which an instruction is its body words and, in the last words, how many instructions
    of each engine must have completed, modulo 2**`count`. When it becomes the head these turn into numbers of
    completions yet to come, which are counted down.

    So that no count is taken for another, an instruction may not stay behind a head for ever: after 2**(`count` - 2)
    instructions dispatched, those that stood there when the last such period began must have become heads.

    Parameters
    ----------
    forms : tuple of tuple of tuple of int
        By engine, then opcode: bits of its body words that can be set.
    queue : int
        Instructions of an engine in the memory, beside its head.
    instructions : int
        Of a program.
    count : int
        Bits of a count.
    limit : int
        Instructions of an engine that are dispatched and have not completed, one less than a power of two. By default
        7, or a queue of 8 and 7 more.

    Members
    -------
    begin : In(1)
        An instruction for an engine that has `room`; `engine`, `opcode`, `waits` and `pc` hold from the next cycle on
        until its last word, `write`: the first of them four cycles after `begin`, a word a cycle.
    o<n> : Out(stream.Signature(instruction(words))), done<n> : In(stream.Signature(completion(), always_ready=True))
        Of engine n. An instruction completes in a later cycle than it begins.
    drop : In(1)
        Forget what no engine has been offered.
    clear : In(1)
        Forget all, counts included.
    astray : In(engines)
        By engine: it uses an address that there is not.
    expired : In(1)
        Name an engine that is late.
    fault : Out(struct(valid, late, engine, detail, pc))
        An instruction has failed, or is late: the oldest of its engine. Without a `detail` that went astray.
    offered, pending : Out
        By engine: instructions are offered to it or under way, or are dispatched and have not completed.
    moves : Out(1)
        An instruction has begun or completed.
    busy : Out
        By engine: instructions are under way.
    waits_for : Out
        By engine, then engine: the head waits for it.
    """

    def __init__(self, forms, queue, instructions, count=COUNT, limit=None):
        if queue not in (2, 4, 8):
            raise ValueError(f"Queues: queue must be 2, 4 or 8 instructions, not {queue!r}")
        limit = limit or max(7, 2 * queue - 1)
        if not 1 <= len(forms) <= 6:
            raise ValueError(f"Queues: forms must be of 1 to 6 engines, not {len(forms)}")
        for form in sum(forms, ()):
            if not 1 <= len(form) <= BODY:
                raise ValueError(f"Queues: forms must have 1 to {BODY} words, not {len(form)}")
        if limit < 1 or limit & (limit + 1):
            raise ValueError(f"Queues: limit must be one less than a power of two, not {limit!r}")
        least = (limit + (1 << WAITS) - 2).bit_length() + 1
        if not least <= count <= 13:
            raise ValueError(f"Queues: count must be {least} to 13 bits, not {count!r}")
        self.forms, self.queue, self.instructions, self.count, self.limit = forms, queue, instructions, count, limit
        self.words = [max(map(len, each)) for each in forms]
        self.tail = -(-len(forms) // PAIR)      # words of counts
        engines, pc = len(forms), range(instructions)
        super().__init__({
            "begin": In(1), "engine": In(3), "opcode": In(5), "waits": In(WAITS * engines), "pc": In(pc),
            "room": Out(engines),
            "write": In(data.StructLayout({"en": 1, "index": 4, "data": 32})),
            **{f"o{n}": Out(stream.Signature(instruction(words))) for n, words in enumerate(self.words)},
            **{f"done{n}": In(stream.Signature(completion(), always_ready=True)) for n in range(engines)},
            "drop": In(1), "clear": In(1), "astray": In(engines), "expired": In(1),
            "fault": Out(data.StructLayout({"valid": 1, "late": 1, "engine": 3, "detail": 8, "pc": pc})),
            "offered": Out(engines), "pending": Out(engines), "moves": Out(1),
            "busy": Out(engines), "waits_for": Out(data.ArrayLayout(engines, engines)),
        })

    def elaborate(self, platform):
        m = Module()
        engines, slots = range(len(self.forms)), ceil_log2(self.queue)
        m.submodules.ram = ram = Ram(32, len(engines) << slots + 4)

        def each(shape, name, **options):
            return [Signal(shape, name=f"{name}{e}", **options) for e in engines]

        some = range(self.limit + 1)
        self.level = level = each(range(self.queue + 1), "level")       # instructions in the memory
        self.first = first = each(slots, "first")                       # where the oldest of them is
        self.full = full = each(1, "full")                              # there is a head
        self.flying = flying = each(some, "flying")                     # instructions under way
        self.issued = each(some, "issued")                              # and all that have not completed
        self.completed = each(self.count, "completed")
        self.left = [each(some, f"left{e}_", reset_less=True) for e in engines]     # to complete before a head may go
        outs, done = ([getattr(self, f"{kind}{e}") for e in engines] for kind in ("o", "done"))
        # An instruction comes into the memory, that of `engine`, and one leaves it for the head, that of `turn`.
        self.counted, self.taken, self.turn = Signal(), Signal(), Signal(range(len(engines)))
        comes, goes = self.comes, self.goes = each(1, "comes"), each(1, "goes")
        for e in engines:
            begins = Signal(name=f"begins{e}")
            m.d.comb += [
                outs[e].valid.eq(full[e] & ~Cat(*self.left[e]).any()),
                begins.eq(outs[e].valid & outs[e].ready),
                comes[e].eq(self.counted & (self.engine == e)), goes[e].eq(self.taken & (self.turn == e)),
                self.issued[e].eq(flying[e] + full[e] + level[e]),
                self.offered[e].eq(outs[e].valid | (flying[e] != 0)),
                self.pending[e].eq(full[e] | (level[e] != 0) | (flying[e] != 0)),
                self.busy[e].eq(flying[e] != 0),
                self.waits_for[e].eq(Mux(full[e], Cat(left.any() for left in self.left[e]), 0)),
            ]
            m.d.sync += [
                flying[e].eq(flying[e] + begins - done[e].valid),
                self.completed[e].eq(self.completed[e] + done[e].valid),
                full[e].eq(full[e] & ~begins | goes[e]),
                level[e].eq(level[e] + comes[e] - goes[e]), first[e].eq(first[e] + goes[e]),
            ]
            with m.If(self.drop):
                m.d.sync += level[e].eq(0), first[e].eq(0), full[e].eq(outs[e].valid & ~begins)
            with m.If(self.clear):
                m.d.sync += flying[e].eq(0), level[e].eq(0), first[e].eq(0), full[e].eq(0), self.completed[e].eq(0)
        m.d.comb += self.moves.eq(Cat(each.valid for each in done).any()
                                  | Cat(each.valid & each.ready for each in outs).any())

        self._enter(m, ram)
        self._lead(m, ram)
        self._age(m)
        self._blame(m)
        return m

    def _enter(self, m, ram):
        """Write what an instruction waits for, and then its words."""
        steps = [Signal(name=f"step{n}") for n in range(SETTLED)]
        m.d.sync += Cat(steps).eq(Mux(self.drop | self.clear, 0, Cat(self.begin, *steps[:-1])))
        m.d.comb += self.counted.eq(steps[-1])

        slot, kept = Signal(range(self.queue)), Signal(range(self.queue), reset_less=True)
        place = Signal(4)
        m.d.comb += [
            slot.eq(kept), place.eq(self.write.index), ram.write_data.eq(self.write.data),
            ram.write_en.eq(self.write.en), ram.write_address.eq(Cat(place, slot, self.engine)),
        ]
        with m.If(Cat(steps).any()):
            m.d.comb += slot.eq(Array(self.first)[self.engine] + Array(self.level)[self.engine]), ram.write_en.eq(1)
            m.d.sync += kept.eq(slot)
        # Two counts a word
        pairs, counts = [], [Signal(self.count, name=f"count{n}") for n in range(PAIR)]
        for f, pair in enumerate(zip(self.completed, self.issued, strict=True)):
            pairs.append(Cat(*pair, self.waits.word_select(f, WAITS)))
        for n, step in enumerate(steps[SETTLED - self.tail:]):
            with m.If(step):
                m.d.comb += place.eq(WORDS - self.tail + n), ram.write_data.eq(Cat(counts, self.opcode))
        which = Cat(steps)[SETTLED - self.tail:]
        for n, count in enumerate(counts):
            these = pairs[n::PAIR]
            chosen = Signal(len(pairs[0]), name=f"chosen{n}")
            m.d.comb += chosen.eq(reduce(or_, (Mux(which[k], each, 0) for k, each in enumerate(these))))
            completed, issued, distance = (chosen[:self.count], chosen[self.count:-WAITS], chosen[-WAITS:])
            m.d.comb += count.eq(completed + Mux(distance == 0, 0, issued - distance + 1))

    def _lead(self, m, ram):
        """Make the oldest instruction of a queue its head, one queue at a time, in turn."""
        engines, start = range(len(self.forms)), WORDS - self.tail
        outs, done = ([getattr(self, f"{kind}{e}") for e in engines] for kind in ("o", "done"))
        turn = self.turn
        reads, index, source = Signal(), Signal(4), Signal(turn.shape())
        comes, place = Signal(), Signal(4)          # a word of `turn` stands in the memory's output
        last, chosen, wanted = Signal(), Signal(turn.shape()), Signal(len(engines))
        m.d.comb += [
            wanted.eq(Cat((level != 0) & ~full & ~(reads & (source == e)) & ~(comes & (turn == e))
                          for e, (level, full) in enumerate(zip(self.level, self.full, strict=True)))),
            ram.read_en.eq(reads), ram.read_address.eq(Cat(index, Array(self.first)[source], source)),
            last.eq(Array(words - 1 for words in self.words)[source] == index),
            self.taken.eq(comes & (Array(words - 1 for words in self.words)[turn] == place)),
        ]
        m.d.sync += comes.eq(reads), place.eq(index), turn.eq(source)
        with m.If(~reads | last):
            m.d.sync += reads.eq(wanted.any()), index.eq(start), source.eq(chosen)
        with m.Else():
            m.d.sync += index.eq(index + 1)
        for e in reversed(engines):
            with m.If(wanted[e]):
                m.d.comb += chosen.eq(e)
        for e in reversed(engines[1:]):
            with m.If(wanted[e] & (e > source)):
                m.d.comb += chosen.eq(e)
        with m.If(self.drop | self.clear):
            m.d.sync += reads.eq(0), comes.eq(0)

        # Its words
        given, within = Signal(32), Signal(init=1)
        opcode, kinds = Signal(5, reset_less=True), ram.read_data[PAIR * self.count:]
        with m.If(place == start):
            m.d.sync += opcode.eq(kinds)
        with m.Switch(Cat(turn, opcode)):
            for e, forms in enumerate(self.forms):
                for each, form in enumerate(forms):
                    if len(form) < self.words[e]:
                        with m.Case(f"{each:05b}{e:0{len(turn)}b}"):
                            m.d.comb += within.eq(place < len(form))
        m.d.comb += given.eq(Mux(within, ram.read_data, 0))
        for e, (out, forms) in enumerate(zip(outs, self.forms, strict=True)):
            if len(forms) > 1:
                kind = Signal(range(len(forms)), name=f"opcode{e}", reset_less=True)
                m.d.comb += out.payload.opcode.eq(kind)
                with m.If(comes & (turn == e) & (place == start)):
                    m.d.sync += kind.eq(kinds)
            for n, bits in enumerate(max(sizes) for sizes in zip_longest(*forms, fillvalue=0)):
                word = Signal(bits, name=f"word{e}_{n}", reset_less=True)
                m.d.comb += out.payload.words[n].eq(word)
                with m.If(comes & (turn == e) & (place == n)):
                    m.d.sync += word.eq(given)

        # How many have to complete first
        lefts = []
        for pair in range(PAIR):
            some = [*zip(self.completed, (each.valid for each in done), strict=True)][pair::PAIR]
            which = place - start
            after, left = Signal(self.count, name=f"after{pair}"), Signal(range(self.limit + 1), name=f"left{pair}")
            m.d.comb += [
                after.eq(ram.read_data.word_select(pair, self.count) + ~Array(each for each, _ in some)[which]
                         + ~Array(each for _, each in some)[which]),
                left.eq(Mux(after[len(left):].any(), 0, after)),
            ]
            lefts.append(left)
        for e in engines:
            for f in engines:
                left = self.left[e][f]
                with m.If(comes & (turn == e) & (place == start + f // PAIR)):
                    m.d.sync += left.eq(lefts[f % PAIR])
                with m.Elif(done[f].valid & (left != 0)):
                    m.d.sync += left.eq(left - 1)

    def _age(self, m):
        """Take no more as long as those that are too old are not heads."""
        self.age, self.old = Signal(self.count - 2), [Signal.like(level) for level in self.level]
        ends, stale = Signal(), Signal()
        m.d.comb += [
            ends.eq(self.age.all()), stale.eq(ends & Cat(self.old).any()),
            self.room.eq(Cat(~stale & (level != self.queue) & (issued != self.limit)
                             for level, issued in zip(self.level, self.issued, strict=True))),
        ]
        with m.If(self.counted):
            m.d.sync += self.age.eq(self.age + 1)
        for old, level, goes in zip(self.old, self.level, self.goes, strict=True):
            with m.If(ends & self.counted):
                m.d.sync += old.eq(level - goes)
            with m.Elif(goes & (old != 0)):
                m.d.sync += old.eq(old - 1)
            with m.If(self.drop | self.clear):
                m.d.sync += old.eq(0)

    def _blame(self, m):
        """Who has failed, or is late, and which instruction that is."""
        engines = range(len(self.forms))
        bits = ceil_log2(self.limit + 1)
        m.submodules.pcs = pcs = Ram(len(self.pc), len(engines) << bits)
        which, failed, numbers = Signal(3), Signal(len(engines)), Array(each[:bits] for each in self.completed)
        given = [getattr(self, f"done{e}") for e in engines]
        m.d.comb += [
            failed.eq(self.astray | Cat(each.valid & (each.payload.error != 0) for each in given)),
            which.eq(7),
            pcs.write_en.eq(self.counted), pcs.write_data.eq(self.pc),
            pcs.write_address.eq(Cat((numbers[self.engine] + Array(self.issued)[self.engine])[:bits], self.engine)),
            pcs.read_en.eq(self.expired | failed.any()), pcs.read_address.eq(Cat(numbers[which], which)),
            self.fault.pc.eq(pcs.read_data),
        ]
        for these in self.pending, self.busy, failed:
            for e in reversed(engines):
                with m.If(these[e]):
                    m.d.comb += which.eq(e)
        m.d.sync += [
            self.fault.valid.eq(self.expired | failed.any()), self.fault.late.eq(~failed.any()),
            self.fault.engine.eq(which),
            self.fault.detail.eq(Array(Mux(each.valid, each.payload.error, 0) for each in given)[which]),
        ]
