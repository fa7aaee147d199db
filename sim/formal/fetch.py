# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.fetch.Fetch`: exactly the beats asked for, whatever the response does."""

from amaranth.hdl import Mux, Signal

from sim.formal.contract import Contract

__all__ = ["FetchRules"]


class FetchRules(Contract):
    """Any one request is followed until its last beat has left.

    Responses answer requests in order, one each. What comes while nothing is asked for, or before the
    request's turn, is of no request and is dropped up to its end.
    """

    def rules(self, m, block):
        i, request, response, o = block.i, block.request, block.response, block.o
        most = block.beats * block.rows
        asked, came, given = self.moves(i), self.moves(response), self.moves(o)
        size, owed = Signal(range(most + 1)), Signal(range((block.outstanding + 1) * most + 1))
        m.d.comb += size.eq(i.payload.beats * i.payload.rows)
        m.d.sync += owed.eq(owed + Mux(asked, size, 0) - given)

        open = Signal()                         # a response has begun and not ended
        with m.If(came):
            m.d.sync += open.eq(~response.payload.last)
        open_next = Mux(came, ~response.payload.last, open)

        follow = self.any(1, "follow")
        followed, turn, foreign, ended = Signal(), Signal(), Signal(), Signal()
        ahead, left = Signal.like(owed), Signal.like(size)
        m.d.comb += turn.eq(followed & (ahead == 0))
        with m.If(asked & follow & ~followed):
            m.d.sync += followed.eq(1), ahead.eq(owed - given), left.eq(size), foreign.eq(open_next), ended.eq(0)
        with m.Elif(followed & ~turn):
            m.d.sync += ahead.eq(ahead - given), foreign.eq(open_next)
        with m.Elif(turn):
            m.d.sync += foreign.eq(foreign & open_next), left.eq(left - given)
            with m.If(came & ~foreign & response.payload.last):
                m.d.sync += ended.eq(1)
            with m.If(given & (left == 1)):
                m.d.sync += followed.eq(0)
        own = turn & ~foreign & ~ended          # a beat that comes now is one of its own

        self.require("i holds", self.steady(i))
        self.require("response holds", self.steady(response))
        self.require("a request asks for something",
                     ~i.valid | (size != 0) & (i.payload.beats <= block.beats) & (i.payload.rows <= block.rows))

        self.promise("request holds", self.steady(request))
        self.promise("each request is sent on once", asked == self.moves(request))
        self.promise("requests are sent on unchanged", ~request.valid | (request.payload == i.payload))
        self.promise("o holds", self.steady(o))
        self.promise("no beat that was not asked for", ~o.valid | (owed != 0))
        self.promise("beats carry the response, or zeros after its end", ~(turn & o.valid) | Mux(
            ended, o.payload.data == 0, own & response.valid & (o.payload.data == response.payload.data)))
        self.promise("the last beat is bad unless the response ends with it, the others never are",
                     ~(turn & o.valid) | (o.payload.bad == (left == 1) & (ended | ~response.payload.last)))
        self.promise("no beat of the response is lost", ~own | (came == given))
        self.promise("what there is is on offer", ~(own & response.valid | turn & ended) | o.valid)
        self.promise("what nobody asked for is dropped",
                     ~(turn & foreign | (owed == 0)) | response.ready & ~o.valid)
        self.promise("error tells of what does not match", ~(turn | (owed == 0)) | (block.error == came & (
            (owed == 0) | foreign | own & (response.payload.last != (left == 1)))))
        self.reach("a short response", turn & ended & (left == 2) & given)
        self.reach("a long response", turn & foreign & came)
        self.reach("several requests under way", followed & (ahead != 0) & (owed > most))
