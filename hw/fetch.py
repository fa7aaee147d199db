# SPDX-License-Identifier: Apache-2.0
"""Reads: what crosses the ports, and how they keep in step whatever comes back."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hw.emit import Block
from hw.stream import Queue

__all__ = ["ADDRESS", "Fetch", "request", "response"]

ADDRESS = 32    # bits of a byte address


def request(beats, rows):
    """A read of `rows` runs of `beats` consecutive beats, a run every `stride` bytes from `address`."""
    return data.StructLayout({"address": ADDRESS, "stride": ADDRESS,
                              "beats": range(beats + 1), "rows": range(rows + 1)})


def response(width):
    """One beat of a read; `last` marks the last of its request."""
    return data.StructLayout({"data": width, "last": 1})


class Fetch(Block):
    """Sends requests on and returns exactly the beats asked for, in order.

    A response that ends early is filled up with zeros, what comes beyond its end or without any
    request is dropped, and the beats concerned say so. No latency.

    Parameters
    ----------
    width : int
        Bits of a beat.
    beats, rows : int
        Largest of each in one request.
    outstanding : int
        Requests under way at once.

    Members
    -------
    i : In(stream.Signature(request)), request : Out(stream.Signature(request))
    response : In(stream.Signature(response))
        `last` marks the end of a request's beats.
    o : Out(stream.Signature(struct(data, bad)))
        `bad` marks the last beat of a request that did not get what it asked for.
    error : Out(1)
        Something did not match, in this cycle.
    """

    def __init__(self, width, beats, rows, outstanding=4):
        self.beats, self.rows, self.outstanding = beats, rows, outstanding
        self.shape = request(beats, rows)
        super().__init__({
            "i": In(stream.Signature(self.shape)),
            "request": Out(stream.Signature(self.shape)),
            "response": In(stream.Signature(response(width))),
            "o": Out(stream.Signature(data.StructLayout({"data": width, "bad": 1}))),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        # A request is sent on when there is room to keep its size.
        size = data.StructLayout({"beats": range(self.beats + 1), "rows": range(self.rows + 1)})
        m.submodules.sizes = sizes = Queue(size, self.outstanding)
        m.d.comb += [
            self.request.payload.eq(self.i.payload),
            sizes.i.payload.beats.eq(self.i.payload.beats),
            sizes.i.payload.rows.eq(self.i.payload.rows),
            self.request.valid.eq(self.i.valid & sizes.i.ready),
            self.i.ready.eq(self.request.ready & sizes.i.ready),
            sizes.i.valid.eq(self.i.valid & self.request.ready),
        ]

        beat, row = Signal(range(self.beats + 1)), Signal(range(self.rows + 1))    # passed of this request
        early     = Signal()    # its response has ended before its time
        late      = Signal()    # the response before it has not ended in time
        ends_row  = Signal()
        ends      = Signal()
        taken     = Signal()
        received  = Signal()
        m.d.comb += [
            ends_row.eq(beat + 1 == sizes.o.payload.beats),
            ends.eq(ends_row & (row + 1 == sizes.o.payload.rows)),
            self.o.valid.eq(sizes.o.valid & (early | self.response.valid & ~late)),
            self.o.payload.data.eq(Mux(early, 0, self.response.payload.data)),
            self.o.payload.bad.eq(ends & (early | ~self.response.payload.last)),
            self.response.ready.eq(late | ~sizes.o.valid | self.o.ready & ~early),
            taken.eq(self.o.valid & self.o.ready),
            received.eq(self.response.valid & self.response.ready),
            sizes.o.ready.eq(taken & ends),
        ]
        with m.If(taken):
            m.d.sync += beat.eq(Mux(ends_row, 0, beat + 1))
            with m.If(ends_row):
                m.d.sync += row.eq(Mux(ends, 0, row + 1))
            with m.If(ends):
                m.d.sync += early.eq(0)

        with m.If(received):
            with m.If(late | ~sizes.o.valid):
                m.d.sync += late.eq(~self.response.payload.last)
                m.d.comb += self.error.eq(1)
            with m.Elif(self.response.payload.last & ~ends):
                m.d.sync += early.eq(1)
                m.d.comb += self.error.eq(1)
            with m.Elif(~self.response.payload.last & ends):
                m.d.sync += late.eq(1)
                m.d.comb += self.error.eq(1)

        return m
