# SPDX-License-Identifier: Apache-2.0
"""What attention is told of a pass: for each head a command and its queries."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from golden.formats import FP32
from hw.attention.ports import command, length
from hw.emit import Block
from hw.fetch import request
from hw.tile.heads.ports import pass_

__all__ = ["Passes", "queries"]


def queries(kv, group):
    """A read of a head's queries."""
    return request(group * kv.head_dim // kv.lanes, group)


class Passes(Block):
    """Goes through the heads of each pass. A head a cycle.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int
        Queries at a time.

    Members
    -------
    i : In(stream.Signature(pass_(kv, group)))
    commands : Out(stream.Signature(command(kv, group)))
    requests : Out(stream.Signature(queries(kv, group)))
    """

    def __init__(self, kv, group):
        self.kv, self.group = kv, group
        super().__init__({
            "i": In(stream.Signature(pass_(kv, group))),
            "commands": Out(stream.Signature(command(kv, group))),
            "requests": Out(stream.Signature(queries(kv, group))),
        })

    def elaborate(self, platform):
        m, kv, given = Module(), self.kv, self.i.payload
        told, asked, passes = Signal(), Signal(), Signal()
        head, offset, step = Signal(range(max(kv.kv_heads, 2))), Signal(given.address.shape()), Signal(32)
        last = head == kv.kv_heads - 1
        m.d.comb += [
            self.commands.valid.eq(self.i.valid & ~told), self.requests.valid.eq(self.i.valid & ~asked),
            passes.eq(self.i.valid & (told | self.commands.ready) & (asked | self.requests.ready)),
            self.i.ready.eq(passes & last),
        ]
        with m.If(passes):
            m.d.sync += told.eq(0), asked.eq(0), head.eq(Mux(last, 0, head + 1)), offset.eq(Mux(last, 0, offset + step))
        with m.Else():
            m.d.sync += told.eq(told | self.commands.valid & self.commands.ready)
            m.d.sync += asked.eq(asked | self.requests.valid & self.requests.ready)

        # Queries of a token follow each other.
        tell, ask = self.commands.payload, self.requests.payload
        first, end = ([Signal(length(kv), name=f"{name}{n}") for n in range(self.group)] for name in ("first", "end"))
        m.d.comb += [
            tell.tokens.eq(given.end + given.tokens - 1),
            ask.address.eq(given.address + offset), ask.stride.eq(given.pitch), ask.rows.eq(given.tokens),
        ]
        for n in range(self.group):
            m.d.comb += first[n].eq(Mux(given.lag < n, n - given.lag, 0) if n else 0), end[n].eq(given.end + n)
        with m.Switch(given.group):
            for size in range(1, self.group + 1):
                with m.Case(size):
                    m.d.comb += [
                        tell.queries.eq(given.tokens * size), step.eq(size * kv.head_dim * FP32.width // 8),
                        ask.beats.eq(size * kv.head_dim // kv.lanes),
                        *(tell.first[n].eq(first[n // size]) for n in range(self.group)),
                        *(tell.end[n].eq(end[n // size]) for n in range(self.group)),
                    ]
        return m
