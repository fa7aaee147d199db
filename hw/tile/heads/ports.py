# SPDX-License-Identifier: Apache-2.0
"""What crosses the ports of `Heads`, and of its parts."""

from amaranth.lib import data, enum

from golden.isa import FORMS, Engine
from hw.attention.ports import length
from hw.fetch import ADDRESS

__all__ = ["WORDS", "Error", "Kind", "done", "order", "pass_"]

WORDS = max(len(form) for form in FORMS[Engine.HEADS].values())     # of an instruction's body


class Error(enum.Enum, shape=8):
    """What was wrong with an instruction; its `detail` is given in brackets."""

    NONE = 0
    ARGUMENT = 1    # no rows, or more than the sequence has tokens; group, opcode or command that there is not
    REFUSED = 2     # by the KV cache (`golden.paging.Status`)
    ATTENTION = 3   # a stream is too long or too short, or wrong (`hw.attention.ports.Error`)
    FAULT = 4       # of the memory: since `clear` a transfer failed (`golden.paging.Status`)


class Kind(enum.Enum, shape=2):
    """What is to be put out next."""

    PASS = 0        # rows of results
    WORD = 1        # `count` bytes of `data`
    END = 2         # the completion of an instruction


def done():
    """One for each instruction, in order; `error` is an `Error`."""
    return data.StructLayout({"error": 8, "detail": 8})


def pass_(kv, group):
    """`tokens` of which each has `group` queries, that share the streams of all heads.

    Queries of the first see tokens of the stream up to, not including, `end`; each further token's one more. They see
    a window's length of them, which begins with the stream but for `lag` tokens that it lacks there.
    """
    return data.StructLayout({
        "tokens": range(group + 1), "group": range(group + 1), "end": length(kv), "lag": range(group + 1),
        "address": ADDRESS, "pitch": ADDRESS})


def order(group):
    """What is to be put out next, and where to: see `Kind`."""
    return data.StructLayout({
        "kind": Kind, "address": ADDRESS,
        "what": data.UnionLayout({
            "rows": data.StructLayout({"pitch": ADDRESS, "tokens": range(group + 1), "group": range(group + 1)}),
            "word": data.StructLayout({"data": 64, "count": range(9)}),
            "end": done()})})
