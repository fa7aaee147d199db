# SPDX-License-Identifier: Apache-2.0
"""The systolic array of a configuration, drawn as SVG; the page styles it by class."""

from dataclasses import dataclass

from golden.families import FAMILIES

__all__ = ["array"]

WIDTH, LEFT, RIGHT = 1080, 172, 1068      # pixels of the page; the elements lie between LEFT and RIGHT
TOP, PITCH = 118, 40                      # of the first row; from row to row
GAP, INSET = 14, 26                       # between groups; from a group's edge to its elements
BUS = 60                                  # height of the line that brings the weights
STEPS = ("group in turn", "round to FP32", "× row scale", "× column scale", "+ bias", "+ C",
         "round to output")


def array(config):
    """Groups, elements, skew, accumulators and drain of an engine; a big array is shortened.

    A wave of activations runs through the drawing, a group a step, as it does through the hardware.

    Parameters
    ----------
    config : golden.config.Matmul

    Returns
    -------
    str
        An `svg` element.
    """
    plan = Plan(config, _some(config.rows, 4), _some(config.groups, 4), _some(config.drain, 8))
    parts = [_element(plan.size, config.lanes), *_weights(plan), *_activations(plan),
             *(part for place, group in enumerate(plan.groups) for part in _group(plan, place, group)),
             *_drain(plan)]
    return "\n".join([
        f'<svg class="array" viewBox="0 0 {WIDTH} {plan.pipe + 76}" role="img" '
        f'aria-label="systolic array of {config.rows} by {config.cols} elements">', *parts, "</svg>"])


@dataclass
class Plan:
    """What is shown, and where. None among `rows`, `groups`, `columns` stands for those left out."""

    config: object
    rows: list
    groups: list
    columns: list

    @property
    def room(self):
        """Width of a group."""
        return (RIGHT - LEFT - GAP * (len(self.groups) - 1)) / len(self.groups)

    @property
    def pitch(self):
        """From column to column."""
        return (self.room - INSET - 4) / len(self.columns)

    @property
    def size(self):
        """Side of an element."""
        return min(self.pitch - 4, 30)

    @property
    def bottom(self):
        """Below the last row."""
        return TOP + len(self.rows) * PITCH

    @property
    def pipe(self):
        """Top of the drain."""
        return self.bottom + 132


def _weights(plan):
    """From above, to all columns."""
    depth, middle = plan.config.depth, (LEFT + RIGHT) / 2
    last = RIGHT - plan.room + INSET + (len(plan.columns) - 1) * plan.pitch
    return [_box(LEFT, 0, RIGHT - LEFT, 44, "feed",
                 f"weights, {depth} bytes a cycle: one column's slice of K",
                 "into shadow registers, while the array computes with the active ones"),
            _line(middle, 44, middle, BUS, "bus"),
            _line(LEFT + INSET + plan.size / 2, BUS, last + plan.size / 2, BUS, "bus")]


def _activations(plan):
    """From the left, each row a cycle later than the one above it."""
    yield _box(0, BUS, 118, plan.bottom - BUS - PITCH + plan.size + 8, "feed", "activations",
               f"{plan.config.row_bits // 8} bytes", "a cycle,", "decoded once")
    for line, row in enumerate(plan.rows):
        y = TOP + line * PITCH + plan.size / 2
        if row is None:
            yield _text(144, y + 4, "⋮", "note")
            continue
        yield _line(118, y, LEFT, y, "bus")
        for n in range(min(row + 1, 3)):
            yield _rect(124 + 12 * n, y - 9, 7, 18, "register", 2)


def _group(plan, place, group):
    """Columns that share their activation registers and, below, their part of the drain."""
    config, x, size = plan.config, LEFT + place * (plan.room + GAP), plan.size
    if group is None:
        yield _text(x + plan.room / 2, TOP + PITCH / 2, "· · ·", "note")
        return
    yield _rect(x, TOP - 40, plan.room, plan.bottom - TOP + 44, "group", 10)
    lefts = [x + INSET + n * plan.pitch for n in range(len(plan.columns))]
    for left, column in zip(lefts, plan.columns, strict=True):
        if column is not None:
            middle = left + size / 2
            yield _line(middle, BUS, middle, TOP, "drop")
            yield _line(middle, TOP, middle, plan.bottom + 14, "sum")
    yield _text(x + INSET, TOP - 18, f"group {group}", "note start")

    for line, row in enumerate(plan.rows):
        y = TOP + line * PITCH
        if row is None:
            yield _text(x + plan.room / 2, y + size / 2 + 4, "⋮", "note")
            continue
        yield _line(x, y + size / 2, x + plan.room - 6, y + size / 2, "hop")
        yield f'<g class="wave" style="animation-delay:{0.3 * (place + line):.1f}s">'
        yield _rect(x + 9, y, 9, size, "register", 2)
        for left, column in zip(lefts, plan.columns, strict=True):
            yield (_text(left + size / 2, y + size / 2 + 3, "…", "note") if column is None
                   else f'<use href="#element" x="{left:.1f}" y="{y}"/>')
        yield "</g>"

    width = FAMILIES[config.family].sum_bits(config.k_max)
    yield _box(x, plan.bottom + 14, plan.room, 54, "store", f"{config.drain} accumulators of {width} bit",
               f"{config.acc_rows} rows growing, {config.acc_rows} leaving")
    yield _line(x + plan.room / 2, plan.bottom + 68, x + plan.room / 2, plan.pipe - 22, "bus")


def _drain(plan):
    """At the bottom, shared by the groups in turn."""
    first, lanes = LEFT + plan.room / 2, plan.config.drain
    yield _line(first, plan.pipe - 22, RIGHT - plan.room / 2, plan.pipe - 22, "bus")
    yield _line(first, plan.pipe - 22, first, plan.pipe, "bus")
    yield _text(0, plan.pipe + 20, "drain", "label start")
    yield _text(0, plan.pipe + 38, f"{lanes} lanes, each:", "note start")
    width = (RIGHT - LEFT + 12) / len(STEPS)
    for n, name in enumerate(STEPS):
        x = LEFT + n * width
        yield _box(x, plan.pipe, width - 12, 44, "step", name)
        if n:
            yield _line(x - 12, plan.pipe + 22, x, plan.pipe + 22, "bus")
    yield _text(RIGHT, plan.pipe + 66, f"{lanes} results a cycle: FP32, BF16, E4M3, E5M2 or INT8", "note end")


def _some(count, most):
    """Numbers of what is shown of `count`; None stands for those left out."""
    return list(range(count)) if count <= most else [*range(most - 2), None, count - 1]


def _element(size, lanes):
    """One processing element, its multipliers as dots, to be used again and again."""
    across = next(n for n in range(1, lanes + 1) if n * n >= lanes)
    space = (size - 4) / across
    dots = (f'<circle cx="{2 + (n % across + 0.5) * space:.1f}" cy="{2 + (n // across + 0.5) * space:.1f}" '
            f'r="{min(space * 0.3, 2.6):.1f}" fill="currentColor"/>' for n in range(lanes))
    return f'<defs><g id="element">{_rect(0, 0, size, size, "element", 3)}{"".join(dots)}</g></defs>'


def _box(x, y, width, height, kind, title, *lines):
    center, middle = x + width / 2, y + height / 2 - 8 * len(lines) + 4
    return "".join([_rect(x, y, width, height, kind, 6), _text(center, middle, title, "label"),
                    *(_text(center, middle + 16 * n, line, "note") for n, line in enumerate(lines, 1))])


def _rect(x, y, width, height, kind, corner):
    return (f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'rx="{corner}"/>')


def _line(x1, y1, x2, y2, kind):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x, y, text, kind):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{text}</text>'
