# SPDX-License-Identifier: Apache-2.0
"""The paged KV cache: control and data."""

from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.emit import Block
from hw.kvcache.controller import Controller
from hw.kvcache.store import Store

__all__ = ["KvCache"]

INSIDE = {"ranges", "moves", "retire"}      # between the two


class KvCache(Block):
    """A `Controller` and the `Store` that carries out what it decides, with the ports of both.

    Parameters
    ----------
    config : golden.config.KvCache

    Members
    -------
    begins : Out(1)
        A `WRITE` has not been refused: its first slots go to the store.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({"begins": Out(1)} | {
            name: member for part in (Controller(config), Store(config))
            for name, member in part.signature.members.items() if name not in INSIDE})

    def elaborate(self, platform):
        m = Module()
        m.submodules.controller = controller = Controller(self.config)
        m.submodules.store = store = Store(self.config)
        ranges = controller.ranges
        connect(m, ranges, store.ranges)
        m.d.comb += self.begins.eq(
            ranges.valid & ranges.ready & ranges.payload.write & ranges.payload.opens)
        connect(m, controller.moves, store.moves)
        connect(m, store.retire, controller.retire)
        for part in controller, store:
            for name, member in part.signature.members.items():
                if name in INSIDE:
                    continue
                inner, outer = getattr(part, name), getattr(self, name)
                if member.is_signature:
                    connect(m, *((flipped(outer), inner) if member.flow is In else (inner, flipped(outer))))
                else:
                    m.d.comb += inner.eq(outer) if member.flow is In else outer.eq(inner)
        return m
