# SPDX-License-Identifier: Apache-2.0
"""Who goes first."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import In, Out

from hw.emit import Block

__all__ = ["Arbiter"]


class Arbiter(Block):
    """Grants one of some requests: that which has waited longest since it was `done` last.

    A matrix of one bit a pair, so that a grant takes two levels of gates and nobody waits for more than
    one turn of each other.

    Parameters
    ----------
    count : int
        Requests.

    Members
    -------
    request : In(count)
    done : In(1)
        What is granted now goes behind all others.
    grant : Out(count)
        At most one bit, in the same cycle.
    """

    def __init__(self, count):
        if count < 1:
            raise ValueError(f"Arbiter: count must be at least 1, not {count!r}")
        self.count = count
        super().__init__({"request": In(count), "done": In(1), "grant": Out(count)})

    def elaborate(self, platform):
        m = Module()
        later = {(a, b): Signal(name=f"later{a}_{b}")        # b goes before a
                 for b in range(self.count) for a in range(b)}
        for a in range(self.count):
            before = [self.request[b] & (later[a, b] if a < b else ~later[b, a])
                      for b in range(self.count) if b != a]
            m.d.comb += self.grant[a].eq(self.request[a] & ~Cat(before).any())
        for (a, b), bit in later.items():
            with m.If(self.done & (self.grant[a] | self.grant[b])):
                m.d.sync += bit.eq(self.grant[a])
        return m
