# SPDX-License-Identifier: Apache-2.0
"""What comes out of `Heads`: results, words and completions, in order."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from hw.attention import ports
from hw.attention.ports import completion, result
from hw.emit import Block
from hw.fetch import write
from hw.tile.heads.ports import Error, Kind, done, order

__all__ = ["PAIR", "Results"]

PAIR = 8        # bytes of two columns


class Results(Block):
    """Writes a pass's results to their places, `size` bytes of a query a cycle; words; and tells what is done.

    Columns that are written together are kept until the last of them have come, which stay where they are.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int
        Queries at a time.
    size : int
        Bytes of a write.

    Members
    -------
    i : In(stream.Signature(order(group)))
    results, completions : In(stream.Signature)
        Of attention.
    mute : In(1)
        Results of the pass in hand are not to be written.
    fault : In(8)
        A `golden.paging.Status`: what went wrong in the KV cache's memory.
    write : Out(stream.Signature(write(size)))
    ended : Out(1)
        A pass is done.
    done : Out(stream.Signature(done()))
    """

    def __init__(self, kv, group, size):
        self.kv, self.group, self.size = kv, group, size
        super().__init__({
            "i": In(stream.Signature(order(group))),
            "results": In(stream.Signature(result(group))),
            "completions": In(stream.Signature(completion(group))),
            "mute": In(1),
            "fault": In(8),
            "write": Out(stream.Signature(write(size))),
            "ended": Out(1),
            "done": Out(stream.Signature(done())),
        })

    def elaborate(self, platform):
        m, kv, order, results = Module(), self.kv, self.i.payload, self.results
        row, pairs = kv.head_dim * FP32.width // 8, self.size // PAIR
        trouble, comes, goes, ends = Signal(ports.Error), Signal(), Signal(), Signal()
        number, query = (Signal(range(max(self.group, 2)), name=name) for name in ("number", "query"))
        at, of_token, of_part, next_part = (Signal(order.address.shape(), name=name) for name in (
            "at", "of_token", "of_part", "next_part"))      # distances: of this, of query 0 of it, of that of token 0
        head, pair = Signal(range(max(kv.kv_heads, 2))), Signal(range(max(pairs, 2)))
        kept = [[Signal(8 * PAIR, name=f"kept{g}_{n}", reset_less=True) for n in range(pairs - 1)]
                for g in range(self.group)]
        rows, word = order.what.rows, order.what.word
        ends_token, ends_part = query == rows.group - 1, number == rows.tokens * rows.group - 1
        m.d.comb += [
            comes.eq(results.valid & (pair == pairs - 1) & (~results.payload.last | self.completions.valid)),
            next_part.eq(of_part + self.size + Mux(results.payload.last, (rows.group - 1) * row, 0)),
        ]

        with m.If(self.i.valid), m.Switch(order.kind):
            with m.Case(Kind.PASS):
                parts = Array(Cat(*some, last) for some, last in zip(kept, results.payload.data, strict=True))
                m.d.comb += [
                    self.write.valid.eq(comes & ~self.mute), goes.eq(comes & (self.mute | self.write.ready)),
                    self.write.payload.address.eq(order.address + at), self.write.payload.count.eq(self.size),
                    self.write.payload.data.eq(parts[number]),
                    results.ready.eq((pair != pairs - 1) | goes & ends_part),
                    ends.eq(goes & ends_part & results.payload.last),
                    self.completions.ready.eq(ends), self.ended.eq(ends & (head == kv.kv_heads - 1)),
                    self.i.ready.eq(self.ended),
                ]
                with m.If(results.valid & results.ready):
                    m.d.sync += pair.eq(pair + 1)
                    for n in range(pairs - 1):
                        with m.If(pair == n):
                            m.d.sync += (kept[g][n].eq(results.payload.data[g]) for g in range(self.group))
            with m.Case(Kind.WORD):
                m.d.comb += [
                    self.write.valid.eq(1), self.i.ready.eq(self.write.ready),
                    self.write.payload.address.eq(order.address), self.write.payload.data.eq(word.data),
                    self.write.payload.count.eq(word.count),
                ]
            with m.Case(Kind.END):
                m.d.comb += self.i.ready.eq(~self.done.valid | self.done.ready)

        # From query to query, from columns to columns, from head to head
        with m.If(goes):
            m.d.sync += [
                number.eq(number + 1), query.eq(Mux(ends_token, 0, query + 1)), at.eq(at + row)]
            with m.If(ends_token):
                m.d.sync += at.eq(of_token + rows.pitch), of_token.eq(of_token + rows.pitch)
            with m.If(ends_part):
                m.d.sync += number.eq(0), pair.eq(0)
                m.d.sync += (each.eq(next_part) for each in (at, of_token, of_part))
        with m.If(ends):
            m.d.sync += head.eq(head + 1)
            with m.If(trouble == ports.Error.NONE):
                m.d.sync += trouble.eq(self.completions.payload.error)
        with m.If(self.ended):
            m.d.sync += (each.eq(0) for each in (head, at, of_token, of_part))

        # The first error of those that an instruction can meet
        found = Signal(done())
        m.d.comb += found.eq(order.what.end)
        with m.If(order.what.end.error != Error.NONE.value):
            pass
        with m.Elif(self.fault != 0):
            m.d.comb += found.error.eq(Error.FAULT), found.detail.eq(self.fault)
        with m.Elif(trouble != ports.Error.NONE):
            m.d.comb += found.error.eq(Error.ATTENTION), found.detail.eq(trouble)
        with m.If(~self.done.valid | self.done.ready):
            tells = self.i.valid & (order.kind == Kind.END)
            m.d.sync += self.done.valid.eq(tells), self.done.payload.eq(found)
            with m.If(tells):
                m.d.sync += trouble.eq(ports.Error.NONE)
        return m
