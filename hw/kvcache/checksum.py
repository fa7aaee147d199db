# SPDX-License-Identifier: Apache-2.0
"""Checksums of rows, as `golden.kvstore.checksum` defines them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.paging import CRC, Part
from hw.emit import Block
from hw.kvcache.runs import SCALE, beats
from hw.ram import Ram

__all__ = ["BEGIN", "Checker", "checksum"]

BEGIN = Const(0xFF, 8)
GROUP = 8       # bytes; rows and beats are multiples of it


def checksum(m, crc, data, name):
    """`crc` after the bytes of `data`, the lowest first: each bit is the parity of some of both."""
    state = [1 << n for n in range(8)]                      # of each bit: on which bits of both it depends
    for byte in range(len(data) // 8):
        state = _step([each ^ 1 << 8 + 8 * byte + n for n, each in enumerate(state)])
    return _parities(m, Cat(crc, data), state, name)


def _append(m, crc, parts, name):
    """`crc` after groups of bytes, of each of which the checksum from zero is known."""
    state = [1 << n for n in range(8)]
    for part in range(len(parts)):
        for _ in range(GROUP):
            state = _step(state)
        state = [each ^ 1 << 8 + 8 * part + n for n, each in enumerate(state)]
    return _parities(m, Cat(crc, *parts), state, name)


def _step(state):
    """The state a byte further."""
    for _ in range(8):
        top = state[7]
        state = [(state[n - 1] if n else 0) ^ (top if CRC >> n & 1 else 0) for n in range(8)]
    return state


def _parities(m, sources, masks, name):
    result = Signal(8, name=f"checksum_{name}")
    m.d.comb += result.eq(Cat((sources & mask).xor() for mask in masks))
    return result


class Checker(Block):
    """Compares rows with their checksums as they go by. Latency 1 cycle.

    The row's checksum begins with its scale, which is looked up meanwhile: as all of it is linear, that part is
    added afterwards.

    Parameters
    ----------
    config : golden.config.KvCache
        With scales.

    Members
    -------
    take : In(1)
        A beat goes by: its `part`, `slot`, number `beat` within the row or the scales, and `data`.
    corrupt : Out(1)
        The beat taken last is the end of a row that does not fit its checksum. Stays until the next is taken.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "take": In(1), "part": In(2), "slot": In(config.slots),
            "beat": In(beats(config)), "data": In(8 * config.beat),
            "corrupt": Out(1),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        per_beat, rest = config.beat // SCALE, config.head_dim - (config.row_beats - 1) * config.beat
        m.submodules.scales = scales = Ram(8 * config.beat, max(config.scale_beats, 2))
        is_scale, ends = self.part == Part.SCALES, self.beat == config.row_beats - 1
        m.d.comb += [
            scales.write_en.eq(self.take & is_scale), scales.write_address.eq(self.beat),
            scales.write_data.eq(self.data),
            scales.read_en.eq(self.take & ~is_scale), scales.read_address.eq(self.slot >> ceil_log2(per_beat)),
        ]

        # The row's bytes by themselves: groups of them first, then the groups of a beat and the beats before.
        parts = [Signal(8, name=f"part{n}") for n in range(config.beat // GROUP)]
        so_far, before, fresh = Signal(8), Signal(8), Signal()
        checks, place = Signal(), Signal(range(2 * per_beat))
        with m.If(self.take):
            m.d.sync += [part.eq(checksum(m, Const(0, 8), self.data.word_select(n, 8 * GROUP), f"part{n}"))
                         for n, part in enumerate(parts)]
            m.d.sync += [
                fresh.eq(self.beat == 0), so_far.eq(_append(m, before, parts, "beat")),
                checks.eq(~is_scale & ends), place.eq(Cat(self.part == Part.V, self.slot))]
        m.d.comb += before.eq(Mux(fresh, 0, so_far))
        found = _append(m, before, parts[:rest // GROUP], "end")

        # And what its scale makes of them
        word = Signal(16)
        m.d.comb += word.eq(scales.read_data.word_select(place, 16))
        begun = checksum(m, BEGIN, word[:8], "scale")
        shifted = checksum(m, begun, Const(0, 8 * config.head_dim), "shifted")
        m.d.comb += self.corrupt.eq(checks & (~(shifted ^ found) != word[8:]))
        return m
