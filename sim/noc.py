# SPDX-License-Identifier: Apache-2.0
"""Traffic on the simulated mesh: what it delivers, how fast, over which links.

The mesh alone, built by Verilator with a program around it, `noc.cpp`, in the place of the interfaces. What
arrives is checked: the right packets with the right data at the right nodes, each once, and those of a flow
in order.
"""

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from golden.noc import tree
from golden.packet import Port, bucket, flit
from hw.noc.mesh import Mesh
from hw.noc.router import ERROR
from sim import glue

__all__ = ["FAULTS", "PATTERNS", "Result", "Traffic", "bound", "build", "hops", "links", "run", "shares"]

MULTICASTS = ("broadcast", "rectangle")
PATTERNS = ("uniform", "transpose", "hotspot", "memory", "reply", *MULTICASTS)
FAULTS = ("lost", "duplicated", "misrouted", "reordered", "corrupted")


@dataclass(frozen=True)
class Traffic:
    """What a class sends.

    Attributes
    ----------
    pattern : str
        Destinations: `uniform`, all others alike; `transpose`, (y, x) of (x, y); `hotspot`, uniform, but one
        in ten to the middle; `memory`, of the nodes without memories those with them, alike; `reply`, one for
        each packet of the class that this replies to, to where it came from; and in classes with multicast
        `broadcast`, all others at once, and `rectangle`, any of them in a rectangle.
    load : float
        Flits that each source makes in a cycle, on average; they wait as long as they must.
    length : int or (int, int)
        Flits of a packet, or the least and the most.
    source : (int, int)
        The only node that sends; by default all do.
    """

    pattern: str = "uniform"
    load: float = 1.0
    length: int | tuple = 1
    source: tuple | None = None


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes
    ----------
    cycles, last, sent, copies, delivered : int
        Of the whole run: how long it took, the cycle in which the last flit arrived, packets, how often they
        should arrive, and how often they did.
    faults : dict of str to int
        What went wrong: packets `lost`, `duplicated`, `misrouted` and `reordered`, flits `corrupted`, `credits`
        lost or too many.
    flipped, reported, spoiled : int
        Heads that were damaged, damage that routers reported, and copies that therefore should be lost.
    accepted : dict of str to float
        By class: flits that arrived, per node and measured cycle.
    latency, worst : dict of str to float
        By class, of the packets that arrived in measured cycles: from the cycle they were made to that in which
        their tails arrived.
    flows : dict of str to list of list of float
        By class, source and destination: flits per measured cycle.
    """

    cycles: int
    last: int
    sent: int
    copies: int
    delivered: int
    faults: dict
    flipped: int
    reported: int
    spoiled: int
    accepted: dict
    latency: dict
    worst: dict
    flows: dict

    @property
    def sound(self):
        """Whether nothing went wrong."""
        return not any(self.faults.values())


def links(noc, flows):
    """Flits on each link (node, output) when there are so many on each flow; a node's own output is None.

    Parameters
    ----------
    noc : golden.config.Noc
    flows : dict of str to list of list of float
        By class, source and destination, as in a `Result`.
    """
    found, nodes = Counter(), _nodes(noc)
    for name, rows in flows.items():
        for source, row in zip(nodes, rows, strict=True):
            for dst, flits in zip(nodes, row, strict=True):
                for link in _way(noc.order(name), source, dst) if flits else ():
                    found[link] += flits
    return found


def hops(noc, name, flows):
    """Mean number of links between routers that the flits of a class pass."""
    total = sum(map(sum, flows[name]))
    ways = links(noc, {name: flows[name]})
    return sum(flits for (_, port), flits in ways.items() if port not in (None, Port.L)) / total


def shares(noc, pattern):
    """Flits from each node to each other when each that sends makes one."""
    nodes = _nodes(noc)
    count = len(nodes)
    others = np.ones((count, count)) - np.eye(count)
    match pattern:
        case "transpose":
            found = np.array([[dst == source[::-1] != source for dst in nodes] for source in nodes], float)
        case "hotspot":
            hot = _hotspot(noc)
            found = others / (count - 1)
            found[np.arange(count) != hot] *= 0.9
            found[np.arange(count) != hot, hot] += 0.1
        case "memory":
            found = np.ones((count, count)) * [n in _memories(noc) for n in range(count)] / len(_memories(noc))
            found[_memories(noc)] = 0
        case _:
            found = others / (count - 1)
    return found.tolist()


def bound(noc, name, pattern):
    """Flits that each node can send a cycle, on average, when all that send do so at one rate."""
    flows = {name: shares(noc, pattern)}
    rate = 1 / max(links(noc, flows).values())
    return rate * sum(map(sum, flows[name])) / (noc.width * noc.height)


def run(noc, traffic, *, cycles=10_000, warmup=2_000, packets=0, stall=0.0, flips=0, fault="", seed=1):
    """Simulate some traffic.

    Parameters
    ----------
    noc : golden.config.Noc
    traffic : dict of str to Traffic
        By class.
    cycles : int
        That sources make packets; the run ends when those have arrived that had begun to leave by then.
    warmup : int
        The first of these, which are not measured.
    packets : int
        In their place: the run ends when so many have arrived, and their replies.
    stall : float
        Probability with which a node does not take a flit in a cycle.
    flips : int
        Heads to damage, one after the other in all their bits; routers should say so, and drop them unless it is
        a bit of the route that nothing there can follow.
    fault : str
        One of `FAULTS` to be made once behind the mesh's back, so that the checks have something to find.
    seed : int

    Returns
    -------
    Result
    """
    for name, each in traffic.items():
        _check(noc, name, each)
    if fault and fault not in FAULTS:
        raise ValueError(f"fault must be one of {', '.join(FAULTS)}, not {fault!r}")
    program = build(noc)
    words = {"cycles": cycles, "warmup": warmup, "packets": packets, "stall": stall, "flips": flips, "fault": fault,
             "seed": seed}
    for number, each in enumerate(noc.classes):
        if each.name in traffic:
            words[number] = _words(noc, traffic[each.name])
    done = subprocess.run([program, *(f"{name}={value}" for name, value in words.items())], text=True,
                          capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stderr}")
    found, nodes, measured = json.loads(done.stdout), noc.width * noc.height, cycles - warmup
    classes = dict(zip((each.name for each in noc.classes), found.pop("classes"), strict=True))
    for each in classes.values():
        each["flows"] = [[flits / measured for flits in row] for row in each["flows"]]
    return Result(
        **found, **{key: {name: each[key] for name, each in classes.items()} for key in ("worst", "flows")},
        accepted={name: each["flits"] / nodes / measured for name, each in classes.items()},
        latency={name: each["latency"] / max(each["packets"], 1) for name, each in classes.items()})


@lru_cache
def build(noc):
    """Have the simulation of a mesh ready; return its program."""
    return glue.build(Mesh(noc), ("router_",), "noc", _glue(noc))


def _nodes(noc):
    return [(x, y) for y in range(noc.height) for x in range(noc.width)]


def _hotspot(noc):
    """Number of the node that `hotspot` is about."""
    return noc.height // 2 * noc.width + noc.width // 2


def _memories(noc):
    """Numbers of the nodes with memories; those in the west where there are none."""
    axis, line = {"east": (0, noc.width - 1), "north": (1, 0), "south": (1, noc.height - 1)}.get(noc.memory, (0, 0))
    return [n for n, node in enumerate(_nodes(noc)) if node[axis] == line]


@lru_cache(1 << 16)
def _way(order, source, dst):
    """The links from a node to another, into and out of the mesh included."""
    return (source, None), *((here, port) for here, (_, (port,)) in tree(order, source, dst).items())


def _check(noc, name, traffic):
    """Refuse what a class cannot send."""
    if traffic.pattern not in PATTERNS:
        raise ValueError(f"{name}: pattern must be one of {', '.join(PATTERNS)}, not {traffic.pattern!r}")
    if traffic.pattern == "transpose" and noc.width != noc.height:
        raise ValueError(f"{name}: only a square is transposed, not {noc.width} x {noc.height}")
    if noc[name].reduce:
        raise ValueError(f"{name}: reductions are for sim.collectives")
    if traffic.pattern in MULTICASTS and not noc[name].multicast:
        raise ValueError(f"{name}: {traffic.pattern} needs a class with multicast")
    if noc[name].multicast and _lengths(traffic)[1] > noc.depth:
        raise ValueError(f"{name}: multicasts have at most {noc.depth} flits, not {_lengths(traffic)[1]}")


def _lengths(traffic):
    return (traffic.length,) * 2 if isinstance(traffic.length, int) else traffic.length


def _words(noc, traffic):
    low, high = _lengths(traffic)
    source = _nodes(noc).index(traffic.source) if traffic.source else noc.width * noc.height
    return f"{traffic.pattern},{traffic.load},{low},{high},{source}"


def _glue(noc):
    """The mesh, for C++."""
    nodes, names = _nodes(noc), [each.name for each in noc.classes]
    yield from glue.constants(noc)
    yield "struct Class { int first, vcs, replies_to; bool yx, multicast; };"
    yield "struct Link { uint32_t* flit; CData* valid; CData* credit; };"
    for name, value in ("FLIT", sum(flit(noc.data).values())), ("HOTSPOT", _hotspot(noc)):
        yield f"constexpr int {name} = {value};"
    yield from glue.fields({name.upper(): bits for name, bits in flit(noc.data).items()})
    yield f"enum Port {{ {', '.join(port.name for port in Port)} }};"
    yield "constexpr Class CLASSES[]" + glue.table([
        (noc.channels(each.name)[0], each.vcs, names.index(each.replies_to) if each.replies_to else -1,
         noc.order(each.name) == "yx", each.multicast) for each in noc.classes]) + ";"
    yield "constexpr int MEMORIES[]" + glue.table(_memories(noc)) + ";"
    yield "constexpr int BUCKET[]" + glue.table([bucket(*node) for node in nodes]) + ";"
    for name, way in ("send", "i"), ("receive", "o"):
        yield f"inline Link {name}(Vtop& top, int node) {{"
        yield "    switch (node) {"
        for n in range(len(nodes)):
            flit_, valid, credit = (glue.port(f"{way}__{n}__{member}") for member in ("flit", "valid", "credit"))
            yield f"    case {n}: return {{top.{flit_}.data(), &top.{valid}, &top.{credit}}};"
        yield "    }\n    __builtin_unreachable();\n}"
    yield "inline int error(Vtop& top, int node) {"
    yield "    switch (node) {"
    for n in range(len(nodes)):
        code = ERROR["code"]
        yield f"    case {n}: return top.{glue.port(f'error__{n}')} >> {code.offset} & {(1 << code.width) - 1};"
    yield "    }\n    __builtin_unreachable();\n}"
