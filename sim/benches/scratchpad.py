# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.memory.scratchpad.Scratchpad`, whose arguments are `SCRATCHPAD`, against a bytearray."""

import ast
import os
import random

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from hw.fetch import request, write
from sim.ports import pack
from sim.stream import Sink, Source, check_stalls, reset

SIZE, BANKS, WORD, READERS, WRITERS = ast.literal_eval(os.environ.get("SCRATCHPAD", "(1, 1, 1, (), ())"))


def change(content, rng, word, width, unit):
    """The payload of a random write to a word, and the same to `content`."""
    byte = rng.randrange(0, WORD, unit)
    address, count, data = word * WORD + byte, rng.randint(0, min(width, WORD - byte)), rng.randbytes(width)
    content[address:address + count] = data[:count]
    return pack(write(width), {"address": address, "data": int.from_bytes(data, "little"), "count": count})


def fetch(content, reader, address, stride, beats, rows):
    """(payload, beats that answer it) of a request; addresses wrap round. Behind the end of a word there is nothing."""
    size, _, most_beats, most_rows = reader
    asked = {"address": address, "stride": stride, "beats": beats, "rows": rows}
    starts = [(address + row * stride + beat * size) % SIZE for row in range(rows) for beat in range(beats)]
    answer = [int.from_bytes(content[start:min(start + size, start // WORD * WORD + WORD)], "little")
              for start in starts]
    answer[-1] |= 1 << 8 * size
    return pack(request(most_beats, most_rows), asked), answer


def some(content, rng, reader, end=SIZE):
    """The same of a random request to addresses below `end`."""
    size, unit, most_beats, most_rows = reader
    beats, rows = rng.randint(1, most_beats), rng.randint(1, most_rows)
    length = beats * size
    stride = rng.randrange(0, (end - length) // max(rows - 1, 1) + 1, unit)
    return fetch(content, reader, rng.randrange(0, end - length - (rows - 1) * stride + 1, unit), stride, beats, rows)


def ports(dut, kind, of, stall=0.0):
    """Sources or sinks of all readers or writers."""
    port, probability = (Sink, "stall") if kind == "response" else (Source, "idle")
    return [port(dut, f"{kind}{n}", **{probability: stall}) for n in range(len(of))]


async def fill(dut, sources, content, rng, words, count):
    """All writers change words, each its own; wait until readers see it."""
    for n, (source, shape) in enumerate(zip(sources, WRITERS, strict=True)):
        own = words[n::len(WRITERS)]
        source.send([change(content, rng, rng.choice(own), *shape) for _ in range(count)])
    for source in sources:
        await source.drain()
    await ClockCycles(dut.clk, len(WRITERS))


async def clean(dut, sources):
    """Zeros everywhere."""
    width, unit = WRITERS[0]
    step = max(width // unit, 1) * unit
    sources[0].send(pack(write(width), {"address": at, "count": min(width, step)}) for at in range(0, SIZE, step))
    await sources[0].drain()


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(stall=[0.0, 0.6])
async def random_traffic(dut, stall):
    rng, content = random.Random(cocotb.RANDOM_SEED), bytearray(SIZE)
    writes, requests = ports(dut, "write", WRITERS, stall), ports(dut, "request", READERS, stall)
    responses = ports(dut, "response", READERS, stall)
    dut.clear.value = 0
    await reset(dut)
    await clean(dut, writes)
    words = rng.sample(range(SIZE // WORD), SIZE // WORD)
    await fill(dut, writes, content, rng, words, 200)
    for _ in range(3):
        expected = []
        for source, reader in zip(requests, READERS, strict=True):
            each = [some(content, rng, reader, SIZE // 2) for _ in range(20)]
            source.send(payload for payload, _ in each)
            expected.append([beat for _, beats in each for beat in beats])
        await fill(dut, writes, content, rng, [word for word in words if word >= SIZE // WORD // 2], 50)
        for n, (sink, beats) in enumerate(zip(responses, expected, strict=True)):
            assert await sink.recv(len(beats)) == beats, f"reader {n}"
        for source, sink, reader in zip(requests, responses, READERS, strict=True):
            payload, beats = some(content, rng, reader)
            source.send([payload])
            assert await sink.recv(len(beats)) == beats
    await ClockCycles(dut.clk, 20)
    assert not any(sink.items for sink in responses) and not int(dut.fault.value)
    if stall:
        check_stalls(*requests, *responses)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def reads_see_writes(dut):
    """All writers want the same bank; requests come as many cycles later as there are writers."""
    rng, content = random.Random(cocotb.RANDOM_SEED), bytearray(SIZE)
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    dut.clear.value = 0
    await reset(dut)
    writes = [(getattr(dut, f"write{n}__payload"), getattr(dut, f"write{n}__valid")) for n in range(len(WRITERS))]
    for _, valid in writes:
        valid.value = 0
    for _ in range(30):
        bank = rng.randrange(BANKS)
        rows = rng.sample(range(SIZE // WORD // BANKS), min(len(WRITERS), SIZE // WORD // BANKS))
        waits, expected = [], []
        await RisingEdge(dut.clk)
        for row, (payload, valid), (width, _) in zip(rows, writes, WRITERS, strict=False):
            data, address = rng.randbytes(width), (row * BANKS + bank) * WORD
            content[address:address + width] = data
            payload.value = pack(write(width), {"address": address, "data": int.from_bytes(data, "little"),
                                                "count": width})
            valid.value = 1
            waits.append(valid)
            for n, reader in enumerate(READERS):
                if reader[0] <= width:
                    expected.append((n, *fetch(content, reader, address, 0, 1, 1)))
        await RisingEdge(dut.clk)                   # now they are taken: there was nothing before them
        for valid in waits:
            valid.value = 0
        await ClockCycles(dut.clk, len(WRITERS) - 1)
        for n, payload, _ in expected:              # offered one cycle before they are taken
            requests[n].send([payload])
        for n, _, beats in expected:
            assert await responses[n].recv(1) == beats


def linear(reader, at, total):
    """Requests of consecutive bytes."""
    size, _, beats, rows = reader
    for n in range(-(-total // (beats * rows))):
        yield fetch(bytearray(SIZE), reader, (at + n * beats * rows * size) % SIZE, beats * size, beats, rows)[0]


async def rate(dut, sinks, total, share):
    """Each sink gets that share of `total` beats in as many cycles."""
    await ClockCycles(dut.clk, total + 8)
    for n, sink in enumerate(sinks):
        assert len(sink.items) >= share * total, f"reader {n}: {len(sink.items)} of {total} beats"


@cocotb.test(timeout_time=100, timeout_unit="us")
async def a_beat_a_cycle(dut):
    """Nothing is lost between beats, rows or requests of a reader that is alone."""
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    dut.clear.value = 0
    await reset(dut)
    for source, sink, reader in zip(requests, responses, READERS, strict=True):
        source.send(linear(reader, 0, 120))
        await rate(dut, [sink], 120, 1)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def banks_in_parallel(dut):
    """All at once, each in a bank of its own, a beat a cycle and a write a cycle."""
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    writes = ports(dut, "write", WRITERS)
    dut.clear.value = 0
    await reset(dut)
    for n, (source, reader) in enumerate(zip(requests[:BANKS], READERS, strict=False)):
        size, _, beats, rows = reader
        source.send([fetch(bytearray(SIZE), reader, n * WORD, 0, min(beats, WORD // size), rows)[0]] * 120)
    for n, (source, (width, _)) in enumerate(zip(writes[:BANKS], WRITERS, strict=False)):
        source.send([pack(write(width), {"address": n * WORD, "count": width})] * 120)
    await rate(dut, responses[:BANKS], 120, 1)
    assert not any(source.queue or source.busy for source in writes)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def words_are_read_once(dut):
    """Readers whose beats are narrower than a word share a bank, and each gets a beat a cycle."""
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    dut.clear.value = 0
    await reset(dut)
    shared, sinks = 0, []
    for source, sink, reader in zip(requests, responses, READERS, strict=True):
        size, _, beats, rows = reader
        parts = min(beats, WORD // size)
        if parts > 1 and shared + 1 / parts < 1:
            source.send([fetch(bytearray(SIZE), reader, 0, 0, parts, rows)[0]] * 120)
            shared += 1 / parts
            sinks.append(sink)
    await rate(dut, sinks, 120, 0.97)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def all_banks(dut):
    """All at once, from bank to bank: slow ones do not hold up fast ones for long."""
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    writes = ports(dut, "write", WRITERS)
    dut.clear.value = 0
    await reset(dut)
    for n, (source, reader) in enumerate(zip(requests, READERS, strict=True)):
        source.send(linear(reader, n * WORD, 200))
    for n, (source, (width, _)) in enumerate(zip(writes, WRITERS, strict=True)):
        source.send(pack(write(width), {"address": (n + k) * WORD % SIZE, "count": width}) for k in range(200))
    await rate(dut, responses, 200, 0.7 if BANKS >= len(READERS) else 0.5)
    await ClockCycles(dut.clk, 200 * (len(WRITERS) // BANKS))
    assert not any(source.queue or source.busy for source in writes)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def first_beats(dut):
    """How many cycles after its request the first beat is there."""
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    dut.clear.value = 0
    await reset(dut)
    for n, (source, sink, reader) in enumerate(zip(requests, responses, READERS, strict=True)):
        await ClockCycles(dut.clk, 5)
        source.send([fetch(bytearray(SIZE), reader, 0, 0, 1, 1)[0]])
        await source.drain()
        cycles = 0
        while not sink.items:
            await RisingEdge(dut.clk)
            cycles += 1
        assert cycles == 5 - (reader[1] == WORD), f"reader {n}: {cycles} cycles"


@cocotb.test(timeout_time=100, timeout_unit="us")
async def nobody_starves(dut):
    """All readers and writers want the first bank in each cycle."""
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    writes = ports(dut, "write", WRITERS)
    dut.clear.value = 0
    await reset(dut)
    for source, reader in zip(requests, READERS, strict=True):
        source.send([fetch(bytearray(SIZE), reader, 0, 0, 1, reader[3])[0]] * 200)
    for source, (width, _) in zip(writes, WRITERS, strict=True):
        source.send([pack(write(width), {"count": width})] * 200)
    await ClockCycles(dut.clk, 10)
    before = [sink.moved for sink in responses], [source.moved for source in writes]
    turns = 10
    await ClockCycles(dut.clk, turns * len(READERS))
    for sink, moved in zip(responses, before[0], strict=True):
        assert turns - 1 <= sink.moved - moved <= turns + 1
    for source, moved in zip(writes, before[1], strict=True):
        source.queue.clear()
        assert source.moved - moved >= turns * len(READERS) // len(WRITERS) - 1


@cocotb.test(timeout_time=100, timeout_unit="us")
async def faults(dut):
    """Addresses there are not: writes are dropped, reads answered, and it is told whose they were until
    somebody clears it."""
    rng, content = random.Random(cocotb.RANDOM_SEED), bytearray(SIZE)
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS)
    writes = ports(dut, "write", WRITERS)
    dut.clear.value = 0
    await reset(dut)
    await clean(dut, writes)
    await fill(dut, writes, content, rng, range(SIZE // WORD), 100)

    async def is_told(party):
        await ClockCycles(dut.clk, 10)
        assert int(dut.fault.value) == 1 << party
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        await ClockCycles(dut.clk, 2)
        assert not int(dut.fault.value)

    for n, (source, (width, unit)) in enumerate(zip(writes, WRITERS, strict=True)):
        wrong = [(SIZE, 1), (1 << 31, width), (WORD - unit, unit + 1)]
        for address, count in wrong + [(unit // 2, 1)] * (unit > 1):
            if count <= width:
                source.send([pack(write(width), {"address": address, "data": rng.getrandbits(8 * width),
                                                 "count": count})])
                await is_told(len(READERS) + n)
    for n, (source, sink, reader) in enumerate(zip(requests, responses, READERS, strict=True)):
        size, beats, rows = reader
        wrong = [(SIZE, 0, 1, 1), (1 << 31, 0, beats, rows)]
        wrong += [(SIZE - size, 0, 2, 1)] * (beats > 1) + [(0, SIZE, 1, 2)] * (rows > 1)
        wrong += [(unit // 2, 0, 1, 1)] * (unit > 1)
        for asked in wrong:
            payload, answer = fetch(content, reader, *asked)
            source.send([payload])
            got = await sink.recv(len(answer))
            assert [beat >> 8 * size for beat in got] == [beat >> 8 * size for beat in answer]
            await is_told(n)
    for source, sink, reader in zip(requests, responses, READERS, strict=True):
        for _ in range(20):
            payload, beats = some(content, rng, reader)
            source.send([payload])
            assert await sink.recv(len(beats)) == beats
    assert not int(dut.fault.value)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def reset_in_traffic(dut):
    rng, content = random.Random(cocotb.RANDOM_SEED), bytearray(SIZE)
    requests, responses = ports(dut, "request", READERS), ports(dut, "response", READERS, 0.5)
    writes = ports(dut, "write", WRITERS)
    dut.clear.value = 0
    await reset(dut)
    await clean(dut, writes)
    for source, reader in zip(requests, READERS, strict=True):
        source.send(some(content, rng, reader)[0] for _ in range(20))
    await ClockCycles(dut.clk, 20)
    for source in requests:
        source.queue.clear()
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 1
    for source in requests:
        source.busy = False
        source.valid.value = 0
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 10)
    for sink in responses:
        sink.items.clear()
    await ClockCycles(dut.clk, 10)
    assert not any(sink.items for sink in responses)
    await fill(dut, writes, content, rng, range(SIZE // WORD), 50)
    for source, sink, reader in zip(requests, responses, READERS, strict=True):
        payload, beats = some(content, rng, reader)
        source.send([payload])
        assert await sink.recv(len(beats)) == beats
