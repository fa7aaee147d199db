# SPDX-License-Identifier: Apache-2.0
"""The front of the engine: what becomes of an element before anything of its row is known."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.families import FORMAT_CODES
from golden.formats import E8M0, FORMATS, FP32
from golden.isa import Operation, Second
from golden.tables import LIFT, WHOLE
from hw.arith.convert import ToFp32
from hw.arith.fp32 import Add, Multiply
from hw.arith.functions import Functions, Kind
from hw.arith.pipeline import register
from hw.emit import Block

__all__ = ["Lane", "Operands", "factors", "steps"]

ONE = 0x3F800000
LIFTED = FP32.bias - LIFT << FP32.mantissa              # 2**-LIFT


def factors():
    """A lane's: of `a * b` and `c * d`."""
    return data.StructLayout({name: 32 for name in "abcd"})


def steps():
    """What a lane does otherwise than keep its second product."""
    return data.StructLayout({"lift": 1, "power": 1, "sum": 1, "sigmoid": 1})


class Operands(Block):
    """Makes of elements of x and y the factors of two lanes. Latency 2 cycles.

    Members
    -------
    x, y : In(ArrayLayout(32, 2))
        Codes.
    x_format, y_format : In(3)
    operation : In(3), second : In(2)
    alpha, beta : In(32)
        A cycle later.
    o : Out(ArrayLayout(factors(), 2))
    """

    latency = 2

    def __init__(self):
        pair = data.ArrayLayout(32, 2)
        super().__init__({
            "x": In(pair), "y": In(pair), "x_format": In(3), "y_format": In(3), "operation": In(3), "second": In(2),
            "alpha": In(32), "beta": In(32), "o": Out(data.ArrayLayout(factors(), 2)),
        })

    def elaborate(self, platform):
        m = Module()
        formats = tuple(FORMATS[name] for name in FORMAT_CODES)
        codes = [register(m, port, name) for port, name in ((self.x, "x_codes"), (self.y, "y_codes"))]
        x_format, y_format, operation, second = (register(m, port, f"{name}_held") for port, name in (
            (self.x_format, "x_format"), (self.y_format, "y_format"),
            (self.operation, "operation"), (self.second, "second")))
        x, y = Signal.like(self.x), Signal.like(self.y)
        for n in range(2):
            m.submodules[f"x{n}"], m.submodules[f"y{n}"] = to_x, to_y = ToFp32(formats), ToFp32(formats)
            m.d.comb += [
                to_x.i.eq(codes[0][n]), to_x.format.eq(x_format), x[n].eq(to_x.o),
                to_y.i.eq(codes[1][n]), to_y.format.eq(y_format),
                y[n].eq(Mux(second == Second.ABSENT, ONE, to_y.o)),
            ]
        turned = y[1] ^ Const(1 << 31, 32)

        # A block's scale is 2**(code - bias), in FP32 but for the smallest. So of small ones x takes 2**-64, which is a
        # matter of two bits: exponents of MX elements are near 0.
        code, scale, scaled, small = codes[1][0][:E8M0.width], Signal(32), Signal(), Signal()
        m.d.comb += [
            scaled.eq(second == Second.BLOCK), small.eq(scaled & ~code[-1]),
            scale.eq(Cat(Const(0, FP32.mantissa - 1), code.all(), Mux(small, Cat(code[:6], ~code[6], code[6]), code))),
        ]
        for n, o in enumerate(self.o):
            next = Signal(factors(), name=f"next{n}")
            m.d.comb += next.a.eq(x[n]), next.b.eq(self.alpha), next.c.eq(x[n]), next.d.eq(y[n])
            with m.Switch(operation):
                with m.Case(Operation.ADD):
                    m.d.comb += next.c.eq(y[n]), next.d.eq(self.beta)
                with m.Case(Operation.ROPE):
                    m.d.comb += next.b.eq(y[0]), next.c.eq(x[1 - n]), next.d.eq(y[1] if n else turned)
                with m.Case(Operation.RMS_NORM):
                    m.d.comb += next.b.eq(x[n])
            with m.If(scaled):
                m.d.comb += next.d.eq(scale)
            with m.If(small):
                m.d.comb += next.c[29:31].eq(Cat(x[n][30], x[n][29:31].all()))
            m.d.comb += o.eq(register(m, next, f"factors{n}"))
        return m


class Lane(Block):
    """An element a cycle: `kept` is, by `steps`,

    - nothing set: c * d;
    - `sum`: a * b + c * d;
    - `power`: 2**(a * b + offset);
    - `lift` and `sigmoid`: c * d / (1 + 2**(a * b)), with -LIFT as offset.

    Everything comes and goes `at` some cycle after the factors.

    Members
    -------
    i : In(factors())
    steps : In(steps())
        `lift` and `power` a cycle before at["power"], `sum` and `sigmoid` before at["sum"]: they come from afar.
    whole : Out(signed(WHOLE + 2))
        The integer part of a * b.
    offset : In(signed(WHOLE + 1))
    addend : Out(32)
        At at["power"]: a * b, or with `power` its power of two.
    kept : Out(32)
    """

    at = {"product": 2, "whole": 3, "offset": 5, "power": 6, "sum": 9, "kept": 15}

    def __init__(self):
        super().__init__({
            "i": In(factors()), "steps": In(steps()), "whole": Out(signed(WHOLE + 2)),
            "offset": In(signed(WHOLE + 1)), "addend": Out(32), "kept": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.first, m.submodules.second = first, second = Multiply(), Multiply()
        m.submodules.power = power = Functions((Kind.EXP2,), late=True)
        m.submodules.sum = total = Add()
        m.submodules.share = share = Functions((Kind.RECIPROCAL,))
        m.submodules.last = last = Multiply(scale=-LIFT)
        steps = register(m, self.steps, "steps_held")

        m.d.comb += [
            first.a.eq(self.i.a), first.b.eq(self.i.b), second.a.eq(self.i.c), second.b.eq(self.i.d),
            power.i.eq(first.o), power.offset.eq(self.offset), self.whole.eq(power.whole),
        ]
        product, kept = first.o, second.o
        for n in range(power.latency):
            product, kept = register(m, product, f"product{n}"), register(m, kept, f"second{n}")
        m.d.comb += [
            self.addend.eq(Mux(steps.power, power.o, product)),
            total.a.eq(Mux(steps.lift, power.o, product)), total.b.eq(Mux(steps.lift, LIFTED, kept)),
        ]
        kept = Mux(steps.power, power.o, kept)
        for n in range(total.latency):
            kept = register(m, kept, f"third{n}")

        # The last product scales by 2**-LIFT: what is no sigmoid is multiplied by 1 / 2**-LIFT before.
        m.d.comb += share.i.eq(Mux(steps.sigmoid, total.o, LIFTED))
        kept = Mux(steps.sum, total.o, kept)
        for n in range(share.latency):
            kept = register(m, kept, f"fourth{n}")
        m.d.comb += last.a.eq(share.o), last.b.eq(kept), self.kept.eq(last.o)
        return m
