# SPDX-License-Identifier: Apache-2.0
"""The weight-stationary systolic array, with the decoders and skew at its edges."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.families import FAMILIES
from hw.arith.aligned import TAG
from hw.arith.dot import datapath
from hw.emit import Block
from hw.matmul.edge import delay, feed
from hw.matmul.pe import PE

__all__ = ["Array", "Columns"]

SHARE = 4       # columns on one activation register: more would load it beyond what an element's path can bear


class Columns(Block):
    """`rows` x `cols` processing elements that share one activation register a row.

    Activations pass through in one cycle. Weights are broadcast; the elements differ only in their `load`.

    Parameters
    ----------
    family : str
    lanes, rows, cols, width : int

    Members
    -------
    a, a_o : In, Out(ArrayLayout(activations, rows))
        Row r lags row 0 by r cycles.
    a_nan, a_nan_o : In(rows), Out(rows)
        In families that have NaN, like `w_nan` and `o_nan`.
    swap, swap_o : In(ArrayLayout(kinds, rows)), Out(ArrayLayout(kinds, rows))
        Rises with the first activation of the new weights, or before it.
    w : In(ArrayLayout(weights, rows, 2))
        Weights for even and for odd columns, row r lagging row 0 by r cycles.
    w_nan : In(ArrayLayout(rows, 2))
    load : In(ArrayLayout(cols, kinds, rows))
        Which columns take row r of `w`.
    i : In(partial)
        What every chain of partial sums starts from.
    o : Out(ArrayLayout(partial, cols))
        Sums, `rows + 2` cycles after row 0 of `a`.
    o_nan : Out(cols)
    """

    def __init__(self, family, lanes, rows, cols, width):
        self.family, self.lanes, self.rows, self.cols, self.width = FAMILIES[family], lanes, rows, cols, width
        path = datapath(family)
        activations = data.ArrayLayout(path.activations(lanes), rows)
        weights = data.ArrayLayout(path.weights(lanes), rows)
        swaps, loads = data.ArrayLayout(path.kinds, rows), data.ArrayLayout(data.ArrayLayout(cols, path.kinds), rows)
        nan = {"a_nan": In(rows), "a_nan_o": Out(rows), "w_nan": In(data.ArrayLayout(rows, 2)),
               "o_nan": Out(cols)} if self.family.nan else {}
        super().__init__({
            "a": In(activations), "a_o": Out(activations),
            "swap": In(swaps), "swap_o": Out(swaps),
            "w": In(data.ArrayLayout(weights, 2)),
            "load": In(loads),
            "i": In(path.partial(width)),
            "o": Out(data.ArrayLayout(path.partial(width), cols)),
            **nan,
        })

    def elaborate(self, platform):
        m = Module()

        activation = Signal.like(self.a, reset_less=True)
        m.d.sync += activation.eq(self.a), self.swap_o.eq(self.swap)
        m.d.comb += self.a_o.eq(activation)
        if self.family.nan:
            nan = Signal(self.rows, reset_less=True)
            m.d.sync += nan.eq(self.a_nan)
            m.d.comb += self.a_nan_o.eq(nan)

        for col in range(self.cols):
            above, above_nan = self.i, Const(0, 1)
            for row in range(self.rows):
                m.submodules[f"pe_{row}_{col}"] = pe = PE(self.family.name, self.lanes, self.width)
                m.d.comb += [
                    pe.a.eq(activation[row]),
                    pe.w.eq(self.w[col % 2][row]),
                    pe.load.eq(Cat(kind[col] for kind in self.load[row])),
                    pe.swap.eq(self.swap[row]),
                    pe.i.eq(above),
                ]
                above = pe.o
                if self.family.nan:
                    m.d.comb += [
                        pe.a_nan.eq(nan[row]),
                        pe.w_nan.eq(self.w_nan[col % 2][row]),
                        pe.i_nan.eq(above_nan),
                    ]
                    above_nan = pe.o_nan
            m.d.comb += self.o[col].eq(above)
            if self.family.nan:
                m.d.comb += self.o_nan[col].eq(above_nan)

        return m


class Array(Block):
    """A systolic array of `rows` x `cols` exact dot products, `groups` groups of columns.

    One row of activations a cycle reduces `rows * lanes` of K for every column. Nothing in here ever
    stalls: what enters as a beat leaves as sums after a fixed time, group after group.

    Parameters
    ----------
    family : str
    lanes, rows, cols, groups : int

    Members
    -------
    row : In(struct)
        `codes` of one row's K slice, of which `count` lanes count, in `format`; `swap` makes the
        loaded weights the active ones from this row on, valid row or not.
    beat : In(struct)
        Weight `codes` in `format` for the columns whose bit in `columns` is set; 4-bit formats carry
        an even column's slice in the low half and its odd neighbour's in the high half.
    row.aligned, beat.aligned
        In family uni: sums are aligned, `golden.dot.aligned`; a K slice is a quarter as long, and every beat
        carries two columns' slices. They keep their value for two cycles after the last row or beat.
    sums : Out(ArrayLayout(width, cols))
        Group g's sums are those of the row that entered `latency + g` cycles ago. `width` is
        `family.sum_bits(rows * lanes)`.
    nans : Out(cols)
        A NaN or infinity took part in the sum.
    tags : Out(ArrayLayout(TAG, cols))
        In family uni: tags of aligned sums.
    """

    def __init__(self, family, lanes, rows, cols, groups):
        self.family, self.lanes, self.rows, self.cols, self.groups = FAMILIES[family], lanes, rows, cols, groups
        depth, path = lanes * rows, datapath(family)
        self.width, self.lead = self.family.sum_bits(depth), path.lead
        self.start = 0 if self.family.aligned else -depth * path.bias
        aligned = {"aligned": 1} if self.family.aligned else {}
        tags = {"tags": Out(data.ArrayLayout(TAG, cols))} if self.family.aligned else {}
        super().__init__({
            "row": In(data.StructLayout({
                "codes": depth * self.family.bits, "format": 3, "count": range(depth + 1), "swap": 1,
                **aligned})),
            "beat": In(data.StructLayout({"codes": depth * 8, "format": 3, "columns": cols, **aligned})),
            "sums": Out(data.ArrayLayout(self.width, cols)),
            "nans": Out(cols),
            **tags,
        })

    @property
    def latency(self):
        """Cycles from a row to group 0's sums."""
        return self.rows + 3 + self.lead

    def elaborate(self, platform):
        m = Module()
        width = self.cols // self.groups                # of a group, whose columns start together
        share = min(SHARE, width)
        columns = [Columns(self.family.name, self.lanes, self.rows, share, self.width)
                   for _ in range(self.cols // share)]
        feed(m, self, columns[:width // share], columns)

        nan = ["a_nan"] if self.family.nan else []
        for n, each in enumerate(columns):
            m.submodules[f"columns{n}"] = each
            m.d.comb += each.i.eq(Const(self.start, self.width + 1)[:self.width])
            before = n - width // share
            for name in ["a", "swap", *nan] if before >= 0 else []:
                m.d.comb += getattr(each, name).eq(getattr(columns[before], f"{name}_o"))
        partials = [partial for each in columns for partial in each.o]
        if self.family.aligned:
            for n, partial in enumerate(partials):
                tag, = delay(m, self.lead, f"tag{n}", partial.tag)
                m.d.comb += self.sums[n].eq(partial.sum), self.tags[n].eq(tag)
        else:
            m.d.comb += self.sums.eq(Cat(partials))
        if self.family.nan:
            m.d.comb += self.nans.eq(Cat(each.o_nan for each in columns))

        return m
