# SPDX-License-Identifier: Apache-2.0
"""What crosses the ports of attention, and of its parts."""

from amaranth.hdl import signed
from amaranth.lib import data, enum

from golden.scores import FRACTION, WHOLE, Widths

__all__ = ["EXPONENT", "SCORE", "Error", "beat", "command", "completion", "length", "operand", "result"]

SCORE = signed(WHOLE + FRACTION)
EXPONENT = signed(WHOLE + 1)        # of sums: that of a score, with those of scales and elements


class Error(enum.Enum, shape=2):
    """What was wrong with a head's command or stream."""

    NONE = 0
    COMMAND = 1     # no queries, or more than there is room for: none is taken, all rows are zeros
    LENGTH = 2      # the stream is longer than its command says, and its end was left out; or it is shorter
    DATA = 3        # a beat that the memory or a checksum says is wrong


def length(kv):
    """Bits of a number of tokens of a sequence."""
    return (kv.table * kv.block_tokens).bit_length()


def command(kv, group):
    """Attention of `queries` queries to the `tokens` tokens of a stream.

    Query g attends to tokens from `first[g]` up to, not including, `end[g]`, and to those below `sinks` as well; with
    `sink_valid`, a score `sink` in units of 2**-`FRACTION` takes part in the sum of all. A `part` is not divided by it.
    """
    return data.StructLayout({
        "tag": 8, "queries": range(group + 1), "tokens": length(kv),
        "first": data.ArrayLayout(length(kv), group), "end": data.ArrayLayout(length(kv), group),
        "sinks": length(kv),
        "sink_valid": group, "sink": data.ArrayLayout(SCORE, group), "part": 1})


def beat(kv):
    """A beat of a head's stream, as the KV cache gives it; `part` is a `golden.paging.Part`."""
    return data.StructLayout({"data": 8 * kv.beat, "part": 2, "slot": kv.slots, "last": 1, "error": 1})


def result(group):
    """Two columns of all queries in FP32, from column 0 on: first those of query 0. `last` of the command."""
    return data.StructLayout({"data": data.ArrayLayout(data.ArrayLayout(32, 2), group), "tag": 8, "last": 1})


def completion(group):
    """One for each command, after its last result; sums of powers of two are `totals` (FP32) * 2**`exponents`."""
    return data.StructLayout({"tag": 8, "error": Error, "totals": data.ArrayLayout(32, group),
                              "exponents": data.ArrayLayout(signed(WHOLE), group)})


def operand(kv):
    """What an element of K or V is multiplied with: an element of a query, or a power of two."""
    return data.StructLayout({"magnitude": Widths(kv).operand, "sign": 1})
