# SPDX-License-Identifier: Apache-2.0
"""The report of a language model that wrote on the simulated tile: what, how fast, and where cycles and energy went."""

from collections import Counter
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib import pyplot as plt

from golden.isa import Engine, Gemm, Operation
from golden.registers import ENGINES
from scripts import report
from scripts.energy import EVENTS, joules
from scripts.report.plots import COLORS, FAINT, INK, STYLE, inline

__all__ = ["Written", "write"]

COLOR = dict(zip(ENGINES, ("#9aa5a0", "#c4d9a8", "#2f7d4f", "#3a6ea5", "#d07a26", "#7b5ea7"), strict=True))
PARTS = {"qkv": "q, k, v", "o": "o", "gate": "gate", "up": "up", "down": "down", "head": "logits"}


@dataclass(frozen=True)
class Written:
    """What a run gave.

    Attributes
    ----------
    layout : sw.compiler.layout.Layout
    text : list of (str, str)
        Prompts and what came.
    count : int
        Tokens that came, in all.
    runs : list of sw.runtime.runtime.Run
    programs : list of sim.timeline.Program
        The same ones.
    counters : dict of str to int
    events : Counter
        What took place, as `scripts.energy` counts it.
    agreement : list of tuple of str
        A line a sequence: how it compares with float32.
    """

    layout: object
    text: list
    count: int
    runs: list
    programs: list
    counters: dict
    events: Counter
    agreement: list

    def of(self, kind):
        """Runs of a kind, each with its program."""
        return [(run, program) for run, program in zip(self.runs, self.programs, strict=True) if run.kind == kind]

    @property
    def kinds(self):
        """Those that took place."""
        return [kind for kind in ("prefill", "decode") if self.of(kind)]

    @property
    def steps(self):
        """Decoding steps, each a token of all sequences."""
        return sum(run.shape.steps for run, _ in self.of("decode"))

    def cycles(self, kind):
        return sum(run.cycles for run, _ in self.of(kind))

    def beats(self, kind):
        """Share of a kind's cycles that bring a beat."""
        return sum(program.beats for _, program in self.of(kind)) / max(self.cycles(kind), 1)

    def use(self, kind):
        """Share of the array's products."""
        return sum(program.macs for _, program in self.of(kind)) / self.layout.chip.matmul.macs / max(
            self.cycles(kind), 1)

    def predicted(self, kind):
        return sum(run.predicted for run, _ in self.of(kind))

    def error(self, kind):
        """Of what the compiler predicted."""
        return self.predicted(kind) / max(self.cycles(kind), 1) - 1

    @property
    def energy(self):
        """Joules times 1e12 by engine."""
        return joules(self.events)


def write(path, found):
    """Write the report to `path`, whose folder is made when missing; return `path`."""
    rows = [(name, EVENTS[name].engine, found.events[name], EVENTS[name].pj, EVENTS[name].pj * found.events[name],
             EVENTS[name].how) for name in EVENTS if found.events[name]]
    return report.page(
        path, "language.html", found=found, chip=found.layout.chip, model=found.layout.model, colors=COLOR,
        roofline=_roofline(found), timeline=_timeline(found), breakdown=_breakdown(found), energy=_energy(found),
        stalls=_stalls(found.counters), events=sorted(rows, key=lambda row: -row[4]), total=sum(row[4] for row in rows))


def _roofline(found):
    """Products a cycle over products a byte: each program a point below what memory and array allow."""
    chip = found.layout.chip
    peak, channel = chip.matmul.macs, chip.memory.channel
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.6))
        points = {kind: [(program.macs / (program.beats * channel), program.macs / program.cycles)
                         for _, program in found.of(kind)] for kind in found.kinds}
        x = np.geomspace(0.5, max(4 * peak / channel, *(4 * x for each in points.values() for x, _ in each)), 200)
        axes.plot(x, np.minimum(peak, channel * x), color=INK, linewidth=1.4)
        for (kind, own), color, marker in zip(points.items(), COLORS, "so", strict=False):
            if own:
                axes.scatter(*zip(*own, strict=True), color=color, marker=marker, s=34, label=kind, zorder=3, alpha=0.8)
        axes.annotate(f"{peak:,} products a cycle", (x[-1], peak), (0, 5), textcoords="offset points", ha="right")
        axes.annotate(f"{channel} bytes a cycle", (x[8], channel * x[8]), (8, -4), textcoords="offset points")
        axes.set(xscale="log", yscale="log", xlabel="products of a program for a byte that it reads",
                 ylabel="products a cycle", xlim=(x[0], x[-1]),
                 ylim=(min(channel * x[0], *(y / 2 for each in points.values() for _, y in each)), 2 * peak))
        axes.grid(which="major")
        axes.legend(loc="lower right")
        return inline(figure)


def _timeline(found):
    """Engines over the last token, as SVG: an instruction a bar."""
    program, begin, end = _last_token(found.programs)
    left, width, row, top = 92, 980, 30, 22
    parts, height = [], top + row * len(ENGINES) + 26
    for n, name in enumerate(ENGINES):
        y = top + n * row
        parts.append(f'<text x="{left - 10}" y="{y + 17}" text-anchor="end" font-size="13">{name}</text>')
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y + row - 4}" y2="{y + row - 4}" stroke="{FAINT}"/>')
    for span in program.spans:
        if span.end < begin or span.begin > end:
            continue
        name = span.instruction.engine.name.lower()
        x = [left + width * (min(max(at, begin), end) - begin) / (end - begin) for at in (span.begin, span.end + 1)]
        y, length = top + row * ENGINES.index(name), span.end - span.begin + 1
        title = f"{_label(found.layout, span.instruction)}, {length:,} cycles"
        parts.append(f'<rect x="{x[0]:.2f}" y="{y}" width="{max(x[1] - x[0], 0.6):.2f}" height="{row - 8}" rx="1.5" '
                     f'fill="{COLOR[name]}" stroke="white" stroke-width="0.4"><title>{escape(title)}</title></rect>')
    for n in range(6):
        at = begin + (end - begin) * n / 5
        parts.append(f'<text x="{left + width * n / 5:.0f}" y="{height - 8}" text-anchor="middle" font-size="12">'
                     f"{at - begin:,.0f}</text>")
    return f'<svg viewBox="0 0 {left + width + 20} {height}" role="img">{"".join(parts)}</svg>'


def _last_token(programs):
    """A program, and from which cycle to which it made a last token: from one choice to the next, if it has two."""
    for program in reversed(programs):
        ends = [span.end for span in program.spans if span.instruction.engine is Engine.VECTOR
                and span.instruction.opcode is Operation.TOP_K]
        if len(ends) > 1:
            return program, *ends[-2:]
    return programs[-1], programs[-1].begin, programs[-1].end


def _label(layout, instruction):
    """What an instruction is for."""
    if instruction.opcode is Gemm.GEMM and instruction.engine is Engine.MATMUL:
        at = instruction.fields["w"] - layout.at["layers"] - layout.record
        places = {place.weights: name for name, place in layout.linears.items() if name != "head"}
        number, offset = divmod(at, layout.pitch)
        name = "head" if number == layout.model.layers else places.get(offset, "?")
        return f"GEMM: {PARTS.get(name, name)}"
    return f"{instruction.engine.name.lower()}: {instruction.opcode.name.lower().replace('_', ' ')}"


def _breakdown(found):
    """Cycles of a token by what an instruction is for, of those that nothing before it covers."""
    totals = {}
    for kind in found.kinds:
        totals[kind], whole = Counter(), 0
        for _, program in found.of(kind):
            whole += program.cycles
            until = program.begin
            for span in program.spans:
                if span.instruction.engine in (Engine.WEIGHTS, Engine.LOAD):
                    continue
                totals[kind][_label(found.layout, span.instruction)] += max(0, span.end - max(until, span.begin) + 1)
                until = max(until, span.end)
        totals[kind]["waits between them"] = max(0, whole - sum(totals[kind].values()))
    names = [name for name, _ in totals[found.kinds[-1]].most_common()]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.3 * len(names) + 1.1))
        for n, (kind, color) in enumerate(zip(totals, COLORS, strict=False)):
            whole = sum(totals[kind].values())
            axes.barh(np.arange(len(names)) + 0.4 * n - 0.2, [100 * totals[kind][name] / whole for name in names], 0.38,
                      color=color, label=kind)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="% of cycles")
        axes.grid(axis="x")
        axes.legend(loc="lower right")
        return inline(figure)


def _energy(found):
    """Energy of a token by engine, a bar."""
    energy = {name: pj / found.count for name, pj in found.energy.most_common()}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.34 * len(energy) + 0.9))
        bars = axes.barh(list(energy), [pj / 1e6 for pj in energy.values()], color=COLORS[0])
        axes.bar_label(bars, [f"{pj / 1e6:,.3f}" for pj in energy.values()], padding=4, fontsize=9)
        axes.set(xscale="log", xlabel="µJ a token")
        axes.invert_yaxis()
        return inline(figure)


def _stalls(counters):
    """A row an engine: share of cycles in which it is busy, and in which it waits for each."""
    whole = max(counters["cycles"], 1)
    return [(name, counters[f"{name}_busy"] / whole,
             [counters[f"{name}_waits_for_{other}"] / whole for other in ENGINES]) for name in ENGINES]
