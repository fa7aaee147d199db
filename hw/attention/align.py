# SPDX-License-Identifier: Apache-2.0
"""How a query's sums of a group join those before."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hw.arith.shift import saturated
from hw.attention.ports import EXPONENT
from hw.emit import Block

__all__ = ["PLACES", "Align", "alignment", "joint"]

PLACES = 6      # bits of a shift


def joint():
    """The exponent of a group's weights; whether there are `some`, or were any `before`."""
    return data.StructLayout({"shared": EXPONENT, "some": 1, "before": 1})


def alignment():
    """Whether there are sums to add and sums `before`; by what the latter shift down if it `grows`, else the former."""
    return data.StructLayout({"some": 1, "before": 1, "grows": 1, "places": PLACES})


class Align(Block):
    """Keeps the exponent of a query's sums. Whichever sums have the smaller one will have to shift.

    Members
    -------
    start : In(1), joint : In(joint()), top : In(8)
        A group begins; the exponent of its values.
    o : Out(alignment()), exponent : Out(EXPONENT)
        From the next cycle on, until the next group begins; `places` a cycle later than the rest.
    """

    def __init__(self):
        super().__init__({"start": In(1), "joint": In(joint()), "top": In(8),
                          "o": Out(alignment()), "exponent": Out(EXPONENT)})

    def elaborate(self, platform):
        m, i, o = Module(), self.joint, self.o
        exponent, grows, distance = Signal(EXPONENT), Signal(), Signal(signed(len(self.exponent) + 1))
        places = Signal(PLACES, reset_less=True)
        m.d.comb += [
            exponent.eq(i.shared + self.top), grows.eq(i.some & (~i.before | (exponent > self.exponent))),
            distance.eq(Mux(grows, exponent - self.exponent, self.exponent - exponent)),
        ]
        with m.If(self.start):
            m.d.sync += [
                o.some.eq(i.some), o.before.eq(i.before), o.grows.eq(grows),
                places.eq(saturated(distance, PLACES)),
            ]
            with m.If(grows):
                m.d.sync += self.exponent.eq(exponent)
        m.d.sync += o.places.eq(places)
        return m
