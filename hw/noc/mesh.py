# SPDX-License-Identifier: Apache-2.0
"""Routers, joined to a mesh."""

from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.packet import DIRECTIONS
from hw.emit import Block
from hw.noc.link import Link, Traffic
from hw.noc.reduce import order
from hw.noc.router import ERROR, PROBE, Router, state

__all__ = ["Mesh", "router", "traffic"]


def traffic(config):
    """The classes of a `golden.config.Noc` as routers know them."""
    return tuple(Traffic(each.vcs, config.order(each.name), each.multicast, each.reduce) for each in config.classes)


def router(config, sides="NESW"):
    """The router of a `golden.config.Noc` that has neighbours on `sides`."""
    return Router(sides, config.data, config.depth, traffic(config), config.output_register, config.groups,
                  config.patience)


class Mesh(Block):
    """A mesh of routers. Node (x, y) is number y * width + x.

    Routers with neighbours on the same sides are one module, so there are nine at most.

    Parameters
    ----------
    config : golden.config.Noc

    Members
    -------
    i, o : In and Out(Link(bits, vcs)) each
        Of the nodes: what they send and what they receive.
    write : In(order(groups, x=4, y=4)), if there is a class of reductions
        Sets what the router of node x, y does for a group.
    error : Out(ERROR) each
    clear : In(1)
    probe : In(PROBE)
    state : Out(state(vcs, depth)) each
        As of `Router`.
    """

    def __init__(self, config):
        self.config = config
        nodes, link = config.width * config.height, Link(config.data, config.vcs)
        self.sums = any(each.reduce for each in config.classes)
        super().__init__({
            "i": In(link).array(nodes), "o": Out(link).array(nodes),
            **({"write": In(order(config.groups, x=4, y=4))} if self.sums else {}),
            "error": Out(ERROR).array(nodes), "clear": In(1),
            "probe": In(PROBE), "state": Out(state(config.vcs, config.depth)).array(nodes),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        routers = {}
        for y in range(config.height):
            for x in range(config.width):
                sides = "".join(port.name for port, (dx, dy) in DIRECTIONS.items()
                                if 0 <= x + dx < config.width and 0 <= y + dy < config.height)
                m.submodules[f"router_{x}_{y}"] = routers[x, y] = one = router(config, sides)
                node = y * config.width + x
                m.d.comb += [
                    one.x.eq(x), one.y.eq(y), one.clear.eq(self.clear), one.probe.eq(self.probe),
                    self.error[node].eq(one.error), self.state[node].eq(one.state),
                ]
                if self.sums:
                    m.d.comb += [getattr(one.write, name).eq(getattr(self.write, name)) for name in ("group", "entry")]
                    m.d.comb += one.write.en.eq(self.write.en & (self.write.x == x) & (self.write.y == y))
                connect(m, flipped(self.i[node]), one.l_i)
                connect(m, one.l_o, flipped(self.o[node]))
        for (x, y), one in routers.items():
            for port, (dx, dy) in DIRECTIONS.items():
                if port.name in one.sides:
                    connect(m, one.link(port, "o"), routers[x + dx, y + dy].link(port.opposite, "i"))
        return m
