# SPDX-License-Identifier: Apache-2.0
"""The timing all benches rest on: right after a rising edge, reads see the values from before it and
writes land after it."""

import cocotb
from cocotb.triggers import RisingEdge

from sim.stream import reset


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def reads_before_writes_after_the_edge(dut):
    """The DUT is `o <= i` in one register: what is written after edge n is seen after edge n + 2."""
    await reset(dut)
    dut.i.value = 0
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.i.value = 1                        # just after edge 0: too late for edge 0
    seen = []
    for _ in range(3):
        await RisingEdge(dut.clk)
        seen.append(int(dut.o.value))      # edge 1 samples i, but o is read as it was before edge 1
    assert seen == [0, 1, 1]
