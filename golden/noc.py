# SPDX-License-Identifier: Apache-2.0
"""The network, without its cycles: where packets go, what reductions give, what may wait for what.

Packets travel one dimension to its end, then the other. To a rectangle of nodes they go by the tree of the
ways to each of them, and so nobody gets two copies. From a source to a node, packets of a class stay in order.

A reduction goes the ways of its members to its root, and every router on them makes one packet of those that
come in: its result has the same bits whenever they come.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

import networkx as nx
import numpy as np

from golden import fp32
from golden.packet import DIRECTIONS, FORKS, GROUP, HEADER, ORDER, TURNS, Error, Port, Reduction
from golden.paging import pack, unpack

__all__ = ["DeadlockError", "Join", "Mesh", "Message", "Packet", "check", "check_groups", "combine", "dependencies",
           "flits", "group", "middle", "outputs", "packets", "refusal", "step", "tree"]


class DeadlockError(ValueError):
    """Packets could wait for each other for ever."""


# Ways

def step(here, port):
    """The neighbour of node (x, y) at `port`."""
    return tuple(a + b for a, b in zip(here, DIRECTIONS[port], strict=True))


def outputs(order, entry, here, dst, ext=(0, 0)):
    """Ports that a packet leaves node `here` by, in the order of `FORKS`.

    Parameters
    ----------
    order : str
        `xy` or `yx`.
    entry : Port
        That it came in by.
    here, dst, ext : (int, int)
        It goes to the nodes from `dst` to `dst` + `ext`.
    """
    (x, y), (left, top), (right, bottom) = here, dst, (dst[0] + ext[0], dst[1] + ext[1])
    column, row = left <= x <= right, top <= y <= bottom
    beyond = {Port.E: x < right, Port.W: left < x, Port.N: top < y, Port.S: y < bottom, Port.L: column and row}
    forks = FORKS[order] if (column if order == "xy" else row) else FORKS[order][:2]
    return tuple(port for port in forks if beyond[port] and port in TURNS[order][entry])


def tree(order, source, dst, ext=(0, 0)):
    """The way of a packet: for each node, the port it comes in by and those it leaves by."""
    found, todo = {}, [(source, Port.L)]
    for here, entry in todo:
        found[here] = entry, outputs(order, entry, here, dst, ext)
        todo += [(step(here, port), port.opposite) for port in found[here][1] if port != Port.L]
    return found


# Packets

@dataclass(frozen=True)
class Message:
    """What a node asks its interface to send.

    Attributes
    ----------
    source : (int, int)
    kind : str
        Its class.
    dst, ext : (int, int)
    words : tuple of int
        Of a flit's data each.
    op, tag, user, chip, reserve : int
        Of the header.
    extra : int
        What the head flits carry above the header.
    """

    source: tuple
    kind: str
    dst: tuple
    ext: tuple = (0, 0)
    words: tuple = ()
    op: int = 0
    tag: int = 0
    user: int = 0
    chip: int = 0
    reserve: int = 0
    extra: int = 0


@dataclass(frozen=True)
class Packet:
    """What travels as one.

    Attributes
    ----------
    header : dict of int
    extra : int
    payload : tuple of int
    """

    header: dict
    extra: int = 0
    payload: tuple = ()

    @property
    def words(self):
        """The data of its flits."""
        return pack(HEADER, self.header) | self.extra << sum(HEADER.values()), *self.payload

    @classmethod
    def read(cls, words):
        """The packet whose flits have that data."""
        return cls(unpack(HEADER, words[0]), words[0] >> sum(HEADER.values()), tuple(words[1:]))


def refusal(noc, message):
    """The `Error` that a message is refused with; the first that applies."""
    kind = noc[message.kind]
    end = tuple(a + b for a, b in zip(message.dst, message.ext, strict=True))
    if end[0] >= noc.width or end[1] >= noc.height:
        return Error.OUTSIDE
    if message.ext != (0, 0) and not kind.multicast:
        return Error.RECTANGLE
    if message.dst == end == message.source and not kind.reduce:
        return Error.SELF
    if kind.reduce and message.tag >= noc.groups:
        return Error.NO_GROUP
    if message.reserve > noc.reply_buffer:
        return Error.RESERVE
    return Error.NONE


def packets(noc, message):
    """The packets of a message, in order."""
    size = noc.segment(message.kind)
    places = {f"{name}_{axis}": value for name, point in
              (("dst", message.dst), ("ext", message.ext), ("src", message.source))
              for axis, value in zip("xy", point, strict=True)}
    fields = places | {name: getattr(message, name) for name in ("chip", "op", "tag", "reserve", "user")}
    cuts = [message.words[first:first + size] for first in range(0, len(message.words), size)] or [()]
    return [Packet(fields | {"length": len(cut), "last": int(cut is cuts[-1])}, message.extra, tuple(cut))
            for cut in cuts]


def flits(packet, vc, route):
    """The flits of a packet on a link: `route` are the outputs that its head takes of the router it goes to."""
    words = packet.words
    for index, word in enumerate(words):
        fields = {"data": word, "head": int(index == 0), "tail": int(index == len(words) - 1),
                  "route": 0 if index else sum(1 << port for port in route)}
        ones = sum(value.bit_count() for value in (*fields.values(), vc))
        yield fields | {"parity": ones % 2}


# Reductions

@dataclass(frozen=True)
class Join:
    """What a router does for a group.

    Attributes
    ----------
    inputs : tuple of Port
        In `ORDER`.
    output : Port
    op : Reduction
    """

    inputs: tuple
    output: Port
    op: Reduction

    @property
    def word(self):
        """As its register holds it."""
        return pack(GROUP, {"inputs": sum(1 << port for port in self.inputs), "output": self.output, "op": self.op})


def middle(members):
    """The node from which the farthest member is the nearest; of several the first, row by row."""
    xs, ys = zip(*members, strict=True)
    nodes = [(x, y) for y in range(min(ys), max(ys) + 1) for x in range(min(xs), max(xs) + 1)]
    return min(nodes, key=lambda node: max(abs(node[0] - x) + abs(node[1] - y) for x, y in members))


def group(order, members, op, root=None):
    """The `Join` of each router on the ways from `members` to `root`, by default to their middle."""
    root = root or middle(members)
    inputs, output = defaultdict(set), {}
    for member in members:
        way = {root: (Port.L, (Port.L,))} if member == root else tree(order, member, root)
        for here, (entry, (port,)) in way.items():
            inputs[here].add(entry)
            output[here] = port
    return {here: Join(tuple(port for port in ORDER if port in inputs[here]), output[here], op) for here in inputs}


OPERATIONS = {
    Reduction.SUM_INT32: np.add,
    Reduction.SUM_FP32: fp32.add,
    Reduction.MAX_INT32: lambda a, b: np.maximum(a.view(np.int32), b.view(np.int32)).view(np.uint32),
    Reduction.MAX_FP32: fp32.maximum,
}


def combine(op, operands):
    """((E + W) + (N + S)) + L: arrays of uint32 by `Port`. What is absent is left out, what is alone goes through."""
    def pair(a, b):
        return b if a is None else a if b is None else OPERATIONS[op](a, b)

    east, west, north, south, local = map(operands.get, ORDER)
    return pair(pair(pair(east, west), pair(north, south)), local)


def check_groups(groups):
    """Refuse reductions that, under way at a time, could wait for each other for ever.

    Every node must start its reductions in one and the same order. Then those of two groups pass a link in that
    order if one node behind it, at least, is a member of both; without such a node they could pass one link
    in this order and another in that, and meet at a router crosswise.

    Parameters
    ----------
    groups : dict of int to dict of (int, int) to Join

    Raises
    ------
    DeadlockError
    """
    def behind(joins, here):
        return {member for port in joins[here].inputs for member in
                ({here} if port == Port.L else behind(joins, step(here, port)))}

    for (one, a), (other, b) in combinations(groups.items(), 2):
        for here in a.keys() & b.keys():
            if a[here].output == b[here].output != Port.L and not behind(a, here) & behind(b, here):
                raise DeadlockError(f"groups {one} and {other} share {_name((here, a[here].output))} "
                                    "and no member behind it, so nothing keeps them in order")


# Deadlock

@lru_cache
def _hops(width, height, order, routing):
    """All that packets do: {(node, entry, output)}."""
    nodes, found = list(product(range(width), range(height))), set()
    for dst in nodes:
        todo = [(here, Port.L) for here in nodes if here != dst]
        seen = set(todo)
        for here, entry in todo:
            for port in routing(order, entry, here, dst):
                found.add((here, entry, port))
                after = None if port == Port.L else (step(here, port), port.opposite)
                if after and after not in seen:
                    seen.add(after)
                    todo.append(after)
    return found


def dependencies(noc, routing=outputs, early=False):
    """What may wait for what: a graph of channels (node, output, virtual channel).

    A packet that holds a channel waits for the next one of its way. A multicast holds the outputs of a router
    that come first in `FORKS` while it waits for the next, and nothing beyond them, as it moves on only when it
    has all, and room behind each for all of it. A request at its node waits for the reply to leave; replies
    have their place in the requester's buffer. A reduction holds its inputs and waits for the output; that its
    inputs come to each other is a matter of `check_groups`.

    Parameters
    ----------
    noc : golden.config.Noc
    routing : function
        In the place of `outputs`. Of several ports it may take any.
    early : bool
        Multicasts move on to each output when they have it, and so hold all beyond it as well.
    """
    graph = nx.DiGraph()
    firsts = {}
    for kind in noc.classes:
        vcs, order = noc.channels(kind.name), noc.order(kind.name)
        hops = _hops(noc.width, noc.height, order, routing)
        taken = defaultdict(set)
        for here, entry, port in hops:
            taken[here, entry].add(port)
        firsts[kind.name] = [(here, port, vc) for here, entry, port in hops if entry == Port.L for vc in vcs]
        graph.add_nodes_from((here, port, vc) for here, _, port in hops for vc in vcs)
        graph.add_edges_from(
            ((step(here, entry), entry.opposite, held), (here, port, vc))
            for here, entry, port in hops if entry != Port.L for held, vc in product(vcs, vcs))
        if kind.multicast:
            ways = graph.copy() if early else nx.DiGraph()
            for here, entry in taken:
                branches = [(here, port, vcs[0]) for port in FORKS[order] if port in taken[here, entry]]
                for held, waited in combinations(branches, 2):
                    beyond = nx.descendants(ways, held) if early else ()
                    graph.add_edges_from((each, waited) for each in (held, *beyond))
    for kind in noc.classes:
        if kind.replies_to:
            graph.add_edges_from(
                ((here, Port.L, held), (here, port, vc)) for here, port, vc in firsts[kind.name]
                for held in noc.channels(kind.replies_to))
    return graph


@lru_cache
def check(noc, routing=outputs, early=False):
    """Refuse a network whose channels could wait for each other in a circle; see `dependencies`.

    Raises
    ------
    DeadlockError
        Names the channels.
    """
    graph = dependencies(noc, routing, early)
    try:
        cycle = nx.find_cycle(graph)
    except nx.NetworkXNoCycle:
        return
    circle = min(([held, *nx.shortest_path(graph, waited, held)] for held, waited in cycle), key=len)
    raise DeadlockError(f"packets could wait in a circle: {' -> '.join(map(_name, circle))}")


def _name(channel):
    (x, y), port, *vc = channel
    return f"({x}, {y}).{Port(port).name}{''.join(f'.{each}' for each in vc)}"


# The whole

class Mesh:
    """All routers and interfaces: what arrives where.

    Parameters
    ----------
    noc : golden.config.Noc
    groups : dict of int to dict of (int, int) to Join
        By tag, as `group` makes them.
    """

    def __init__(self, noc, groups=None):
        self.noc, self.groups = noc, groups or {}

    def run(self, messages):
        """Send `Message`s, those of a node in their order; those that `refusal` names are left out.

        Returns
        -------
        dict of (node, class, source) to list of Packet
            What arrives, in order. The source of a reduction is its group.
        """
        arrived, operands = defaultdict(list), defaultdict(lambda: defaultdict(list))
        for message in messages:
            if refusal(self.noc, message):
                continue
            if self.noc[message.kind].reduce:
                operands[message.kind, message.tag][message.source] += packets(self.noc, message)
                continue
            way = tree(self.noc.order(message.kind), message.source, message.dst, message.ext)
            for node, (_, ports) in way.items():
                if Port.L in ports:
                    arrived[node, message.kind, message.source] += packets(self.noc, message)
        for (kind, tag), sent in operands.items():
            root = next(here for here, join in self.groups[tag].items() if join.output == Port.L)
            for each in zip(*sent.values(), strict=True):
                arrived[root, kind, tag].append(self.reduce(tag, dict(zip(sent, each, strict=True))))
        return dict(arrived)

    def reduce(self, tag, sent):
        """The result of a group at its root: packets by member to one, with the header of its first input.

        Raises
        ------
        ValueError
            When a member's is missing or the lengths differ.
        """
        joins = self.groups[tag]
        members = {here for here, join in joins.items() if Port.L in join.inputs}
        if sent.keys() != members:
            raise ValueError(f"group {tag} has members {sorted(members)}, not {sorted(sent)}")
        if len({len(packet.payload) for packet in sent.values()}) > 1:
            raise ValueError(f"group {tag} has packets of different lengths")

        def result(here):
            inputs = {port: sent[here] if port == Port.L else result(step(here, port)) for port in joins[here].inputs}
            first = inputs[joins[here].inputs[0]]
            lanes = combine(joins[here].op, {port: self._lanes(packet) for port, packet in inputs.items()})
            return Packet(first.header, first.extra, tuple(int.from_bytes(row.tobytes(), "little") for row in lanes))

        return result(next(here for here in joins if joins[here].output == Port.L))

    def _lanes(self, packet):
        size = self.noc.data // 8
        data = b"".join(word.to_bytes(size, "little") for word in packet.payload)
        return np.frombuffer(data, dtype="<u4").reshape(len(packet.payload), size // 4)
