# SPDX-License-Identifier: Apache-2.0
"""When instructions took place on a simulated tile, from a trace of its events; and the same for https://ui.perfetto.dev."""

import json
from dataclasses import dataclass

import numpy as np

from golden.isa import Engine, disassemble
from golden.registers import ENGINES, EVENTS
from golden.sequencer import run
from sim.tile import events
from sw.compiler.cycles import Span

__all__ = ["Program", "perfetto", "programs"]

WINDOW = 256        # cycles that a point of a Perfetto counter stands for


@dataclass(frozen=True)
class Program:
    """A program that ran.

    Attributes
    ----------
    begin, end : int
        Its first and last cycle.
    spans : list of sw.compiler.cycles.Span
        Instructions of its engines, in the order of their ends.
    beats : int
        That it read from memory.
    """

    begin: int
    end: int
    spans: list
    beats: int

    @property
    def cycles(self):
        return self.end - self.begin + 1

    @property
    def macs(self):
        """Products of its GEMMs."""
        return sum(fields["m"] * fields["n"] * fields["k"] for fields in (
            span.instruction.fields for span in self.spans if span.instruction.engine is Engine.MATMUL))


def programs(path, images):
    """The programs of a trace.

    Parameters
    ----------
    path : path
        Of the trace.
    images : list of bytes
        What ran meanwhile.
    """
    cycles, values = events(path)
    cycles = cycles.astype(np.int64)
    lengths = np.diff(cycles, append=cycles[-1] + 1)
    reads = [place for place, name in enumerate(EVENTS) if "_beats_read" in name]
    found, runs = [], np.flatnonzero(np.diff(values[:, EVENTS.index("cycles")].astype(np.int8), prepend=0, append=0))
    begins, ends = cycles[runs[::2]], cycles[np.minimum(runs[1::2], len(cycles) - 1)]
    for image, begin, end in zip(images, begins, ends, strict=True):
        own, spans = (cycles >= begin) & (cycles <= end), []
        given = {}
        for each in run(disassemble(image)):
            given.setdefault(each.engine.name.lower(), []).append(each)
        for engine, dispatched in given.items():
            begins, ends = (cycles[own & values[:, EVENTS.index(f"{engine}_{what}")]] for what in ("begins", "ends"))
            free = begin
            for each, first, last in zip(dispatched, begins, ends, strict=True):
                spans.append(Span(each.pc, each.instruction, int(min(max(first, free), last)), int(last)))
                free = last
        found.append(Program(int(begin), int(end), sorted(spans, key=lambda span: span.end),
                             int((lengths[own] @ values[np.ix_(own, reads)]).sum())))
    return found


def perfetto(path, trace, found):
    """Write programs, and beats of memory, as a trace that Perfetto and Chrome read, a cycle as a nanosecond.

    Parameters
    ----------
    path, trace : path
        To write, and of the trace of events.
    found : list of Program
    """
    lines = [{"ph": "M", "pid": 0, "tid": tid, "name": "thread_name", "args": {"name": name}}
             for tid, name in enumerate(("program", *ENGINES))]
    for program in found:
        lines.append(_slice("program", 0, program.begin, program.end, {"instructions": len(program.spans)}))
        lines += [_slice(span.instruction.opcode.name, 1 + ENGINES.index(span.instruction.engine.name.lower()),
                         span.begin, span.end, {"pc": span.pc, **span.instruction.fields}) for span in program.spans]
    cycles, values = events(trace)
    lengths = np.diff(cycles.astype(np.int64), append=int(cycles[-1]) + 1)
    for name in EVENTS:
        if "_beats_" in name:
            place = EVENTS.index(name)
            counts = np.bincount(cycles.astype(np.int64) // WINDOW, weights=lengths * values[:, place])
            lines += [{"ph": "C", "pid": 0, "name": f"{name}, of {WINDOW}", "ts": at * WINDOW / 1000,
                       "args": {"beats": round(float(count), 1)}} for at, count in enumerate(counts)
                      if count or counts[max(at - 1, 0)]]
    path.write_text(json.dumps({"traceEvents": lines, "displayTimeUnit": "ns"}))


def _slice(name, tid, begin, end, arguments):
    return {"ph": "X", "pid": 0, "tid": tid, "name": name, "ts": begin / 1000, "dur": (end - begin + 1) / 1000,
            "args": arguments}
