# SPDX-License-Identifier: Apache-2.0
"""Two interfaces back to back, and what nodes do with interfaces."""

from collections import defaultdict

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out, connect, flipped

from golden import packet
from golden.noc import Message, Packet, flits, packets, tree
from golden.packet import EXTRA, bucket
from golden.paging import pack
from hw.emit import Block
from hw.noc.interface import ERROR, Interface, streams
from hw.noc.sender import command
from sim.stream import Sink, Source

__all__ = ["Pair", "Tile", "Wire", "draw", "openers", "place", "reply_words", "served"]

class Pair(Block):
    """Two interfaces whose links lead to each other: each takes the other for its router.

    Parameters
    ----------
    config : golden.config.Noc
    places : ((int, int), (int, int))
        Where they believe to be.

    Members
    -------
    n0_..., n1_... :
        Their streams, and `error` each; `clear` of both.
    link : Out(...)
        What goes from 0 to 1: `flit`, `valid` and `credit`.
    strike, flip : In
        The flit of that number, the first being 1, arrives with these bits flipped: a flit's, then `valid`.
    """

    def __init__(self, config, places=((1, 1), (0, 1))):
        self.config, self.places = config, places
        width = sum(packet.flit(config.data).values())
        super().__init__({
            **{f"n{n}_{name}": member for n in range(2) for name, member in streams(config).items()},
            "n0_error": Out(ERROR), "n1_error": Out(ERROR), "clear": In(1),
            "strike": In(16), "flip": In(width), "flit": Out(width), "valid": Out(config.vcs),
            "credit": Out(config.vcs),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.n0, m.submodules.n1 = near, far = Interface(self.config), Interface(self.config)
        for n, each in enumerate((near, far)):
            for name in streams(self.config):
                connect(m, flipped(getattr(self, f"n{n}_{name}")), getattr(each, name))
            m.d.comb += [each.x.eq(self.places[n][0]), each.y.eq(self.places[n][1]), each.clear.eq(self.clear),
                         getattr(self, f"n{n}_error").eq(each.error)]
        connect(m, far.o, near.i)
        count = Signal(16)
        m.d.sync += count.eq(count + near.o.valid.any())
        hit = near.o.valid.any() & (count + 1 == self.strike)
        m.d.comb += [
            self.flit.eq(near.o.flit), self.valid.eq(near.o.valid), self.credit.eq(far.i.credit),
            Value.cast(far.i.flit).eq(Value.cast(near.o.flit) ^ Mux(hit, self.flip, 0)),
            far.i.valid.eq(near.o.valid), near.o.credit.eq(far.i.credit),
        ]
        return m


class Wire:
    """Watches a link out of an interface and compares what goes over it with golden.

    Parameters
    ----------
    config : golden.config.Noc
    place : (int, int)
        Of the interface.

    Attributes
    ----------
    due : dict of str to list of Packet
        By class: what is still to be sent.
    flits : int
        Seen so far.
    """

    def __init__(self, config, place):
        self.config, self.place, self.flits = config, place, 0
        self.due = {each.name: [] for each in config.classes}
        self.kinds = [each.name for each in config.classes for _ in range(each.vcs)]
        self.open = {}                                      # by class: virtual channel, flits still to come
        self.sent = [[] for _ in self.kinds]                # by virtual channel: buckets of flits that hold credits

    def expect(self, message):
        self.due[message.kind] += packets(self.config, message)

    def step(self, flit, valid, credit):
        """A cycle."""
        for vc, sent in enumerate(self.sent):
            if credit >> vc & 1:
                assert sent, f"a credit too many on {vc}"
                del sent[0]
        if not valid:
            return
        self.flits += 1
        vc = valid.bit_length() - 1
        assert valid == 1 << vc, "a flit on two virtual channels"
        kind = self.kinds[vc]
        if not self.open.get(kind, (vc, ()))[1]:
            self._begin(kind, vc)
        on, rest, home = self.open[kind]
        assert on == vc, f"a packet of {kind} goes on on {vc}, not on {on}"
        assert flit == rest.pop(0), f"{kind}: flit {flit:#x}"
        self.sent[vc].append(home)
        assert len(self.sent[vc]) <= self.config.depth, f"a flit without a credit on {vc}"

    def _begin(self, kind, vc):
        each = self.due[kind].pop(0)
        dst, ext, home = place(each, "dst"), place(each, "ext"), bucket(*place(each, "dst"))
        others = [other for other in self.config.channels(kind) if other != vc]
        assert not any(home in self.sent[other] for other in others), f"{dst} on {vc} may overtake itself"
        route = () if self.config[kind].reduce else tree(self.config.order(kind), self.place, dst, ext)[self.place][1]
        layout = packet.flit(self.config.data)
        self.open[kind] = vc, [pack(layout, fields) for fields in flits(each, vc, route)], home


def place(each, name):
    """A node that a packet's header names."""
    return each.header[f"{name}_x"], each.header[f"{name}_y"]


class Tile:
    """A node of a bench: sends messages, and sorts what it gets into packets.

    Parameters
    ----------
    dut, config :
    node : int
        Its number, in the names of its ports.
    place : (int, int)
    idle, stall : float

    Attributes
    ----------
    got : dict of str to list of Packet
        By class, in order: packets that have come whole.
    """

    def __init__(self, dut, config, node, place, idle=0.0, stall=0.0):
        self.config, self.place = config, place
        self.size = config.data
        port = f"n{node}_{{}}_{{}}".format
        self.commands, self.words, self.sinks = {}, {}, {}
        for each in config.classes:
            self.commands[each.name] = Source(dut, port(each.name, "command"), idle=idle)
            self.words[each.name] = Source(dut, port(each.name, "i"), idle=idle)
            self.sinks[each.name] = Sink(dut, port(each.name, "o"), stall=stall)
        self.got, self.open = defaultdict(list), {each.name: [] for each in config.classes}

    def send(self, message):
        fields = {name: field.width for name, field in command(self.size)}
        values = {"dst_x": message.dst[0], "dst_y": message.dst[1], "ext_x": message.ext[0], "ext_y": message.ext[1],
                  "length": len(message.words)}
        values |= {name: getattr(message, name) for name in ("chip", "op", "tag", "reserve", "user")}
        if self.size > EXTRA:
            values["extra"] = message.extra
        self.commands[message.kind].send([pack(fields, values)])
        self.words[message.kind].send(message.words)

    def look(self):
        """Sort what has come; return new packets as (class, Packet, marked)."""
        fresh = []
        for kind, sink in self.sinks.items():
            items, sink.items = sink.items, []
            for item in items:
                data, (first, last, error) = item & (1 << self.size) - 1, (item >> self.size + n & 1 for n in range(3))
                words = self.open[kind]
                assert first == (not words), f"{kind}: a packet inside a packet"
                words.append(data)
                if last:
                    each = Packet.read(words)
                    words.clear()
                    self.got[kind].append(each)
                    fresh.append((kind, each, bool(error)))
        return fresh

    @property
    def busy(self):
        """Something waits to be sent."""
        return any(source.queue or source.busy for source in (*self.commands.values(), *self.words.values()))


def served(config):
    """Classes of requests, and that of their replies."""
    return {each.replies_to: each.name for each in config.classes if each.replies_to}


def openers(config):
    """Classes that a node may send in without being asked."""
    return [each.name for each in config.classes if not each.replies_to]


def reply_words(reserve):
    """Words of the reply that takes so many flits, heads and all; None if there is none."""
    most = (1 << packet.LENGTH)      # flits of a packet
    words = reserve - -(-reserve // most)
    return words if reserve else None


def draw(config, rng, kind, source, longest=20, wrong=0.0):
    """A message of a class; with probability `wrong` one that may be refused."""
    each = config[kind]
    while True:
        loose = rng.random() < wrong
        dst = tuple(rng.randrange(16 if loose else size) for size in (config.width, config.height))
        ext = (0, 0)
        if each.multicast and rng.random() < 0.7 or loose and rng.random() < 0.3:
            ext = tuple(rng.randrange(4 if loose else size - at) if loose or size > at else 0
                        for size, at in zip((config.width, config.height), dst, strict=True))
        if loose or dst != source or ext != (0, 0) or each.reduce:
            break
    reserve = rng.randrange(config.reply_buffer + 1 + 3 * loose)
    count = rng.choice((0, 1, rng.randrange(longest + 1)))
    return Message(
        source, kind, dst, ext, tuple(rng.getrandbits(config.data) for _ in range(count)), op=rng.getrandbits(4),
        tag=rng.randrange(config.groups + 2 * loose) if each.reduce else rng.getrandbits(8), user=rng.getrandbits(7),
        chip=rng.getrandbits(4), reserve=reserve, extra=rng.getrandbits(config.data - EXTRA))
