# SPDX-License-Identifier: Apache-2.0
"""What an instruction asks of each part of the engine."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden.families import FORMAT_CODES
from golden.formats import E8M0, FORMATS, FP32, MX_BLOCK
from golden.isa import K_MAX, LENGTH, ROWS, Operation, Quantize, Second
from hw.fetch import request
from hw.vector.ports import Error, Part, instruction
from hw.vector.scalars import constants
from hw.vector.writer import places

__all__ = ["Walker", "reads", "work"]


def reads(config):
    """Most beats and rows of one read."""
    return (1 << LENGTH) // config.lanes, (1 << ROWS) - 1


def work():
    """The beats of an instruction: `beats` a row, `rest` elements less one in the last. `passes` times every row."""
    return data.StructLayout({
        "operation": 3, "second": 2, "quantize": 2, "x_format": 3, "y_format": 3, "result_format": 3,
        "alpha": 32, "beta": 32, "rows": ROWS, "beats": LENGTH, "rest": 5, "passes": range(K_MAX + 1),
    })


class Walker(Part):
    """Checks instructions, asks for their operands, and tells all who take part in them. One in two cycles.

    Rows are asked for in one request, but for those that are read several times.

    Parameters
    ----------
    config : golden.config.Vector

    Members
    -------
    i : In(stream.Signature(instruction()))
    x, y : Out(stream.Signature(request))
    work : Out(stream.Signature(work()))
    constants : Out(stream.Signature(constants()))
        Of instructions with sums.
    places : Out(stream.Signature(places()))
        Of all, those that are refused among them.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(instruction())),
            **{name: Out(stream.Signature(request(*reads(config)))) for name in "xy"},
            "work": Out(stream.Signature(work())), "constants": Out(stream.Signature(constants())),
            "places": Out(stream.Signature(places())),
        })

    def elaborate(self, platform):
        m = Module()
        given, fault = self.i.payload, self._fault(m)
        log, sound, top_k = self.config.lanes.bit_length() - 1, Signal(), Signal()
        m.d.comb += sound.eq(fault == Error.NONE), top_k.eq(given.operation == Operation.TOP_K)

        # Requests. With several passes, one a row.
        row, last = Signal(ROWS), Signal()
        again = top_k & (given.k != 1)
        m.d.comb += last.eq(~again | (row + 1 == given.rows))
        wants = {
            "x": sound, "y": sound & (given.second != Second.ABSENT), "work": sound, "places": 1,
            "constants": sound & ((given.operation == Operation.RMS_NORM) | (given.operation == Operation.SOFTMAX)),
        }
        at = {name: Signal(32, name=f"at_{name}") for name in "xy"}
        for name in "xy":
            o, format, pitch = getattr(self, name).payload, given[f"{name}_format"], given[f"{name}_pitch"]
            length = Mux(given.second == Second.ROW, 1, given.length) if name == "y" else given.length
            with m.Switch(format):
                for known, number in FORMAT_CODES.items():
                    with m.Case(number):
                        fill = log + (FP32.width // FORMATS[known].width).bit_length() - 1  # a word: 2**fill elements
                        m.d.comb += o.beats.eq(_words(length, fill))
            if name == "y":
                with m.If(given.second == Second.BLOCK):
                    m.d.comb += o.beats.eq(_words(length, log + (MX_BLOCK * FP32.width // E8M0.width).bit_length() - 1))
            m.d.comb += [
                o.address.eq(Mux(row == 0, given[name], at[name])),
                o.stride.eq(Mux(again, 0, pitch)), o.rows.eq(Mux(again, given.k, given.rows)),
            ]

        # Each is told once; the instruction goes when all have been.
        told, tells = Signal(len(wants)), Signal(len(wants))
        for n, (name, wanted) in enumerate(wants.items()):
            port = getattr(self, name)
            m.d.comb += port.valid.eq(self.i.valid & wanted & ~told[n])
            m.d.comb += tells[n].eq(told[n] | ~wanted | port.ready)
        with m.If(self.i.valid):
            m.d.sync += told.eq(tells)
            with m.If(tells.all()):
                m.d.sync += told.eq(Mux(last | ~sound, 0, ~0b11)), row.eq(Mux(last | ~sound, 0, row + 1))
                for name in "xy":
                    m.d.sync += at[name].eq(getattr(self, name).payload.address + given[f"{name}_pitch"])
        m.d.comb += self.i.ready.eq(tells.all() & (last | ~sound))

        o = self.work.payload
        m.d.comb += [
            *(o[name].eq(given[name]) for name in (
                "operation", "second", "quantize", "x_format", "y_format", "result_format", "alpha", "beta", "rows")),
            o.beats.eq(given.length + (self.config.lanes - 1) >> log), o.rest.eq((given.length - 1)[:log]),
            o.passes.eq(Mux(top_k, given.k, 1)),
            *(self.constants.payload[name].eq(given[name]) for name in ("alpha", "beta", "rows")),
            self.constants.payload.softmax.eq(given.operation == Operation.SOFTMAX),
            *(self.places.payload[name].eq(given[name]) for name in (
                "tag", "result", "result_pitch", "scalars", "scalars_pitch")),
            self.places.payload.error.eq(fault), self.places.payload.blocks.eq(given.quantize[1]),
        ]
        return m

    def _fault(self, m):
        """What is wrong with the instruction."""
        given, fault = self.i.payload, Signal(Error)
        is_ = {each: Signal(name=each.name.lower()) for each in Operation}
        m.d.comb += [flag.eq(given.operation == each) for each, flag in is_.items()]
        scaled, short = given.quantize != Quantize.NONE, Signal()
        whole = is_[Operation.RMS_NORM] | is_[Operation.SOFTMAX] | (given.quantize == Quantize.ROW)
        no_k = (given.k == 0) | (given.k > K_MAX)
        known = {name: Signal(name=f"known_{name}") for name in ("x", "y", "result")}
        m.d.comb += [flag.eq(given[f"{name}_format"] <= max(FORMAT_CODES.values())) for name, flag in known.items()]
        blocks = given.second == Second.BLOCK
        m.d.comb += short.eq(~_is(given.result_format, "fp32", "bf16") & ~(
            given.quantize[1] & _is(given.result_format, "int8")))
        with m.If(~Cat(is_.values()).any()
                  | (is_[Operation.TOP_K] & (no_k | scaled)) | (is_[Operation.SOFTMAX] & scaled)
                  | (blocks & ~is_[Operation.MUL] & ~is_[Operation.TOP_K])):
            m.d.comb += fault.eq(Error.OPERATION)
        with m.Elif((given.rows == 0) | (given.length == 0) | (is_[Operation.ROPE] & given.length[0])
                    | (whole & (given.length > self.config.row_max))
                    | (is_[Operation.TOP_K] & (given.length < given.k))):
            m.d.comb += fault.eq(Error.DIMENSION)
        with m.Elif(~known["x"] | ((given.second != Second.ABSENT) & ~blocks & ~known["y"])
                    | (blocks & _is(given.x_format, "fp32", "bf16", "int8"))
                    | (~is_[Operation.TOP_K] & ~known["result"]) | (scaled & ~short)):
            m.d.comb += fault.eq(Error.FORMAT)
        return fault


def _is(format, *names):
    """Whether the format is one of these."""
    return Cat(format == FORMAT_CODES[name] for name in names).any()


def _words(length, fill):
    """Words that hold so many elements, 2**fill each."""
    return length + (1 << fill) - 1 >> fill
