# SPDX-License-Identifier: Apache-2.0
"""Packets to a rectangle of nodes: which way they go, and how they leave by several outputs at once."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib.wiring import In, Out

from golden.packet import DIRECTIONS, FORKS, TURNS, Port
from hw.emit import Block

__all__ = ["Fork", "branches"]


def branches(m, order, out, x, y, header):
    """The outputs that a packet leaving by `out` takes of the next router, as a dictionary of bits.

    It goes to the rectangle of the header, and on its way it is never behind that, nor beside it once it turned.
    """
    if out == Port.L:
        return {}
    ways = {"x": (x, header.dst_x, header.ext_x, Port.W, Port.E), "y": (y, header.dst_y, header.ext_y, Port.N, Port.S)}
    step = dict(zip("xy", DIRECTIONS[out], strict=True))
    found, within = {}, {}
    for way, (here, first, extent, low, high) in ways.items():
        there, last = (Signal(4, name=f"{out.name.lower()}_{name}_{way}") for name in ("there", "last"))
        m.d.comb += there.eq(here + step[way]), last.eq(first + extent)
        reached, left = first <= there, there <= last
        within[way] = left if out == low else reached if out == high else reached & left
        found |= {low: first < there, high: there < last}
        if out in (low, high):
            found[out] = (first if out == low else last) != there
    first, second = order
    if step[second]:
        within[first] = Const(1)
    for port in FORKS[order][2:4]:
        found[port] = found[port] & within[first]
    found[Port.L] = within[first] & within[second]
    return {port: bit for port, bit in found.items() if port in TURNS[order][out.opposite]}


class Fork(Block):
    """Sends the flits of a packet out by several outputs, each in its own time.

    A head takes hold of its outputs in one order, each only with all before it; and nothing of it goes anywhere
    until it has them all. It asks for all at once and, if that fails, for one after the other, so that what it may
    not keep is left to others. As each is granted only with room for the whole packet behind it, a packet on its
    way waits for nothing but links. So no packets wait for each other in a circle.

    Parameters
    ----------
    order : str
        "xy" or "yx".

    Members
    -------
    route : In(5)
    there : In(1)
        There is a flit, of a packet that takes `route`.
    tail, drop : In(1)
    grant : In(5)
    wants : Out(5)
    owns : Out(5)
        Outputs it has taken hold of.
    hold : Out(5)
        What is granted, but must not go yet.
    claim : Out(5)
        What it takes hold of with that.
    taken : Out(1)
        The flit has gone everywhere.
    """

    def __init__(self, order):
        self.order = order
        super().__init__({
            "route": In(5), "there": In(1), "tail": In(1), "drop": In(1), "grant": In(5),
            "wants": Out(5), "owns": Out(5), "hold": Out(5), "claim": Out(5), "taken": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        sent, kept, asks, failed = Signal(5), Signal(5), Signal(5), Signal()
        whole, owned = 1, 1         # all outputs so far: with what is granted now, and without
        for port in FORKS[self.order]:
            has = Signal(name=f"has_{port.name.lower()}")
            m.d.comb += has.eq(self.owns[port] | self.grant[port]), asks[port].eq(owned | ~failed)
            owned = _named(m, owned & (~self.route[port] | self.owns[port]), f"owned_{port.name.lower()}")
            m.d.comb += kept[port].eq(self.route[port] & has & whole)
            whole = _named(m, whole & (~self.route[port] | has), f"whole_{port.name.lower()}")
        goes = self.grant & whole.replicate(5)
        m.d.comb += [
            self.wants.eq(self.route & asks & ~sent & self.there.replicate(5)),
            self.hold.eq(self.grant & ~whole.replicate(5)),
            self.claim.eq(self.hold & kept & ~self.drop.replicate(5)),
            self.taken.eq(self.there & whole & ((self.route & ~(sent | goes)) == 0)),
        ]
        with m.If(self.drop | self.taken):
            m.d.sync += sent.eq(0), failed.eq(0)
        with m.Else():
            m.d.sync += sent.eq(sent | goes), failed.eq(self.there & ~whole)
        with m.If(self.drop | self.taken & self.tail):
            m.d.sync += self.owns.eq(0)
        with m.Elif(self.there):
            m.d.sync += self.owns.eq(kept)
        return m


def _named(m, value, name):
    """The bit as a signal."""
    found = Signal(name=name)
    m.d.comb += found.eq(value)
    return found
