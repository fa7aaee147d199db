# SPDX-License-Identifier: Apache-2.0
"""The largest of several values."""

from amaranth.hdl import Mux, Signal

__all__ = ["largest_of"]


def largest_of(m, values):
    """The largest of some unsigned values of one width, by a tree of comparisons."""
    while len(values) > 1:
        pairs, values = [values[n:n + 2] for n in range(0, len(values), 2)], []
        for pair in pairs:
            larger = Signal(len(pair[0]), name="larger")
            m.d.comb += larger.eq(Mux(pair[0] > pair[-1], pair[0], pair[-1]))
            values.append(larger)
    return values[0]
