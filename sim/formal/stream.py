# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.stream`: what goes in comes out, once, unchanged and in order."""

from amaranth.hdl import Signal, Value

from sim.formal.contract import Contract

__all__ = ["DeepFifo", "Fifo"]


class Fifo(Contract):
    """Any queue. Any one item is followed from its way in to its way out.

    `slack` is how many items it may hold beyond `depth`.
    """

    slack = 0

    def rules(self, m, block):
        i, o, arriving, leaving = block.i, block.o, Value.cast(block.i.payload), Value.cast(block.o.payload)
        push, pop, level = Signal(), Signal(), Signal(range(block.depth + self.slack + 2))
        m.d.comb += push.eq(i.valid & i.ready), pop.eq(o.valid & o.ready)
        m.d.sync += level.eq(level + push - pop)

        follow = self.any(1, "follow")
        item, ahead, followed = Signal(block.width), Signal.like(level), Signal()
        with m.If(push & follow & ~followed):
            m.d.sync += followed.eq(1), item.eq(arriving), ahead.eq(level - pop)
        with m.Elif(pop & followed):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += followed.eq(0)

        self.promise("o holds", self.steady(o))
        self.promise("no item comes from nothing", ~o.valid | (level != 0))
        self.promise("each item comes out unchanged, in its turn",
                     ~(followed & o.valid & (ahead == 0)) | (leaving == item))
        self.promise("an item in the queue is on offer", o.valid | (level == 0))
        self.promise("ready while there is room", i.ready | (level >= block.depth))
        self.promise("never too many", level <= block.depth + self.slack)
        self.reach("full, then empty", self.after(level == block.depth) & (level == 0))
        self.reach("last slot, first slot", followed & pop & (ahead == 0) & (leaving == item))


class DeepFifo(Fifo):
    """A queue that holds one item more."""

    slack = 1
