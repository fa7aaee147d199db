# SPDX-License-Identifier: Apache-2.0
"""Attention: queries and a head's stream of keys and values in, weighed means of the values out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.formats import FP32
from golden.scores import Widths
from hw.arith.pipeline import later, register
from hw.attention.columns import Columns
from hw.attention.dot import DotPair
from hw.attention.elements import Elements, bad
from hw.attention.intake import HEADS, Intake
from hw.attention.mean import Mean, partial
from hw.attention.ports import Error, beat, command, completion, result
from hw.attention.queries import Queries
from hw.attention.scores import Scores
from hw.attention.weights import Weights
from hw.emit import Block
from hw.ram import Ram
from hw.stream import RamQueue

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
    commands : In(stream.Signature(command(kv, group)))
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
            "commands": In(stream.Signature(command(kv, group))), "queries": In(stream.Signature(32 * kv.lanes)),
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
        connect(m, flipped(self.commands), intake.commands)
        connect(m, flipped(self.beats), intake.beats)
        connect(m, flipped(self.queries), queries.i)
        connect(m, intake.loads, queries.loads)
        connect(m, intake.heads, weights.heads)
        m.d.comb += [
            intake.full.eq(queries.full), queries.release.eq(intake.release), intake.retired.eq(weights.retired),
            intake.clear.eq(self.clear), self.error.eq(intake.error), self.error_tag.eq(intake.error_tag),
            scores.exponents.eq(queries.exponents), scores.nan.eq(queries.nan),
            weights.token_valid.eq(scores.token_valid), weights.token.eq(scores.token),
            weights.group_valid.eq(scores.group_valid), weights.group.eq(scores.group),
        ]

        # Rows of values are gathered; when their group has its weights as well, its columns pass.
        come = intake.values
        m.d.comb += [
            columns.write_en.eq(come.valid), columns.write_slot.eq(come.slot), columns.write_token.eq(come.token),
            columns.write_beat.eq(come.beat), columns.write_data.eq(intake.data),
        ]
        room = Signal(range(RESULTS + 1), init=RESULTS)
        step = self._pass(m, intake, weights, columns, room)

        # A beat of keys or two columns, and what they are multiplied with
        key = intake.key
        codes = register(m, Mux(key, intake.data, columns.o.as_value()), "codes")
        m.d.comb += elements.i.eq(codes), elements.both.eq(intake.row.valid)
        lead = elements.latency
        weighing = later(m, Cat(step.valid, step.slot), lead, "weighing")
        asking = later(m, Cat(key, intake.key_slot, intake.key_beat), lead, "asking")
        m.d.comb += [
            weights.read_weights.eq(weighing[0]), weights.weights_slot.eq(weighing[1]),
            queries.read_en.eq(asking[0]), queries.read_slot.eq(asking[1]), queries.read_beat.eq(asking[2:]),
        ]
        of_key = register(m, asking[0], "of_key")
        dots = [DotPair(kv) for _ in range(group)]
        for g, dot in enumerate(dots):
            m.submodules[f"dot{g}"] = dot
            m.d.comb += dot.elements.eq(elements.o), scores.sums[g].eq(dot.o)
            for n in range(widths.elements):
                weight, by = weights.weights[g][n % widths.tokens], queries.operands[g][n]
                m.d.comb += [
                    dot.operands[n].magnitude.eq(Mux(of_key, by.magnitude, weight)),
                    dot.operands[n].sign.eq(of_key & by.sign),
                ]
        tops = later(m, elements.top, DotPair.latency, "tops")
        found = 1 + lead + DotPair.latency                  # cycles from codes' beat to its sums

        # Scores of keys
        row, worse = Signal(intake.row.shape()), Signal()
        m.d.comb += [
            worse.eq(Cat(bad(widths, elements.i[n]) for n in range(widths.elements)).any()),
            row.eq(intake.row), row.bad.eq(intake.row.bad | worse),
            scores.i.eq(later(m, row, found - 1, "row", reset=True)), scores.top.eq(tops[0]),
        ]

        nan = self._nan(m, come, weights.attends, later(m, step, lead + 1, "weighed"))
        nan = later(m, nan, found + Mean.divided - lead - 2, "nan")
        self._means(m, intake, weights, [dot.o for dot in dots], tops, nan, later(m, step, found - 1, "step", reset=True), room)
        return m

    def _pass(self, m, intake, weights, columns, room):
        """The columns of a group, a pair a cycle as long as no key comes; the step, a cycle later."""
        kv, group = self.kv, weights.passes.payload
        gathered, slot, pair, go, ends = Signal(range(3)), Signal(), Signal(range(self.widths.columns)), Signal(), Signal()
        m.d.comb += [
            go.eq(weights.passes.valid & (gathered != 0) & ~intake.takes_key &
                  (~group.ends | intake.finals.valid & (room != 0))),
            ends.eq(go & (pair == self.widths.columns - 1)),
            columns.read_en.eq(go), columns.read_slot.eq(slot), columns.read_pair.eq(pair),
            columns.read_tokens.eq(group.count),
            weights.passes.ready.eq(ends), weights.release.eq(ends), intake.freed.eq(ends),
        ]
        m.d.sync += [
            gathered.eq(gathered + intake.values.closes - ends), slot.eq(slot ^ ends),
            room.eq(room - (go & group.ends) + (self.results.valid & self.results.ready)),
        ]
        with m.If(go):
            m.d.sync += pair.eq(Mux(ends, 0, pair + 1))
        step = Signal(_step(kv))
        m.d.sync += [
            step.valid.eq(go), step.slot.eq(slot), step.pair.eq(pair), step.starts.eq(group.starts),
            step.ends.eq(group.ends), step.last.eq(ends),
        ]
        return step

    def _nan(self, m, come, attends, step):
        """Queries that attend to a token whose values are no numbers, in this group of a head or in one before."""
        bads = [Signal(self.widths.tokens, name=f"bads{n}") for n in range(2)]     # tokens of a slot
        for n, bads_ in enumerate(bads):
            with m.If(come.valid & (come.slot == n)):
                begun = (come.token != 0) | (come.beat != 0)
                m.d.sync += bads_.eq(bads_ & begun.replicate(len(bads_)) | come.bad << come.token)
        nan = Signal(self.group)
        with m.If(step.valid):
            m.d.sync += nan.eq(Mux(step.starts & (step.pair == 0), 0, nan) | Cat(
                (attends[g] & Mux(step.slot, *reversed(bads))).any() for g in range(self.group)))
        return nan

    def _means(self, m, intake, weights, sums, tops, nan, early, room):
        """What columns come to: joined to what did before, and divided."""
        kv, group, columns = self.kv, self.group, self.widths.columns
        width = partial(kv).size
        m.submodules.partials = partials = Ram(2 * group * width, columns)
        m.submodules.out = out = RamQueue(result(group), RESULTS)
        m.submodules.told = told = RamQueue(completion(group), HEADS)
        connect(m, out.o, flipped(self.results))
        connect(m, told.o, flipped(self.completions))
        now = later(m, early, 1, "now", reset=True)
        joined = later(m, now, Mean.joined, "joined", reset=True)
        divided = later(m, joined, Mean.divided - Mean.joined, "divided", reset=True)
        done = later(m, divided, Mean.latency - Mean.divided, "done", reset=True)
        tag = later(m, intake.finals.payload.tag, Mean.latency - Mean.divided, "tag")
        m.d.comb += [
            weights.read_joints.eq(early.valid), weights.joints_slot.eq(early.slot),
            partials.read_en.eq(early.valid), partials.read_address.eq(early.pair),
            partials.write_en.eq(joined.valid), partials.write_address.eq(joined.pair),
            weights.read_end.eq(joined.valid & joined.ends), weights.end_slot.eq(joined.slot),
            told.i.valid.eq(divided.valid & divided.ends & divided.last),
            told.i.payload.tag.eq(intake.finals.payload.tag), told.i.payload.error.eq(intake.finals.payload.error),
            intake.finals.ready.eq(told.i.valid), intake.leaves.eq(told.o.valid & told.o.ready),
            out.i.valid.eq(done.valid & done.ends), out.i.payload.last.eq(done.last), out.i.payload.tag.eq(tag),
        ]
        after = []
        for g in range(group):
            division, total = weights.divisions[g], weights.sums[g]
            ends = Signal(division.shape(), name=f"ends{g}")
            m.d.comb += [
                ends.eq(division), ends.nan.eq(division.nan | nan[g]),
                told.i.payload.totals[g].eq(Mux(ends.nan, FP32.nan, total.total)),
                told.i.payload.exponents[g].eq(total.exponent),
            ]
            for n in range(2):
                m.submodules[f"mean{g}_{n}"] = mean = Mean(kv)
                m.d.comb += [
                    mean.sum.eq(sums[g][n]), mean.top.eq(tops[n]), mean.joint.eq(weights.joints[g]),
                    mean.before.as_value().eq(partials.read_data.word_select(2 * g + n, width)),
                    mean.division.eq(ends), out.i.payload.data[g][n].eq(mean.o),
                ]
                after.append(mean.after)
        m.d.comb += partials.write_data.eq(Cat(after))


def _step(kv):
    """A pair of columns of a group in a slot; of a head's first group or its last, the last pair of that or not."""
    return data.StructLayout({"valid": 1, "slot": 1, "pair": range(Widths(kv).columns), "starts": 1, "ends": 1,
                              "last": 1})

