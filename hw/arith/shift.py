# SPDX-License-Identifier: Apache-2.0
"""Shifts by a variable amount, a stage for each bit of it."""

from amaranth.hdl import Cat, Mux, Signal

__all__ = ["saturated", "shift_left", "shift_right"]


def saturated(places, bits):
    """A number of places, not negative, in fewer bits: all ones if it is too large for them."""
    return places[:bits] | places[bits:].any().replicate(bits)


def shift_left(m, value, amount, fill, name):
    """`value` shifted left by `amount`, `fill` in every place that it leaves or does not reach."""
    for stage in range(len(amount)):
        step = fill.replicate(1 << stage)
        shifted = Signal(len(value) + len(step), name=f"{name}{stage}")
        m.d.comb += shifted.eq(Mux(amount[stage], Cat(step, value), Cat(value, step)))
        value = shifted
    return value


def shift_right(m, value, amount, name):
    """The signed `value` shifted right by `amount`, rounding down."""
    for stage in reversed(range(len(amount))):
        gone = min(1 << stage, len(value))
        shifted = Signal(len(value), name=f"{name}{stage}")
        m.d.comb += shifted.eq(Mux(amount[stage], Cat(value[gone:], value[-1].replicate(gone)), value))
        value = shifted
    return value
