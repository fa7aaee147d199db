# SPDX-License-Identifier: Apache-2.0
"""Checksums of rows, as `golden.kvstore.checksum` defines them."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.paging import CRC, Part
from hw.emit import Block
from hw.kvcache.runs import SCALE, beats
from hw.ram import Ram

__all__ = ["BEGIN", "Checker", "checksum"]

BEGIN = Const(0xFF, 8)


def checksum(m, crc, data, name):
    """`crc` after the bytes of `data`, the lowest first: each bit is the parity of some of both."""
    sources = Cat(crc, data)
    state = [1 << n for n in range(8)]                      # of each bit: on which sources it depends
    for byte in range(len(data) // 8):
        state = [each ^ 1 << 8 + 8 * byte + n for n, each in enumerate(state)]
        for _ in range(8):
            top = state[7]
            state = [(state[n - 1] if n else 0) ^ (top if CRC >> n & 1 else 0) for n in range(8)]
    result = Signal(8, name=f"checksum_{name}")
    m.d.comb += result.eq(Cat((sources & mask).xor() for mask in state))
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
            "take": In(1), "part": In(2), "slot": In(range(config.block_tokens)),
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

        # The row's bytes by themselves
        so_far, before = Signal(8), Signal(8)
        if config.row_beats > 1:
            with m.If(self.beat != 0):
                m.d.comb += before.eq(so_far)
            with m.If(self.take):
                m.d.sync += so_far.eq(checksum(m, before, self.data, "beat"))
        found, checks, place = Signal(8), Signal(), Signal(range(2 * per_beat))
        with m.If(self.take):
            m.d.sync += [
                found.eq(checksum(m, before, self.data[:8 * rest], "end")), checks.eq(~is_scale & ends),
                place.eq(Cat(self.part == Part.V, self.slot))]

        # And what its scale makes of them
        word = Signal(16)
        m.d.comb += word.eq(scales.read_data.word_select(place, 16))
        begun = checksum(m, BEGIN, word[:8], "scale")
        shifted = checksum(m, begun, Const(0, 8 * config.head_dim), "shifted")
        m.d.comb += self.corrupt.eq(checks & (~(shifted ^ found) != word[8:]))
        return m
