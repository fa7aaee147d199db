# SPDX-License-Identifier: Apache-2.0
"""Routers: what comes in goes out where it must, whole, once and in order."""

import random
from itertools import product

import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.sim import Simulator

from golden.config import Noc, NocClass
from golden.noc import outputs, step, tree
from golden.packet import Port
from hw.noc.lane import ahead
from hw.noc.link import HEADER
from hw.noc.mesh import router
from hw.noc.multicast import branches
from sim.run import simulate

ONE = (NocClass(name="data"),)
TWO = (NocClass(name="data", vcs=2),)
SERVE = (NocClass(name="request", order="yx"), NocClass(name="reply", order="xy", replies_to="request"))
CAST = (NocClass(name="data"), NocClass(name="cast", multicast=True))
MIXED = (NocClass(name="data", vcs=2), NocClass(name="request", order="yx"), NocClass(name="reply"))


@pytest.mark.parametrize("sides, sizes, classes", [
    ("NESW", {}, ONE),
    ("NESW", {}, TWO),
    ("NESW", {"depth": 3}, SERVE),
    ("NESW", {"depth": 5, "data": 128}, MIXED),
    ("NESW", {}, CAST),
    ("NESW", {"depth": 2}, CAST[1:]),
    ("ES", {"output_register": True}, TWO),
    ("NEW", {"depth": 2}, SERVE),
])
def test_router(sides, sizes, classes):
    noc = Noc(width=4, height=4, classes=classes, **sizes)
    env = {"CONFIG": noc.model_dump_json(), "SIDES": sides}
    assert simulate(router(noc, sides), "sim.benches.router", env=env) == 7


def follow(order, way, hops):
    """What `way` makes of the route of a packet at each hop: (here, out, dst, ext)."""
    m, x, y, header = Module(), Signal(4), Signal(4), Signal(HEADER)
    found = {}
    for out in set(Port) - {Port.L}:
        bits = way(m, order, out, x, y, header)
        found[out] = Signal(5, name=f"ahead_{out.name}")
        m.d.comb += found[out].eq(Cat(bits.get(port, 0) for port in Port))
    routes = []

    async def bench(ctx):
        for (column, row), out, dst, ext in hops:
            ctx.set(x, column)
            ctx.set(y, row)
            ctx.set(header, {"dst_x": dst[0], "dst_y": dst[1], "ext_x": ext[0], "ext_y": ext[1]})
            routes.append(ctx.get(found[out]))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return routes


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_routes_between_all_pairs(order):
    nodes = list(product(range(16), repeat=2))
    hops = [(here, out, dst, (0, 0)) for here in nodes for dst in nodes for out in outputs(order, Port.L, here, dst)]
    expected = [sum(1 << port for port in outputs(order, out.opposite, step(here, out), dst))
                for here, out, dst, _ in hops]
    assert len(hops) == 256 * 255
    assert follow(order, lambda m, *place: ahead(*place), hops) == expected


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_routes_to_rectangles(order):
    rng, hops, expected = random.Random(order), [], []
    for _ in range(300):
        source, dst = ((rng.randrange(16), rng.randrange(16)) for _ in range(2))
        ext = rng.randrange(16 - dst[0]), rng.randrange(16 - dst[1])
        ways = tree(order, source, dst, ext)
        for here, (_, outs) in ways.items():
            for out in set(outs) - {Port.L}:
                hops.append((here, out, dst, ext))
                expected.append(sum(1 << port for port in ways[step(here, out)][1]))
    assert follow(order, branches, hops) == expected
