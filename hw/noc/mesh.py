# SPDX-License-Identifier: Apache-2.0
"""Routers, joined to a mesh."""

from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.packet import DIRECTIONS
from hw.emit import Block
from hw.noc.link import Link, Traffic
from hw.noc.router import ERROR, PROBE, Router, state

__all__ = ["Mesh", "traffic"]


def traffic(config):
    """The classes of a `golden.config.Noc` as routers know them."""
    return tuple(Traffic(each.vcs, config.order(each.name)) for each in config.classes)


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
    error : Out(ERROR) each
    clear : In(1)
    probe : In(PROBE)
    state : Out(state(vcs, depth)) each
        As of `Router`.
    """

    def __init__(self, config):
        self.config, self.traffic = config, traffic(config)
        nodes, link = config.width * config.height, Link(config.data, config.vcs)
        super().__init__({
            "i": In(link).array(nodes), "o": Out(link).array(nodes),
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
                router = Router(sides, config.data, config.depth, self.traffic, config.output_register)
                m.submodules[f"router_{x}_{y}"] = routers[x, y] = router
                node = y * config.width + x
                m.d.comb += [
                    router.x.eq(x), router.y.eq(y), router.clear.eq(self.clear), router.probe.eq(self.probe),
                    self.error[node].eq(router.error), self.state[node].eq(router.state),
                ]
                connect(m, flipped(self.i[node]), router.l_i)
                connect(m, router.l_o, flipped(self.o[node]))
        for (x, y), router in routers.items():
            for port, (dx, dy) in DIRECTIONS.items():
                if port.name in router.sides:
                    connect(m, router.link(port, "o"), routers[x + dx, y + dy].link(port.opposite, "i"))
        return m
