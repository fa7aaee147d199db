# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.kvcache.counters.Counters`."""

from amaranth.hdl import Array, Instance, Mux, Signal

from sim.formal.contract import Contract

__all__ = ["CountersFromAnywhere", "CountersRules"]

CALM = 3        # cycles after which nothing is under way that was added before
SETTLES = 7     # cycles in which all carries have run through


class CountersRules(Contract):
    """A counter reads as what it began with and all that was added since, once carries have settled; they soon do."""

    def rules(self, m, block):
        names = block.names
        which = self.some(range(len(names)), "which")
        amount = Array([block.add[name] if bits else 0 for name, bits, _ in names])[which]
        added, total = Signal(max(bits for _, bits, _ in names)), Signal(64)
        m.d.sync += added.eq(amount), total.eq(total + added)
        quiet = Signal(range(SETTLES + 1))
        with m.If(block.add.as_value() != 0):
            m.d.sync += quiet.eq(0)
        with m.Elif(quiet != SETTLES):
            m.d.sync += quiet.eq(quiet + 1)

        self.require("the counter exists", (block.index < len(names)) & (which < len(names)))
        self.begins(m, block, which, total)
        value = (self.first(names, which) + total)[:64]
        commands = [name for name, *_ in names].index("commands")
        self.promise("a counter has all that was added to it",
                     ~block.settled | (block.index != which) | (block.value == value))
        self.promise("commands are the counter of that name",
                     ~block.settled | (which != commands) | (block.commands == value))
        self.promise("carries settle", block.settled | (quiet != SETTLES))

    def first(self, names, which):
        """What a counter begins with."""
        return Array([init if bits else 0 for _, bits, init in names])[which]

    def begins(self, m, block, which, total):
        """What is required in place of a reset."""


class CountersFromAnywhere(CountersRules):
    """It goes on like that from any value, so that all carries matter."""

    resets = False

    def first(self, names, which):
        return 0

    def begins(self, m, block, which, total):
        begins, age = Signal(), Signal(range(CALM + 1))
        m.submodules.begins = Instance("initstate", o_Y=begins)
        at = Mux(begins, 0, age)
        m.d.sync += age.eq(Mux(at == CALM, CALM, at + 1))
        self.require("it is calm", (at == CALM) | block.settled & (block.add.as_value() == 0) & (
            block.index == which) & (block.value == total))
