# SPDX-License-Identifier: Apache-2.0
"""What two interfaces back to back (`sim.interface.Pair`) are put through, each scenario from a reset on."""

import random
from collections import defaultdict

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from golden.noc import Message, packets, refusal
from golden.packet import Error
from golden.paging import unpack
from hw.noc.interface import ERROR
from sim.interface import Tile, Wire, draw, openers, place, reply_words, served
from sim.stream import reset

__all__ = ["PLACES", "damage", "flit_a_cycle", "random_traffic", "refusals", "replies_sink", "reset_in_traffic"]

PLACES = (1, 1), (0, 1)
COMMAND = 1         # cycles from a command to its head on the link
QUIET = 400         # cycles without a packet after which something hangs


class Bench:
    """A pair after its reset: its nodes, and the watched link from one to the other."""

    @classmethod
    async def start(cls, dut, config, idle=0.0, stall=0.0):
        self = cls()
        self.dut, self.config = dut, config
        dut.clear.value = dut.strike.value = dut.flip.value = 0
        self.tiles = [Tile(dut, config, n, each, idle, stall) for n, each in enumerate(PLACES)]
        await reset(dut)
        self.wire = Wire(config, PLACES[0])
        cocotb.start_soon(self._watch())
        return self

    async def _watch(self):
        while True:
            await RisingEdge(self.dut.clk)
            if not self.dut.rst.value:
                self.wire.step(*(int(getattr(self.dut, name).value) for name in ("flit", "valid", "credit")))

    async def cycles(self, count):
        await ClockCycles(self.dut.clk, count)

    async def sent(self, node=0):
        """Wait until a node has nothing more to send."""
        for _ in range(QUIET * 4):
            if not self.tiles[node].busy:
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError("something is never sent")

    def send(self, message):
        """From node 0."""
        if not refusal(self.config, message):
            self.wire.expect(message)
        self.tiles[0].send(message)

    def message(self, kind, words=0, dst=PLACES[1], **fields):
        rng = random.Random(words)
        return Message(PLACES[0], kind, dst, words=tuple(rng.getrandbits(self.config.data) for _ in range(words)),
                       **fields)

    def error(self, node):
        value = int(getattr(self.dut, f"n{node}_error").value)
        fields = unpack({name: field.width for name, field in ERROR}, value)
        return fields | {"code": Error(fields["code"])}

    async def clear(self):
        self.dut.clear.value = 1
        await self.cycles(2)
        self.dut.clear.value = 0
        await RisingEdge(self.dut.clk)
        assert not self.error(0)["code"] and not self.error(1)["code"], "an error stays after clear"


async def random_traffic(dut, config, idle=0.0, stall=0.0, count=40):
    """Mixed classes both ways, requests answered, some messages refused: all as golden says, flit by flit."""
    rng = random.Random(cocotb.RANDOM_SEED)
    bench = await Bench.start(dut, config, idle, stall)
    tiles, asked, sent = bench.tiles, served(config), [[], []]

    def send(n, message):
        sent[n].append(message)
        bench.send(message) if n == 0 else tiles[n].send(message)
        return 0 if refusal(config, message) else len(packets(config, message))

    left = sum(send(n, draw(config, rng, kind, PLACES[n], wrong=0.2))
               for n in range(2) for kind in openers(config) for _ in range(count))
    quiet = 0
    while left or any(tile.busy for tile in tiles):
        await RisingEdge(dut.clk)
        quiet += 1
        assert quiet < QUIET, f"nothing came for {QUIET} cycles, {left} packets are missing"
        for n, tile in enumerate(tiles):
            for kind, each, marked in tile.look():
                assert not marked
                quiet, left = 0, left - 1
                words = reply_words(each.header["reserve"]) if kind in asked and each.header["last"] else None
                if words is not None:
                    left += send(n, Message(
                        tile.place, asked[kind], place(each, "src"), tag=each.header["tag"],
                        words=tuple(rng.getrandbits(config.data) for _ in range(words))))
    await bench.cycles(8)
    assert not any(bench.wire.due.values()) and not any(rest for _, rest, _ in bench.wire.open.values())
    assert not any(bench.wire.sent), "credits are missing"
    for n, tile in enumerate(tiles):
        expected = defaultdict(list)        # heads come as they left: all of a class is in order, whatever it is for
        for message in sent[1 - n]:
            if not refusal(config, message):
                expected[message.kind] += packets(config, message)
        assert tile.got == expected
        kinds = {refusal(config, each) for each in sent[n]} - {Error.NONE}
        assert (bench.error(n)["code"] in kinds) == bool(kinds)
    if idle and stall:
        sinks = [sink for tile in tiles for sink in tile.sinks.values()]
        assert all(sink.moved and sink.blocked for sink in sinks) and any(sink.starved for sink in sinks)


async def flit_a_cycle(dut, config, kind):
    """Into the link and out of it, long messages and single flits; a cycle to the link, another to the node."""
    bench = await Bench.start(dut, config)
    tile, wire, sink = bench.tiles[0], bench.wire, bench.tiles[1].sinks[kind]
    dst, size = (0, 1) if config[kind].reduce else PLACES[1], config.segment(kind)
    for words, count in ((0, 60), (size, 60 if size < 10 else 2), (size + 1, 5), (0, 1)):
        messages = [bench.message(kind, words, dst) for _ in range(count)]
        for each in messages:
            bench.send(each)
        begin, total = wire.flits, sum(len(each.words) for m in messages for each in packets(config, m))
        while not tile.commands[kind].busy:
            await RisingEdge(dut.clk)
        await bench.cycles(COMMAND)
        assert wire.flits == begin and not sink.items
        await RisingEdge(dut.clk)
        assert wire.flits == begin + 1
        await RisingEdge(dut.clk)
        if kind not in served(config).values():
            assert len(sink.items) == 1
        rate = 1 if config.depth > 2 else 2 / 3       # credits come back after three cycles
        await bench.cycles(round((total - 1) / rate))
        assert wire.flits - begin >= total - 1, f"{wire.flits - begin} flits of {total}"
        await bench.cycles(3)
        assert wire.flits - begin == len(sink.items) == total
        bench.tiles[1].look()


async def refusals(dut, config):
    """Each has its code, is reported with what it was, and takes its words along."""
    bench = await Bench.start(dut, config)
    width, height = min(config.width, 15), min(config.height, 15)
    for n, kind in enumerate(each.name for each in config.classes):
        cases = [
            bench.message(kind, 3, (config.width, 0), tag=0xA5), bench.message(kind, 0, (0, config.height)),
            bench.message(kind, 1, (15, 15), tag=0x5A), bench.message(kind, 1, (1, 0), ext=(width - 1, 0)),
            bench.message(kind, 2, (1, 0), ext=(0, height)), bench.message(kind, 2, (1, 0), ext=(0, 1)),
            bench.message(kind, 2, (0, 0), ext=(1, 0)), bench.message(kind, 4, PLACES[0]),
            bench.message(kind, 1, tag=config.groups), bench.message(kind, 5, reserve=config.reply_buffer + 1),
            bench.message(kind, 300, PLACES[0]), bench.message(kind, 1, reserve=255),
        ]
        for case in cases:
            if max(case.dst) > 15:
                continue                    # there is no saying so
            good = bench.message(kind, 2, tag=1)
            bench.send(case)
            bench.send(good)
            await bench.sent()
            await bench.cycles(10)
            got = [found for _, found, _ in bench.tiles[1].look()]
            code = refusal(config, case)
            assert got == ([] if code else packets(config, case)) + packets(config, good), f"{kind} {case}"
            found = bench.error(0)
            assert found["code"] == code, f"{kind} {case} is {found}, not {code!r}"
            if code:
                assert (found["x"], found["y"], found["kind"], found["tag"]) == (*case.dst, n, case.tag)
                bench.send(bench.message(kind, 0, PLACES[0], tag=9))         # the first one stays
                await bench.sent()
                await bench.cycles(3)
                assert bench.error(0) == found, "the first error does not stay"
                bench.tiles[1].look()
            await bench.clear()


async def damage(dut, config, kind, words):
    """Each bit of each flit of a packet: it is dropped or marked, reported, and no other is the worse for it."""
    bench = await Bench.start(dut, config)
    head, tail, words = config.data, config.data + 1, min(words, config.segment(kind))
    number, tag = [each.name for each in config.classes].index(kind), 2 if config[kind].reduce else 0xA5
    for at in range(words + 1):
        for bit in range(len(dut.flip)):
            if at > 1 and bit < config.data and bit % 7:
                continue                        # of a body's data a few will do
            dut.strike.value, dut.flip.value = bench.wire.flits + at + 1, 1 << bit
            hit, after = bench.message(kind, words, tag=tag), bench.message(kind, 1, tag=3)
            bench.send(hit)
            bench.send(after)
            await bench.sent()
            await bench.cycles(12)
            got = [(found, marked) for _, found, marked in bench.tiles[1].look()]
            assert got and got.pop() == (packets(config, after)[0], False), f"flit {at}, bit {bit}: {got}"
            found = bench.error(1)
            if at == 0:
                assert not got, f"flit {at}, bit {bit}"
                assert found["code"] == (Error.FRAME if bit == head else Error.PARITY)
                assert found["x"] == found["y"] == found["tag"] == 0       # who knows?
                assert found["kind"] == number
            else:
                assert [marked for _, marked in got] == [True], f"flit {at}, bit {bit}"
                assert found == {"code": Error.PAYLOAD, "x": 1, "y": 1, "tag": tag, "kind": number}
                if bit not in (head, tail):
                    assert got[0][0].header == packets(config, hit)[0].header
            assert not any(bench.wire.sent), f"flit {at}, bit {bit}: credits are missing"
            await bench.clear()


async def replies_sink(dut, config):
    """While nobody takes replies, requests wait for place, and replies do not."""
    for request, reply in served(config).items():
        bench = await Bench.start(dut, config)
        near, far = bench.tiles
        near.sinks[reply].stall = 1.0
        size, part = config.reply_buffer, max(config.reply_buffer // 3, 1)
        count = size // part
        for _ in range(count + 1):
            bench.send(bench.message(request, 1, reserve=part))
        await bench.cycles(60)
        assert len(far.look()) == count, "a request without place for its reply has left, or one with it has not"
        for _ in range(count):
            far.send(Message(PLACES[1], reply, PLACES[0], words=(1,) * reply_words(part)))
        await bench.cycles(20 + 4 * size)
        assert not far.busy, "replies have not left, though there is place for them"
        near.sinks[reply].stall = 0.0
        await bench.cycles(20 + 4 * size)
        assert [kind for kind, _, _ in near.look()] == [reply] * count
        assert len(far.look()) == 1
        near.sinks[reply].stall = 1.0
        more = Message(PLACES[1], reply, PLACES[0], words=tuple(range(size + 4)))       # which nobody asked for
        far.send(more)
        await bench.cycles(20 + 2 * size)
        near.sinks[reply].stall = 0.0
        await bench.cycles(20 + 4 * size)
        near.look()
        assert near.got[reply][count:] == packets(config, more), "what nobody asked for does not wait"
        bench.send(bench.message(request, 1, reserve=size))         # all place is free again
        await bench.cycles(20)
        assert len(far.look()) == 1
        return


async def reset_in_traffic(dut, config):
    """After a reset nothing is left of what was before it."""
    rng = random.Random(cocotb.RANDOM_SEED)
    bench = await Bench.start(dut, config, stall=0.9)
    near, far = bench.tiles
    for kind in openers(config):
        for _ in range(20):
            bench.send(draw(config, rng, kind, PLACES[0]))
    await bench.cycles(50)
    sources = *near.commands.values(), *near.words.values()
    dut.rst.value = 1
    for _ in range(5):                          # what the drivers still hold is lost
        for source in sources:
            source.queue.clear()
            source.valid.value, source.busy = 0, False
        await RisingEdge(dut.clk)
    bench.wire = Wire(config, PLACES[0])
    for sink in far.sinks.values():
        sink.items.clear()
        sink.stall = 0.0
    for words in far.open.values():
        words.clear()
    dut.rst.value = 0
    due = [bench.message(kind, 2) for kind in openers(config)]
    for each in due:
        bench.send(each)
    await bench.cycles(40)
    assert sorted(kind for kind, _, _ in far.look()) == sorted(
        each.kind for each in due for _ in packets(config, each))
