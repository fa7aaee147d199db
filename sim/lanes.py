# SPDX-License-Identifier: Apache-2.0
"""Many vectors a cycle through copies of a free-running pipeline: how to test arithmetic by the million."""

import numpy as np
from amaranth.hdl import Module, Shape
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from hw.emit import Block

__all__ = ["LANES", "Lanes", "drive"]

LANES = 16


class Lanes(Block):
    """`count` copies of a block side by side, each of its ports a vector of slots of 8, 16, 32 or 64 bits.

    Parameters
    ----------
    block : type
        A Block with flat ports only.
    arguments : tuple
        Of its constructor.
    count : int
    """

    def __init__(self, block, arguments=(), count=LANES):
        self.block, self.arguments, self.count = block, arguments, count
        self.latency = block.latency
        members = block(*arguments).signature.members
        self.slots = {name: max(8, 1 << (Shape.cast(member.shape).width - 1).bit_length())
                      for name, member in members.items()}
        super().__init__({name: (In if member.flow is In else Out)(count * self.slots[name])
                          for name, member in members.items()})

    def elaborate(self, platform):
        m = Module()
        for n in range(self.count):
            m.submodules[f"lane{n}"] = lane = self.block(*self.arguments)
            for name, member in lane.signature.members.items():
                inner, slot = getattr(lane, name), getattr(self, name).word_select(n, self.slots[name])
                m.d.comb += inner.eq(slot) if member.flow is In else slot.eq(inner)
        return m


async def drive(dut, latency, *outputs, lanes=LANES, **inputs):
    """Send vectors through a `Lanes`, one row a cycle.

    Parameters
    ----------
    dut : cocotb handle
    latency : int
        Cycles from an input to what it causes.
    *outputs : str
        Ports to read.
    lanes : int
        The `count` of the `Lanes`.
    **inputs : array of int
        Vectors of each input port, all of one length; their lowest bits are used.

    Returns
    -------
    list of array
        One an output, of unsigned integers as wide as its slots, as long as the inputs.
    """
    length = max(map(len, inputs.values()))
    rows = -(-length // lanes)

    def port(name):
        handle = getattr(dut, name)
        return handle, np.dtype(f"u{len(handle) // lanes // 8}"), len(handle) // 8

    sent, received = [], []
    for name, vectors in inputs.items():
        handle, kind, size = port(name)
        sent.append((handle, np.resize(vectors.astype(kind), rows * lanes).tobytes(), size))
    for name in outputs:
        handle, kind, size = port(name)
        received.append((handle, kind, size, bytearray()))

    clock = Clock(dut.clk, 2, unit="ns").start()
    for row in range(rows + latency + 1):
        await RisingEdge(dut.clk)       # what is written now is sampled by the next edge
        if row < rows:
            for handle, data, size in sent:
                handle.value = int.from_bytes(data[row * size:(row + 1) * size], "little")
        if row > latency:
            for handle, _, size, data in received:
                data += int(handle.value).to_bytes(size, "little")
    clock.cancel()
    return [np.frombuffer(data, kind)[:length] for _, kind, _, data in received]
