# SPDX-License-Identifier: Apache-2.0
"""Stages of a free-running pipeline."""

from amaranth.hdl import Signal, Value
from amaranth.lib import data

__all__ = ["later", "register"]


def register(m, value, name, *, reset=False):
    """`value` one cycle later, in a register that is `reset` or need not be; a structure remains one."""
    shape = value.shape() if isinstance(value, data.View) else Value.cast(value).shape()
    held = Signal(shape, name=name, reset_less=not reset)
    m.d.sync += held.eq(value)
    return held


def later(m, value, cycles, name, *, reset=False):
    """`value` some cycles later."""
    for n in range(cycles):
        value = register(m, value, f"{name}{n}", reset=reset)
    return value
