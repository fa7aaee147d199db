# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.noc.reduce`: what belongs together, and nothing else, comes out as one; nothing hangs.

Sums themselves are cut away. What becomes of an operand is seen by its parity: a result is odd if one of its
operands is.
"""

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value

from golden.packet import HEADER, Error, Port
from hw.noc.reduce import GROUP, Reduce
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["ReduceEnds", "ReduceRules", "TASKS"]

TAG = sum(HEADER[name] for name in list(HEADER)[:list(HEADER).index("tag")])
SEEN = 0x0301 << TAG     # bits of data that are not always 0: two groups, and some lengths


class Reductions(Contract):
    """Streams and packets."""

    def begin(self, m, block):
        self.inputs = [block.input(port) for port in block.ports]
        self.numbers = []       # groups of the flits in front
        for port, i in zip(block.ports, self.inputs, strict=True):
            inside, held, number = (Signal(width, name=f"{port.name}_{name}") for name, width in (
                ("inside", 1), ("held", 8), ("group", 8)))
            m.d.comb += number.eq(Mux(inside, held, i.payload.data[TAG:TAG + HEADER["tag"]]))
            with m.If(self.moves(i)):
                m.d.sync += inside.eq(~i.payload.tail), held.eq(number)
            self.require(f"{port.name} holds", self.steady(i))
            self.require(f"{port.name} brings packets", ~i.valid | (i.payload.head ^ inside))
            self.numbers.append(number)
        there = Cat(i.valid for i in self.inputs).any()
        self.require("registers are written before", ~(block.write.en & (there | self.after(there))))
        self.require("groups have outputs", ~block.write.en | (block.write.entry.output <= Port.L))

        o, between, outputs = block.o.payload, Signal(), Signal.like(block.o.payload.outputs)
        with m.If(self.moves(block.o)):
            m.d.sync += between.eq(~o.tail), outputs.eq(o.outputs)
        self.require("few bits of data are seen", ~block.o.valid | ~(o.data & ~SEEN).any())
        marks = Cat(o.head, o.tail, o.outputs)      # data are whatever they want here
        waiting, kept = Signal(), Signal(len(marks))
        m.d.sync += waiting.eq(block.o.valid & ~block.o.ready), kept.eq(marks)
        self.promise("o is valid until it is taken", ~waiting | block.o.valid & (marks == kept))
        self.promise("whole packets leave", ~block.o.valid | (o.head ^ between))
        self.promise("all of a packet leaves by one port", ~(block.o.valid & between) | (o.outputs == outputs))

    def stands(self, m, block, waits, limit, name):
        """For at most `limit` cycles on end `waits` and nothing goes in or out."""
        count = Signal(range(limit + 2))
        still = waits & block.o.ready & ~Cat(map(self.moves, [*self.inputs, block.o])).any()
        m.d.sync += count.eq(Mux(still, count + (count <= limit), 0))
        self.promise(name, count <= limit)


class ReduceRules(Reductions):
    """Two groups that may be under way together, whose reductions all nodes start in turn.

    While there is no error: each flit that is taken becomes part of the result that its place says, and of no
    other; no result leaves without all operands; results leave in order. When there are flits in front of all
    inputs, and what comes out is taken, something moves.
    """

    def rules(self, m, block):
        self.begin(m, block)
        inputs, places, age = self.inputs, range(len(block.ports)), Signal(2)
        m.d.sync += age.eq(age + (age < 2))
        entries = [self.some(len(Value.cast(block.write.entry)), f"entry{n}") for n in range(2)]
        self.require("two groups are known", (block.write.en == (age < 2)) & (age[1] | (
            (block.write.group == age) & (Value.cast(block.write.entry) == Array(entries)[age[0]]))))
        self.require("before anything comes", age[1] | ~Cat(i.valid for i in inputs).any())
        self.require("errors stay", ~block.clear)
        sound = Signal()
        m.d.comb += sound.eq(~self.after(block.error.code != Error.NONE) & (block.error.code == Error.NONE))

        uses = [Signal(len(block.ports), name=f"uses{n}") for n in range(2)]
        for use, entry in zip(uses, entries, strict=True):
            m.d.comb += use.eq(Cat(GROUP(entry).inputs[port] for port in block.ports))
        crossing = [a[place] & ~a[:place].any() & b[:place].any() & ~b[place]
                    for a, b in (uses, uses[::-1]) for place in places]
        self.require("groups keep each other in order", ~Cat(crossing).any())

        # All inputs, and what leaves, take turns between the groups that there are.
        one = Cat(uses[0].any() ^ uses[1].any())
        leaving = Signal()
        with m.If(self.moves(block.o) & block.o.payload.tail & ~one):
            m.d.sync += leaving.eq(~leaving)
        number = Signal()
        m.d.comb += number.eq(Mux(one, uses[1].any(), leaving))

        # In the chain they keep that order from where both take part. `after`: whose turn it is behind each step.
        turns, after = [None] * len(places), number
        for place in reversed(places):
            together = uses[0][:place + 1].any() & uses[1][:place + 1].any()
            for n in (1, 0) if place else ():
                here = block.state[block.ports[place].name.lower()]
                ours, then = here.valid[n], Signal(name=f"after{place}{n}")
                self.promise(f"stage {n} of {block.ports[place].name} has what is next",
                             ~(sound & ours & together) | (here.groups[n] == after))
                m.d.comb += then.eq(after ^ (ours & here.tails[n] & ~one))
                after = then
            turns[place] = after
        for place in places:
            i, turn, name = inputs[place], Signal(name=f"turn{place}"), block.ports[place].name
            both = uses[0][place] & uses[1][place]
            with m.If(self.moves(i) & i.payload.tail & both):
                m.d.sync += turn.eq(~turn)
            self.promise(f"{name} is in turn", ~(sound & both) | (turn == turns[place]))
            self.require(f"{name} takes turns", ~i.valid | (self.numbers[place] == Mux(both, turn, uses[1][place]))
                         & (uses[0][place] | uses[1][place]))

        # Of one of the groups: what is inside, counted at each input; and one flit of one input, which is odd.
        group, origin = self.some(1, "group"), self.some(len(block.ports), "origin")
        mine = Mux(group, uses[1], uses[0])
        self.require("an input of that group", Cat((origin == 1 << place) & mine[place] for place in places).any())
        left = Signal()
        m.d.comb += left.eq(self.moves(block.o) & (number == group))
        ahead, followed, done, odd = Signal(4), Signal(), Signal(), Signal()
        with m.If(followed & left):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += followed.eq(0), done.eq(1)
        for place in places:
            i, name = inputs[place], block.ports[place].name
            count, taken = Signal(4, name=f"inside{place}"), Signal(name=f"taken{place}")
            m.d.comb += taken.eq(self.moves(i) & (self.numbers[place] == group))
            with m.If(mine[place]):
                m.d.sync += count.eq(count + taken - left)
            watched = sound & mine[place]
            inside = sum((block.state[port.name.lower()].valid[n] & (block.state[port.name.lower()].groups[n] == group)
                          for port in block.ports[max(place, 1):] for n in range(2)), Const(0))
            self.promise(f"what came in from {name} is inside", ~watched | (count == inside))
            self.promise(f"no result without its operand from {name}", ~(watched & left) | (count != 0) | taken)
            self.promise(f"no operand from {name} is forgotten", ~watched | (count <= 2 * (len(block.ports) - 1)))
            self.require(f"{name} brings one odd flit", ~(i.valid & i.payload.odd) | origin[place] & ~followed & ~done
                         & (self.numbers[place] == group))
            with m.If(taken & i.payload.odd):
                m.d.sync += ahead.eq(count - left), followed.eq((count != 0) | ~left), done.eq((count == 0) & left)
            with m.If(i.valid & i.payload.odd & (count == 0)):
                m.d.comb += odd.eq(number == group)     # it may pass at once
        o = block.o.payload
        expected = odd & ~followed | followed & (ahead == 0) & (number == group)
        found = (o.data & SEEN).xor() ^ o.head ^ o.tail ^ o.parity
        self.promise("an operand is part of its own result and of no other",
                     ~(sound & block.o.valid) | (found == expected))
        self.promise("to where the group says", ~(sound & block.o.valid) | (
            o.outputs == 1 << GROUP(Mux(number, entries[1], entries[0])).output))
        ready = Cat(i.valid | ~(uses[0][place] | uses[1][place]) for place, i in enumerate(inputs)).all()
        some = (uses[0] | uses[1]).any()
        self.stands(m, block, sound & age[1] & ready & some, 2 * len(places), "joins make progress")
        self.reach("a result of all inputs", sound & left & mine.all())
        self.reach("the odd one leaves", sound & done)


class ReduceEnds(Reductions):
    """Any groups and any packets, at any input, of any length: what stands goes on some time."""

    def rules(self, m, block):
        self.begin(m, block)
        there = Cat(i.valid for i in self.inputs).any()
        limit = 2 * block.groups * (block.patience + 4) + 8
        self.stands(m, block, there, limit, "nothing hangs")
        self.reach("patience ends", block.error.code == Error.PATIENCE)


CUT = ("combine",)
TASKS = [
    Task(Reduce("W", 64, 2, 64), ReduceRules, cover=0, cut=CUT),
    Task(Reduce("EW", 64, 2, 64), ReduceRules, depth=11, patience=420, cover=14, cut=CUT),
    Task(Reduce("NESW", 64, 2, 64), ReduceRules, depth=12, cover=0, cut=CUT),
    Task(Reduce("W", 64, 2, 2), ReduceEnds, depth=50, patience=60, cover=12, cut=CUT),
    Task(Reduce("EW", 64, 2, 2), ReduceEnds, depth=50, patience=120, cover=0, cut=CUT),
]
