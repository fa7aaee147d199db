# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.matmul.walker.Walker`: the tiles of a command cover its GEMM, each product once."""

from amaranth.hdl import Cat, Const, Mux, Signal

from golden.families import FAMILIES, FORMAT_CODES
from hw.matmul.ports import Error
from hw.matmul.walker import RESULT_FORMATS
from sim.formal.contract import Contract

__all__ = ["WalkerRules"]


class WalkerRules(Contract):
    """Each dimension is covered from 0 to its end, without gap or overlap.

    A step offers a tile to all listeners at once, each of which takes it in its own time; it is judged
    in its first cycle. Along K tiles follow one another; so do blocks along N; along M a block may
    leave out rows that the next one then fills in.
    """

    def rules(self, m, block):
        config, i = block.config, block.i
        names = "weights", "load", "activations", "tile", "block"
        outputs = [getattr(block, name) for name in names]
        weights, load, activations, tile, where = (output.payload for output in outputs)
        given, waiting = where.finish, Cat(output.valid for output in outputs)

        # Steps: `first` is the first cycle of one, `command` that of which it is.
        idle, fresh, first, scaled, unscaled = Signal(), Signal(), Signal(), Signal(), Signal()
        command, fault, refused, step = Signal(i.payload.shape()), Signal(Error), Signal(), Signal()
        mx, kind = command.mx if config.mx else Const(0), self.aligned(config, command)
        depth = Mux(kind, config.depth // 4, config.depth)              # of a tile
        takes, passed, before = Signal(5), Signal(5), Signal(5)     # who takes the step, has taken it, had before
        m.d.comb += [
            first.eq(fresh & waiting.any()), fault.eq(self.fault(config, command)),
            refused.eq(fault != Error.NONE), step.eq(first & ~refused),
            scaled.eq(Mux(first, mx & ~refused, unscaled)),     # the row scales have not been asked for
            *(takes[n].eq(self.moves(output) & ~(scaled & (name == "activations")))
              for n, (name, output) in enumerate(zip(names, outputs, strict=True))),
            before.eq(Mux(fresh, 0, passed)), idle.eq((waiting & ~takes) == 0),
        ]
        m.d.sync += [
            fresh.eq(idle), unscaled.eq(scaled & ~self.moves(block.activations)),
            passed.eq(before | takes),
        ]
        with m.If(idle):
            m.d.sync += command.eq(i.payload)

        # Along K: what the tiles of this block have left, before this one.
        starts, left_k, rest_k = Signal(init=1), Signal(16), Signal(16)
        m.d.comb += rest_k.eq(Mux(starts, command.k, left_k))
        with m.If(first):
            m.d.sync += starts.eq(refused | tile.last), left_k.eq(rest_k - tile.count)
        opens, ends = step & starts, step & tile.last

        # Along M: all rows below `low` are covered, `left_m` are not; and along N likewise.
        low, left_m, rest_m, gap, filling = Signal(16), Signal(16), Signal(16), Signal(16), Signal()
        column, left_n, rest_n, begun = Signal(16), Signal(16), Signal(16), Signal()
        m.d.comb += [
            rest_m.eq(Mux(low | filling, left_m, command.m)), gap.eq(given.row - low),
            rest_n.eq(Mux(begun, left_n, command.n)),
        ]
        across = Mux(filling, 1, (given.rows == rest_m) & (gap == 0))   # this block is the last along M
        final = across & (given.cols == rest_n)
        with m.If(ends):
            m.d.sync += left_m.eq(rest_m - given.rows), begun.eq(~final), left_n.eq(rest_n)
            with m.If(across):
                m.d.sync += low.eq(0), filling.eq(0), left_n.eq(rest_n - given.cols), column.eq(column + given.cols)
            with m.Elif(gap != 0):
                m.d.sync += filling.eq(1)
            with m.Else():
                m.d.sync += low.eq(low + given.rows)
            with m.If(final):
                m.d.sync += column.eq(0)

        rest = Signal(where.shape())            # of a block, beside what a refused command has to say
        m.d.comb += [rest.eq(where), *(rest.finish[name].eq(0) for name in ("tag", "error", "end"))]

        left, quiet = Signal(), Signal(range(4))
        m.d.sync += left.eq(self.moves(i)), quiet.eq(Mux(i.valid & ~waiting.any(), quiet + (quiet != 3), 0))
        paired = (command.w_format == FORMAT_CODES["e2m1"]) | kind
        scales = load.scales if config.mx else Const(0)

        self.require("i holds", self.steady(i))

        for name, output in zip(names, outputs, strict=True):
            self.promise(f"{name} holds", self.steady(output))
        self.promise("each listener gets a step once", (waiting & before) == 0)
        self.promise("a step is for all, its block with the first of its tiles",
                     ~step | (waiting == Mux(starts, 0b11111, 0b01111)))
        self.promise("a refused command makes one block without results, which tells why",
                     ~(first & refused) | (waiting == 0b10000) & given.end & (given.error == fault)
                     & (given.tag == command.tag))
        self.promise("a block with an error is empty", ~block.block.valid | (given.error == Error.NONE)
                     | ~rest.as_value().any())
        self.promise("a command leaves with its last step", left == first & (refused | (tile.last & given.end)))
        self.promise("never waits for nothing", quiet < 3)

        self.promise("tiles cover K", ~step | (tile.count != 0) & (tile.count <= depth) & (
            tile.first == starts) & (tile.last == (tile.count == rest_k)) & (tile.last | (tile.count == depth)))
        self.promise("blocks cover M", ~opens | (given.rows != 0) & (given.rows <= config.acc_rows) & Mux(
            filling, (gap == 0) & (given.rows == rest_m), Mux(
                gap == 0, given.rows <= rest_m, gap + given.rows == rest_m)))
        self.promise("blocks cover N", ~opens | (given.column == column) & (given.cols != 0) & (
            given.cols <= config.cols) & (given.cols <= rest_n))
        self.promise("a command ends when all is covered", ~opens | (given.end == final))
        self.promise("all tiles of a block have its rows", ~step | (tile.rows == given.rows))
        self.promise("a tile loads its columns", ~step | (
            load.beats == Mux(paired, (given.cols + 1) >> 1, given.cols)) & (weights.rows == 1) & (
            weights.beats == load.beats + scales))
        self.promise("a tile reads its rows", ~block.activations.valid | scaled | (activations.beats == 1) & (
            activations.rows == tile.rows) & (activations.stride == command.a_pitch))
        if config.mx:
            size = config.row_bits // 8
            self.promise("a tile reads its scales", ~(block.activations.valid & scaled) | (
                activations.beats == 1) & (activations.rows == (tile.rows + size - 1) // size)
                & (activations.stride == size))
            self.promise("a tile loads its scales", ~step | (tile.mx == mx) & (scales == Mux(
                mx, (given.cols + config.depth - 1) // config.depth, 0)))
            self.promise("blocks have scales or not", ~opens | (given.mx == mx))
        if FAMILIES[config.family].aligned:
            self.promise("sums are aligned or not", ~step | (tile.aligned == kind) & (load.aligned == kind))
        self.promise("formats are the command's", ~step | (load.format == command.w_format) & (
            tile.format == command.a_format) & (given.format == command.y_format))
        self.promise("blocks are finished as the command says", ~opens | (given.error == Error.NONE) & (
            given.tag == command.tag) & (where.c_pitch == command.c_pitch) & Cat(
                given[name] == command[name]
                for name in ("row_scaled", "column_scaled", "biased", "accumulate")).all())
        self.promise("scales and bias lie at their row and column", ~opens | (
            where.row_scales == (command.row_scales + (given.row << 2))[:32]) & (
            where.column_scales == (command.column_scales + (given.column << 2))[:32]) & (
            where.bias == (command.bias + (given.column << 2))[:32]))

        self.reach("several blocks along M and N", ends & (given.row != 0) & (given.column != 0) & final)
        self.reach("rows left out and filled in", ends & filling & (given.row != 0))
        self.reach("a refused command after another", first & refused & self.after(step))
        if config.mx:
            self.reach("MX after others", ends & mx & self.after(ends & ~mx))

    @staticmethod
    def one_of(code, names):
        """Whether a format is one of these."""
        return Cat(code == FORMAT_CODES[name] for name in names).any()

    @classmethod
    def aligned(cls, config, command):
        """Whether a command's sums are aligned, at a quarter of the rate."""
        names = FAMILIES[config.family].aligned
        return cls.one_of(command.a_format, names) | cls.one_of(command.w_format, names) if names else Const(0)

    @classmethod
    def fault(cls, config, command):
        """Why a command cannot be done, if it cannot."""
        family, one_of = FAMILIES[config.family], cls.one_of
        dimension = ((command.m == 0) | (command.n == 0) | (command.k == 0)
                     | (command.m > config.m_max) | (command.n > config.n_max))
        formats = (one_of(command.a_format, family.activations) & one_of(command.w_format, family.weights)
                   & one_of(command.y_format, RESULT_FORMATS))
        if config.mx:
            formats &= ~(command.mx & cls.aligned(config, command))
        return Mux(dimension, Error.DIMENSION, Mux(command.k > config.k_max, Error.DEPTH,
                                                   Mux(formats, Error.NONE, Error.FORMAT)))
