# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.kvcache.controller.Controller`: operands that are announced and do not come."""

import cocotb

from golden.paging import PAYLOADS, STAT, Command, Opcode, Status, Table, unpack
from sim.stream import Sink, Source, reset


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def operands_that_do_not_come(dut):
    commands, operands, retire = (Source(dut, name) for name in ("i", "operands", "retire"))
    completions, *_ = [Sink(dut, name) for name in ("o", "hits", "ranges", "moves", "events")]
    dut.clear.value = retire.valid.value = 0
    dut.pool.value, dut.lru_tail.value = 18, 0
    await reset(dut)

    async def run(opcode, given=(), *sent):
        commands.send([Command(opcode, {"sid": 0} if opcode not in (Opcode.LOOKUP, Opcode.STAT) else {}).word
                       | Command(opcode, dict(given)).word])
        operands.send(sent)
        word, = await completions.recv(1)
        return Status(word >> 8 & 0xFF), word >> 16

    async def block(number):
        status, payload = await run(Opcode.STAT, {"table": Table.BLOCK, "index": number})
        return status, unpack(STAT[Table.BLOCK], unpack(PAYLOADS[Opcode.STAT], payload)["value"])

    async def good(opcode, given=(), *sent):
        status, payload = await run(opcode, given, *sent)
        assert status == Status.OK
        return unpack(PAYLOADS[opcode], payload)

    await good(Opcode.ALLOC_SEQ)
    await good(Opcode.APPEND, {"tokens": 4})
    await good(Opcode.COMMIT, {"hash": 77})
    await good(Opcode.PREEMPT)
    before = [await block(number) for number in range(1, 18)]
    assert (await run(Opcode.LOOKUP, {"count": 2}, 77))[0] == Status.BUS_ERR
    assert (await run(Opcode.LOOKUP, {"count": 9}, 5))[0] == Status.BUS_ERR
    assert (await run(Opcode.ATTACH, {"count": 3}, 1, 1))[0] == Status.BUS_ERR
    assert (await run(Opcode.ATTACH, {"count": 3, "tokens": 99}, 1))[0] == Status.OUT_OF_SEQ_TABLE
    assert [await block(number) for number in range(1, 18)] == before
    assert await good(Opcode.LOOKUP, {"count": 1}, 77) == {"hits": 1, "idle": 1}
    assert await good(Opcode.ATTACH, {"count": 1, "tokens": 5}, 1) == {"blocks": 2}
