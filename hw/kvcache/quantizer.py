# SPDX-License-Identifier: Apache-2.0
"""Rows of K and V in the cache's format, as `golden.kvstore.quantize` defines it."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.formats import BF16, E4M3, FP32
from hw.arith.convert import FromFp32
from hw.arith.formats import Float
from hw.arith.largest import largest_of
from hw.arith.pipeline import register
from hw.emit import Block
from hw.kvcache.checksum import BEGIN, checksum
from hw.ram import Ram
from hw.stream import DeepQueue, Queue

__all__ = ["Quantizer", "quantized"]

TOP = 0x600000      # fraction of 448 = 1.75 * 2**8
ROWS = 2            # that are held: one comes in while the other leaves


def quantized(beat):
    """A beat of a row, zeros behind its end; with the `last`, and FP8, come its scale and checksum."""
    return data.StructLayout({"data": 8 * beat, "scale": 8, "checksum": 8, "last": 1})


class Quantizer(Block):
    """Rounds rows, `lanes` elements a cycle. A row leaves when all of it has come, without a pause.

    Parameters
    ----------
    format : str
        "bf16" or "fp8".
    head_dim : int
        Elements of a row.
    lanes : int
        Divides `head_dim`.
    beat : int
        Bytes; a multiple of those of `lanes` elements.

    Members
    -------
    i : In(stream.Signature(32 * lanes))
        FP32.
    o : Out(stream.Signature(quantized(beat)))
    nans : Out(range(lanes + 1))
        Elements that became NaN in this cycle.
    """

    def __init__(self, format, head_dim, lanes, beat):
        self.format, self.head_dim, self.lanes, self.beat = format, head_dim, lanes, beat
        super().__init__({
            "i": In(stream.Signature(32 * lanes)),
            "o": Out(stream.Signature(quantized(beat))),
            "nans": Out(range(lanes + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        fmt = {"bf16": BF16, "fp8": E4M3}[self.format]
        chunks = self.head_dim // self.lanes                # of a row
        size = self.lanes * fmt.width // 8                  # bytes of a chunk
        row_beats = -(-chunks * size // self.beat)

        # In: a row into memory, its scale found meanwhile.
        m.submodules.rows = rows = Ram(32 * self.lanes, max(ROWS * chunks, 2))
        m.submodules.scales = scales = Queue(8, ROWS)
        chunk, half = Signal(range(max(chunks, 2))), Signal()
        held, binade = Signal(range(ROWS + 1)), Signal(8)
        largest, ends, takes, leaves = Signal(8), Signal(), Signal(), Signal()
        binades = []
        for n in range(self.lanes):
            x, own = Float(FP32)(self.i.payload.word_select(n, 32)), Signal(8, name=f"binade{n}")
            m.d.comb += own.eq(Mux(x.exponent.all() | ~x.exponent.any(), 0, x.exponent + (x.mantissa > TOP)))
            binades.append(own)
        m.d.comb += [
            takes.eq(self.i.valid & self.i.ready), ends.eq(chunk == chunks - 1),
            self.i.ready.eq(held != ROWS),
            rows.write_en.eq(takes), rows.write_data.eq(self.i.payload), rows.write_address.eq(half * chunks + chunk),
            largest.eq(largest_of(m, [*binades, binade])),
            scales.i.valid.eq(takes & ends), scales.i.payload.eq(Mux(largest < 8, 0, largest - 8)),
        ]
        m.d.sync += held.eq(held + (takes & ends) - leaves)
        with m.If(takes):
            m.d.sync += chunk.eq(Mux(ends, 0, chunk + 1)), binade.eq(Mux(ends, 0, largest)), half.eq(half ^ ends)

        # Out: a chunk a cycle, from when all beats of the row have a place.
        places = max(2 * row_beats, 4)
        m.submodules.beats = beats = DeepQueue(quantized(self.beat), places)
        room = Signal(range(places + 1), init=places)
        at, other, going, starts, stops = Signal.like(chunk), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            starts.eq((at == 0) & scales.o.valid & (room >= row_beats)), going.eq(starts | (at != 0)),
            stops.eq(going & (at == chunks - 1)), leaves.eq(stops), scales.o.ready.eq(stops),
            rows.read_en.eq(going), rows.read_address.eq(other * chunks + at),
        ]
        m.d.sync += room.eq(room - Mux(starts, row_beats, 0) + (beats.o.valid & beats.o.ready))
        with m.If(going):
            m.d.sync += at.eq(Mux(stops, 0, at + 1)), other.eq(other ^ stops)

        # Divided by the scale, one cycle after the memory; then rounded.
        valid, last, scale = going, stops, scales.o.payload
        for stage in range(3):
            before, valid = valid, Signal(name=f"valid{stage}")
            m.d.sync += valid.eq(before)
            last, at, scale = (register(m, value, f"{name}{stage}") for name, value in (
                ("last", last), ("at", at), ("scale", scale)))
            if stage == 0:
                divisor = scale
        codes, bad = [], []
        for n in range(self.lanes):
            x = Float(FP32)(rows.read_data.word_select(n, 32))
            y, exponent = Signal(Float(FP32), name=f"divided{n}"), Signal(signed(10), name=f"exponent{n}")
            m.d.comb += y.sign.eq(x.sign), exponent.eq(
                x.exponent + FP32.bias - divisor if fmt is E4M3 else x.exponent)
            with m.If(x.exponent.all()):
                m.d.comb += y.eq(FP32.nan)
            with m.Elif((x.exponent != 0) & (exponent > 0)):
                m.d.comb += y.exponent.eq(exponent), y.mantissa.eq(x.mantissa)
            m.submodules[f"round{n}"] = rounds = FromFp32((fmt,))
            m.d.comb += rounds.i.eq(register(m, y, f"dividend{n}"))
            code, infinite = rounds.o[:fmt.width], Signal(name=f"infinite{n}")
            if fmt is BF16:
                m.d.comb += infinite.eq(code[fmt.mantissa:-1].all())
            codes.append(Mux(infinite, fmt.nan, code))
            bad.append(rounds.nan | infinite)
        word = Signal(8 * size)
        m.d.comb += word.eq(Cat(codes)), self.nans.eq(Mux(valid, sum(bad), 0))

        # Gathered into beats
        words = self.beat // size
        place, gathered = Signal(range(max(words, 2))), Signal(8 * self.beat, reset_less=True)
        m.d.comb += place.eq(at[:ceil_log2(words)] if words > 1 else 0)
        for n in range(words):
            m.d.comb += beats.i.payload.data.word_select(n, 8 * size).eq(
                Mux(place == n, word, Mux(place == 0, 0, gathered.word_select(n, 8 * size))))
        m.d.comb += [
            beats.i.valid.eq(valid & (last | (place == words - 1))),
            beats.i.payload.last.eq(last),
        ]
        with m.If(valid):
            m.d.sync += gathered.eq(beats.i.payload.data)
        if fmt is E4M3:
            crc, begun = Signal(8), Signal(8)
            m.d.comb += begun.eq(Mux(at == 0, checksum(m, BEGIN, scale, "scale"), crc))
            checked = checksum(m, begun, word, "word")
            m.d.comb += beats.i.payload.scale.eq(scale), beats.i.payload.checksum.eq(~checked)
            with m.If(valid):
                m.d.sync += crc.eq(checked)
        connect(m, beats.o, flipped(self.o))
        return m
