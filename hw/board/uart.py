# SPDX-License-Identifier: Apache-2.0
"""A serial line: eight bits, least significant first, no parity, one stop bit."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hw.emit import Block

__all__ = ["Receiver", "Transmitter"]


def _check(block, divisor):
    if divisor < 4:
        raise ValueError(f"{type(block).__name__}: divisor must be at least 4 cycles a bit, not {divisor!r}")


class Receiver(Block):
    """Takes bytes off a line.

    A start bit that is over by its middle is taken for noise. A byte comes out in the middle of its
    stop bit, and nobody can make it wait.

    Parameters
    ----------
    divisor : int
        Cycles a bit, at least 4.

    Members
    -------
    line : In(1)
        Straight from the pin.
    o : Out(stream.Signature(struct(data, framing), always_ready=True))
        `framing` says that the stop bit was missing.
    """

    def __init__(self, divisor):
        _check(self, divisor)
        self.divisor = divisor
        super().__init__({
            "line": In(1),
            "o": Out(stream.Signature(data.StructLayout({"data": 8, "framing": 1}), always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        settled = Signal(2, init=0b11)
        m.d.sync += settled.eq(Cat(self.line, settled[0]))
        line = settled[1]

        bits  = Signal(8, reset_less=True)
        left  = Signal(range(11))               # bits to come, start and stop bits too
        timer = Signal(range(self.divisor))     # cycles until the middle of the next
        m.d.comb += self.o.payload.data.eq(bits), self.o.payload.framing.eq(~line)
        with m.If(left == 0):
            m.d.sync += timer.eq(self.divisor // 2)
            with m.If(~line):
                m.d.sync += left.eq(10)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += timer.eq(self.divisor - 1), left.eq(left - 1)
            with m.If((left == 10) & line):
                m.d.sync += left.eq(0)
            with m.Elif(left == 1):
                m.d.comb += self.o.valid.eq(1)
            with m.Else():
                m.d.sync += bits.eq(Cat(bits[1:], line))
        return m


class Transmitter(Block):
    """Puts bytes on a line.

    Parameters
    ----------
    divisor : int
        Cycles a bit, at least 4.

    Members
    -------
    i : In(stream.Signature(8))
    line : Out(1)
        High when idle.
    """

    def __init__(self, divisor):
        _check(self, divisor)
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "line": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        bits  = Signal(9)                       # after the one on the line; ones when idle do no harm
        left  = Signal(range(11))
        timer = Signal(range(self.divisor))
        m.d.comb += self.i.ready.eq(left == 0)
        with m.If(left == 0):
            with m.If(self.i.valid):
                m.d.sync += [
                    self.line.eq(0), bits.eq(Cat(self.i.payload, 1)),
                    left.eq(10), timer.eq(self.divisor - 1),
                ]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += timer.eq(self.divisor - 1), left.eq(left - 1)
            m.d.sync += Cat(self.line, bits).eq(Cat(bits, 1))
        return m
