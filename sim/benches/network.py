# SPDX-License-Identifier: Apache-2.0
"""Bench of `sim.interface.Network`: what arrives in a mesh is what golden says. `NOC` is the configuration, as JSON,
`COUNT` the messages that each node sends of each class.

Nodes answer as slowly as they may: they take no request while a reply of theirs has not left, and take no
replies for long stretches of time. All the same nothing waits for ever.
"""

import os
import random

import cocotb
from cocotb.triggers import RisingEdge

from golden.config import Noc
from golden.noc import Mesh, Message, packets
from sim.interface import Tile, draw, openers, place, reply_words, served
from sim.stream import reset

CONFIG = Noc.model_validate_json(os.environ["NOC"])
REPLIES = served(CONFIG)
COUNT = int(os.environ["COUNT"])
QUIET, DEAF = 1500, 250         # cycles without a packet after which it counts as hung; in which a node is deaf


@cocotb.test(timeout_time=9, timeout_unit="ms")
@cocotb.parametrize(near=[False, True])
async def traffic(dut, near):
    """Requests and replies under pressure; `near`: all requests go to one column of nodes."""
    rng = random.Random(cocotb.RANDOM_SEED)
    places = [(x, y) for y in range(CONFIG.height) for x in range(CONFIG.width)]
    tiles = [Tile(dut, CONFIG, n, each, stall=0.2) for n, each in enumerate(places)]
    dut.clear.value = 0
    await reset(dut)
    sent = []
    for tile in tiles:
        for _ in range(COUNT):
            for kind in openers(CONFIG):
                each = draw(CONFIG, rng, kind, tile.place)
                while near and kind in REPLIES and each.dst[0]:
                    each = draw(CONFIG, rng, kind, tile.place)
                sent.append(each)
                tile.send(each)
    left = sum(len(packets(CONFIG, each)) for each in sent)
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
    expected, found = Mesh(CONFIG).run(sent), {}
    for tile in tiles:
        for kind, got in tile.got.items():
            for each in got:
                found.setdefault((tile.place, kind, place(each, "src")), []).append(each)
    assert found.keys() == expected.keys()
    for flow, each in expected.items():
        assert found[flow] == each, f"{flow} differs"
    assert not int(dut.dropped.value) and not any(int(getattr(dut, f"n{n}_error").value) for n in range(len(tiles)))
    dut._log.info(f"{len(sent)} messages, {sum(map(len, found.values()))} packets in {cycle} cycles")
