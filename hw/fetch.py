# SPDX-License-Identifier: Apache-2.0
"""Reads and writes: what crosses the ports; the addresses of a read; and how it keeps in step whatever comes back."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hw.emit import Block
from hw.stream import Queue

__all__ = ["ADDRESS", "Fetch", "Steps", "request", "response", "write"]

ADDRESS = 32    # bits of a byte address


def request(beats, rows):
    """A read of `rows` runs of `beats` consecutive beats, a run every `stride` bytes from `address`."""
    return data.StructLayout({"address": ADDRESS, "stride": ADDRESS,
                              "beats": range(beats + 1), "rows": range(rows + 1)})


def response(width):
    """One beat of a read; `last` marks the last of its request."""
    return data.StructLayout({"data": width, "last": 1})


def write(size):
    """The first `count` bytes of `data`, to `address` and the bytes after it; at most `size`."""
    return data.StructLayout({"address": ADDRESS, "data": 8 * size, "count": range(size + 1)})


class Steps(Block):
    """The addresses of a request's beats, one after the other, a beat a cycle.

    Parameters
    ----------
    size : int
        Bytes of a beat.
    beats, rows : int
        Largest of each in one request.

    Members
    -------
    i : In(stream.Signature(request(beats, rows)))
    o : Out(stream.Signature(struct(address, first, last)))
        `first` of its row, `last` of the request.
    """

    def __init__(self, size, beats, rows):
        self.size, self.beats = size, beats
        super().__init__({
            "i": In(stream.Signature(request(beats, rows))),
            "o": Out(stream.Signature(data.StructLayout({"address": ADDRESS, "first": 1, "last": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        asked = Signal.like(self.i.payload, reset_less=True)     # of which `address` and `rows` move on
        at    = Signal(ADDRESS, reset_less=True)
        beat  = Signal(range(self.beats + 1), reset_less=True)   # beats of this row still to come
        first = Signal(reset_less=True)
        busy, ends_row, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            ends_row.eq(beat == 1),
            ends.eq(ends_row & (asked.rows == 1)),
            self.o.valid.eq(busy),
            self.o.payload.address.eq(at),
            self.o.payload.first.eq(first),
            self.o.payload.last.eq(ends),
            self.i.ready.eq(~busy | self.o.ready & ends),
        ]
        following = Signal(ADDRESS)
        m.d.comb += following.eq(asked.address + asked.stride)
        with m.If(self.i.ready):
            m.d.sync += [
                busy.eq(self.i.valid), first.eq(1),
                asked.eq(self.i.payload), at.eq(self.i.payload.address), beat.eq(self.i.payload.beats),
            ]
        with m.Elif(self.o.ready & ends_row):
            m.d.sync += [
                asked.address.eq(following), at.eq(following),
                asked.rows.eq(asked.rows - 1), beat.eq(asked.beats), first.eq(1),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += at.eq(at + self.size), beat.eq(beat - 1), first.eq(0)
        return m


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
