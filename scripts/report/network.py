# SPDX-License-Identifier: Apache-2.0
"""The report of the network's bench: latency, throughput, and where flits go."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from golden.packet import DIRECTIONS, Port
from scripts.report import page
from scripts.report.plots import COLORS, INK, STYLE, inline

__all__ = ["Curve", "Map", "Times", "heat", "latency", "throughput", "times", "write"]

PITCH, NODE, GAP, WIDE = 74, 30, 6, 7        # from node to node; a node; between the links of a pair; a link
SCALE = ((0.0, (227, 232, 228)), (0.45, (127, 181, 143)), (0.75, (227, 200, 120)), (1.0, (176, 65, 62)))


@dataclass(frozen=True)
class Curve:
    """Uniform traffic at rising load.

    Attributes
    ----------
    size, length : int
        Nodes on a side, flits of a packet.
    points : list of (float, float, float)
        Load, accepted flits per node and cycle, mean latency.
    bound : float
        The load that links allow.
    """

    size: int
    length: int
    points: list
    bound: float

    @property
    def title(self):
        return f"{self.size} × {self.size}, {self.length} flit{'s' * (self.length > 1)}"


@dataclass(frozen=True)
class Map:
    """Use of the links under some traffic.

    Attributes
    ----------
    title, about : str
    width, height : int
    links : dict of (node, Port) to float
        Flits a cycle; the port of what comes from a node is None.
    """

    title: str
    about: str
    width: int
    height: int
    links: dict


@dataclass(frozen=True)
class Times:
    """What a collective takes with vectors of rising length.

    Attributes
    ----------
    size, depth : int
        Nodes on a side, flits of a buffer.
    points : list of (int, int)
        Flits of data, cycles.
    goal : int
        Cycles beside the flits.
    """

    size: int
    depth: int
    points: list
    goal: int


def write(path, curves, maps, sums, casts, figures):
    """Write the report to `path`; return `path`. `sums` and `casts` are `Times` of all-reduces and broadcasts."""
    values = {each["name"]: each["value"] for each in figures}
    wrong = sum(value for name, value in values.items()
                if name.startswith(("noc.random.", "noc.multicast.random.")) and not name.endswith(".packets"))
    return page(Path(path), "network.html", figures=figures, values=values, wrong=wrong,
                maps=[(each, heat(each)) for each in maps], scale=scale(),
                latency=latency(curves), throughput=throughput(curves), sums=times(sums), casts=times(casts))


def latency(curves):
    """Lines: mean latency over load; the bounds dotted."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        for curve, style in _styled(curves):
            loads, _, cycles = np.transpose(curve.points)
            axes.plot(loads, cycles, label=curve.title, **style)
        axes.set(xlim=(0, 1), ylim=(0, 60), xlabel="offered load, flits per node and cycle",
                 ylabel="mean latency, cycles")
        _bounds(axes, curves)
        return _finished(figure, axes, 4)


def throughput(curves):
    """Lines: accepted over offered load; the bounds dotted."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        for curve, style in _styled(curves):
            loads, accepted, _ = np.transpose(curve.points)
            axes.plot(loads, accepted, label=curve.title, **style)
            axes.annotate(f"{accepted[-1]:.3f}", (loads[-1], accepted[-1]), (4, 0), textcoords="offset points",
                          va="center", fontsize=8)
        axes.set(xlim=(0, 1.08), ylim=(0, 1), xlabel="offered load, flits per node and cycle",
                 ylabel="accepted, flits per node and cycle")
        _bounds(axes, curves)
        return _finished(figure, axes, 4)


def times(curves):
    """Lines: cycles over the length of a vector; the goals dotted."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        for curve, style in _styled(curves, "depth"):
            counts, cycles = np.transpose(curve.points)
            axes.plot(counts, cycles, label=f"{curve.size} × {curve.size}, buffers of {curve.depth}", **style)
            axes.plot(counts, counts + curve.goal, color=style["color"], linestyle=":", linewidth=1)
        axes.set(xlim=(0, counts[-1]), ylim=(0, None), xlabel="flits of data", ylabel="cycles")
        return _finished(figure, axes, 2)


def _finished(figure, axes, columns):
    """The plot as an image, with a legend above it."""
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=columns, fontsize=9, handlelength=1.6)
    return inline(figure)


def _styled(curves, kind="length"):
    """Each curve, a colour for its size, a line for its length or depth."""
    sizes, kinds = (sorted({getattr(curve, what) for curve in curves}) for what in ("size", kind))
    for curve in curves:
        yield curve, {"color": COLORS[sizes.index(curve.size)],
                      "linestyle": ("-", "--")[kinds.index(getattr(curve, kind))],
                      "marker": "o", "markersize": 2.5, "linewidth": 1.6}


def _bounds(axes, curves):
    for size, bound in {curve.size: curve.bound for curve in curves}.items():
        axes.axvline(bound, color=INK, linestyle=":", linewidth=1)
        axes.annotate(f"links of\n{size} × {size}", (bound, 0), (4, 4), textcoords="offset points", fontsize=8)


def heat(map):
    """The mesh, its links and nodes in the colours of their use, as an `svg` element."""
    width, height = (NODE + PITCH * (count - 1) + 4 for count in (map.width, map.height))
    parts = []
    for (node, port), use in sorted(map.links.items(), key=lambda item: item[1]):
        if port in DIRECTIONS:
            parts.append(_link(node, port, use))
    for y in range(map.height):
        for x in range(map.width):
            left, top = 2 + PITCH * x, 2 + PITCH * y
            uses = map.links.get(((x, y), None), 0), map.links.get(((x, y), Port.L), 0)
            said = f"({x}, {y}) sends {uses[0]:.2f} and receives {uses[1]:.2f} flits a cycle"
            parts.append(f'<g><title>{said}</title>'
                         f'<path d="M{left} {top}h{NODE}l-{NODE} {NODE}z" fill="{colour(uses[0])}"/>'
                         f'<path d="M{left + NODE} {top}v{NODE}h-{NODE}z" fill="{colour(uses[1])}"/>'
                         f'<rect x="{left}" y="{top}" width="{NODE}" height="{NODE}" rx="3"/></g>')
    return "\n".join([f'<svg class="heat" viewBox="0 0 {width} {height}" role="img" aria-label="{map.title}">',
                      *parts, "</svg>"])


def _link(node, port, use):
    """An arrow from a router to its neighbour; the two of a pair lie side by side, each on its right."""
    dx, dy = DIRECTIONS[port]
    x, y = (2 + NODE / 2 + PITCH * at for at in node)
    aside = (GAP + WIDE) / 2
    x, y = x + dx * (NODE / 2 + 2) - dy * aside, y + dy * (NODE / 2 + 2) + dx * aside
    length, half = PITCH - NODE - 4, WIDE / 2
    corners = [(0, -half), (length - WIDE, -half), (length, 0), (length - WIDE, half), (0, half)]
    points = " ".join(f"{x + along * dx - across * dy:.1f},{y + along * dy + across * dx:.1f}"
                      for along, across in corners)
    return (f'<polygon points="{points}" fill="{colour(use)}"><title>{node} to {port.name}: {use:.2f} flits a cycle'
            "</title></polygon>")


def colour(use):
    """Of a link that carries so many flits a cycle."""
    use = min(max(use, 0.0), 1.0)
    places, colours = zip(*SCALE, strict=True)
    return "#{:02x}{:02x}{:02x}".format(*(round(np.interp(use, places, band)) for band in zip(*colours, strict=True)))


def scale():
    """What the colours mean, as an `svg` element."""
    stops = "".join(f'<stop offset="{place}" stop-color="{colour(place)}"/>' for place, _ in SCALE)
    marks = "".join(f'<text x="{10 + 300 * n / 4}" y="32">{n / 4:g}</text>' for n in range(5))
    return (f'<svg class="scale" viewBox="0 0 420 36"><defs><linearGradient id="use">{stops}</linearGradient></defs>'
            f'<rect x="10" y="4" width="300" height="12" rx="3" fill="url(#use)"/>{marks}'
            '<text class="start" x="322" y="15">flits a cycle</text></svg>')
