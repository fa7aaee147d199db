# SPDX-License-Identifier: Apache-2.0
"""The accumulator memory below one group of columns."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.families import FAMILIES
from golden.formats import E8M0
from hw.arith.aligned import EXACT_TAG, LEAD, REACH, TAG
from hw.arith.fp32 import Add
from hw.arith.pipeline import register
from hw.arith.scaled import FromScaled
from hw.arith.shift import saturated, shift_right
from hw.matmul.ports import Part
from hw.matmul.walker import aligned, mx
from hw.ram import Ram

__all__ = ["Accumulator", "entry", "scale_sets", "settling", "spacing", "wave"]


def entry(config):
    """An accumulated sum: exact, or with a tag, or in FP32 in the low bits where blocks have MX scales; or NaN."""
    family = FAMILIES[config.family]
    width = family.sum_bits(config.k_max)
    tag = {"tag": TAG} if family.aligned else {}
    return data.StructLayout({"sum": signed(max(width, 32) if config.mx else width), **tag, "nan": 1})


def wave(config):
    """What travels beside a row of activations: the row of the block that it adds to.

    `first` starts a new sum in place of adding, `last` completes it. `parity` tells successive
    blocks apart. With MX, `scale` is that of the row, and `set` says where those of the columns are.
    """
    kinds = {**mx(config), **aligned(config)}
    scales = {"scale": 8, "set": ceil_log2(scale_sets(config))} if config.mx else {}
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "parity": 1,
                              "row": range(config.acc_rows), **kinds, **scales})


def spacing(config):
    """Cycles that a row of the accumulators needs between two additions: read, add, write."""
    return Add.latency + 2 if config.mx else 2 + _adding(config)


def _adding(config):
    """Cycles that an addition takes ahead of the one in which it is written, but in FP32: aligned, a row is shifted."""
    return 1 if FAMILIES[config.family].aligned else 0


def settling(config):
    """Cycles between a row and the next one of another kind.

    With MX scales, a row is written later than one without that comes after it; and where sums are aligned,
    exponents overtake the significands of exact ones.
    """
    return max(FromScaled.latency + Add.latency + 1 - _adding(config) if config.mx else 0, LEAD + 1)


def scale_sets(config):
    """Tiles whose column scales are kept, a power of two.

    One loads, one is complete, and the others are under way from the array's top to the last
    accumulator, a new one every `spacing` cycles at most.
    """
    under_way = config.rows + config.groups + (LEAD if aligned(config) else 0)
    return 1 << ceil_log2(2 + -(-under_way // spacing(config)))


class Accumulator(Part):
    """Adds a group's sums in memory, one row a cycle, and keeps completed rows for the drain.

    Sums grow in one memory and are written to another when complete, so that the next block can
    begin while this one drains, and neither memory needs more than one read and one write a cycle. A
    row may be added to again `spacing` cycles after it was.

    Additions are exact, or of sums with tags: then the one with the smaller tag shifts right, rounding down.
    They are in FP32 for blocks with MX scales, of which the sum takes `FromScaled.latency` cycles to
    convert; `settling` keeps the two apart.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    wave : In(wave(config))
        One cycle ahead of the sums it belongs to.
    sums : In(ArrayLayout(signed(width), group)), nans : In(group)
        `width` is that of the array's sums.
    tags : In(ArrayLayout(TAG, group))
        In family uni.
    scales : In(struct(load, set, codes))
        With MX: column scales to keep in place `set`; bit n of `load` takes the n-th part of `codes`.
    done : Out(2)
        Bit p: a row of the block of parity p has been completed; it can be read from the next cycle on.
    read : In(struct(en, row))
        Completed row to drain.
    o : Out(ArrayLayout(entry(config), group))
        The row asked for in the cycle before.
    """

    def __init__(self, config):
        self.config, self.family = config, FAMILIES[config.family]
        self.width = self.family.sum_bits(config.depth)
        self.part = min(config.group, config.depth)         # scales of one beat
        scales = {"scales": In(data.StructLayout({
            "load": config.group // self.part, "set": ceil_log2(scale_sets(config)),
            "codes": 8 * config.group}))} if config.mx else {}
        super().__init__({
            "wave": In(wave(config)),
            "sums": In(data.ArrayLayout(signed(self.width), config.group)),
            "nans": In(config.group),
            **({"tags": In(data.ArrayLayout(TAG, config.group))} if self.family.aligned else {}),
            **scales,
            "done": Out(2),
            "read": In(data.StructLayout({"en": 1, "row": range(config.acc_rows)})),
            "o": Out(data.ArrayLayout(entry(config), config.group)),
        })

    def elaborate(self, platform):
        m = Module()
        config, cols = self.config, range(self.config.group)
        entries = data.ArrayLayout(entry(config), config.group)
        m.submodules.growing = growing = Ram(entries.size, config.acc_rows)
        m.submodules.complete = complete = Ram(entries.size, config.acc_rows)

        # Read, add, write.
        reading, written = Signal.like(self.wave), Signal.like(self.wave)
        adding = _after(m, 1, reading, "adding")
        old, new, exact = Signal(entries), Signal(entries), Signal(entries)
        for col in cols:
            nan = self.nans[col] | old[col].nan & ~adding.first
            if self.family.aligned:
                self._add_aligned(m, adding, old[col], col, exact[col], nan)
            else:
                m.d.comb += exact[col].sum.eq(Mux(adding.first, 0, old[col].sum) + self.sums[col])
                m.d.comb += exact[col].nan.eq(nan)
        added = _after(m, _adding(config), adding, "added")
        if config.mx:
            self._scaled(m, reading, adding, written, old, new, exact, added)
        else:
            m.d.comb += reading.eq(self.wave), written.eq(added), new.eq(exact)

        m.d.comb += [
            growing.read_en.eq(reading.valid & ~reading.first),
            growing.read_address.eq(reading.row),
            old.eq(growing.read_data),
            growing.write_en.eq(written.valid & ~written.last),
            complete.write_en.eq(written.valid & written.last),
            self.done.eq(Cat(complete.write_en & ~written.parity, complete.write_en & written.parity)),
            complete.read_en.eq(self.read.en),
            complete.read_address.eq(self.read.row),
            self.o.eq(complete.read_data),
        ]
        for ram in growing, complete:
            m.d.comb += ram.write_address.eq(written.row), ram.write_data.eq(new)
        return m

    def _add_aligned(self, m, adding, old, col, total, nan):
        """Shift the sum of smaller tag, then add; exact sums have equal tags."""
        tag, over = Signal(TAG, name=f"tag{col}"), Signal(signed(TAG + 1), name=f"over{col}")
        under, distance = Signal(signed(TAG + 1), name=f"under{col}"), Signal(TAG, name=f"distance{col}")
        swap = ~adding.first & (over < 0)
        m.d.comb += [
            tag.eq(Mux(adding.aligned, self.tags[col], EXACT_TAG)),
            over.eq(tag - old.tag), under.eq(old.tag - tag),
            distance.eq(Mux(over < 0, under, over)),
        ]
        before = Signal(old.sum.shape(), name=f"before{col}")
        high, low = (Signal(old.sum.shape(), name=f"{name}{col}") for name in ("high", "low"))
        m.d.comb += [
            before.eq(Mux(adding.first, 0, old.sum)),
            high.eq(Mux(swap, before, self.sums[col])),
            low.eq(Mux(swap, self.sums[col], before)),
        ]
        places = saturated(distance, REACH)
        shifted = shift_right(m, low, places, f"shifted{col}_")
        high, low = register(m, high, f"high_held{col}"), register(m, shifted.as_signed(), f"low_held{col}")
        tag, nan = register(m, Mux(swap, old.tag, tag), f"tag_held{col}"), register(m, nan, f"nan_held{col}")
        m.d.comb += total.sum.eq(high + low), total.tag.eq(tag), total.nan.eq(nan)

    def _scaled(self, m, reading, adding, written, old, new, exact, added):
        """The FP32 path beside the exact one, and which of the two a row takes."""
        config, cols = self.config, range(self.config.group)
        codes = Signal(data.ArrayLayout(8, config.group))
        for n in range(len(self.scales.load)):
            m.submodules[f"scales{n}"] = ram = Ram(8 * self.part, scale_sets(config))
            m.d.comb += [
                ram.write_en.eq(self.scales.load[n]),
                ram.write_address.eq(self.scales.set),
                ram.write_data.eq(self.scales.codes.word_select(n, 8 * self.part)),
                ram.read_en.eq(self.wave.valid),
                ram.read_address.eq(self.wave.set),
                codes.as_value().word_select(n, 8 * self.part).eq(ram.read_data),
            ]

        row_scale = register(m, self.wave.scale, "row_scale")
        sums = []
        for col in cols:
            m.submodules[f"term{col}"] = term = FromScaled(self.width, self.family.lsb)
            m.submodules[f"add{col}"] = sum = Add()
            nan = self.nans[col] | row_scale.all() | codes[col].all()       # E8M0's NaN is all ones
            nan = _after(m, term.latency, nan, f"term_nan{col}") | old[col].nan & ~adding.first
            m.d.comb += [
                term.i.eq(self.sums[col]),
                term.exponent.eq(row_scale + codes[col] - 2 * E8M0.bias),
                sum.a.eq(Mux(adding.first, 0, old[col].sum[:32])),
                sum.b.eq(term.o),
            ]
            sums.append((sum.o, _after(m, sum.latency, nan, f"sum_nan{col}")))

        late = _after(m, FromScaled.latency, self.wave, "late")
        summed = _after(m, Add.latency, adding, "summed")
        with m.If(late.valid & late.mx):
            m.d.comb += reading.eq(late)
        with m.Else():
            m.d.comb += reading.eq(self.wave), reading.valid.eq(self.wave.valid & ~self.wave.mx)
        with m.If(summed.valid & summed.mx):
            m.d.comb += written.eq(summed)
            for col, (sum, nan) in zip(cols, sums, strict=True):
                m.d.comb += new[col].sum.eq(sum), new[col].nan.eq(nan)
        with m.Else():
            m.d.comb += written.eq(added), written.valid.eq(added.valid & ~added.mx), new.eq(exact)


def _after(m, cycles, value, name):
    """`value` so many cycles later."""
    for n in range(cycles):
        held = Signal.like(value, name=f"{name}{n}")
        m.d.sync += held.eq(value)
        value = held
    return value
