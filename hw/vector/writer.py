# SPDX-License-Identifier: Apache-2.0
"""Where results go."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hw.emit import Block
from hw.fetch import ADDRESS
from hw.vector.back import word
from hw.vector.ports import Error, completion, result

__all__ = ["Writer", "places"]


def places():
    """Where an instruction's results go, or why it has none. Scales of `blocks` go block by block: those of a row a
    pitch apart, those of the next row a byte further."""
    return data.StructLayout({"tag": 8, "error": Error, "result": ADDRESS, "result_pitch": ADDRESS,
                              "scalars": ADDRESS, "scalars_pitch": ADDRESS, "blocks": 1})


class Writer(Block):
    """Gives words their addresses, and instructions their completions.

    Parameters
    ----------
    lanes : int

    Members
    -------
    places : In(stream.Signature(places()))
        One an instruction.
    words : In(stream.Signature(word(lanes)))
    results : Out(stream.Signature(result(lanes))), completions : Out(stream.Signature(completion()))
    """

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__({
            "places": In(stream.Signature(places())), "words": In(stream.Signature(word(lanes))),
            "results": Out(stream.Signature(result(lanes))), "completions": Out(stream.Signature(completion())),
        })

    def elaborate(self, platform):
        m = Module()
        given, word, open = self.places.payload, self.words.payload, Signal()
        near, far = ([Signal(ADDRESS, name=f"{name}{n}") for n in range(2)] for name in ("near", "far"))
        passes, nans, done = Signal(), Signal(32), Signal()
        m.d.comb += [
            self.results.valid.eq(self.words.valid & open),
            self.results.payload.address.eq(Mux(word.codes, Mux(given.blocks, far[1], near[1]), near[0])),
            self.results.payload.data.eq(word.data), self.results.payload.bytes.eq(word.bytes),
            self.results.payload.tag.eq(given.tag), self.results.payload.last.eq(word.end),
            self.words.ready.eq(open & self.results.ready),
            passes.eq(self.words.valid & self.words.ready),
        ]

        # An instruction opens when the one before has its completion, and that has gone.
        with m.If(self.completions.ready):
            m.d.sync += self.completions.valid.eq(0)
        m.d.comb += [
            done.eq(Mux(open, passes & word.end, self.places.valid & (given.error != Error.NONE)
                        & ~self.completions.valid)),
            self.places.ready.eq(done),
        ]
        with m.If(~open & self.places.valid & (given.error == Error.NONE) & ~self.completions.valid):
            m.d.sync += open.eq(1), nans.eq(0)
            for n, base in enumerate((given.result, given.scalars)):
                m.d.sync += near[n].eq(base), far[n].eq(base)

        # `near` goes from word to word, `far` by pitches from row to row; where scales of blocks go, it is `far` that
        # goes from word to word, and `near` from row to row.
        with m.If(passes):
            m.d.sync += nans.eq(nans + word.nans)
            for n, (pitch, blocks) in enumerate((
                    (given.result_pitch, Const(0)), (given.scalars_pitch, given.blocks))):
                beside, beyond = (Signal(ADDRESS, name=f"{name}{n}") for name in ("beside", "beyond"))
                m.d.comb += beside.eq(near[n] + Mux(blocks, 1, 4 * self.lanes)), beyond.eq(far[n] + pitch)
                with m.If((word.codes == n) & (word.row | ~blocks)):
                    m.d.sync += near[n].eq(Mux(word.row & ~blocks, beyond, beside))
                with m.If((word.codes == n) & (word.row | blocks)):
                    m.d.sync += far[n].eq(Mux(word.row & blocks, beside, beyond))
        with m.If(done):
            m.d.sync += [
                open.eq(0),
                self.completions.valid.eq(1),
                self.completions.payload.tag.eq(given.tag),
                self.completions.payload.nans.eq(Mux(open, nans + word.nans, 0)),
                self.completions.payload.error.eq(Mux(open & word.bad, Error.RESPONSE, given.error)),
            ]
        return m
