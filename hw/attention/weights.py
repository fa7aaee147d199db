# SPDX-License-Identifier: Apache-2.0
"""Weights of all queries: when they are made, and where they are kept."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.scores import Widths
from hw.arith.pipeline import register
from hw.attention.align import joint
from hw.attention.inverse import Inverse, division, sum_of_all
from hw.attention.ports import SCORE
from hw.attention.scores import gathered, scored
from hw.attention.weight import LATENCY, Weight
from hw.emit import Block
from hw.ram import Ram
from hw.stream import DeepQueue, RamQueue

__all__ = ["Weights", "head", "passing", "waiting"]


def waiting(kv):
    """Tokens whose scores may wait: a block's, as its values come after all of its keys, and a group's."""
    return 1 << ceil_log2(kv.block_tokens + Widths(kv).tokens)


def head(group):
    """What is to be known of a head besides its stream."""
    return data.StructLayout({"sink_valid": group, "sink": data.ArrayLayout(SCORE, group), "part": 1})


def passing(kv):
    """A group of which `count` tokens are weighed; it `starts` or `ends` a head."""
    return data.StructLayout({"count": range(Widths(kv).tokens + 1), "starts": 1, "ends": 1})


class Weights(Block):
    """Weighs tokens, a group at a time, when all scores of the group are there.

    A group takes as many cycles as it has tokens, and five; the last of a head more, as its sums are inverted one after
    the other. Two groups are kept: the one whose values are being summed, and the next. Weights of tokens that a group
    lacks are undefined.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int

    Members
    -------
    token_valid : In(1), token : In(scored(group)), group_valid : In(1), group : In(gathered(kv, group))
        Of `Scores`.
    heads : In(stream.Signature(head(group)))
    retired : Out(1)
        A token's score is no longer needed; nor is a group that has none.
    passes : Out(stream.Signature(passing(kv)))
        Groups that are weighed, in slots in turn.
    release : In(1)
        The older of two groups is no longer needed.
    weights_slot : In(1), read_weights : In(1)
    weights : Out(ArrayLayout(ArrayLayout(operand, tokens), group)), attends : Out(ArrayLayout(tokens, group))
        A cycle after `read_weights`, and until the next.
    joints_slot : In(1), read_joints : In(1), joints : Out(ArrayLayout(joint(), group))
        Likewise.
    end_slot : In(1), read_end : In(1)
    divisions : Out(ArrayLayout(division(), group)), sums : Out(ArrayLayout(sum_of_all(), group))
        Of a head that ends with a group, a cycle after `read_end`, and until the next.
    """

    def __init__(self, kv, group):
        self.kv, self.queries, self.widths = kv, group, Widths(kv)
        tokens = self.widths.tokens
        super().__init__({
            "token_valid": In(1), "token": In(scored(group)),
            "group_valid": In(1), "group": In(gathered(kv, group)),
            "heads": In(stream.Signature(head(group))),
            "retired": Out(1), "passes": Out(stream.Signature(passing(kv))), "release": In(1),
            "weights_slot": In(1), "read_weights": In(1),
            "weights": Out(data.ArrayLayout(data.ArrayLayout(self.widths.operand, tokens), group)),
            "attends": Out(data.ArrayLayout(tokens, group)),
            "joints_slot": In(1), "read_joints": In(1), "joints": Out(data.ArrayLayout(joint(), group)),
            "end_slot": In(1), "read_end": In(1),
            "divisions": Out(data.ArrayLayout(division(), group)),
            "sums": Out(data.ArrayLayout(sum_of_all(), group))})

    def elaborate(self, platform):
        m, size = Module(), self.widths.tokens
        depth, head = waiting(self.kv), self.heads.payload
        m.submodules.scores = scores = Ram(len(self.token.as_value()), depth)
        m.submodules.groups = groups = RamQueue(gathered(self.kv, self.queries), depth)
        m.submodules.ready = ready = DeepQueue(passing(self.kv), 2)
        m.submodules.inverse = inverse = Inverse(self.kv, self.queries)
        connect(m, ready.o, flipped(self.passes))
        tail, front = Signal(range(depth)), Signal(range(depth))
        m.d.comb += [
            scores.write_en.eq(self.token_valid), scores.write_data.eq(self.token), scores.write_address.eq(tail),
            groups.i.valid.eq(self.group_valid), groups.i.payload.eq(self.group),
            scores.read_address.eq(front),
        ]
        m.d.sync += tail.eq(tail + self.token_valid)

        # The head's sink, if it begins; the tokens; their sum, when they are through; at the end of a head its inverse.
        now, begun, slot, used, step = groups.o.payload, Signal(), Signal(), Signal(range(3)), Signal(range(size + 8))
        opens, live, joins, ends = (Signal(name=name) for name in ("opens", "live", "joins", "ends"))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += step.eq(0)
                with m.If(groups.o.valid & self.heads.valid & (used != 2)):
                    m.d.comb += opens.eq(~begun)
                    m.next = "TOKENS"
            with m.State("TOKENS"):
                m.d.sync += step.eq(step + 1)
                m.d.comb += live.eq(step < now.count), joins.eq(step == now.count + LATENCY + 1)
                with m.If(joins):
                    m.d.comb += ends.eq(~now.ends_head)
                    m.next = "IDLE"
                    with m.If(now.ends_head):
                        m.next = "INVERSE"
            with m.State("INVERSE"):
                m.d.comb += inverse.start.eq(1), ends.eq(inverse.done)
                with m.If(inverse.done):
                    m.next = "IDLE"
        m.d.comb += [
            scores.read_en.eq(live), self.retired.eq(live | ends & (now.count == 0)),
            groups.o.ready.eq(ends), self.heads.ready.eq(ends & now.ends_head),
            ready.i.valid.eq(ends), ready.i.payload.count.eq(now.count),
            ready.i.payload.starts.eq(~begun), ready.i.payload.ends.eq(now.ends_head),
        ]
        m.d.sync += front.eq(front + live), used.eq(used + ends - self.release)
        with m.If(ends):
            m.d.sync += slot.eq(~slot), begun.eq(~now.ends_head)

        # A cycle later the scores are there, and `LATENCY` later the weights.
        token, place = self.token.shape()(scores.read_data), register(m, step[:ceil_log2(size)], "place")
        living, opening = register(m, live, "living"), register(m, opens, "opening")
        writes, target = living, place
        for stage in range(LATENCY):
            writes, target = register(m, writes, f"writes{stage}"), register(m, target, f"target{stage}")
        operands, attends, joints = [], [], []
        for g, query in enumerate(now.queries):
            m.submodules[f"weight{g}"] = weight = Weight(self.kv)
            valued = Signal(name=f"valued{g}")      # a group before had something
            m.d.comb += [
                weight.score.eq(Mux(opening, head.sink[g], token.scores[g])), weight.v_scale.eq(token.v_scale),
                weight.seen.eq(living & token.seen[g]), weight.first.eq(living & (place == 0)),
                weight.opens.eq(opening), weight.sinks.eq(head.sink_valid[g]),
                weight.group.eq(query.largest), weight.joins.eq(joins),
                inverse.totals[g].eq(weight.total), inverse.exponents[g].eq(weight.exponent),
                inverse.nan[g].eq(query.nan),
            ]
            with m.If(ends):
                m.d.sync += valued.eq((valued | query.largest.some) & ~now.ends_head)
            operands.append(weight.operand)
            attends.append(weight.attends)
            joints.append(Cat(query.largest.shared, query.largest.some, valued))

        # Of each token in a memory of its own, so that all are read at a time.
        for n in range(size):
            m.submodules[f"weights{n}"] = kept = Ram(self.queries * (self.widths.operand + 1), 2)
            m.d.comb += [
                kept.write_en.eq(writes & (target == n)), kept.write_address.eq(slot),
                kept.write_data.eq(Cat(operands, attends)),
                kept.read_en.eq(self.read_weights), kept.read_address.eq(self.weights_slot),
            ]
            for g in range(self.queries):
                m.d.comb += [
                    self.weights[g][n].eq(kept.read_data.word_select(g, self.widths.operand)),
                    self.attends[g][n].eq(kept.read_data[self.queries * self.widths.operand + g]),
                ]
        m.submodules.joints = kept = Ram(len(self.joints.as_value()), 2)
        m.d.comb += [
            kept.write_en.eq(joins), kept.write_address.eq(slot), kept.write_data.eq(Cat(joints)),
            kept.read_en.eq(self.read_joints), kept.read_address.eq(self.joints_slot), self.joints.eq(kept.read_data),
            inverse.slot.eq(slot), inverse.part.eq(head.part),
            inverse.read_en.eq(self.read_end), inverse.read_slot.eq(self.end_slot),
            self.divisions.eq(inverse.divisions), self.sums.eq(inverse.sums),
        ]
        return m
