# SPDX-License-Identifier: Apache-2.0
"""Attention: queries and a head's stream of keys and values in, weighed means of the values out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.formats import E8M0, FP32
from golden.scores import Widths
from hw.arith.pipeline import register
from hw.attention.columns import Columns
from hw.attention.dot import DotPair
from hw.attention.elements import Elements
from hw.attention.intake import HEADS, Intake
from hw.attention.mean import Mean, partial
from hw.attention.ports import Error, beat, command, completion, result
from hw.attention.queries import Queries
from hw.attention.scores import Scores
from hw.attention.weights import Weights
from hw.emit import Block
from hw.ram import Ram
from hw.stream import DeepQueue

__all__ = ["Attention"]

RESULTS = 16        # words of results that can wait: more than there are steps under way


class Attention(Block):
    """Softmax of queries times keys, times values, of one head after the other; see `golden.attention`.

    `Intake` takes the stream apart. Beats of keys go to the multipliers at once, together with the queries. Scores
    become weights when all of a group of tokens are there. Its values, whose rows were gathered meanwhile, go to the
    same multipliers by columns, together with the weights, whenever there are no keys; so a beat passes in every cycle.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int
        Queries at a time.

    Members
    -------
    commands : In(stream.Signature(command(group)))
        One for each head's stream.
    queries : In(stream.Signature(32 * kv.lanes))
        FP32: the rows of each command's queries.
    beats : In(stream.Signature(beat(kv)))
    results : Out(stream.Signature(result(group)))
    completions : Out(stream.Signature(completion(group)))
        One for each command, in order; its last results may come a little later.
    error : Out(Error), error_tag : Out(8)
        The first error since `clear`, and the command it befell.
    clear : In(1)
    """

    def __init__(self, kv, group):
        if not 1 <= group <= 8:
            raise ValueError(f"Attention: group must be 1 to 8, not {group!r}")
        self.kv, self.group, self.widths = kv, group, Widths(kv)
        super().__init__({
            "commands": In(stream.Signature(command(group))), "queries": In(stream.Signature(32 * kv.lanes)),
            "beats": In(stream.Signature(beat(kv))), "results": Out(stream.Signature(result(group))),
            "completions": Out(stream.Signature(completion(group))),
            "error": Out(Error), "error_tag": Out(8), "clear": In(1)})

    def elaborate(self, platform):
        m, kv, widths, group = Module(), self.kv, self.widths, self.group
        m.submodules.intake = intake = Intake(kv, group)
        m.submodules.queries = queries = Queries(kv, group)
        m.submodules.columns = columns = Columns(kv)
        m.submodules.elements = elements = Elements(kv)
        m.submodules.scores = scores = Scores(kv, group)
        m.submodules.weights = weights = Weights(kv, group)
        m.submodules.partials = partials = Ram(2 * group * len(partial(kv)), max(widths.columns, 2)) if 0 else None
        return m
