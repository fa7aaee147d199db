# SPDX-License-Identifier: Apache-2.0
"""Cocotb drivers for Amaranth streams, found by the flattened names `<prefix>__payload/valid/ready`.

Everything is sampled and driven right after the rising edge: reads see the values before the edge,
writes take effect after it (`sim/benches/canary.py` holds Verilator to this).
"""

import random
from collections import deque

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

__all__ = ["Port", "Sink", "Source", "check_stalls", "reset"]


async def reset(dut, *, running=False):
    """Start the clock unless it is `running`, and hold reset for two edges."""
    dut.rst.value = 1
    if not running:
        Clock(dut.clk, 2, unit="ns").start()
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


class Port:
    """The handles of one stream, and what its driver saw.

    Attributes
    ----------
    payload, valid, ready : cocotb handles
    moved : int
        Cycles in which an item passed.
    blocked : int
        Cycles of back-pressure: valid, not ready.
    starved : int
        Cycles of starvation: ready, not valid.
    """

    def __init__(self, dut, prefix, rng=None):
        self.prefix, self.clk, self.rst = prefix, dut.clk, dut.rst
        self.payload, self.valid, self.ready = (
            getattr(dut, f"{prefix}__{member}") for member in ("payload", "valid", "ready"))
        self.rng = rng or random.Random(f"{cocotb.RANDOM_SEED} {prefix}")
        self.moved = self.blocked = self.starved = 0

    def _count(self, valid, ready):
        self.moved += valid and ready
        self.blocked += valid and not ready
        self.starved += ready and not valid


def check_stalls(*ports):
    """Assert that every port saw traffic, back-pressure and starvation.

    A stall bench that never stalled proves nothing.
    """
    for port in ports:
        for seen in ("moved", "blocked", "starved"):
            assert getattr(port, seen), f"stream {port.prefix} was never {seen}"


class Source(Port):
    """Sends items, idling between them with probability `idle`; holds each until it is taken."""

    def __init__(self, dut, prefix, *, rng=None, idle=0.0):
        super().__init__(dut, prefix, rng)
        self.idle, self.queue = idle, deque()
        self.valid.value = 0
        cocotb.start_soon(self._run())

    def send(self, items):
        self.queue.extend(items)

    async def drain(self):
        """Wait until every item has been taken."""
        while self.queue or self.busy:
            await RisingEdge(self.clk)

    async def _run(self):
        self.busy = False
        while True:
            await RisingEdge(self.clk)
            ready = bool(self.ready.value)
            self._count(self.busy, ready)
            if self.busy and not ready:
                continue                   # stream rule 2: hold valid and payload
            self.busy = bool(self.queue) and self.rng.random() >= self.idle
            self.valid.value = self.busy
            if self.busy:
                self.payload.value = self.queue.popleft()


class Sink(Port):
    """Takes items, stalling with probability `stall`, and asserts that a waiting item does not change.

    `await recv(n)` returns the next n of them.
    """

    def __init__(self, dut, prefix, *, rng=None, stall=0.0):
        super().__init__(dut, prefix, rng)
        self.stall, self.items = stall, []
        self.ready.value = 0
        cocotb.start_soon(self._run())

    async def recv(self, count):
        while len(self.items) < count:
            await RisingEdge(self.clk)
        items, self.items = self.items[:count], self.items[count:]
        return items

    async def _run(self):
        ready, waiting = False, None
        while True:
            await RisingEdge(self.clk)
            valid = bool(self.valid.value)
            item = int(self.payload.value) if valid else None
            self._count(valid, ready)
            assert waiting in (None, item) or self.rst.value, f"stream {self.prefix} changed a waiting item"
            waiting = None if ready else item
            if valid and ready:
                self.items.append(item)
            ready = self.rng.random() >= self.stall
            self.ready.value = ready
