# SPDX-License-Identifier: Apache-2.0
"""Plots of a run, as SVG to be put into a page."""

import re
from io import StringIO

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402  (after the choice of backend)
from matplotlib.colors import PowerNorm  # noqa: E402

__all__ = ["COLORS", "INK", "STYLE", "area", "error", "heads", "inline", "utilization"]

COLORS = ("#2f7d4f", "#3a6ea5", "#d07a26", "#7b5ea7", "#b0413e", "#4a4a4a", "#8a8a2f", "#2f8a8a")
PARTS = ("#2f7d4f", "#7fb58f", "#c4d9a8", "#e3c878", "#9aa5a0")
INK, FAINT = "#26312b", "#d9dfdb"

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "poblano", "font.size": 10, "text.color": INK,
         "axes.edgecolor": FAINT, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
         "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.color": FAINT,
         "legend.frameon": False, "figure.constrained_layout.use": True}


def utilization(found):
    """Bars: share of peak by layer and format; a line above each: the best that the shape allows."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.3))
        wide = 0.8 / len(found.outcomes)
        for n, (outcome, color) in enumerate(zip(found.outcomes, COLORS, strict=False)):
            places = np.arange(len(outcome.layers)) - 0.4 + (n + 0.5) * wide
            bars = axes.bar(places, [100 * layer.utilization for layer in outcome.layers], 0.88 * wide,
                            color=color, label=outcome.title)
            axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=-12, color="white")
            axes.hlines([100 * layer.bound for layer in outcome.layers], places - wide / 2, places + wide / 2,
                        color=INK, linewidth=1.2, label="the best this shape allows" if n == 0 else None)
        layers = found.outcomes[0].layers
        axes.set_xticks(range(len(layers)), [f"layer {n + 1}\nK = {layer.shape[2]}, N = {layer.shape[1]}"
                                             for n, layer in enumerate(layers)])
        axes.set(ylim=(0, 108), ylabel="% of peak")
        axes.tick_params(length=0)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=len(found.outcomes) + 1, fontsize=9, handlelength=1.2)
        return inline(figure)


def error(found):
    """Two dots a format on a logarithmic axis: what quantization costs, and what the engine adds."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.55 * len(found.outcomes) + 1.5))
        for n, (outcome, color) in enumerate(zip(found.outcomes, COLORS, strict=False)):
            format_error, engine_error = found.error(outcome)["rms"], outcome.layers[-1].error
            floor = max(engine_error, 3e-9)
            axes.plot([floor, format_error], [n, n], color=color, alpha=0.35, linewidth=2, zorder=1)
            axes.scatter([floor], [n], s=60, facecolor="white", edgecolor=color, linewidth=2, zorder=2)
            axes.scatter([format_error], [n], s=70, color=color, zorder=2)
            for value, place in (engine_error, floor), (format_error, format_error):
                axes.annotate(f"{value:.1e}" if value else "exact", (place, n), (0, 8),
                              textcoords="offset points", ha="center", fontsize=8)
        axes.scatter([], [], s=70, color=INK, label="the format: logits against float32")
        axes.scatter([], [], s=60, facecolor="white", edgecolor=INK, linewidth=2,
                     label="the engine: against float64, same operands")
        axes.set_yticks(range(len(found.outcomes)), [outcome.title for outcome in found.outcomes])
        axes.set(xscale="log", xlim=(1e-9, 1), ylim=(len(found.outcomes) - 0.5, -0.6),
                 xlabel="relative root mean square error")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        figure.legend(loc="outside upper left", ncols=2, fontsize=9, handletextpad=0.2)
        return inline(figure)


def area(found):
    """A bar a format, divided by the parts of its engine."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.8 * len(found.areas) + 1.3))
        titles = [outcome.title for outcome in found.outcomes]
        left = np.zeros(len(found.areas))
        for part, color in zip(found.areas[0].parts, PARTS, strict=True):
            sizes = np.array([area.parts[part] / 1000 for area in found.areas])
            axes.barh(titles, sizes, 0.62, left=left, color=color, label=part)
            left += sizes
        for n, (outcome, area) in enumerate(zip(found.outcomes, found.areas, strict=True)):
            each = area.parts["array"] / outcome.engine.macs
            axes.annotate(f"{each:,.0f} {area.unit} a MAC", (0, n), (6, 0), textcoords="offset points",
                          va="center", fontsize=8, color="white")
        axes.invert_yaxis()
        axes.set(xlabel=f"thousand {found.areas[0].unit}, memories not counted")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        figure.legend(loc="outside upper left", ncols=len(found.areas[0].parts), fontsize=9, handlelength=1)
        return inline(figure)


def heads(found):
    """Two maps: what each token's query looks at, on the RTL and in float64; the darker, the more."""
    head = found.head
    with plt.rc_context(STYLE):
        figure, both = plt.subplots(1, 2, figsize=(12.6, 6.5), sharey=True)
        for axes, weights, title in zip(both, (head.weights, head.exact), ("RTL", "float64"), strict=True):
            axes.imshow(weights, cmap="Greens", norm=PowerNorm(0.5, 0, 1), interpolation="none")
            axes.set_title(title, loc="left", fontsize=11)
            axes.set_xlabel("token that is looked at")
            axes.spines[["top", "right"]].set_visible(True)
            words = {n: head.text[:n].split()[-1] for n, letter in enumerate(head.text) if letter == " "}
            words = {n: word for n, word in words.items() if len(word) > 2}
            axes.set_xticks(list(words), words.values(), rotation=90, fontsize=8)
            axes.set_yticks(list(words), words.values(), fontsize=8)
            axes.tick_params(length=2)
        figure.get_layout_engine().set(h_pad=0.2)
        both[0].set_ylabel("token that looks; words stand at their ends")
        return inline(figure)


def inline(figure):
    """The figure as an element of a page, its letters those of the page."""
    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    element = text.getvalue()[text.getvalue().index("<svg"):]
    return re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.S)
