# SPDX-License-Identifier: Apache-2.0
"""The processing element of the systolic array."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In, Out

from golden.families import FAMILIES
from hw.arith.dot import Dot, datapath
from hw.emit import Block

__all__ = ["PE"]


class PE(Block):
    """A dot product with `lanes` stationary weights, and a shadow set of them that loads meanwhile.

    Activations are registered outside, once for several elements; the partial sum leaves through a
    register. Latency 2 cycles from `a`, 1 cycle from `i`.

    Parameters
    ----------
    family : str
    lanes : int
    width : int
        Bits of the partial sums.

    Members
    -------
    a : In(activations)
    a_nan : In(1)
        Some lane of `a` is NaN or infinite. Only in families that have NaN, like `w_nan`, `i_nan`, `o_nan`.
    w : In(weights), w_nan : In(1)
        Weights on their way to the shadow set.
    load : In(kinds)
        Take `w` into the shadow set, each kind of its parts by a bit of its own.
    swap : In(kinds)
        Make the shadow set the active one, for the activations that arrive in the next cycle.
    i, o : In(partial), Out(partial)
        Partial sum from above and to below.
    i_nan, o_nan : In(1), Out(1)
    """

    latency = Dot.latency

    def __init__(self, family, lanes, width):
        self.family, self.lanes, self.width = FAMILIES[family], lanes, width
        self.datapath = datapath(family)
        self.weights = self.datapath.weights(lanes)
        nan = {"a_nan": In(1), "w_nan": In(1), "i_nan": In(1), "o_nan": Out(1)} if self.family.nan else {}
        super().__init__({
            "a": In(self.datapath.activations(lanes)),
            "w": In(self.weights),
            "load": In(self.datapath.kinds),
            "swap": In(self.datapath.kinds),
            "i": In(self.datapath.partial(width)),
            "o": Out(self.datapath.partial(width)),
            **nan,
        })

    def elaborate(self, platform):
        m = Module()

        shadow = Signal(self.weights, reset_less=True)
        active = Signal(self.weights, reset_less=True)
        new, waiting, used = (self.datapath.parts(weights) for weights in (self.w, shadow, active))
        for kind in range(self.datapath.kinds):
            with m.If(self.load[kind]):
                m.d.sync += waiting[kind].eq(new[kind])
            with m.If(self.swap[kind]):
                m.d.sync += used[kind].eq(waiting[kind])

        m.submodules.dot = dot = self.datapath.dot(self.family.name, self.lanes, self.width)
        m.d.comb += [
            dot.a.eq(self.a),
            dot.w.eq(active),
            dot.i.eq(self.i),
            self.o.eq(dot.o),
        ]

        if self.family.nan:
            shadow_nan = Signal(reset_less=True)
            active_nan = Signal(reset_less=True)
            either = Signal(reset_less=True)
            with m.If(self.load[0]):
                m.d.sync += shadow_nan.eq(self.w_nan)
            with m.If(self.swap[0]):
                m.d.sync += active_nan.eq(shadow_nan)
            m.d.sync += either.eq(self.a_nan | active_nan)
            m.d.sync += self.o_nan.eq(self.i_nan | either)

        return m
