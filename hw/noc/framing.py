# SPDX-License-Identifier: Apache-2.0
"""Frames on a line of bytes, as `golden.framing` describes them: escapes, flags and CRC-32."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden.framing import ESCAPE, FLAG, FLIP, HELLO, RESIDUE
from hw.arith.crc import crc
from hw.emit import Block

__all__ = ["Deframer", "Enframer", "seed"]

ONES = Const(0xFFFF_FFFF, 32)


def seed(m, sender, receiver, name):
    """The CRC's register at the begin of a session's frame."""
    return crc(m, ONES, Cat(sender, receiver), name)


class Enframer(Block):
    """Puts the CRC and a flag behind each frame and escapes what looks like one. A byte a cycle, latency 0.

    Members
    -------
    i : In(stream.Signature(struct(byte, last)))
    seed : In(32)
        The CRC's register at the begin; to hold until the first byte is taken.
    o : Out(stream.Signature(8))
    """

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"byte": 8, "last": 1}))),
            "seed": In(32),
            "o": Out(stream.Signature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        state, byte = Signal(32, reset_less=True), Signal(8)
        first, escaped, special, passes = Signal(init=1), Signal(), Signal(), Signal()
        left = Signal(range(6))     # of CRC and flag; none while the content goes by
        m.d.comb += [
            byte.eq(Mux(left != 0, ~state[:8], i.payload.byte)),
            special.eq(((byte == FLAG) | (byte == ESCAPE)) & ~escaped & (left != 1)),
            o.valid.eq((left != 0) | i.valid),
            o.payload.eq(Mux(left == 1, FLAG, Mux(special, ESCAPE, byte ^ Mux(escaped, FLIP, 0)))),
            passes.eq(o.valid & o.ready),
            i.ready.eq((left == 0) & o.ready & ~special),
        ]
        after = crc(m, Mux(first, self.seed, state), i.payload.byte, "after")
        with m.If(passes):
            m.d.sync += escaped.eq(special)
            with m.If(~special):
                with m.If(left != 0):
                    m.d.sync += left.eq(left - 1), state.eq(state >> 8)
                with m.Else():
                    m.d.sync += left.eq(Mux(i.payload.last, 5, 0)), first.eq(i.payload.last), state.eq(after)
        return m


class Deframer(Block):
    """Finds frames and says which are good. Never waits, latency 1.

    Members
    -------
    i : In(stream.Signature(8))
    seed : In(32)
        The CRC's register at the begin of any frame but a `HELLO`.
    take : Out(1)
        A byte of a frame: `byte`, and whether it is the `first`.
    end : Out(1)
        A frame has ended, and whether it was `good`.
    """

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(8)), "seed": In(32),
            "take": Out(1), "byte": Out(8), "first": Out(1), "end": Out(1), "good": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        i, escaped = self.i, Signal()
        is_flag, is_escape = i.payload == FLAG, i.payload == ESCAPE
        m.d.comb += i.ready.eq(1)
        m.d.sync += self.take.eq(i.valid & ~is_flag & ~is_escape), self.end.eq(i.valid & is_flag)
        with m.If(i.valid):
            m.d.sync += escaped.eq(is_escape), self.byte.eq(i.payload ^ Mux(escaped, FLIP, 0))

        state = Signal(32, reset_less=True)
        greeting = seed(m, Const(0, 8), Const(0, 8), "greeting")
        begin = Mux(self.byte[HELLO], greeting, self.seed)
        after = crc(m, Mux(self.first, begin, state), self.byte, "after")
        waiting = Signal(init=1)        # for a first byte
        m.d.comb += self.first.eq(waiting), self.good.eq(self.end & ~waiting & (state == RESIDUE))
        with m.If(self.take):
            m.d.sync += waiting.eq(0), state.eq(after)
        with m.If(self.end):
            m.d.sync += waiting.eq(1)
        return m
