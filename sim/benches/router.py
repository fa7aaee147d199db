# SPDX-License-Identifier: Apache-2.0
"""Bench of one `Router` against `golden.noc.outputs`.

`CONFIG` is its `golden.config.Noc` as JSON, `SIDES` where it has neighbours.
"""

import json
import os
import random
from collections import defaultdict

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from golden.config import Noc
from golden.noc import Message, Packet, flits, outputs, packets, step, tree
from golden.packet import Error, Port, bucket
from golden.paging import unpack
from hw.noc.router import ERROR
from sim.link import Receiver, Sender, sound
from sim.stream import reset

NOC = Noc(**json.loads(os.environ["CONFIG"]))
SIDES = os.environ["SIDES"]
PORTS = [port for port in Port if port.name in f"{SIDES}L"]
HERE = 0 if "W" not in SIDES else NOC.width - 1 if "E" not in SIDES else 1, \
    0 if "N" not in SIDES else NOC.height - 1 if "S" not in SIDES else 1
NODES = [(x, y) for y in range(NOC.height) for x in range(NOC.width)]


def route(port, kind, dst, ext=(0, 0)):
    """Outputs of this router."""
    return outputs(NOC.order(kind), port, HERE, dst, ext)


def traffic(rng, count):
    """Random packets that come by here, by input: class and packet."""
    found = {port: [] for port in PORTS}
    for number in range(count):
        each = rng.choice(NOC.classes)
        source, dst, ext = rng.choice(NODES), rng.choice(NODES), (0, 0)
        if each.multicast and rng.random() < 0.7:
            ext = rng.randrange(NOC.width - dst[0]), rng.randrange(NOC.height - dst[1])
        port, ways = tree(NOC.order(each.name), source, dst, ext).get(HERE, (None, ()))
        if ways:
            size = rng.choice((0, 0, 1, 3, 9))
            words = tuple(rng.getrandbits(NOC.data) for _ in range(min(size, NOC.segment(each.name))))
            message = Message(source=source, kind=each.name, dst=dst, ext=ext, words=words,
                              tag=number & 255, user=number >> 8 & 127)
            found[port] += [(each.name, packet) for packet in packets(NOC, message)]
    return found


def one(kind, source, dst, size):
    """A packet with that many words, or as many as one may have."""
    return packets(NOC, Message(source=source, kind=kind, dst=dst, words=tuple(range(1, size + 1))))[0]


def place(packet):
    return packet.header["dst_x"], packet.header["dst_y"]


def extent(packet):
    return packet.header["ext_x"], packet.header["ext_y"]


class Bench:
    """Senders and receivers at all ports."""

    def __init__(self, dut, idle, stall):
        self.dut = dut
        dut.x.value, dut.y.value = HERE
        dut.clear.value = dut.probe.value = 0
        self.senders = {port: Sender(dut, f"{port.name.lower()}_i", NOC.data, NOC.depth, idle=idle) for port in PORTS}
        self.receivers = {port: Receiver(dut, f"{port.name.lower()}_o", NOC.data, NOC.depth, stall=stall)
                          for port in PORTS}

    def send(self, port, kind, packet, way=None):
        way = route(port, kind, place(packet), extent(packet)) if way is None else way
        vcs = list(NOC.channels(kind))
        self.senders[port].send({vc: list(flits(packet, vc, way)) for vc in vcs}, vcs, bucket(*place(packet)))

    async def drain(self):
        for sender in self.senders.values():
            await sender.drain()
        await ClockCycles(self.dut.clk, 4)

    def check(self, given):
        """All packets have come where they belong, with the right route, and in order."""
        expected = defaultdict(list)
        for port, list_ in given.items():
            for kind, packet in list_:
                for out in route(port, kind, place(packet), extent(packet)):
                    expected[out].append((port, kind, packet))
        for out, receiver in self.receivers.items():
            kinds = [next(each.name for each in NOC.classes if vc in NOC.channels(each.name))
                     for vc, _ in receiver.packets]
            found = [(kind, Packet.read([fields["data"] for fields in got]))
                     for kind, (_, got) in zip(kinds, receiver.packets, strict=True)]
            for (kind, packet), (vc, got) in zip(found, receiver.packets, strict=True):
                way = () if out == Port.L else outputs(NOC.order(kind), out.opposite, step(HERE, out), place(packet),
                                                       extent(packet))
                assert got == list(flits(packet, vc, way)), f"{packet} came out of {out.name} changed"
            assert len(found) == len(expected[out])
            flows = defaultdict(list)
            for port, kind, packet in expected[out]:
                flows[port, kind, place(packet), extent(packet)].append(packet.words)
            for (_, kind, *_), mine in flows.items():
                assert [packet.words for each, packet in found if each == kind and packet.words in mine] == mine


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(idle=[0.0, 0.7], stall=[0.0, 0.9])
async def random_traffic(dut, idle, stall):
    bench = Bench(dut, idle, stall)
    await reset(dut)
    given = traffic(random.Random(cocotb.RANDOM_SEED), 1000)
    for port, list_ in given.items():
        for kind, packet in list_:
            bench.send(port, kind, packet)
    await bench.drain()
    bench.check(given)
    assert not int(dut.error.value)
    assert idle > stall or any(sender.stalls for sender in bench.senders.values())
    assert not stall or all(receiver.stalls for receiver in bench.receivers.values() if receiver.packets)


@cocotb.test(timeout_time=10, timeout_unit="us")
async def one_cycle_a_hop(dut):
    """A flit leaves in the cycle after it came, and a packet flows without a bubble, where three flits have room."""
    bench = Bench(dut, 0.0, 0.0)
    await reset(dut)
    kind = NOC.classes[0].name
    port = next(port for port in PORTS if any(route(port, kind, dst) for dst in NODES))
    dst = next(dst for dst in NODES if route(port, kind, dst))
    (out,) = route(port, kind, dst)
    packet = one(kind, HERE, dst, 20)
    bench.send(port, kind, packet)
    valid = bench.receivers[out].valid
    while not int(bench.senders[port].valid.value):
        await RisingEdge(dut.clk)
    for cycle in range((len(packet.words) if NOC.depth > 2 else 2) + NOC.output_register):
        await RisingEdge(dut.clk)
        assert bool(int(valid.value)) == (cycle >= NOC.output_register)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def damaged_heads(dut):
    """Any bit of a head that is wrong is reported; the packet is dropped whole, and all others come."""
    bench = Bench(dut, 0.0, 0.3)
    await reset(dut)
    rng = random.Random(cocotb.RANDOM_SEED)
    given = traffic(rng, 100)
    for port in PORTS:
        kind = NOC.classes[0].name
        ways = [dst for dst in NODES if route(port, kind, dst)]
        if not ways:
            continue
        packet = one(kind, HERE, rng.choice(ways), 3)
        vc = NOC.channels(kind)[0]
        bits = [("data", n) for n in range(64)] + [("parity", 0), ("head", 0)]
        bits += [("route", out) for out in {out for dst in NODES for out in route(port, kind, dst)}]
        for name, bit in bits:
            bad = list(flits(packet, vc, route(port, kind, place(packet))))
            bad[0] = bad[0] | {name: bad[0][name] ^ 1 << bit}
            assert not sound(bad[0], vc)
            bench.senders[port].send({vc: bad}, [vc], bucket(*place(packet)))
            await bench.drain()
            error = unpack({name: field.width for name, field in ERROR}, int(dut.error.value))
            assert error["code"] in ((Error.FRAME,) if name == "head" else (Error.PARITY, Error.ROUTE, Error.FRAME))
            assert error["port"] == port and error["vc"] == vc
            dut.clear.value = 1
            await ClockCycles(dut.clk, 2)
            dut.clear.value = 0
            await ClockCycles(dut.clk, 2)
            assert not int(dut.error.value)
    assert not any(receiver.packets for receiver in bench.receivers.values())
    for port, list_ in given.items():
        for kind, packet in list_:
            bench.send(port, kind, packet)
    await bench.drain()
    bench.check(given)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def lost_and_early_ends(dut):
    """A packet whose end is lost goes on with the next, of odd parity; after an early end the rest is dropped."""
    bench = Bench(dut, 0.0, 0.0)
    await reset(dut)
    kind, vc = NOC.classes[0].name, NOC.channels(NOC.classes[0].name)[0]
    port = max(PORTS, key=lambda port: len({route(port, kind, dst) for dst in NODES}))
    ways = {route(port, kind, dst): dst for dst in NODES if route(port, kind, dst)}
    (out,), (other,) = list(ways)[0], list(ways)[-1]
    good, next_ = (list(flits(one(kind, HERE, ways[way,], 3), vc, (way,))) for way in (out, other))
    size = len(good)
    for index, change in ((size - 1, {"tail": 0}), (1, {"tail": 1}))[:1 + (size > 2)]:
        for receiver in bench.receivers.values():
            receiver.packets.clear()
        bad = good[:index] + [good[index] | change] + good[index + 1:]
        bench.senders[port].send({vc: bad + next_ + good}, [vc], 0)
        await bench.drain()
        got = list(bench.receivers[out].packets)
        if index == size - 1:   # the next is swallowed, whatever way it wants to go
            assert [len(packet) for _, packet in got] == [2 * size, size]
            assert not any(receiver.packets for each, receiver in bench.receivers.items() if each != out)
        else:
            got += bench.receivers[other].packets if other != out else []
            assert [len(packet) for _, packet in got] == [2, size, size]
        assert not all(sound(fields, vc) for vc, packet in got[:1] for fields in packet)
        assert all(sound(fields, vc) for vc, packet in got[1:] for fields in packet)
        assert int(dut.error.value) & 7 == Error.FRAME
        dut.clear.value = 1
        await ClockCycles(dut.clk, 2)
        dut.clear.value = 0
