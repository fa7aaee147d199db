# SPDX-License-Identifier: Apache-2.0
"""What blocks promise at their ports, as properties that a solver can decide.

A `Contract` watches the ports of a block. It says what the block may require of its surroundings and
what it promises in return. To prove a block alone, a `Bench` leaves its inputs free, assumes the
former and asserts the latter; in a bigger block, `Watched` asserts the former at every block inside that
has a contract, so that what one block assumes is not merely hoped of the others.

Everything starts from a reset out of an arbitrary state, so that a reset in the midst of traffic is
covered as well.
"""

from amaranth.hdl import Assert, Assume, Cover, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib.wiring import Component, connect, flipped

from hw.emit import Library

__all__ = ["Bench", "Contract", "Watched"]


class Contract(Elaboratable):
    """Properties of one block; a subclass states them in `rules`.

    Parameters
    ----------
    block : Block
    assume : bool
        What the block requires is assumed and what it promises asserted; otherwise the former is asserted.

    Attributes
    ----------
    resets : bool
        Of the class: everything starts from a reset; otherwise from any state that the rules assume in its place.
    """

    resets = True

    def __init__(self, block, assume):
        self.block, self.assume = block, assume

    def elaborate(self, platform):
        self.m = Module()
        self.rules(self.m, self.block)
        return self.m

    def rules(self, m, block):
        raise NotImplementedError

    def visible(self, block):
        """By output: when anybody looks at it, unless that is always."""
        return {}

    def require(self, name, holds):
        """The surroundings see to it that `holds` is true in every cycle after reset."""
        if self.assume:
            self.m.d.comb += Assume(ResetSignal() | holds)
        else:
            self.m.d.comb += Assert(ResetSignal() | holds, f"requires {name}")

    def promise(self, name, holds):
        """The block sees to it that `holds` is true in every cycle after reset."""
        if self.assume:     # inside another block this is known
            self.m.d.comb += Assert(ResetSignal() | holds, name)

    def reach(self, name, happens):
        """The rules are not empty: `happens` can be true."""
        if self.assume:
            self.m.d.comb += Cover(~ResetSignal() & happens, name)

    def steady(self, stream):
        """Whether a stream keeps its rule: once valid, hold valid and payload until ready."""
        waiting, payload = Signal(), Signal(stream.payload.shape())
        self.m.d.sync += waiting.eq(stream.valid & ~stream.ready), payload.eq(stream.payload)
        return ~waiting | stream.valid & (stream.payload == payload)

    @staticmethod
    def moves(stream):
        """Whether an item passes."""
        return stream.valid & stream.ready

    def after(self, event):
        """Whether `event` has happened in an earlier cycle."""
        seen = Signal()
        with self.m.If(event):
            self.m.d.sync += seen.eq(1)
        return seen

    def some(self, shape, name):
        """A value that the solver chooses once."""
        return self._free("anyconst", shape, name)

    def any(self, shape, name):
        """A value that the solver chooses in every cycle."""
        return self._free("anyseq", shape, name)

    def _free(self, kind, shape, name):
        value = Signal(shape, name=name)
        self.m.submodules += Instance(kind, p_WIDTH=len(value), o_Y=value)
        return value


class Bench(Component):
    """A block with free inputs under its contract."""

    name = "bench"
    origin = identity = None

    def __init__(self, block, contract):
        self._block, self._contract = block, contract
        super().__init__(block.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.block = block = self._block
        m.submodules.contract = self._contract(block, assume=True)
        connect(m, flipped(self), block)

        begins = Signal()
        m.submodules.begins = Instance("initstate", o_Y=begins)
        m.d.comb += Assume(ResetSignal() == (begins & self._contract.resets))
        return m


class Watched(Library):
    """The platform under which blocks inside others are watched by their contracts.

    Parameters
    ----------
    contracts : dict of type to type
        Contract of each kind of block.
    instead : dict of type to callable
        By kind of block: what stands in for one, a block of the same ports.
    """

    def __init__(self, contracts, instead):
        super().__init__()
        self.contracts, self.instead = contracts, instead

    def add(self, block):
        return super().add(self.instead.get(type(block), lambda same: same)(block))

    def instance(self, block):
        m = Module()
        m.submodules.block = super().instance(block)
        if contract := self.contracts.get(type(block)):
            m.submodules.contract = contract(block, assume=False)
        return m
