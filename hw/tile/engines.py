# SPDX-License-Identifier: Apache-2.0
"""The matmul and the vector engine as a tile has them: instructions in, rows of the scratchpad in and out."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.families import FORMAT_CODES
from golden.formats import FORMATS
from golden.isa import FORMS, Engine, Gemm, Operation
from hw.emit import Block
from hw.fetch import ADDRESS, request, response, write
from hw.instructions import completion, instruction, most
from hw.matmul import engine as matmul
from hw.vector import engine as vector
from hw.vector.walker import reads

__all__ = ["GemmUnit", "VectorUnit"]

UNDER_WAY = 4       # GEMMs that have begun and whose results are not all written


def fields(form, words):
    """Fields of an instruction by name, from its body words."""
    found = {}
    for word, content in zip(form, words, strict=False):
        at = 0
        for name, bits in word.items():
            found[name] = content[at:at + bits]
            at += bits
    return found


class GemmUnit(Block):
    """The matmul engine, with the places of its results.

    An instruction is done when all of its results are written.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    i : In(stream.Signature(instruction(most(Engine.MATMUL))))
    done : Out(stream.Signature(completion()))
        The error is one of `hw.matmul.ports.Error`.
    weights_request, activations_request, parameters_request, weights, activations, parameters
        As of `hw.matmul.engine.Engine`.
    write : Out(stream.Signature(write(4 * config.drain)))
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(instruction(most(Engine.MATMUL)))), "done": Out(stream.Signature(completion())),
            **{f"{name}_request": Out(stream.Signature(request(beats, rows)))
               for name, (_, beats, rows) in matmul.reads(config).items()},
            **{name: In(stream.Signature(response(width))) for name, (width, _, _) in matmul.reads(config).items()},
            "write": Out(stream.Signature(write(4 * config.drain))),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        m.submodules.engine = engine = matmul.Engine(config)
        for name in matmul.reads(config):
            connect(m, getattr(engine, f"{name}_request"), flipped(getattr(self, f"{name}_request")))
            connect(m, flipped(getattr(self, name)), getattr(engine, name))

        # Commands carry the number of their place.
        given, command = fields(FORMS[Engine.MATMUL][Gemm.GEMM], self.i.payload.words), engine.commands.payload
        place = data.StructLayout({"y": ADDRESS, "pitch": ADDRESS, "format": 3})
        places = Array(Signal(place, name=f"place{n}", reset_less=True) for n in range(UNDER_WAY))
        number, busy, moves, ends = Signal(range(UNDER_WAY)), Signal(range(UNDER_WAY + 1)), Signal(), Signal()
        m.d.comb += [
            engine.commands.valid.eq(self.i.valid & (busy != UNDER_WAY)),
            self.i.ready.eq(engine.commands.ready & (busy != UNDER_WAY)),
            moves.eq(self.i.valid & self.i.ready), ends.eq(self.done.valid & self.done.ready),
            *(command[name].eq(given[name]) for name, _ in command.shape() if name in given),
            command.row_scales.eq(given["scales"]), command.tag.eq(number),
        ]
        if config.mx:
            m.d.comb += command.a_scales.eq(given["scales"]), command.a_scales_pitch.eq(given["scales_pitch"])
        else:       # the engine does not know of blocks with scales, but of a format that no results can have
            with m.If(given["mx"]):
                m.d.comb += command.y_format.eq(FORMAT_CODES["e2m1"])
        m.d.sync += number.eq(number + moves), busy.eq(busy + moves - ends)
        with m.If(moves):
            m.d.sync += [places[number][name].eq(value) for name, value in (
                ("y", given["y"]), ("pitch", given["y_pitch"]), ("format", given["y_format"]))]

        # A result goes to its row and column; two cycles.
        result, own, goes = engine.results.payload, Signal(place), Signal()
        double = Signal(2)                      # how often to double a count of results for one of bytes
        m.d.comb += [
            own.eq(places[result.tag[:len(number)]]), goes.eq(~self.write.valid | self.write.ready),
            engine.results.ready.eq(goes),
        ]
        with m.Switch(own.format):
            for name, code in FORMAT_CODES.items():
                with m.Case(code):
                    m.d.comb += double.eq(FORMATS[name].width // 16)
        row, column = Signal(ADDRESS, reset_less=True), Signal(ADDRESS, reset_less=True)
        held, valid = Signal.like(self.write.payload, reset_less=True), Signal()
        with m.If(goes):
            m.d.sync += [
                valid.eq(engine.results.valid), self.write.valid.eq(valid),
                row.eq(result.row * own.pitch), column.eq(own.y + (result.column << double)),
                held.data.eq(result.data), held.count.eq(result.count << double),
                self.write.payload.data.eq(held.data), self.write.payload.count.eq(held.count),
                self.write.payload.address.eq(row + column),
            ]

        written = ~valid & ~self.write.valid
        m.d.comb += [
            self.done.valid.eq(engine.completions.valid & written),
            engine.completions.ready.eq(self.done.ready & written),
            self.done.payload.error.eq(engine.completions.payload.error), engine.clear.eq(ends),
        ]
        return m


class VectorUnit(Block):
    """The vector engine.

    Parameters
    ----------
    config : golden.config.Vector

    Members
    -------
    i : In(stream.Signature(instruction(most(Engine.VECTOR))))
    done : Out(stream.Signature(completion()))
        The error is one of `hw.vector.ports.Error`.
    x_request, y_request, x, y
        As of `hw.vector.engine.Engine`.
    write : Out(stream.Signature(write(4 * config.lanes)))
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(instruction(most(Engine.VECTOR)))), "done": Out(stream.Signature(completion())),
            **{f"{name}_request": Out(stream.Signature(request(*reads(config)))) for name in "xy"},
            **{name: In(stream.Signature(response(32 * config.lanes))) for name in "xy"},
            "write": Out(stream.Signature(write(4 * config.lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = vector.Engine(self.config)
        for name in "xy":
            connect(m, getattr(engine, f"{name}_request"), flipped(getattr(self, f"{name}_request")))
            connect(m, flipped(getattr(self, name)), getattr(engine, name))
        given, command = fields(FORMS[Engine.VECTOR][Operation.MUL], self.i.payload.words), engine.instructions.payload
        result, write = engine.results.payload, self.write.payload
        m.d.comb += [
            engine.instructions.valid.eq(self.i.valid), self.i.ready.eq(engine.instructions.ready),
            command.operation.eq(self.i.payload.opcode),
            *(command[name].eq(given[name]) for name, _ in command.shape() if name in given),
            self.write.valid.eq(engine.results.valid), engine.results.ready.eq(self.write.ready),
            write.address.eq(result.address), write.data.eq(result.data), write.count.eq(result.bytes),
            self.done.valid.eq(engine.completions.valid), engine.completions.ready.eq(self.done.ready),
            self.done.payload.error.eq(engine.completions.payload.error),
            engine.clear.eq(self.done.valid & self.done.ready),
        ]
        return m
