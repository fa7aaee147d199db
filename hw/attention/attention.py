# SPDX-License-Identifier: Apache-2.0
"""Attention: queries and a head's stream of keys and values in, weighed means of the values out."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.formats import FP32
from golden.scores import Widths
from hw.arith.pipeline import later, register
from hw.attention.align import Align
from hw.attention.columns import Columns
from hw.attention.dot import DotPair
from hw.attention.elements import Elements, bad
from hw.attention.intake import HEADS, Intake
from hw.attention.mean import Mean, partial
from hw.attention.ports import EXPONENT, Error, beat, command, completion, result
from hw.attention.queries import Queries
from hw.attention.scores import Scores
from hw.attention.tally import Tally
from hw.attention.weights import Weights
from hw.emit import Block
from hw.ram import Ram
from hw.stream import RamQueue

__all__ = ["Attention"]

PAUSE = 12          # cycles from the last columns to the end of their results, and of what is known of the head
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
        m.submodules.tally = tally = Tally(kv)
        m.d.comb += [
            columns.write_en.eq(come.valid), columns.write_slot.eq(come.slot), columns.write_token.eq(come.token),
            columns.write_beat.eq(come.beat), columns.write_data.eq(intake.data),
            tally.valid.eq(come.valid), tally.slot.eq(come.slot), tally.token.eq(come.token),
            tally.first.eq((come.token == 0) & (come.beat == 0)), tally.i.as_value().eq(intake.data),
        ]
        step = self._pass(m, intake, weights, columns)

        # A beat of keys or two columns, and what they are multiplied with
        lead = elements.latency
        found = 1 + lead + DotPair.latency                  # cycles from there to the sums
        codes = register(m, Mux(intake.key, intake.data, columns.o.as_value()), "codes")
        weighed = later(m, step, lead, "weighed")
        asked = later(m, Cat(intake.key, intake.key_slot, intake.key_beat), lead, "asked")
        m.d.comb += [
            elements.i.eq(codes), elements.grouped.eq(~intake.row.valid),
            elements.group_top.eq(Array(tally.tops)[register(m, step.slot, "group_slot")]),
            weights.read_weights.eq(weighed.valid), weights.weights_slot.eq(weighed.slot[0]),
            queries.read_en.eq(asked[0]), queries.read_slot.eq(asked[1]), queries.read_beat.eq(asked[2:]),
        ]
        of_key = register(m, asked[0], "of_key")
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
        top = later(m, elements.top, DotPair.latency - 1, "top")

        # Scores of keys
        row, worse = Signal(intake.row.shape()), Signal()
        m.d.comb += [
            worse.eq(Cat(bad(widths, elements.i[n]) for n in range(widths.elements)).any()),
            row.eq(intake.row), row.bad.eq(intake.row.bad | worse),
            scores.i.eq(later(m, row, found - 1, "row", reset=True)), scores.top.eq(register(m, top, "key_top")),
        ]

        # Means of values: who attends to what is no number, and the rest
        nan, attends = Signal(group), register(m, weighed, "attends")
        with m.If(attends.valid & attends.first):
            m.d.sync += nan.eq(Mux(attends.starts, 0, nan) | Cat(
                attends.some & (weights.attends[g] & Array(tally.bads)[attends.slot]).any() for g in range(group)))
        self._means(m, intake, weights, [dot.o for dot in dots], nan, top if widths.aligned else 0,
                    later(m, step, found - 2, "step", reset=True))
        return m

    def _pass(self, m, intake, weights, columns):
        """The columns of a group, a pair a cycle as long as no key comes; the step, a cycle later.

        Between heads there is a pause, in which the last step's results are completed.
        """
        group, count = weights.passes.payload, self.widths.columns
        slots, pair, pause = self.widths.slots, Signal(range(count)), Signal(range(PAUSE + 1))
        gathered, slot = Signal(range(slots + 1)), Signal(range(slots))
        room, go, ends = Signal(range(RESULTS + 1), init=RESULTS), Signal(), Signal()
        m.d.comb += [
            go.eq(weights.passes.valid & (gathered != 0) & ~intake.takes_key & (pause == 0) &
                  (~group.ends | intake.finals.valid & (room != 0))),
            ends.eq(go & (pair == count - 1)),
            columns.read_en.eq(go), columns.read_slot.eq(slot), columns.read_pair.eq(pair),
            columns.read_tokens.eq(group.count),
            weights.passes.ready.eq(ends), weights.release.eq(ends), intake.freed.eq(ends),
        ]
        m.d.sync += [
            gathered.eq(gathered + intake.values.closes - ends), slot.eq(slot + ends),
            room.eq(room - (go & group.ends) + (self.results.valid & self.results.ready)),
            pause.eq(Mux(ends & group.ends, PAUSE, Mux(pause == 0, 0, pause - 1))),
        ]
        with m.If(go):
            m.d.sync += pair.eq(Mux(ends, 0, pair + 1))
        step = Signal(_step(self.kv))
        m.d.sync += [
            step.valid.eq(go), step.slot.eq(slot), step.pair.eq(pair), step.first.eq(pair == 0), step.last.eq(ends),
            step.starts.eq(group.starts), step.ends.eq(group.ends), step.some.eq(group.count != 0),
        ]
        return step

    def _means(self, m, intake, weights, sums, nan, top, step):
        """What columns come to: joined to what did before, and divided. `step` is two cycles ahead of their sums."""
        kv, group = self.kv, self.group
        width, columns = len(Signal(partial(kv))), self.widths.columns
        m.submodules.partials = partials = Ram(2 * group * width, columns)
        m.submodules.out = out = RamQueue(result(group), RESULTS)
        m.submodules.told = told = RamQueue(completion(group), HEADS)
        connect(m, out.o, flipped(self.results))
        connect(m, told.o, flipped(self.completions))
        soon = register(m, step, "soon", reset=True)
        joined = later(m, soon, 1 + Mean.joined, "joined", reset=True)
        done = later(m, joined, Mean.latency - Mean.joined, "done", reset=True)
        last = done.valid & done.ends & done.last
        final = intake.finals.payload
        m.d.comb += [
            weights.read_joints.eq(step.valid), weights.joints_slot.eq(step.slot[0]),
            weights.read_end.eq(step.valid & step.ends), weights.end_slot.eq(step.slot[0]),
            partials.read_en.eq(soon.valid), partials.read_address.eq(soon.pair),
            partials.write_en.eq(joined.valid), partials.write_address.eq(joined.pair),
            out.i.valid.eq(done.valid & done.ends), out.i.payload.last.eq(done.last), out.i.payload.tag.eq(final.tag),
            told.i.valid.eq(last), told.i.payload.tag.eq(final.tag), told.i.payload.error.eq(final.error),
            intake.finals.ready.eq(last), intake.leaves.eq(told.o.valid & told.o.ready),
        ]
        after = []
        for g in range(group):
            m.submodules[f"align{g}"] = align = Align()
            division, total = weights.divisions[g], weights.sums[g]
            exponent, is_nan = Signal(EXPONENT, name=f"exponent{g}", reset_less=True), Signal(name=f"nan{g}")
            m.d.comb += [
                align.start.eq(soon.valid & soon.first), align.joint.eq(weights.joints[g]), align.top.eq(top),
                is_nan.eq(division.nan | nan[g]),
                told.i.payload.totals[g].eq(Mux(is_nan, FP32.nan, total.total)),
                told.i.payload.exponents[g].eq(total.exponent),
            ]
            m.d.sync += exponent.eq(align.exponent + division.exponent)
            for n in range(2):
                m.submodules[f"mean{g}_{n}"] = mean = Mean(kv)
                m.d.comb += [
                    mean.sum.eq(sums[g][n]), mean.before.eq(partials.read_data.word_select(2 * g + n, width)),
                    mean.alignment.eq(align.o), mean.factor.eq(division.factor), mean.exponent.eq(exponent),
                    mean.nan.eq(is_nan), out.i.payload.data[g][n].eq(mean.o),
                ]
                after.append(mean.after)
        m.d.comb += partials.write_data.eq(Cat(after))


def _step(kv):
    """A pair of columns of a group in a slot, its first or last; of the first group of a head, or the last. What is
    known of the tokens is that of another group if there are not `some`."""
    widths = Widths(kv)
    return data.StructLayout({"valid": 1, "slot": range(widths.slots), "pair": range(widths.columns),
                              "first": 1, "last": 1, "starts": 1, "ends": 1, "some": 1})
