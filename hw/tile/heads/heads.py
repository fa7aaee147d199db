# SPDX-License-Identifier: Apache-2.0
"""The engine HEADS of a tile: KV cache and attention."""

from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.formats import FP32
from golden.paging import Part
from hw.attention.attention import Attention
from hw.emit import Block
from hw.fetch import response, write
from hw.instructions import instruction
from hw.kvcache.cache import KvCache
from hw.stream import Queue, RamQueue
from hw.tile.heads.control import PASSES, Control, rows
from hw.tile.heads.passes import Passes, queries
from hw.tile.heads.ports import WORDS, done, order, pass_
from hw.tile.heads.results import PAIR, Results

__all__ = ["Heads"]

OWN = "error", "fault", "dead", "nans"      # that come from the KV cache as they are


class Heads(Block):
    """Keeps keys and values and attends to them, as `golden.tile` says.

    `Control` gives the KV cache its commands and announces passes: the streams of all heads that some tokens share.
    `Passes` tells attention of each of their heads. `Results` puts out what becomes of it, in order. So an instruction
    begins while those before it are under way, and streams follow each other.

    Addresses of queries, keys and values are multiples of a beat of their reader, 4 * `kv.lanes` bytes, and so are
    pitches; those of results are multiples of a write, of completions of 8 bytes, of positions of 4. Results may lie
    where their queries do. When an instruction is done, what is written for it is there, and what is read has come.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int
        Queries at a time, 1 to 8.
    size : int
        Bytes of a write at most. With 8 * `group`, attention waits for no write; less is enough where streams are long.

    Members
    -------
    i : In(stream.Signature(instruction(WORDS)))
    done : Out(stream.Signature(done()))
        One for each instruction, in order.
    queries_request : Out(stream.Signature(request)), queries : In(stream.Signature(response(32 * kv.lanes)))
    rows_request : Out(stream.Signature(request)), rows : In(stream.Signature(response(32 * kv.lanes)))
        Readers of the scratchpad. A request for rows is of a token's keys and values; its stride may be "negative",
        modulo 2**32.
    write : Out(stream.Signature(write(size)))
        To the scratchpad.
    axi : Out(Axi4)
    base, host_base : In(kv.address_bits - 12), pool : In(range(kv.blocks + 1))
        See `hw.kvcache`. Steady from reset on. Without host memory, at 0, nothing is swapped.
    error : Out, fault : Out, dead : Out(1), nans : Out(32)
        Of the KV cache: the first refused command and the first failed transfer since `clear`.
    clear : In(1)
    takes : Out(1), waits : Out(1), full : Out(1)
        For counters: attention takes a beat; a pass is under way and there is none; attention takes none.
    """

    def __init__(self, kv, group, size=PAIR):
        if not 1 <= group <= 8:
            raise ValueError(f"Heads: group must be 1 to 8, not {group!r}")
        row = kv.head_dim * FP32.width // 8
        if size < PAIR or size & (size - 1) or row % size:
            raise ValueError(f"Heads: size must be a power of two from {PAIR} on that divides the {row} bytes of a "
                             f"head's row, not {size!r}")
        self.kv, self.group, self.size = kv, group, size
        members = KvCache(kv).signature.members
        super().__init__({
            "i": In(stream.Signature(instruction(WORDS))), "done": Out(stream.Signature(done())),
            "queries_request": Out(stream.Signature(queries(kv, group))),
            "queries": In(stream.Signature(response(32 * kv.lanes))),
            "rows_request": Out(stream.Signature(rows(kv))), "rows": In(stream.Signature(response(32 * kv.lanes))),
            "write": Out(stream.Signature(write(size))),
            **{name: members[name] for name in ("axi", "base", "host_base", "pool", "clear", *OWN)},
            "takes": Out(1), "waits": Out(1), "full": Out(1)})

    def elaborate(self, platform):
        m, kv, group = Module(), self.kv, self.group
        m.submodules.cache = cache = KvCache(kv)
        m.submodules.attention = attention = Attention(kv, group)
        m.submodules.control = control = Control(kv, group)
        m.submodules.passes = passes = Passes(kv, group)
        m.submodules.results = results = Results(kv, group, self.size)
        m.submodules.announced = announced = Queue(pass_(kv, group), 2)
        m.submodules.orders = orders = RamQueue(order(group), PASSES)
        for source, target in (
                (flipped(self.i), control.i), (control.commands, cache.i), (cache.o, control.completions),
                (control.passes, announced.i), (announced.o, passes.i), (passes.commands, attention.commands),
                (control.orders, orders.i), (orders.o, results.i), (attention.results, results.results),
                (attention.completions, results.completions), (results.write, flipped(self.write)),
                (results.done, flipped(self.done)), (passes.requests, flipped(self.queries_request)),
                (control.request, flipped(self.rows_request)), (cache.axi, flipped(self.axi))):
            connect(m, source, target)
        m.d.comb += [
            cache.rows.valid.eq(self.rows.valid), cache.rows.payload.eq(self.rows.payload.data),
            self.rows.ready.eq(cache.rows.ready),
            attention.queries.valid.eq(self.queries.valid), attention.queries.payload.eq(self.queries.payload.data),
            self.queries.ready.eq(attention.queries.ready),
            control.begins.eq(cache.begins), control.ended.eq(results.ended), control.hosted.eq(self.host_base != 0),
            control.answered.eq(self.rows.valid & self.rows.ready & self.rows.payload.last),
            results.mute.eq(control.mute), results.fault.eq(cache.fault.status),
            cache.hits.ready.eq(1), cache.events.ready.eq(1), cache.lru_tail.eq(kv.policy == "lru_tail"),
            *(getattr(cache, name).eq(getattr(self, name)) for name in ("base", "host_base", "pool", "clear")),
            *(getattr(self, name).eq(getattr(cache, name)) for name in OWN),
            attention.clear.eq(self.clear),
        ]

        # Beats, or the end of a stream that there is none of
        come, beats = cache.beats, attention.beats
        m.d.comb += [
            beats.valid.eq(come.valid | control.cut), come.ready.eq(beats.ready),
            *(beats.payload[name].eq(come.payload[name]) for name in ("data", "part", "slot", "last", "error")),
            control.cut_taken.eq(beats.ready), self.takes.eq(come.valid & beats.ready),
            self.full.eq(come.valid & ~beats.ready), self.waits.eq(~come.valid & control.busy),
        ]
        with m.If(control.cut):
            m.d.comb += beats.payload.last.eq(1), beats.payload.error.eq(1), beats.payload.part.eq(Part.SCALES)
        return m
