# SPDX-License-Identifier: Apache-2.0
"""Stages of a free-running pipeline."""

from amaranth.hdl import Signal, Value

__all__ = ["register"]


def register(m, value, name):
    """`value` one cycle later, in a register that needs no reset."""
    held = Signal(Value.cast(value).shape(), name=name, reset_less=True)
    m.d.sync += held.eq(value)
    return held
