# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.kvcache.counters.Counters`."""

from amaranth.hdl import Array, Signal

from sim.formal.contract import Contract

__all__ = ["CountersRules"]

SETTLES = 7     # cycles in which all carries have run through


class CountersRules(Contract):
    """A counter reads as what it began with and all that was added since, once carries have settled; they soon do."""

    def rules(self, m, block):
        names = block.names
        which = self.some(range(len(names)), "which")
        begins = Array([init if bits else 0 for _, bits, init in names])[which]
        amount = Array([block.add[name] if bits else 0 for name, bits, _ in names])[which]
        added, total = Signal(max(bits for _, bits, _ in names)), Signal(64)
        m.d.sync += added.eq(amount), total.eq(total + added)
        quiet = Signal(range(SETTLES + 1))
        with m.If(block.add.as_value() != 0):
            m.d.sync += quiet.eq(0)
        with m.Elif(quiet != SETTLES):
            m.d.sync += quiet.eq(quiet + 1)

        self.require("the counter exists", (block.index < len(names)) & (which < len(names)))
        value, commands = begins + total, [name for name, *_ in names].index("commands")
        self.promise("a counter has all that was added to it",
                     ~block.settled | (block.index != which) | (block.value == value[:64]))
        self.promise("commands are the counter of that name",
                     ~block.settled | (which != commands) | (block.commands == value[:64]))
        self.promise("carries settle", block.settled | (quiet != SETTLES))
