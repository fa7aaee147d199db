# SPDX-License-Identifier: Apache-2.0
"""Cocotb drivers for the links of the network, found by names such as `n_i__flit/valid/credit`.

As in `sim.stream` everything is sampled and driven right after the rising edge.
"""

import random
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from golden.packet import flit
from golden.paging import pack, unpack

__all__ = ["Receiver", "Sender", "sound"]


def sound(fields, vc):
    """Whether a flit has the right parity on a virtual channel."""
    return sum(value.bit_count() for value in (*fields.values(), vc)) % 2 == 0


class _Link:
    def __init__(self, dut, prefix, bits, rng):
        self.prefix, self.clk, self.rst, self.layout = prefix, dut.clk, dut.rst, flit(bits)
        self.flit, self.valid, self.credit = (
            getattr(dut, f"{prefix}__{member}") for member in ("flit", "valid", "credit"))
        self.vcs = len(self.valid)
        self.rng = rng or random.Random(f"{cocotb.RANDOM_SEED} {prefix}")
        self.stalls = 0         # cycles in which something waited


class Sender(_Link):
    """Sends packets, idling between flits with probability `idle`.

    `send` takes the flits of a packet by virtual channel, the virtual channels that it may take, and its bucket.
    It takes one that has credits, but never leaves the one where others of its bucket are.
    """

    def __init__(self, dut, prefix, bits, depth, *, rng=None, idle=0.0):
        super().__init__(dut, prefix, bits, rng)
        self.depth, self.idle, self.queue = depth, idle, deque()
        self.there = [deque() for _ in range(self.vcs)]     # buckets of flits in the buffers
        self.valid.value = 0
        cocotb.start_soon(self._run())

    def send(self, flits, vcs, bucket):
        self.queue.append((flits, vcs, bucket))

    async def drain(self):
        """Wait until all is sent and has left the buffers."""
        while self.queue or self.busy or any(self.there):
            await RisingEdge(self.clk)

    async def _run(self):
        packets = [None] * self.vcs         # that have begun
        self.busy = False
        while True:
            await RisingEdge(self.clk)
            if self.rst.value:
                continue
            for vc in range(self.vcs):
                if int(self.credit.value) >> vc & 1:
                    self.there[vc].popleft()
            if self.queue:
                flits, vcs, bucket = self.queue[0]
                bound = [vc for vc in vcs if bucket in self.there[vc]] or vcs
                free = [vc for vc in bound if not packets[vc] and len(self.there[vc]) < self.depth]
                if free and (len(vcs) == 1 or not any(packets[vc] and packets[vc][1] == bucket for vc in vcs)):
                    vc = self.rng.choice(free)
                    packets[vc] = deque(flits[vc]), bucket
                    self.queue.popleft()
            ready = [vc for vc in range(self.vcs) if packets[vc] and len(self.there[vc]) < self.depth]
            self.busy = any(packets)
            self.stalls += self.busy and not ready
            self.valid.value = 0
            if ready and self.rng.random() >= self.idle:
                vc = self.rng.choice(ready)
                flits, bucket = packets[vc]
                self.flit.value = pack(self.layout, flits.popleft())
                self.valid.value = 1 << vc
                self.there[vc].append(bucket)
                packets[vc] = packets[vc] if flits else None
            else:
                self.flit.value = self.rng.getrandbits(len(self.flit))      # of no one's concern


class Receiver(_Link):
    """Takes flits into buffers and out of them, but for a share `stall` of cycles.

    Attributes
    ----------
    packets : list of (int, list of dict)
        Virtual channel and flits of each packet, in the order of their heads.
    """

    def __init__(self, dut, prefix, bits, depth, *, rng=None, stall=0.0):
        super().__init__(dut, prefix, bits, rng)
        self.depth, self.stall, self.packets = depth, stall, []
        self.level, self.open = [0] * self.vcs, [None] * self.vcs
        self.credit.value = 0
        cocotb.start_soon(self._run())

    async def _run(self):
        while True:
            await RisingEdge(self.clk)
            if self.rst.value:
                continue
            valid = int(self.valid.value)
            assert valid.bit_count() <= 1, f"{self.prefix}: two virtual channels at once"
            if valid:
                self._take(valid.bit_length() - 1, unpack(self.layout, int(self.flit.value)))
            ready = [vc for vc in range(self.vcs) if self.level[vc] and self.rng.random() >= self.stall]
            self.stalls += any(self.level) and not ready
            for vc in ready:
                self.level[vc] -= 1
            self.credit.value = sum(1 << vc for vc in ready)

    def _take(self, vc, fields):
        self.level[vc] += 1
        assert self.level[vc] <= self.depth, f"{self.prefix}: a flit without a credit"
        assert bool(fields["head"]) == (self.open[vc] is None), f"{self.prefix}: packets are mixed"
        if fields["head"]:
            self.open[vc] = []
            self.packets.append((vc, self.open[vc]))
        self.open[vc].append(fields)
        if fields["tail"]:
            self.open[vc] = None
