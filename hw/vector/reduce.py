# SPDX-License-Identifier: Apache-2.0
"""What is known of a row only at its end: sums and maxima, over the lanes of a beat and from beat to beat."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.formats import FP32
from golden.isa import LENGTH, PARTIALS
from golden.tables import LIFT, LOWEST, WHOLE
from hw.arith.fp32 import Add
from hw.arith.pipeline import register
from hw.emit import Block

__all__ = ["INTEGER", "Largest", "Most", "Sum", "delayed", "lessened", "partial"]

INTEGER = signed(WHOLE + 2)


class Most(Block):
    """The running maximum of a row's integers, beat by beat. Latency 2 cycles.

    Parameters
    ----------
    lanes : int
        A power of two.

    Members
    -------
    i : In(ArrayLayout(INTEGER, lanes)), present : In(lanes)
        Only those that are present count.
    valid : In(1), last : In(1)
        There is a beat, and it is its row's last.
    lift : In(1)
        There is one that has no maximum.
    o : Out(INTEGER), minus : Out(signed(WHOLE + 1))
        The maximum of this beat and those before it, and what is left of it below zero; or, with `lift`, -LIFT. In a
        register, as all lanes wait for it.
    """

    latency = 2

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__({
            "i": In(data.ArrayLayout(INTEGER, lanes)), "present": In(lanes), "valid": In(1), "last": In(1),
            "lift": In(1), "o": Out(INTEGER), "minus": Out(signed(WHOLE + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        def larger(a, b, name):
            result = Signal(INTEGER, name=name)
            m.d.comb += result.eq(Mux(a > b, a, b))
            return result

        values = [Mux(present, value, LOWEST) for value, present in zip(self.i, self.present, strict=True)]
        levels = ceil_log2(self.lanes)
        for level in range(levels):
            if level == (levels + 1) // 2:
                values = [register(m, value, f"half{n}") for n, value in enumerate(values)]
            values = [larger(*values[n:n + 2], f"level{level}_{n}") for n in range(0, len(values), 2)]
        if levels == 1:
            values = [register(m, values[0], "half")]
        valid, last, lift = Signal(), Signal(), Signal()
        m.d.sync += valid.eq(self.valid), last.eq(self.last), lift.eq(self.lift)

        fresh = Signal(init=1)
        most = larger(values[0], Mux(fresh, LOWEST, self.o), "most")
        with m.If(valid):
            m.d.sync += self.o.eq(most), self.minus.eq(-most), fresh.eq(last)
        with m.If(lift):
            m.d.sync += self.minus.eq(-LIFT)
        return m


def partial():
    """A sum of numbers that count 2**most."""
    return data.StructLayout({"sum": 32, "most": INTEGER})


class Sum(Block):
    """The sum of a row in the order of `golden.vector.total`, a beat a cycle. Rows may follow each other at once.

    Parameters
    ----------
    lanes : int
        A power of two.

    Members
    -------
    i : In(ArrayLayout(32, lanes)), present : In(lanes)
        What is not present counts as +0.
    most : In(INTEGER)
        The beat counts 2**most.
    valid : In(1), last : In(1)
    o : Out(partial()), done : Out(1)
        The sum of a row, which counts as its last beat.
    """

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__({
            "i": In(data.ArrayLayout(32, lanes)), "present": In(lanes), "most": In(INTEGER),
            "valid": In(1), "last": In(1), "o": Out(partial()), "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        def tree(values, name):
            while len(values) > 1:
                pairs, values = [values[n:n + 2] for n in range(0, len(values), 2)], []
                for n, pair in enumerate(pairs):
                    m.submodules[f"{name}{len(pairs)}_{n}"] = node = Add()
                    m.d.comb += node.a.eq(pair[0]), node.b.eq(pair[1])
                    values.append(node.o)
            return values[0]

        # A beat's sum, and what goes with it: which of the partial sums it belongs to, how many of them the row has.
        beat = data.StructLayout({"valid": 1, "last": 1, "most": INTEGER, "partial": range(PARTIALS), "all": 1})
        given = Signal(beat)
        with m.If(self.valid):
            m.d.sync += given.partial.eq(Mux(self.last, 0, given.partial + 1))
            m.d.sync += given.all.eq(~self.last & (given.all | (given.partial == PARTIALS - 1)))
        now = Signal(beat)
        m.d.comb += [
            now.eq(given), now.valid.eq(self.valid), now.last.eq(self.last), now.most.eq(self.most),
        ]
        value = tree([code & present.replicate(32) for code, present in zip(self.i, self.present, strict=True)], "beat")
        now = delayed(m, now, ceil_log2(self.lanes) * Add.latency, "beside")

        # Scale the partial sum so far, then add. The one of four beats ago has just been added, or is kept.
        m.submodules.grow = grow = Add()
        partials = Array(Signal(partial(), name=f"partial{n}") for n in range(PARTIALS))
        added = delayed(m, now, 1 + Add.latency, "added")
        so_far = Signal(partial())
        m.d.comb += so_far.eq(partials[now.partial])
        with m.If(added.valid & (added.partial == now.partial)):
            m.d.comb += so_far.sum.eq(grow.o), so_far.most.eq(added.most)
        scaled = lessened(m, so_far.sum, now.most - so_far.most, "so_far")
        m.d.comb += [
            grow.a.eq(register(m, Mux(now.all, scaled, 0), "scaled")),
            grow.b.eq(register(m, value, "value")),
        ]
        with m.If(added.valid):
            m.d.sync += partials[added.partial].sum.eq(grow.o), partials[added.partial].most.eq(added.most)

        # After the last beat, add up those partial sums that the row has.
        ended = delayed(m, added, 1, "ended")
        ends = []
        for n, each in enumerate(partials):
            scaled = lessened(m, each.sum, ended.most - each.most, f"end{n}_")
            ends.append(register(m, Mux(ended.all | (ended.partial >= n), scaled, 0) if n else scaled, f"end{n}"))
        m.d.comb += self.o.sum.eq(tree(ends, "end"))
        cycles = 1 + ceil_log2(PARTIALS) * Add.latency
        m.d.comb += [
            self.o.most.eq(delayed(m, ended.most, cycles, "most")),
            self.done.eq(delayed(m, ended.valid & ended.last, cycles, "done")),
        ]
        return m


def delayed(m, value, cycles, name):
    """`value` some cycles later, zero after reset."""
    for n in range(cycles):
        held = Signal.like(value, name=f"{name}{n}")
        m.d.sync += held.eq(value)
        value = held
    return value


def lessened(m, code, places, name):
    """An FP32 number over 2**places, which are not negative."""
    below, exponent, left = (Signal(shape, name=f"{name}_{part}") for part, shape in (
        ("below", WHOLE + 2), ("exponent", 8), ("left", signed(WHOLE + 3))))
    m.d.comb += below.eq(places), exponent.eq(code[23:31]), left.eq(exponent - below)
    finite = Cat(Mux(left > 0, Cat(code[:23], left[:8]), 0), code[31])
    return Mux(exponent.all(), code, finite)


class Largest(Block):
    """The largest element of a row or block, and its place; of equal ones the first. NaN is above all.

    Parameters
    ----------
    lanes : int
        A power of two.

    Members
    -------
    i : In(ArrayLayout(32, lanes)), present : In(lanes)
        FP32, no subnormals.
    valid : In(1), last : In(1)
        There is a beat, and it is the last.
    magnitude : In(1)
        Signs do not count.
    after : In(1)
        Only those count that come after the largest found before: smaller, or equal and further on.
    value : Out(32), place : Out(LENGTH), done : Out(1)
    """

    def __init__(self, lanes):
        self.lanes, self.levels = lanes, ceil_log2(lanes)
        self.latency = 2 + self.levels // 2
        super().__init__({
            "i": In(data.ArrayLayout(32, lanes)), "present": In(lanes), "valid": In(1), "last": In(1),
            "magnitude": In(1), "after": In(1), "value": Out(32), "place": Out(LENGTH), "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        entry = data.StructLayout({"rank": 32, "place": LENGTH})
        best, found = Signal(entry), Signal(entry)      # of this row so far; of the last one

        # Ranks order as numbers do; that of what does not count is 0.
        beat = Signal(LENGTH - self.levels)
        with m.If(self.valid):
            m.d.sync += beat.eq(Mux(self.last, 0, beat + 1))
        entries = []
        for n, code in enumerate(self.i):
            ranked, counts = Signal(entry, name=f"ranked{n}"), Signal(name=f"counts{n}")
            negative = code[-1] & ~self.magnitude
            m.d.comb += [
                ranked.rank.eq(Cat(code[:31] ^ negative.replicate(31), ~negative) | _nan(code).replicate(32)),
                ranked.place.eq(Cat(Const(n, self.levels), beat)),
                counts.eq(self.present[n] & (~self.after | (ranked.rank < found.rank) | (
                    (ranked.rank == found.rank) & (ranked.place > found.place)))),
            ]
            entries.append(register(m, Cat(ranked.rank & counts.replicate(32), ranked.place), f"entry{n}"))
        flags = delayed(m, Cat(self.valid, self.last), 1, "flags")

        def larger(a, b, name):
            a, b, result = data.View(entry, a), data.View(entry, b), Signal(entry, name=name)
            m.d.comb += result.eq(Mux(b.rank > a.rank, b, a))
            return result

        for level in range(self.levels):
            entries = [larger(*entries[n:n + 2], f"level{level}_{n}") for n in range(0, len(entries), 2)]
            if level % 2:
                entries = [register(m, each, f"entry{level}_{n}") for n, each in enumerate(entries)]
                flags = delayed(m, flags, 1, f"flags{level}_")
        valid, last = flags
        fresh = Signal(init=1)
        most = larger(Mux(fresh, 0, best), entries[0], "most")
        with m.If(valid):
            m.d.sync += best.eq(most), fresh.eq(last)
            with m.If(last):
                m.d.sync += found.eq(most)
        m.d.sync += self.done.eq(valid & last)
        m.d.comb += [
            self.value.eq(Mux(found.rank.all(), FP32.nan, Cat(
                found.rank[:31] ^ ~found.rank[-1].replicate(31), ~found.rank[-1]))),
            self.place.eq(found.place),
        ]
        return m


def _nan(code):
    return code[23:31].all() & code[:23].any()
