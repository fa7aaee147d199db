# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.noc.network.Network`: what arrives in a mesh is what golden says. `NOC` is the configuration, as JSON,
`COUNT` the messages that each node sends of each class.

Nodes answer as slowly as they may: they take no request while a reply of theirs has not left, and take no
replies for long stretches of time. All the same nothing waits for ever.
"""

import os
import random

import cocotb
from cocotb.triggers import RisingEdge

from golden.config import Noc
from golden.noc import Mesh, Message, check_groups, group, packets, tree
from golden.packet import Port, Reduction
from golden.paging import pack
from hw.noc.reduce import order
from sim.interface import Tile, draw, openers, place, reply_words, served
from sim.reduce import operands
from sim.stream import reset

CONFIG = Noc.model_validate_json(os.environ["NOC"])
REPLIES = served(CONFIG)
COUNT = int(os.environ["COUNT"])
SUMS = next((each.name for each in CONFIG.classes if each.reduce), None)
QUIET, DEAF = 1500, 250         # cycles without a packet after which it counts as hung; in which a node is deaf


async def reductions(dut, rng, places):
    """Some groups, set up in the routers, and messages for them: by tag and member."""
    if SUMS is None:
        return {}, []
    groups = {}
    for tag in range(CONFIG.groups):
        left, right = sorted(rng.randrange(CONFIG.width) for _ in range(2))
        top, bottom = sorted(rng.randrange(CONFIG.height) for _ in range(2))
        members = [(x, y) for x, y in places if not tag or left <= x <= right and top <= y <= bottom]
        groups[tag] = group(CONFIG.order(SUMS), members, rng.choice(list(Reduction)))
        for (x, y), join in groups[tag].items():
            fields = {name: field.width for name, field in order(CONFIG.groups, x=4, y=4)}
            dut.write.value = pack(fields, {"en": 1, "x": x, "y": y, "group": tag, "entry": join.word})
            await RisingEdge(dut.clk)
    dut.write.value = 0
    check_groups(groups)
    sent = []
    for _ in range(COUNT):
        tag, length = rng.randrange(CONFIG.groups), rng.choice((1, 5, 300))
        root = next(here for here, join in groups[tag].items() if join.output == Port.L)
        sent += [Message(place, SUMS, root, tag=tag, words=tuple(operands(rng, length, CONFIG.data)))
                 for place, join in groups[tag].items() if Port.L in join.inputs]
    return groups, sent


def copies(message):
    """Packets that arrive of it; of a reduction those are counted at its root."""
    if message.kind == SUMS:
        return len(packets(CONFIG, message)) * (message.source == message.dst)
    ways = tree(CONFIG.order(message.kind), message.source, message.dst, message.ext).values()
    return len(packets(CONFIG, message)) * sum(Port.L in ports for _, ports in ways)


@cocotb.test(timeout_time=9, timeout_unit="ms")
@cocotb.parametrize(near=[False, True])
async def traffic(dut, near):
    """Requests and replies under pressure; `near`: all requests go to one column of nodes."""
    rng = random.Random(cocotb.RANDOM_SEED)
    places = [(x, y) for y in range(CONFIG.height) for x in range(CONFIG.width)]
    tiles = [Tile(dut, CONFIG, n, each, stall=0.2) for n, each in enumerate(places)]
    dut.clear.value = 0
    await reset(dut)
    groups, sent = await reductions(dut, rng, places)
    for each in sent:
        tiles[places.index(each.source)].send(each)
    for tile in tiles:
        for _ in range(COUNT):
            for kind in openers(CONFIG):
                if kind == SUMS:
                    continue
                each = draw(CONFIG, rng, kind, tile.place)
                while near and kind in REPLIES and each.dst[0]:
                    each = draw(CONFIG, rng, kind, tile.place)
                sent.append(each)
                tile.send(each)
    left = sum(map(copies, sent))
    quiet = cycle = 0
    deaf = {}
    while left:
        await RisingEdge(dut.clk)
        quiet, cycle = quiet + 1, cycle + 1
        assert quiet < QUIET, f"nothing came for {QUIET} cycles, {left} packets are missing after {cycle}"
        for tile in tiles:
            for kind, each, marked in tile.look():
                quiet, left = 0, left - 1
                assert not marked
                words = reply_words(each.header["reserve"]) if kind in REPLIES and each.header["last"] else None
                if words is not None:
                    answer = Message(tile.place, REPLIES[kind], place(each, "src"), tag=each.header["tag"],
                                     words=tuple(rng.getrandbits(CONFIG.data) for _ in range(words)))
                    sent.append(answer)
                    tile.send(answer)
                    left += len(packets(CONFIG, answer))
            for request, reply in REPLIES.items():
                owes = any(port.queue or port.busy for port in (tile.commands[reply], tile.words[reply]))
                tile.sinks[request].stall = 1.0 if owes else 0.2
                if rng.random() < 1 / 500:
                    deaf[tile.place, reply] = cycle + DEAF
                tile.sinks[reply].stall = 1.0 if deaf.get((tile.place, reply), 0) > cycle else 0.2
    expected, found = Mesh(CONFIG, groups).run(sent), {}
    for tile in tiles:
        for kind, got in tile.got.items():
            for each in got:
                source = each.header["tag"] if kind == SUMS else place(each, "src")
                found.setdefault((tile.place, kind, source), []).append(each)
    assert found.keys() == expected.keys()
    for flow, each in expected.items():
        assert found[flow] == each, f"{flow} differs"
    errors = {f"{part}_error__{n}": int(getattr(dut, f"{part}_error__{n}").value)
              for part in ("router", "interface") for n in range(len(tiles))}
    assert not any(errors.values()), errors
    dut._log.info(f"{len(sent)} messages, {sum(map(len, found.values()))} packets in {cycle} cycles")
