# SPDX-License-Identifier: Apache-2.0
"""The vector engine: instructions in, requests out, results out."""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.isa import Operation
from hw.arith.pipeline import register
from hw.fetch import Fetch, request, response
from hw.stream import DeepQueue, Queue
from hw.vector.back import Back, kept
from hw.vector.issue import Issue
from hw.vector.lane import Lane, Operands
from hw.vector.ports import Error, Part, completion, instruction, result
from hw.vector.reduce import Largest, Most, Sum, delayed
from hw.vector.scalars import Scalars, constants
from hw.vector.walker import Walker, reads, work
from hw.vector.writer import Writer, places

__all__ = ["Engine"]

SUMS = Operation.RMS_NORM, Operation.SOFTMAX


class Engine(Part):
    """Norms, rotations, activations, softmax, scales: what a transformer computes beside matrix products.

    An instruction names rows of x and, perhaps, y in memory; the engine asks for them and gives results back with
    their addresses. Instructions queue, and the next one's operands are read while this one's results leave: who
    gives one that reads what another writes waits for its completion. `golden.vector` is the specification.

    Parameters
    ----------
    config : golden.config.Vector

    Members
    -------
    instructions : In(stream.Signature(instruction()))
    x_request, y_request : Out(stream.Signature(request))
    x, y : In(stream.Signature(response))
        The words asked for, of 4 bytes a lane.
    results : Out(stream.Signature(result(lanes)))
    completions : Out(stream.Signature(completion()))
        One an instruction, in order.
    error : Out(Error), error_tag : Out(8)
        First error since `clear`, and the instruction it befell.
    clear : In(1)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "instructions": In(stream.Signature(instruction())),
            **{f"{name}_request": Out(stream.Signature(request(*reads(config)))) for name in "xy"},
            **{name: In(stream.Signature(response(32 * config.lanes))) for name in "xy"},
            "results": Out(stream.Signature(result(config.lanes))),
            "completions": Out(stream.Signature(completion())),
            "error": Out(Error), "error_tag": Out(8), "clear": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, lanes = self.config, self.config.lanes

        def queue(name, shape, source, target, depth=4):
            m.submodules[name] = between = Queue(shape, depth)
            connect(m, source, between.i)
            connect(m, between.o, target)

        # Instructions become requests and work.
        m.submodules.sum, m.submodules.largest = total, largest = Sum(lanes), Largest(lanes)
        m.submodules.walker = walker = Walker(config)
        m.submodules.issue = issue = Issue(config, settle=largest.latency)
        m.submodules.scalars = scalars = Scalars(config.units)
        m.submodules.writer = writer = Writer(lanes)
        queue("instructions_queue", instruction(), flipped(self.instructions), walker.i, 2)
        queue("work", work(), walker.work, issue.work)
        queue("constants", constants(), walker.constants, scalars.constants)
        queue("places", places(), walker.places, writer.places)
        fetches = {name: Fetch(32 * lanes, *reads(config)) for name in "xy"}
        for name, fetch in fetches.items():
            m.submodules[f"fetch_{name}"] = fetch
            queue(f"{name}_requests", walker.x.payload.shape(), getattr(walker, name), fetch.i, 2)
            connect(m, fetch.request, flipped(getattr(self, f"{name}_request")))
            connect(m, flipped(getattr(self, name)), fetch.response)
            connect(m, fetch.o, getattr(issue, name))

        beats, most = self._front(m, issue, total, largest)
        self._ends(m, beats, most, total, largest, scalars)

        # Elements wait for that, and leave.
        beat, top_k = beats[-1], _is(beats[-1], Operation.TOP_K)
        m.submodules.kept = rows = DeepQueue(kept(lanes), config.depth)
        m.submodules.back = back = Back(lanes)
        m.d.comb += [
            rows.i.valid.eq(beat.valid & (~top_k | beat.tail.unit)),
            rows.i.payload.data.eq(largest.i), rows.i.payload.tail.eq(beat.tail),
            rows.i.payload.most.eq(delayed(m, most, Lane.at["kept"] - Lane.at["power"], "counts")),
            issue.kept_leaves.eq(back.beats.valid & back.beats.ready),
            issue.unit_leaves.eq(back.scalings.valid & back.scalings.ready),
        ]
        with m.If(top_k):
            m.d.comb += rows.i.payload.tail.count.eq(0)
        connect(m, rows.o, back.beats)
        connect(m, scalars.o, back.scalings)
        connect(m, back.o, writer.words)
        connect(m, writer.results, flipped(self.results))
        connect(m, writer.completions, flipped(self.completions))

        # The first error stays.
        with m.If(self.clear):
            m.d.sync += self.error.eq(Error.NONE)
        with m.Elif(self.error == Error.NONE):
            with m.If(self.completions.valid & self.completions.ready):
                m.d.sync += [
                    self.error.eq(self.completions.payload.error),
                    self.error_tag.eq(self.completions.payload.tag),
                ]
            with m.If(Cat(fetch.error for fetch in fetches.values()).any()):
                m.d.sync += self.error.eq(Error.RESPONSE)
        return m

    def _front(self, m, issue, total, largest):
        """A beat runs through the lanes, and what is to become of it beside them: `beats[n]`, n cycles after the
        factors. Also what the elements of beats[at["power"]] count.
        """
        at, lanes, given = Lane.at, self.config.lanes, issue.work.payload
        beats = [delayed(m, issue.o, Operands.latency - 1, "operands")]
        for n in range(at["kept"]):
            beats.append(delayed(m, beats[-1], 1, f"beat{n}_"))
        before_power, before_sum = beats[at["power"] - 1], beats[at["sum"] - 1]

        m.submodules.most = most = Most(lanes)
        alpha, beta = register(m, given.alpha, "alpha"), register(m, given.beta, "beta")
        for n in range(lanes):
            if n % 2 == 0:
                m.submodules[f"operands{n}"] = pair = Operands()
                m.d.comb += [
                    *(getattr(pair, name).eq(given[name]) for name in ("x_format", "y_format", "operation", "second")),
                    *(pair.x[k].eq(issue.codes[0][n + k]) for k in range(2)),
                    *(pair.y[k].eq(issue.codes[1][n + k]) for k in range(2)),
                    pair.alpha.eq(alpha), pair.beta.eq(beta),
                ]
            m.submodules[f"lane{n}"] = lane = Lane()
            m.d.comb += [
                lane.i.eq(pair.o[n % 2]),
                lane.steps.lift.eq(_is(before_power, Operation.SILU)),
                lane.steps.power.eq(_is(before_power, Operation.SOFTMAX)),
                lane.steps.sum.eq(_is(before_sum, Operation.ADD, Operation.ROPE)),
                lane.steps.sigmoid.eq(_is(before_sum, Operation.SILU)),
                lane.offset.eq(most.minus),
                most.i[n].eq(lane.whole), total.i[n].eq(lane.addend), largest.i[n].eq(lane.kept),
            ]
        beat = beats[at["whole"]]
        m.d.comb += [
            most.present.eq(_present(m, beats, "whole", lanes)), most.last.eq(beat.tail.row),
            most.valid.eq(beat.valid & _is(beat, Operation.SOFTMAX)), most.lift.eq(_is(beat, Operation.SILU)),
        ]
        return beats, register(m, Mux(_is(beats[at["offset"]], Operation.SOFTMAX), most.o, 0), "most")

    def _ends(self, m, beats, most, total, largest, scalars):
        """What is known at the end of a row or block."""
        beat, lanes = beats[Lane.at["power"]], self.config.lanes
        m.d.comb += [
            total.present.eq(_present(m, beats, "power", lanes)), total.last.eq(beat.tail.row), total.most.eq(most),
            total.valid.eq(beat.valid & _is(beat, *SUMS)),
            scalars.sum.eq(total.o), scalars.summed.eq(total.done),
        ]
        beat, unit = beats[-1], scalars.unit
        m.d.comb += [
            largest.present.eq(_present(m, beats, "kept", lanes)), largest.magnitude.eq(~_is(beat, Operation.TOP_K)),
            largest.valid.eq(beat.valid & beat.tail.scaled), largest.last.eq(beat.tail.unit),
            largest.after.eq(beat.again),
        ]
        ended = delayed(m, beat, largest.latency, "ended")
        m.d.comb += [
            scalars.ended.eq(largest.done), unit.value.eq(largest.value), unit.place.eq(largest.place),
            unit.quantize.eq(ended.tail.quantize), unit.format.eq(ended.tail.format), unit.row.eq(ended.tail.row),
            unit.top_k.eq(_is(ended, Operation.TOP_K)), unit.reduced.eq(_is(ended, *SUMS)),
        ]


def _is(beat, *operations):
    """Whether the beat is of one of these."""
    return Cat(beat.operation == each for each in operations).any()


def _present(m, beats, when, lanes):
    """Which lanes have an element, at that time."""
    return register(m, Cat(beats[Lane.at[when] - 1].tail.count > n for n in range(lanes)), f"present_{when}")
