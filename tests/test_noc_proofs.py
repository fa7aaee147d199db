# SPDX-License-Identifier: Apache-2.0
"""Contracts of the network find bugs. That its blocks keep them: `test_formal.py` and `make formal`."""

import pytest
from amaranth.hdl import Module, Mux

from hw.noc.arbiter import Arbiter
from hw.noc.link import Traffic
from hw.noc.multicast import Fork
from hw.noc.output import Output
from hw.noc.router import Router
from sim.formal.noc import CASTS, OutputRules, RouterRules
from sim.formal.prove import Task, prove


class Unfair(Arbiter):
    """Always prefers the first."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.grant.eq(self.request & (~self.request + 1))
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
    (Router("ES", 64, 2, (Traffic(multicast=True),)), RouterRules, CASTS | {Fork: lambda fork: Hasty(fork.order)},
     "sent packets are not mixed, S0"),
], ids=["unfair", "hasty"])
def test_bugs_are_found(block, contract, bug, found, tmp_path):
    results = prove(Task(block, contract, depth=10, cover=0, instead=bug), folder=tmp_path)
    assert found in [result.property for result in results if result.verdict == "failed"]
