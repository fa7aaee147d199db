# SPDX-License-Identifier: Apache-2.0
"""The input of a router, one virtual channel: buffer, checks, and the way ahead."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.packet import DIRECTIONS, TURNS, Error, Port
from hw.emit import Block
from hw.noc.link import HEADER, flit
from hw.noc.multicast import Fork, branches

__all__ = ["FAULTS", "Lane", "Slots", "ahead", "outputs"]

FAULTS = (Error.OVERFLOW, Error.FRAME, Error.PARITY, Error.ROUTE)
"""The first that applies is reported."""


def outputs(order, port, sides):
    """Ports, in order, by which packets may leave that came in by `port`, if there are neighbours on `sides`."""
    return "".join(out.name for out in Port if out in TURNS[order][port] and out.name in f"{sides}L")


def ahead(order, out, x, y, header):
    """The output that a packet leaving by `out` takes of the next router, as a dictionary of bits.

    On its way it never passes its destination, so comparing for equality does but for the one turn.
    """
    if out == Port.L:
        return {}
    here = {"x": x, "y": y}
    target = {"x": header.dst_x, "y": header.dst_y}
    step = dict(zip("xy", DIRECTIONS[out], strict=True))
    way = "x" if step["x"] else "y"
    reached = target[way] == (here[way] + step[way])[:len(here[way])]
    if way == order[1]:
        return {out: ~reached, Port.L: reached}
    other = order[1]
    low, high = (Port.N, Port.S) if other == "y" else (Port.W, Port.E)
    below, above = target[other] < here[other], target[other] > here[other]
    return {out: ~reached, low: reached & below, high: reached & above, Port.L: reached & ~below & ~above}


class Slots(Block):
    """The buffer of a virtual channel: `depth` flits, the first in a register of its own. Latency 1.

    The others are in a shift register, which needs neither pointers nor multiplexers but the one to the first.

    Parameters
    ----------
    shape : StructLayout
        A flit. `route` of the first one out is that of the head of its packet.
    depth : int

    Members
    -------
    i : In(shape)
    push : In(1)
    inside : In(1)
        What comes to the front next is inside a packet, whatever it says.
    o : Out(shape)
    pop : In(1)
        Only with a flit there.
    used : Out(depth)
        A bit for each flit, from the lowest.
    """

    def __init__(self, shape, depth):
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(shape), "push": In(1), "inside": In(1), "o": Out(shape), "pop": In(1),
                          "used": Out(depth)})

    def elaborate(self, platform):
        m = Module()
        slots = [Signal(self.shape, name=f"slot{n}", reset_less=True) for n in range(self.depth - 1)]
        first, then = Signal(self.shape, reset_less=True), Signal(self.shape)
        push, past, load = Signal(), Signal(), Signal()
        last = self.used & ~(self.used >> 1)        # the bit of the youngest
        waiting = [Mux(last[n], Value.cast(slot), 0) for n, slot in enumerate(slots, 1)]
        m.d.comb += [
            push.eq(self.push & ~self.used[-1]),
            past.eq(~self.used[0] | self.pop & ~self.used[1]),      # what comes in goes to the front at once
            load.eq(self.pop & self.used[1] | push & past),
            Value.cast(then).eq(reduce(or_, waiting, Mux(self.used[1], 0, Value.cast(self.i)))),
            self.o.eq(first),
        ]
        with m.If(push & ~self.pop):
            m.d.sync += self.used.eq(Cat(1, self.used[:-1]))
        with m.If(self.pop & ~push):
            m.d.sync += self.used.eq(self.used[1:])
        with m.If(push & ~past):
            m.d.sync += [slot.eq(younger) for slot, younger in zip(slots, [self.i, *slots], strict=False)]
        for name in self.shape.members:
            with m.If(load & (then.head & ~self.inside if name == "route" else 1)):
                m.d.sync += getattr(first, name).eq(getattr(then, name))
        return m


class Lane(Block):
    """One virtual channel of an input of a router. A lane of a class of reductions has no outputs.

    A head that must not go on is dropped, and so is a body that follows no head: the rest of its packet. A
    head inside a packet, which has lost its end, goes on as a body of that packet, of odd parity.

    Parameters
    ----------
    bits, depth : int
        Data of a flit; flits of the buffer.
    order : str
    outputs : str
        Ports that its packets may leave by: some of "NESWL".
    multicast : bool

    Members
    -------
    x, y : In(4)
        Where the router is.
    flit : In(flit(bits))
        Its `parity` leaves out the virtual channel.
    valid : In(1)
    credit : Out(1)
    o : Out(struct(data, head, tail))
        The flit in front.
    parity : Out(5)
        Its parity by output, but for the virtual channel.
    ahead : Out(5) each
        Its route at the next router, by output.
    wants : Out(5)
        Outputs that it asks for.
    grant : In(5)
    owns : Out(5)
        Outputs whose virtual channel is its packet's.
    hold : Out(5)
        It must not go, though it asks: not yet, or it is dropped.
    claim : Out(5)
        Nor does it, but its packet has the virtual channel from now on.
    need : Out(depth)
        One bit: the slot of the next buffer that must be free, and so all above, for its packet to begin.
    there, ready : Out(1), In(1), without outputs
        There is a flit; it is taken for a reduction.
    odd : Out(1), without outputs
        Its parity is not what it must be.
    taken, inside : Out(1)
        It goes, for good; the head of its packet has gone.
    faults : Out(len(FAULTS))
        What is wrong with it, or with what comes in.
    used : Out(depth)
    """

    def __init__(self, bits, depth, order, outputs, multicast=False):
        self.bits, self.depth, self.order, self.multicast = bits, depth, order, multicast
        self.outputs = [Port[name] for name in outputs]
        super().__init__({
            "x": In(4), "y": In(4),
            "flit": In(flit(bits)), "valid": In(1), "credit": Out(1),
            "o": Out(data.StructLayout({"data": bits, "head": 1, "tail": 1})), "parity": Out(5),
            **{f"ahead_{out.name.lower()}": Out(5) for out in self.outputs},
            "wants": Out(5), "grant": In(5), "owns": Out(5), "hold": Out(5), "claim": Out(5), "need": Out(depth),
            "taken": Out(1), "inside": Out(1), "faults": Out(len(FAULTS)), "used": Out(depth),
            **({} if self.outputs else {"there": Out(1), "ready": In(1), "odd": Out(1)}),
        })

    def elaborate(self, platform):
        m = Module()
        outs = self.outputs
        kept = data.StructLayout({**flit(self.bits).members, "route": len(outs)})
        m.submodules.slots = slots = Slots(kept, self.depth)
        m.d.comb += [getattr(slots.i, name).eq(getattr(self.flit, name)) for name in kept.members if name != "route"]
        m.d.comb += [slots.i.route.eq(Cat(self.flit.route[out] for out in outs)), slots.push.eq(self.valid)]

        front, there, inside = slots.o, slots.used[0], self.inside
        header = data.View(HEADER, front.data[:64])
        odd, lost, astray, head, drop = Signal(), Signal(), Signal(), Signal(), Signal()
        route = Signal(5)
        m.d.comb += [
            head.eq(front.head & ~inside),
            odd.eq(Value.cast(front).xor()),
            lost.eq(~front.head & ~inside),
            drop.eq(there & (lost | head & (odd | astray))),
            route.eq(Cat(front.route[outs.index(out)] if out in outs else 0 for out in Port)),
            slots.pop.eq(self.taken | drop),
            self.used.eq(slots.used),
            self.o.data.eq(front.data), self.o.head.eq(head), self.o.tail.eq(front.tail),
        ]
        if self.multicast:
            m.submodules.fork = fork = Fork(self.order)
            m.d.comb += [
                fork.route.eq(route), fork.there.eq(there), fork.tail.eq(front.tail), fork.drop.eq(drop),
                fork.grant.eq(self.grant), self.wants.eq(fork.wants), self.owns.eq(fork.owns),
                self.hold.eq(fork.hold | drop.replicate(5)), self.claim.eq(fork.claim), self.taken.eq(fork.taken),
                self.need.eq(Cat(header.length == self.depth - 1 - n for n in range(self.depth))),
                astray.eq(~route.any() | (header.length >= self.depth)),
            ]
        elif not outs:
            m.d.comb += [
                self.there.eq(there & ~drop), self.taken.eq(self.ready), self.odd.eq(odd | front.head & inside),
            ]
        else:
            m.d.comb += [
                self.wants.eq(Mux(there, route, 0)), self.owns.eq(inside.replicate(5)),
                self.hold.eq(drop.replicate(5)), self.taken.eq(self.grant.any()), self.need.eq(1 << self.depth - 1),
                astray.eq(~_one(front.route)),
            ]
        m.d.comb += slots.inside.eq(Mux(self.taken & ~drop, ~front.tail, inside))
        m.d.sync += inside.eq(slots.inside), self.credit.eq(slots.pop)

        for out in outs:
            place = self.order, out, self.x, self.y, header
            bits = branches(m, *place) if self.multicast else ahead(*place)
            way = getattr(self, f"ahead_{out.name.lower()}")
            m.d.comb += way.eq(Cat(bits[each] & head if each in bits else 0 for each in Port))
            # Its route changes; a head that has to go on as a body is made odd.
            change = route.xor() ^ way.xor() if self.multicast else Const(out == Port.L, 1)
            m.d.comb += self.parity[out].eq(front.parity ^ front.head & (inside | change))

        # Bits of a route that nothing here can follow are not kept; when one is set, that alone is told.
        overflow, strays = Signal(), Signal()
        others = Cat(self.flit.route[out] for out in Port if out not in outs)
        m.d.sync += overflow.eq(self.valid & slots.used[-1]), strays.eq(self.valid & self.flit.head & others.any())
        m.d.comb += self.faults.eq(Cat(overflow, there & (front.head == inside),
                                       there & head & odd, there & head & astray | strays))
        return m


def _one(bits):
    """Whether exactly one bit is set."""
    return Cat(bits == 1 << n for n in range(len(bits))).any()
