# SPDX-License-Identifier: Apache-2.0
"""Rows in, columns out: how values of some tokens are turned."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.scores import Widths
from hw.emit import Block
from hw.ram import Ram

__all__ = ["Columns"]


class Columns(Block):
    """Slots for rows of `widths.tokens` tokens each, which are written by beats and read by pairs of columns.

    Pair `i` of a beat of token `t` lies in bank `i ^ t`. So the pairs of a beat are in different banks, all at one
    address, and so is a pair of columns, at addresses of which each bit is the same in all banks, or inverted. An
    exchange on either side, a level for each bit of a token's number, brings pairs to their banks and back.

    A write and a read, of different slots, each cycle.

    Parameters
    ----------
    kv : golden.config.KvCache

    Members
    -------
    write_en : In(1), write_slot : In(range(slots)), write_token : In(range(tokens))
    write_beat : In(range(kv.row_beats)), a bit at least
    write_data : In(8 * kv.beat)
        A beat of a token's row.
    read_en : In(1), read_slot : In(range(slots)), read_pair : In(range(columns))
    read_tokens : In(range(tokens + 1))
        How many tokens the slot has.
    o : Out(ArrayLayout(fmt.width, elements))
        Column 2 * `read_pair` of all tokens, then the next column, one cycle after `read_en` and until the next; zeros
        where there is no token.
    """

    def __init__(self, kv):
        self.kv, self.widths = kv, Widths(kv)
        widths = self.widths
        super().__init__({
            "write_en": In(1), "write_slot": In(range(widths.slots)), "write_token": In(range(widths.tokens)),
            "write_beat": In(range(max(kv.row_beats, 2))), "write_data": In(8 * kv.beat),
            "read_en": In(1), "read_slot": In(range(widths.slots)), "read_pair": In(range(widths.columns)),
            "read_tokens": In(range(widths.tokens + 1)),
            "o": Out(data.ArrayLayout(widths.fmt.width, widths.elements)),
        })

    def elaborate(self, platform):
        m = Module()
        banks, width = self.widths.tokens, self.widths.fmt.width
        bits = ceil_log2(banks)
        pair = Signal(bits)                                     # of the beat
        chosen, tokens = Signal(bits, reset_less=True), Signal(range(banks + 1), reset_less=True)
        m.d.comb += pair.eq(self.read_pair)
        with m.If(self.read_en):
            m.d.sync += chosen.eq(pair), tokens.eq(self.read_tokens)

        # Small multiplexers invert: after an odd number of levels it is cheaper to leave words so in the banks.
        inverted = Const(bits % 2, 1).replicate(2 * width)
        words = _exchanged(m, [self.write_data.word_select(n, 2 * width) for n in range(banks)],
                           self.write_token, "written")
        for n in range(banks):
            m.submodules[f"bank{n}"] = bank = Ram(2 * width, self.widths.slots * banks * self.kv.row_beats)
            m.d.comb += [
                bank.write_en.eq(self.write_en), bank.write_data.eq(words[n] ^ inverted),
                bank.write_address.eq(Cat(self.write_slot, self.write_token, self.write_beat)),
                bank.read_en.eq(self.read_en),
                bank.read_address.eq(Cat(self.read_slot, pair ^ n, self.read_pair[bits:])),
            ]
            words[n] = bank.read_data ^ inverted

        # The last level takes neither word where there is no token.
        words = _exchanged(m, words, chosen[:-1], "read")
        for n in range(banks):
            own, other = Signal(name=f"own{n}"), Signal(name=f"other{n}")
            m.d.comb += own.eq((n < tokens) & ~chosen[-1]), other.eq((n < tokens) & chosen[-1])
            word = words[n] & own.replicate(2 * width) | words[n ^ banks // 2] & other.replicate(2 * width)
            m.d.comb += self.o[n].eq(word[:width]), self.o[banks + n].eq(word[width:])
        return m


def _exchanged(m, words, number, name):
    """Each word in the place of the one whose index differs by `number`, bit for bit."""
    for level in range(len(number)):
        before, words = words, []
        for n in range(len(before)):
            word = Signal(len(before[n]), name=f"{name}{level}_{n}")
            m.d.comb += word.eq(Mux(number[level], before[n ^ 1 << level], before[n]))
            words.append(word)
    return words
