# SPDX-License-Identifier: Apache-2.0
"""Collectives on a simulated mesh with interfaces: what nodes get, compared with golden, and when.

The whole of `hw.noc.network.Network`, built by Verilator with a program around it, `collectives.cpp`, in the place of
the tiles. What a tile gets of a reduction it may send on as a multicast at once: that makes an all-reduce.
"""

import random
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from golden.noc import Mesh, Message, Packet, check_groups, group, middle
from golden.packet import Reduction
from golden.paging import pack
from hw.noc.network import Network
from hw.noc.reduce import order
from hw.noc.sender import command
from sim import glue
from sim.interface import place
from sim.reduce import operands

__all__ = ["Group", "Result", "all_reduce", "broadcast", "build", "run", "whole"]


@dataclass(frozen=True)
class Group:
    """The nodes from `dst` to `dst` + `ext`, whose vectors are summed at `root`; by default in their middle."""

    dst: tuple
    ext: tuple
    root: tuple | None = None

    @property
    def nodes(self):
        return [(self.dst[0] + x, self.dst[1] + y) for y in range(self.ext[1] + 1) for x in range(self.ext[0] + 1)]

    @property
    def middle(self):
        return self.root or middle(self.nodes)


@dataclass(frozen=True)
class Result:
    """A run in which every node got what golden says.

    Attributes
    ----------
    times : dict of (node, class) to list of int
        The cycles in which words of packets arrived, headers and all; in cycle 0 the first command is offered.
    """

    times: dict

    @property
    def cycles(self):
        """From the first command to the last word, both included."""
        return 1 + max(map(max, self.times.values()))


def whole(noc):
    return Group((0, 0), (noc.width - 1, noc.height - 1))


def all_reduce(noc, count, groups=None, *, rounds=1, op=Reduction.SUM_FP32, stall=0.0, seed=1):
    """The nodes of each group send vectors to its root, which sends the sum to all of them.

    Parameters
    ----------
    noc : golden.config.Noc
        With a class of reductions and one with multicast.
    count : int
        Flits of a vector.
    groups : list of Group
        By default one of all nodes. Their roots must differ.
    rounds : int
        Vectors of each group, one after the other.
    op : Reduction
    stall : float
        Probability with which a tile begins nothing, or takes nothing, in a cycle.
    seed : int

    Returns
    -------
    Result

    Raises
    ------
    AssertionError
        When a node got something else.
    """
    rng, (sums, cast), groups = random.Random(seed), _classes(noc), groups or [whole(noc)]
    if len({each.middle for each in groups}) < len(groups):
        raise ValueError(f"groups must have roots of their own, not {[each.middle for each in groups]}")
    joins = {tag: group(noc.order(sums), each.nodes, op, each.middle) for tag, each in enumerate(groups)}
    sent = [Message(node, sums, each.middle, tag=tag, words=tuple(operands(rng, count, noc.data)))
            for _ in range(rounds) for tag, each in enumerate(groups) for node in each.nodes]
    turns = {tag: Message(each.middle, cast, each.dst, each.ext, tag=tag) for tag, each in enumerate(groups)}
    return run(noc, sent, joins, turns, stall=stall, seed=seed)


def broadcast(noc, source, count, *, stall=0.0, seed=1):
    """A node sends `count` flits of data to all others; see `all_reduce`."""
    rng, (_, cast), area = random.Random(seed), _classes(noc), whole(noc)
    words = tuple(rng.getrandbits(noc.data) for _ in range(count))
    return run(noc, [Message(source, cast, area.dst, area.ext, words)], stall=stall, seed=seed)


def run(noc, messages, groups=None, turns=None, *, stall=0.0, seed=1):
    """Send `Message`s, those of a node in their order.

    Parameters
    ----------
    groups : dict of int to dict of (int, int) to Join
        By tag, as `golden.noc.group` makes them.
    turns : dict of int to Message
        What the root of a group makes of a result, but for the words.
    """
    groups, turns = groups or {}, turns or {}
    check_groups(groups)
    nodes = [(x, y) for y in range(noc.height) for x in range(noc.width)]
    names = [each.name for each in noc.classes]
    expected = _expected(noc, messages, groups, turns)
    lines = [f"write {_write(noc, tag, here, join):x}" for tag, joins in groups.items() for here, join in joins.items()]
    lines += [f"turn {nodes.index(each.source)} {tag} {_command(noc, each):x}" for tag, each in turns.items()]
    lines += [" ".join(["send", str(nodes.index(each.source)), str(names.index(each.kind)),
                        *(f"{word:x}" for word in (_command(noc, each), *each.words))]) for each in messages]
    words = sum(len(packet.words) for arrived in expected.values() for packet in arrived)
    program = build(noc)
    done = subprocess.run([program, f"words={words}", f"stall={stall}", f"seed={seed}"], input="\n".join(lines),
                          text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stderr}")
    found, times = _found(noc, nodes, names, done.stdout.splitlines())
    wrong = sorted({flow for flow in {*found, *expected} if found.get(flow) != expected.get(flow)})
    assert not wrong, f"{len(wrong)} flows are not what they should be; the first to {wrong[0]}; seed {seed}"
    return Result(times)


@lru_cache
def build(noc):
    """Have the simulation of a network ready; return its program."""
    return glue.build(Network(noc), ("router_", "interface_"), "collectives", _glue(noc))


def _classes(noc):
    """The names of the classes of reductions and of multicasts."""
    sums, cast = ([each.name for each in noc.classes if getattr(each, what)] for what in ("reduce", "multicast"))
    if not sums or not cast or noc.data != 64:
        raise ValueError("collectives need 64 bits, a class of reductions, and one with multicast")
    return sums[0], cast[0]


def _write(noc, tag, here, join):
    fields = {name: field.width for name, field in order(noc.groups, x=4, y=4)}
    return pack(fields, {"en": 1, "x": here[0], "y": here[1], "group": tag, "entry": join.word})


def _command(noc, message):
    fields = {name: field.width for name, field in command(noc.data)}
    values = {name: getattr(message, name) for name in ("chip", "op", "tag", "reserve", "user")}
    for name in "dst", "ext":
        values[f"{name}_x"], values[f"{name}_y"] = getattr(message, name)
    return pack(fields, {**values, "length": len(message.words)})


def _expected(noc, messages, groups, turns):
    """What arrives, as of `golden.noc.Mesh`; the multicasts of a root after what else it sends."""
    mesh, (sums, _) = Mesh(noc, groups), _classes(noc)
    results = mesh.run([each for each in messages if each.kind == sums])
    onward = [Message(**{**vars(each), "words": result.payload}) for tag, each in turns.items()
              for result in results[each.source, sums, tag]]
    return mesh.run([*messages, *onward])


def _found(noc, nodes, names, lines):
    """Packets by flow, and times, from the lines that the program wrote."""
    sums, _ = _classes(noc)
    found, times, begun = defaultdict(list), defaultdict(list), defaultdict(list)
    for line in lines:
        cycle, node, kind, data, marks = line.split()
        here, name, words = nodes[int(node)], names[int(kind)], begun[node, kind]
        first, last, error = (int(marks, 16) >> n & 1 for n in range(3))
        assert not error and first == (not words), f"{name}: node {here} got {data} {marks} in cycle {cycle}"
        words.append(int(data, 16))
        times[here, name].append(int(cycle))
        if last:
            packet = Packet.read(words)
            found[here, name, packet.header["tag"] if name == sums else place(packet, "src")].append(packet)
            words.clear()
    return found, times


def _glue(noc):
    """The network, for C++."""
    sums, cast = _classes(noc)
    names = [each.name for each in noc.classes]
    yield from glue.constants(noc)
    for name, value in (("SUMS", names.index(sums)), ("CAST", names.index(cast)),
                        ("COUNT", command(noc.data)["length"].offset)):
        yield f"constexpr int {name} = {value};"
    yield "struct Input { QData* payload; CData* valid; CData* ready; };"
    yield "struct Output { EData* payload; CData* valid; CData* ready; };"
    for way, kind in ("command", "Input"), ("i", "Input"), ("o", "Output"):
        yield f"inline {kind} port_{way}(Vtop& top, int node, int kind) {{"
        yield "    switch (node * KINDS + kind) {"
        for n in range(noc.width * noc.height):
            for k, name in enumerate(names):
                payload, valid, ready = (glue.port(f"n{n}_{name}_{way}__{member}")
                                         for member in ("payload", "valid", "ready"))
                payload = f"&top.{payload}" if kind == "Input" else f"top.{payload}.data()"
                yield f"    case {n * len(names) + k}: return {{{payload}, &top.{valid}, &top.{ready}}};"
        yield "    }\n    __builtin_unreachable();\n}"
    errors = [f"top.{glue.port(f'{unit}_error__{n}')}" for unit in ("router", "interface")
              for n in range(noc.width * noc.height)]
    yield f"inline bool failed(Vtop& top) {{ return {' || '.join(errors)}; }}"
