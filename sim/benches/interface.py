# SPDX-License-Identifier: Apache-2.0
"""Bench of `sim.interface.Pair`: two interfaces back to back. `NOC` is the configuration, as JSON."""

import os
import random
from collections import defaultdict

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from golden.config import Noc
from golden.noc import Message, packets, refusal
from golden.packet import Error
from golden.paging import unpack
from hw.noc.interface import ERROR
from sim.interface import Tile, Wire, draw, place, reply_words
from sim.stream import check_stalls, reset

CONFIG = Noc.model_validate_json(os.environ["NOC"])
PLACES = (0, 0), (1, 0)
KINDS = [each.name for each in CONFIG.classes]
REPLIES = {each.replies_to: each.name for each in CONFIG.classes if each.replies_to}
FREE = [name for name in KINDS if name not in REPLIES.values()]     # classes that a node may begin to send in
COMMAND, LINK, OUT = 1, 1, 1        # cycles: command to link, link to what is delivered
QUIET = 400


async def start(dut, *, idle=0.0, stall=0.0, running=False):
    dut.clear.value = dut.strike.value = dut.flip.value = 0
    tiles = [Tile(dut, CONFIG, n, place, idle, stall) for n, place in enumerate(PLACES)]
    await reset(dut, running=running)
    return tiles


async def watch(dut, wire):
    while True:
        await RisingEdge(dut.clk)
        wire.step(*(int(getattr(dut, name).value) for name in ("flit", "valid", "credit")))


def error(dut, node):
    fields = unpack({name: field.width for name, field in ERROR}, int(getattr(dut, f"n{node}_error").value))
    return fields | {"code": Error(fields["code"])}


async def clear(dut):
    dut.clear.value = 1
    await ClockCycles(dut.clk, 2)
    dut.clear.value = 0
    await RisingEdge(dut.clk)


def due(config, messages):
    """What arrives, by class, source, and where it was meant to go: golden's packets, in order."""
    found = defaultdict(list)
    for message in messages:
        if not refusal(config, message):
            for each in packets(config, message):
                found[message.kind, message.source, message.dst].append(each)
    return found


def message(kind, words=0, dst=PLACES[1], **fields):
    rng = random.Random(words)
    return Message(PLACES[0], kind, dst, words=tuple(rng.getrandbits(CONFIG.data) for _ in range(words)), **fields)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(idle=[0.0, 0.6], stall=[0.0, 0.5, 0.9])
async def random_traffic(dut, idle, stall):
    """Mixed classes both ways, requests answered, some messages refused: all as golden says, flit by flit."""
    rng = random.Random(cocotb.RANDOM_SEED)
    tiles = await start(dut, idle=idle, stall=stall)
    wire = Wire(CONFIG, PLACES[0])
    checker = cocotb.start_soon(watch(dut, wire))
    sent = [[], []]
    for n, tile in enumerate(tiles):
        for kind in FREE:
            for _ in range(40):
                sent[n].append(draw(CONFIG, rng, kind, tile.place, wrong=0.2))
                tile.send(sent[n][-1])
    for each in sent[0]:
        if not refusal(CONFIG, each):
            wire.expect(each)
    count = [sum(map(len, due(CONFIG, each).values())) for each in sent]
    arrived, quiet = [0, 0], 0
    replies, owed = 0, 0
    while arrived[0] < count[1] + replies or arrived[1] < count[0] + owed or any(tile.busy for tile in tiles):
        await RisingEdge(dut.clk)
        quiet += 1
        for n, tile in enumerate(tiles):
            for kind, each, marked in tile.look():
                quiet = 0
                assert not marked
                arrived[n] += 1
                words = reply_words(each.header["reserve"]) if kind in REPLIES and each.header["last"] else None
                if words is not None:
                    answer = Message(tile.place, REPLIES[kind], place(each, "src"), tag=each.header["tag"],
                                     words=tuple(rng.getrandbits(CONFIG.data) for _ in range(words)))
                    sent[n].append(answer)
                    tile.send(answer)
                    parts = len(packets(CONFIG, answer))
                    if n == 0:
                        wire.expect(answer)
                        owed += parts
                    else:
                        replies += parts
        assert quiet < QUIET, f"nothing came for {QUIET} cycles: {arrived} of {count}"
    await ClockCycles(dut.clk, 8)
    checker.cancel()
    assert not any(wire.due.values()) and not any(rest for _, rest, _ in wire.open.values())
    for n, tile in enumerate(tiles):
        expected = due(CONFIG, sent[1 - n])
        found = defaultdict(list)
        for kind, got in tile.got.items():
            for each in got:
                found[kind, place(each, "src"), place(each, "dst")].append(each)
        assert found.keys() == expected.keys()
        for flow, each in expected.items():
            assert found[flow] == each, f"{flow} differs"
        kinds = {refusal(CONFIG, each) for each in sent[n]} - {Error.NONE}
        assert (error(dut, n)["code"] in kinds) == bool(kinds)
    assert not any(wire.sent), "credits are missing"
    if idle and stall:
        check_stalls(*(sink for tile in tiles for sink in tile.sinks.values()))


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(kind=FREE)
async def a_flit_a_cycle(dut, kind):
    """Into the link and out of it, long messages and single flits; a cycle to the link, another to the node."""
    tiles = await start(dut)
    wire = Wire(CONFIG, PLACES[0])
    cocotb.start_soon(watch(dut, wire))
    dst = (0, 1) if CONFIG[kind].reduce else PLACES[1]
    for words, count in ((0, 60), (CONFIG.segment(kind), 60 if CONFIG.segment(kind) < 10 else 2), (0, 1)):
        messages = [message(kind, words, dst) for _ in range(count)]
        for each in messages:
            wire.expect(each)
            tiles[0].send(each)
        port, begin = tiles[0].commands[kind], wire.flits
        while not port.busy:
            await RisingEdge(dut.clk)
        total = sum(len(each.words) for m in messages for each in packets(CONFIG, m))
        await ClockCycles(dut.clk, COMMAND)
        assert wire.flits == begin and not tiles[1].sinks[kind].items
        await RisingEdge(dut.clk)
        assert wire.flits == begin + 1
        rate = 1 if CONFIG.depth > 2 else 2 / 3       # credits come back after three cycles
        await ClockCycles(dut.clk, round((total - 1) / rate) + 1)
        assert wire.flits - begin >= total - 1, f"{wire.flits - begin} flits of {total}"
        await ClockCycles(dut.clk, 3)
        assert wire.flits - begin == total
        assert len(tiles[1].sinks[kind].items) == total
        tiles[1].look()


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def refusals(dut):
    """Each has its code, is reported with what it was, and takes its words along."""
    tiles = await start(dut)
    for n, kind in enumerate(KINDS):
        cases = [
            message(kind, 3, (CONFIG.width, 0)), message(kind, 0, (0, CONFIG.height)), message(kind, 1, (15, 15)),
            message(kind, 1, (1, 0), ext=(min(CONFIG.width - 1, 15), 0)), message(kind, 2, (1, 0), ext=(0, min(CONFIG.height, 15))),
            message(kind, 2, (1, 0), ext=(0, 1)), message(kind, 2, (0, 0), ext=(1, 0)), message(kind, 4, (0, 0)),
            message(kind, 1, tag=CONFIG.groups), message(kind, 5, reserve=CONFIG.reply_buffer + 1),
            message(kind, 300, (0, 0)),
        ]
        for case in cases:
            if max(case.dst) > 15:
                continue                    # there is no saying so
            good = message(kind, 2, tag=1)
            tiles[0].send(case)
            tiles[0].send(good)
            while tiles[0].busy:
                await RisingEdge(dut.clk)
            await ClockCycles(dut.clk, 10)
            got = [found for _, found, _ in tiles[1].look()]
            code = refusal(CONFIG, case)
            assert got == ([] if code else packets(CONFIG, case)) + packets(CONFIG, good), f"{kind} {case}"
            found = error(dut, 0)
            assert found["code"] == code, f"{kind} {case} is {found}, not {code!r}"
            if code:
                assert (found["x"], found["y"], found["kind"], found["tag"]) == (*case.dst, n, case.tag)
            await clear(dut)
            assert not error(dut, 0)["code"]


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(kind=KINDS, words=[0, 3])
async def damage(dut, kind, words):
    """Each bit of each flit of a packet: it is dropped or marked, reported, and no other is the worse for it."""
    tiles = await start(dut)
    wire = Wire(CONFIG, PLACES[0])
    cocotb.start_soon(watch(dut, wire))
    width = len(dut.flip)
    head, tail = CONFIG.data, CONFIG.data + 1
    words = min(words, CONFIG.segment(kind))
    for at in range(words + 1):
        for bit in range(width):
            if at > 1 and bit < CONFIG.data and bit % 7:
                continue                        # of a body's data a few will do
            dut.strike.value, dut.flip.value = wire.flits + at + 1, 1 << bit
            hit, next_ = message(kind, words, tag=2), message(kind, 1, tag=3)
            for each in hit, next_:
                wire.expect(each)
                tiles[0].send(each)
            while tiles[0].busy:
                await RisingEdge(dut.clk)
            await ClockCycles(dut.clk, 12)
            got = [(found, marked) for _, found, marked in tiles[1].look()]
            assert got.pop() == (packets(CONFIG, next_)[0], False), f"flit {at}, bit {bit}: {got}"
            found = error(dut, 1)
            if at == 0:
                assert not got, f"flit {at}, bit {bit}"
                assert found["code"] == (Error.FRAME if bit == head else Error.PARITY)
            else:
                (_, marked), = got
                assert marked
                assert found["code"] == Error.PAYLOAD
                assert (found["x"], found["y"], found["tag"], found["kind"]) == (*PLACES[0], 2, KINDS.index(kind))
                if bit not in (head, tail):
                    assert got[0][0].header == packets(CONFIG, hit)[0].header
            assert not any(wire.sent), f"flit {at}, bit {bit}: credits are missing"
            await clear(dut)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def replies_sink(dut):
    """While nobody takes replies, requests wait for place, and nothing else does."""
    for request, reply in REPLIES.items():
        tiles = await start(dut)
        tiles[0].sinks[reply].stall = 1.0
        size = CONFIG.reply_buffer
        first, count = max(size // 3, 1), size // max(size // 3, 1)
        for _ in range(count + 1):
            tiles[0].send(message(request, 1, reserve=first))
        await ClockCycles(dut.clk, 60)
        asked = tiles[1].look()
        assert len(asked) == count, "a request without place for its reply has left, or one with it has not"
        for _ in asked:
            tiles[1].send(Message(PLACES[1], reply, PLACES[0], words=(1,) * reply_words(first)))
        await ClockCycles(dut.clk, 20 + 4 * size)
        assert not tiles[1].busy, "replies have not left, though there is place for them"
        tiles[0].sinks[reply].stall = 0.0
        await ClockCycles(dut.clk, 20 + 4 * size)
        assert [kind for kind, _, _ in tiles[0].look()] == [reply] * count
        assert len(tiles[1].look()) == 1
        return


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def reset_in_traffic(dut):
    rng = random.Random(cocotb.RANDOM_SEED)
    tiles = await start(dut, stall=0.9)
    for kind in FREE:
        for _ in range(20):
            tiles[0].send(draw(CONFIG, rng, kind, PLACES[0]))
    await ClockCycles(dut.clk, 50)
    for source in (*tiles[0].commands.values(), *tiles[0].words.values()):
        source.queue.clear()
    dut.rst.value = 1
    for _ in range(100):                        # what the drivers still hold is lost in the reset
        await RisingEdge(dut.clk)
        for source in (*tiles[0].commands.values(), *tiles[0].words.values()):
            source.valid.value, source.busy = 0, False
    dut.rst.value = 0
    for sink in tiles[1].sinks.values():
        sink.items.clear()
        sink.stall = 0.0
    for kind in FREE:
        tiles[0].send(message(kind, 2))
    await ClockCycles(dut.clk, 40)
    assert sorted(kind for kind, _, _ in tiles[1].look()) == sorted(
        kind for kind in FREE for _ in packets(CONFIG, message(kind, 2)))


