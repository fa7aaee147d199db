# SPDX-License-Identifier: Apache-2.0
"""The weight-stationary systolic array, with the decoders and skew at its edges."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.families import FAMILIES
from hw.arith.dot import datapath
from hw.emit import Block
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
    a, a_o : In, Out(ArrayLayout(activation lanes, rows))
        Row r lags row 0 by r cycles.
    a_nan, a_nan_o : In(rows), Out(rows)
        In families that have NaN, like `w_nan` and `o_nan`.
    swap, swap_o : In(rows), Out(rows)
        Rises with the first activation of the new weights, or before it.
    w : In(ArrayLayout(weight lanes, rows, 2))
        Weights for even and for odd columns, row r lagging row 0 by r cycles.
    w_nan : In(ArrayLayout(rows, 2))
    load : In(ArrayLayout(cols, rows))
        Which columns take row r of `w`.
    i : In(width)
        What every chain of partial sums starts from.
    o : Out(ArrayLayout(width, cols))
        Sums, `rows + 2` cycles after row 0 of `a`.
    o_nan : Out(cols)
    """

    def __init__(self, family, lanes, rows, cols, width):
        self.family, self.lanes, self.rows, self.cols, self.width = FAMILIES[family], lanes, rows, cols, width
        activations = data.ArrayLayout(data.ArrayLayout(datapath(family).activation, lanes), rows)
        weights = data.ArrayLayout(data.ArrayLayout(datapath(family).weight, lanes), rows)
        nan = {"a_nan": In(rows), "a_nan_o": Out(rows), "w_nan": In(data.ArrayLayout(rows, 2)),
               "o_nan": Out(cols)} if self.family.nan else {}
        super().__init__({
            "a": In(activations), "a_o": Out(activations),
            "swap": In(rows), "swap_o": Out(rows),
            "w": In(data.ArrayLayout(weights, 2)),
            "load": In(data.ArrayLayout(cols, rows)),
            "i": In(width),
            "o": Out(data.ArrayLayout(width, cols)),
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
                    pe.load.eq(self.load[row][col]),
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
    sums : Out(ArrayLayout(width, cols))
        Group g's sums are those of the row that entered `rows + 3 + g` cycles ago. `width` is
        `family.sum_bits(rows * lanes)`.
    nans : Out(cols)
        A NaN or infinity took part in the sum.
    """

    def __init__(self, family, lanes, rows, cols, groups):
        self.family, self.lanes, self.rows, self.cols, self.groups = FAMILIES[family], lanes, rows, cols, groups
        depth = lanes * rows
        self.width = self.family.sum_bits(depth)
        super().__init__({
            "row": In(data.StructLayout({
                "codes": depth * self.family.bits, "format": 3, "count": range(depth + 1), "swap": 1})),
            "beat": In(data.StructLayout({"codes": depth * 8, "format": 3, "columns": cols})),
            "sums": Out(data.ArrayLayout(self.width, cols)),
            "nans": Out(cols),
        })

    def elaborate(self, platform):
        m = Module()
        width = self.cols // self.groups                # of a group, whose columns start together
        share = min(SHARE, width)
        columns = [Columns(self.family.name, self.lanes, self.rows, share, self.width)
                   for _ in range(self.cols // share)]
        self._feed_activations(m, columns[:width // share])
        self._feed_weights(m, columns)

        start = -self.rows * self.lanes * datapath(self.family.name).bias
        nan = ["a_nan"] if self.family.nan else []
        for n, each in enumerate(columns):
            m.submodules[f"columns{n}"] = each
            m.d.comb += each.i.eq(Const(start, self.width + 1)[:self.width])
            before = n - width // share
            for name in ["a", "swap", *nan] if before >= 0 else []:
                m.d.comb += getattr(each, name).eq(getattr(columns[before], f"{name}_o"))
        m.d.comb += self.sums.eq(Cat(each.o for each in columns))
        if self.family.nan:
            m.d.comb += self.nans.eq(Cat(each.o_nan for each in columns))

        return m

    def _feed_activations(self, m, first):
        """Decode a row once for the `first` group and delay its part for array row r by r cycles."""
        bits, decode = self.family.bits, datapath(self.family.name).decode
        for row in range(self.rows):
            lanes, nans = [], []
            for k in range(row * self.lanes, (row + 1) * self.lanes):
                code = Signal(bits, name=f"code{k}")
                m.d.comb += code.eq(Mux(k < self.row.count, self.row.codes.word_select(k, bits), 0))
                lane, nan = decode(m, code, self.row.format, f"lane{k}")
                lanes.append(lane)
                nans.append(nan)
            a, nan, swap = _delay(m, row + 1, f"a{row}", Cat(lanes), Cat(nans).any(), self.row.swap)
            for each in first:
                m.d.comb += each.a[row].eq(a), each.swap[row].eq(swap)
                if self.family.nan:
                    m.d.comb += each.a_nan[row].eq(nan)

    def _feed_weights(self, m, columns):
        """Bring a beat to the form that elements store, and delay its part for array row r by r cycles."""
        depth, recode = self.lanes * self.rows, datapath(self.family.name).recode
        codes = self.beat.codes
        for row in range(self.rows):
            for parity in range(2):
                lanes, nans = [], []
                for k in range(row * self.lanes, (row + 1) * self.lanes):
                    wide, narrow = codes.word_select(k, 8), codes.word_select(parity * depth + k, 4)
                    lane, nan = recode(m, wide, narrow, self.beat.format, f"weight{parity}_{k}")
                    lanes.append(lane)
                    nans.append(nan)
                w, nan = _delay(m, row + 1, f"w{row}_{parity}", Cat(lanes), Cat(nans).any())
                for each in columns:
                    m.d.comb += each.w[parity][row].eq(w)
                    if self.family.nan:
                        m.d.comb += each.w_nan[parity][row].eq(nan)
            load, = _delay(m, row + 1, f"load{row}", self.beat.columns, reset_less=False)
            for n, each in enumerate(columns):
                m.d.comb += each.load[row].eq(load.word_select(n, each.cols))


def _delay(m, stages, name, *values, reset_less=True):
    """`values` after `stages` cycles."""
    for stage in range(stages):
        held = [Signal(len(value), name=f"{name}_{n}_{stage}", reset_less=reset_less)
                for n, value in enumerate(values)]
        m.d.sync += [new.eq(value) for new, value in zip(held, values, strict=True)]
        values = held
    return values
