# SPDX-License-Identifier: Apache-2.0
"""The vector engine: instructions in, requests out, results out."""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.isa import Operation
from golden.tables import LIFT
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
        m.submodules.largest = largest = Largest(lanes)
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

        # A beat runs through the lanes; what is to become of it runs beside them.
        at = Lane.at
        beats = [delayed(m, issue.o, Operands.latency - 1, "operands")]
        for n in range(at["kept"]):
            beats.append(delayed(m, beats[-1], 1, f"beat{n}_"))
        def is_(operation, when, before=0):
            return beats[at[when] - before].operation == operation
        def present(when):
            return register(m, Cat(beats[at[when] - 1].tail.count > n for n in range(lanes)), f"present_{when}")

        m.submodules.most = most = Most(lanes)
        m.submodules.sum = total = Sum(lanes)
        pairs, given = [], issue.work.payload
        alpha, beta = register(m, given.alpha, "alpha"), register(m, given.beta, "beta")
        for n in range(0, lanes, 2):
            m.submodules[f"operands{n}"] = pair = Operands()
            pairs += list(pair.o)
            m.d.comb += [
                *(getattr(pair, name).eq(given[name]) for name in ("x_format", "y_format", "operation", "second")),
                pair.alpha.eq(alpha), pair.beta.eq(beta),
                *(getattr(pair, name)[k].eq(issue.codes[i][n + k]) for i, name in enumerate("xy") for k in range(2)),
            ]
        for n in range(lanes):
            m.submodules[f"lane{n}"] = lane = Lane()
            m.d.comb += [
                lane.i.eq(pairs[n]),
                lane.steps.lift.eq(is_(Operation.SILU, "power", 1)),
                lane.steps.power.eq(is_(Operation.SOFTMAX, "power", 1)),
                lane.steps.sum.eq(is_(Operation.ADD, "sum", 1) | is_(Operation.ROPE, "sum", 1)),
                lane.steps.sigmoid.eq(is_(Operation.SILU, "sum", 1)),
                lane.offset.eq(Mux(is_(Operation.SILU, "offset"), -LIFT, most.minus)),
                most.i[n].eq(lane.whole), total.i[n].eq(lane.addend), largest.i[n].eq(lane.kept),
            ]

        # What is known at the end of a row.
        softmax, summed, ended = beats[at["whole"]], beats[at["power"]], beats[at["kept"]]
        counts = register(m, Mux(is_(Operation.SOFTMAX, "offset"), most.o, 0), "most")    # at["power"]
        m.d.comb += [
            most.present.eq(present("whole")), most.last.eq(softmax.tail.row),
            most.valid.eq(softmax.valid & is_(Operation.SOFTMAX, "whole")),
            total.present.eq(present("power")), total.last.eq(summed.tail.row), total.most.eq(counts),
            total.valid.eq(summed.valid & (is_(Operation.SOFTMAX, "power") | is_(Operation.RMS_NORM, "power"))),
            scalars.sum.eq(total.o), scalars.summed.eq(total.done),
        ]
        top_k = is_(Operation.TOP_K, "kept")
        m.d.comb += [
            largest.present.eq(present("kept")), largest.magnitude.eq(~top_k),
            largest.valid.eq(ended.valid & ended.tail.scaled), largest.last.eq(ended.tail.unit),
            largest.after.eq(ended.again),
            scalars.ended.eq(largest.done), scalars.unit.value.eq(largest.value), scalars.unit.place.eq(largest.place),
        ]
        late = delayed(m, ended, largest.latency, "ended")
        m.d.comb += [
            scalars.unit.quantize.eq(late.tail.quantize), scalars.unit.format.eq(late.tail.format),
            scalars.unit.row.eq(late.tail.row), scalars.unit.top_k.eq(late.operation == Operation.TOP_K),
            scalars.unit.reduced.eq((late.operation == Operation.RMS_NORM) | (late.operation == Operation.SOFTMAX)),
        ]

        # Elements wait for that, and leave.
        m.submodules.kept = rows = DeepQueue(kept(lanes), config.depth)
        m.submodules.back = back = Back(lanes)
        m.d.comb += [
            rows.i.valid.eq(ended.valid & (~top_k | ended.tail.unit)),
            rows.i.payload.data.eq(largest.i), rows.i.payload.tail.eq(ended.tail),
            rows.i.payload.most.eq(delayed(m, counts, at["kept"] - at["power"], "counts")),
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
