# SPDX-License-Identifier: Apache-2.0
"""Reductions inside the network: packets that meet in a router leave it as one."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden import packet
from golden.packet import ORDER, Error, Port
from hw.arith.combine import Combine
from hw.emit import Block
from hw.noc.link import HEADER

__all__ = ["ERROR", "GROUP", "Reduce", "flit", "order"]

GROUP = data.StructLayout(packet.GROUP)
ERROR = data.StructLayout({"code": Error, "port": Port, "tag": 8})
LANE = 32


def flit(bits):
    """A flit as it comes to a reduction. `odd`: its parity is not what it must be."""
    return data.StructLayout({"data": bits, "head": 1, "tail": 1, "odd": 1})


def order(groups, **place):
    """Sets the register of a group: `entry` is a `golden.packet.GROUP`. `place` are fields that say where."""
    return data.StructLayout({"en": 1, **place, "group": range(max(groups, 2)), "entry": GROUP})


class Step:
    """One input of the chain, and how it stands in this cycle.

    Attributes
    ----------
    number, held, inputs : Signal
        Group of the flit in front and of the one before it; the steps that the former uses, none if there is no
        such group.
    there, refused : Signal
        There is a flit that takes part; or one that does not.
    first : Signal
        Nothing comes along the chain for it.
    asked, match, differ : Signal
        What comes along the chain waits for a flit here; it is this one; but they are not alike.
    lacks : Signal
        Something waits here for what is not there.
    valid, item, take : Signal
        What goes further along the chain, and that it goes now.
    busy : Signal
        There is something in the adder.
    """

    def __init__(self, place, port, i, number, item, count):
        self.place, self.port, self.i = place, port, i
        self.header = data.View(HEADER, i.payload.data[:64])
        shapes = {"number": number, "held": number, "inputs": count, "item": item}
        for name in ("number", "held", "inputs", "there", "refused", "first", "asked", "match", "differ", "lacks",
                     "valid", "item", "take", "busy"):
            setattr(self, name, Signal(shapes.get(name, 1), name=f"{port.name.lower()}_{name}"))


class Reduce(Block):
    """Takes the heads of the buffers of all inputs and makes one packet of those that belong together.

    A packet goes along the inputs in `golden.packet.ORDER`. At each that its group uses it waits for the packet
    there and is added to it, in two cycles; the others it passes without any. Nothing overtakes: who wants to
    pass an adder waits until it is empty. So the result does not depend on when anything comes, each flit
    leaves two cycles after the last of its operands at best, and a flit a cycle; only a group that passes adders
    which the one before it used may be two cycles late for each.
    The header of the result is that of the first input. Where a group has one input only, its packets pass,
    at once if that is L.

    A packet of no known group, or at an input that its group does not have, is dropped. When operands
    differ in length, or some do not come within `patience` to twice as many cycles, the group is switched
    off, as if its register were written with zeros, and all that is under way in it is dropped until software
    writes its register again, which it must not do before everything is out of the way. A packet that
    had begun to leave ends with a flit of odd parity.

    Parameters
    ----------
    sides : str
        Where the router has neighbours: some of "NESW".
    bits : int
        Data of a flit.
    groups : int
    patience : int

    Members
    -------
    n_i, e_i, s_i, w_i, l_i : In(stream.Signature(flit(bits)))
        As far as there are such inputs.
    o : Out(stream.Signature(struct(data, head, tail, parity, outputs)))
        `outputs` has a bit for the port it leaves by. `parity` leaves out route and virtual channel, which are
        still to come.
    write : In(order(groups))
        An entry with ports that there are not is refused: no such group here.
    error : Out(ERROR)
        The first packet that was dropped since `clear`, by its group; of those that waited, the input where; of an
        entry that was refused, its output.
    clear : In(1)
    state : Out(struct of struct(valid, tails, groups), by input)
        What is in each adder, for those who wonder what it waits for.
    """

    def __init__(self, sides, bits, groups, patience):
        if set(sides) - set("NESW"):
            raise ValueError(f"Reduce: sides must be some of NESW, not {sides!r}")
        if bits < 64 or bits % 64:
            raise ValueError(f"Reduce: bits must be a multiple of 64, not {bits!r}")
        if not 1 <= groups <= 16:
            raise ValueError(f"Reduce: groups must be 1 to 16, not {groups!r}")
        if patience < 2:
            raise ValueError(f"Reduce: patience must be at least 2, not {patience!r}")
        self.sides, self.bits, self.groups, self.patience = sides, bits, groups, patience
        self.ports = [port for port in ORDER if port.name in f"{sides}L"]
        self.number = range(max(groups, 2))
        super().__init__({
            **{f"{port.name.lower()}_i": In(stream.Signature(flit(bits))) for port in self.ports},
            "o": Out(stream.Signature(data.StructLayout({
                "data": bits, "head": 1, "tail": 1, "parity": 1, "outputs": len(Port)}))),
            "write": In(order(groups)),
            "error": Out(ERROR), "clear": In(1),
            "state": Out(data.StructLayout({port.name.lower(): data.StructLayout({
                "valid": 2, "tails": 2, "groups": data.ArrayLayout(self.number, 2)}) for port in self.ports[1:]})),
        })

    def input(self, port):
        return getattr(self, f"{port.name.lower()}_i")

    def elaborate(self, platform):
        m = Module()
        marks = {"head": 1, "tail": 1, "odd": 1, "group": self.number, "whole": 1}      # whole: nothing is to be added
        item = data.StructLayout({**marks, "asks": len(self.ports), "data": self.bits})     # asks: at which steps
        self.marks = data.StructLayout(marks)
        self.table = [Signal(GROUP, name=f"group{n}") for n in range(self.groups)]

        steps = [Step(place, port, self.input(port), self.number, item, len(self.ports))
                 for place, port in enumerate(self.ports)]
        for step in steps:
            self._front(m, step)
        first = steps[0]
        m.d.comb += [
            first.valid.eq(first.there),
            first.item.eq(Cat(self._marked(first), first.inputs & self._later(first), first.i.payload.data)),
            first.i.ready.eq(first.refused | first.take),
        ]
        for left, step in zip(steps, steps[1:], strict=False):
            self._add(m, left, step)
        inside, number = self._leave(m, steps)
        self._watch(m, steps, inside, number)
        return m

    def _entry(self, number):
        """What is known of a group."""
        return data.View(GROUP, Array(Value.cast(entry) for entry in self.table)[number])

    def _inputs(self, number):
        """The steps that a group uses."""
        inputs = self._entry(number).inputs
        return Cat(inputs[port] for port in self.ports)

    def _later(self, step):
        """The steps after one."""
        return Const((1 << len(self.ports)) - (2 << step.place), len(self.ports))

    def _front(self, m, step):
        """Whose flit is in front."""
        flit, astray, known = step.i.payload, Signal(), Signal()
        m.d.comb += [
            step.number.eq(Mux(flit.head, step.header.tag, step.held)),
            known.eq(~flit.head | (step.header.tag < self.groups)),
            step.inputs.eq(self._inputs(step.number) & known.replicate(len(self.ports))),
            step.first.eq(~step.inputs[:step.place].any()),
            step.refused.eq(step.i.valid & (~step.inputs[step.place] | astray & ~flit.head)),
            step.there.eq(step.i.valid & ~step.refused),
        ]
        with m.If(step.i.valid & step.i.ready):
            m.d.sync += step.held.eq(step.number), astray.eq(step.refused & ~flit.tail)

    def _marked(self, step, odd=0):
        """The marks of the flit in front, once it is added."""
        flit = step.i.payload
        return Cat(flit.head, flit.tail, flit.odd | odd, step.number, ~step.inputs[step.place + 1:].any())

    def _add(self, m, left, step):
        """A step of the chain: its adder, and the way past it."""
        flit, name = step.i.payload, step.port.name.lower()
        header = data.View(HEADER, left.item.data[:64])
        valid = [Signal(name=f"{name}_valid{n}") for n in range(2)]
        kept = [Signal(self.marks, name=f"{name}_marks{n}", reset_less=True) for n in range(2)]
        go, join, start, over, dead = (Signal(width, name=f"{name}_{what}") for what, width in (
            ("go", 2), ("join", 1), ("start", 1), ("over", 1), ("dead", 1)))
        m.d.comb += [
            step.asked.eq(left.valid & left.item.asks[step.place]),
            step.match.eq(step.there & ~step.first & step.asked & (left.item.group == step.number)),
            step.differ.eq(step.match & ((left.item.head != flit.head) | (left.item.tail != flit.tail)
                                         | flit.head & (header.length != step.header.length))),
            step.lacks.eq((step.asked | step.there & ~step.first) & ~step.match),
            join.eq(step.match & ~step.differ & go[0]),
            over.eq(left.valid & ~step.asked & ~step.busy),
            start.eq(step.there & step.first & ~over & go[0]),
            step.i.ready.eq(step.refused | join | start),
            left.take.eq(join | over & step.take),
        ]

        # What has been added.
        asks = Signal(len(self.ports), name=f"{name}_asks")
        m.d.comb += [
            step.busy.eq(valid[0] | valid[1]),
            asks.eq(self._inputs(kept[1].group) & self._later(step) & (~kept[1].whole).replicate(len(asks))),
            dead.eq(valid[1] & ~kept[1].whole & ~asks.any()),       # its group has been switched off
            go[1].eq(~valid[1] | dead | step.take), go[0].eq(~valid[0] | go[1]),
            step.valid.eq(valid[1] & ~dead | over),
            self.state[name].valid.eq(Cat(valid)), self.state[name].tails.eq(Cat(each.tail for each in kept)),
            self.state[name].groups.eq(Cat(each.group for each in kept)),
        ]
        with m.If(go[0]):
            m.d.sync += valid[0].eq(join | start)
            m.d.sync += kept[0].eq(self._marked(step, left.item.odd & ~step.first))
        with m.If(go[1]):
            m.d.sync += valid[1].eq(valid[0]), kept[1].eq(kept[0])

        words = []
        for n in range(0, self.bits, LANE):
            m.submodules[f"{name}_combine{n // LANE}"] = combine = Combine()
            m.d.comb += [
                combine.a.eq(left.item.data[n:n + LANE]), combine.b.eq(flit.data[n:n + LANE]),
                combine.op.eq(self._entry(step.held).op),
                combine.keep.eq(Cat(flit.head & ~step.first, step.first)), combine.go.eq(go),
            ]
            words.append(combine.o)
        m.d.comb += step.item.eq(Mux(valid[1], Cat(kept[1], asks, words), left.item))

    def _leave(self, m, steps):
        """The end of the chain. A packet that has begun is the only one until it ends.

        Returns whether another waits for that in vain, and the group of the one that has begun.
        """
        last, o = steps[-1], self.o.payload
        begun, closing, number = Signal(), Signal(), Signal(self.number)
        fits, inside, off, empty = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            fits.eq(last.valid & (last.item.head ^ begun)),
            inside.eq(last.valid & last.item.head & begun),
            off.eq(~self._inputs(number).any()),
            empty.eq(~last.valid & ~Cat(step.busy for step in steps).any()),
            last.take.eq(Mux(fits, self.o.ready & ~closing, ~last.item.head)),     # a body without a head is dropped
            self.o.valid.eq(fits | closing),
            o.data.eq(last.item.data), o.head.eq(last.item.head & ~closing), o.tail.eq(last.item.tail | closing),
            o.parity.eq(last.item.data.xor() ^ Mux(closing, 0, last.item.head ^ last.item.tail ^ last.item.odd)),
        ]
        output = self._entry(Mux(begun, number, last.item.group)).output
        m.d.comb += [o.outputs[port].eq(output == port) for port in Port]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += begun.eq(~(last.item.tail | closing)), closing.eq(0)
        with m.Elif(begun & off & (inside | empty)):
            m.d.sync += closing.eq(1)
        with m.If(fits & last.item.head):
            m.d.sync += number.eq(last.item.group)
        return inside, number

    def _watch(self, m, steps, inside, number):
        """Patience, errors, and the registers of the groups."""
        timer, tick, stands = Signal(range(self.patience)), Signal(), Signal()
        m.d.comb += tick.eq(timer == self.patience - 1), stands.eq(self.o.valid & ~self.o.ready)
        m.d.sync += timer.eq(Mux(tick, 0, timer + 1))

        first = Signal(ERROR)
        ends = []       # whether a group is switched off, and which
        for step, left in reversed(list(zip(steps, [None, *steps], strict=False))):
            # At the first step nothing waits; in its place, what waits at the end of the chain.
            lacks = step.lacks if left else inside
            group = Mux(step.asked, left.item.group, step.number) if left else number
            name = step.port.name.lower()
            stuck, late = Signal(name=f"{name}_stuck"), Signal(name=f"{name}_late")
            victim = Signal(self.number, name=f"{name}_victim")
            m.d.comb += late.eq(lacks & stuck & tick & ~stands), victim.eq(group)
            with m.If(~lacks | stands):
                m.d.sync += stuck.eq(0)
            with m.Elif(tick):
                m.d.sync += stuck.eq(1)
            with m.If(late | step.differ | step.refused & step.i.payload.head):
                m.d.comb += [
                    first.code.eq(Mux(late, Error.PATIENCE, Error.GROUP)), first.port.eq(step.port),
                    first.tag.eq(Mux(late | step.differ, victim, step.header.tag)),
                ]
            ends.append((late | step.differ, victim))

        write, misfit = self.write, Signal()
        strange = Cat(write.entry.inputs[port] for port in Port if port not in self.ports).any()
        m.d.comb += misfit.eq(write.en & write.entry.inputs.any() & (
            strange | ~Cat(write.entry.output == port for port in self.ports).any() | (write.group >= self.groups)))
        with m.If(misfit):
            m.d.comb += first.code.eq(Error.GROUP), first.port.eq(write.entry.output), first.tag.eq(write.group)

        with m.If(self.clear):
            m.d.sync += self.error.eq(0)
        with m.Elif(self.error.code == Error.NONE):
            m.d.sync += self.error.eq(first)
        for n, entry in enumerate(self.table):
            with m.If(Cat(ended & (victim == n) for ended, victim in ends).any()):
                m.d.sync += entry.inputs.eq(0)
            with m.If(write.en & (write.group == n)):
                m.d.sync += entry.eq(write.entry), entry.inputs.eq(Mux(misfit, 0, write.entry.inputs))
