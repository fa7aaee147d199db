# SPDX-License-Identifier: Apache-2.0
"""Contracts of the network find bugs. That its blocks keep them: `test_formal.py` and `make formal`."""

import pytest
from amaranth.hdl import Cat, Module, Mux

from hw.noc.arbiter import Arbiter
from hw.noc.link import Traffic
from hw.noc.multicast import Fork
from hw.noc.output import Credits, Output
from hw.noc.router import Router
from sim.formal.noc import CASTS, PLAIN, OutputRules, RouterRules
from sim.formal.prove import Task, prove


class Unfair(Arbiter):
    """Always prefers the first."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.grant.eq(self.request & (~self.request + 1))
        return m


class Forgetful(Credits):
    """Forgets that a packet has begun."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.left.eq(Mux(self.credit, self.used >> 1, self.used))
        m.d.sync += self.used.eq(Mux(self.send, Cat(1, self.left), self.left))
        return m


class Hasty(Fork):
    """Is done with a flit that has left by one of its outputs."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.wants.eq(Mux(self.there, self.route, 0)), self.taken.eq(self.grant.any())
        with m.If(self.taken):
            m.d.sync += self.owns.eq(Mux(self.tail, 0, self.route))
        return m


@pytest.mark.parametrize("block, contract, bug, found", [
    (Output((Traffic(),), 2, ((0,), (0,), (0,)), True), OutputRules, {Arbiter: lambda arbiter: Unfair(arbiter.count)},
     "nobody who may go waits for more than a turn of each other"),
    (Router("ES", 64, 2, (Traffic(),)), RouterRules, PLAIN | {Credits: lambda credits: Forgetful(credits.depth)},
     "sent packets are not mixed, S0"),
    (Router("ES", 64, 2, (Traffic(multicast=True),)), RouterRules, CASTS | {Fork: lambda fork: Hasty(fork.order)},
     "sent packets are not mixed, S0"),
], ids=["unfair", "forgetful", "hasty"])
def test_bugs_are_found(block, contract, bug, found, tmp_path):
    results = prove(Task(block, contract, depth=10, cover=0, instead=bug), folder=tmp_path)
    assert found in [result.property for result in results if result.verdict == "failed"]
