# SPDX-License-Identifier: Apache-2.0
"""Traffic on the simulated mesh: all of it arrives, and the checks see what does not."""

import os
from itertools import product

import pytest

from golden.config import Noc, NocClass
from golden.packet import Port, flit
from scripts.report import network
from sim.noc import FAULTS, Traffic, bound, hops, links, run, shares

DEEP = "DEEP" in os.environ
NOC = Noc(width=3, height=2, classes=(NocClass(name="data"), NocClass(name="cast", multicast=True)))
ALL = {"data": Traffic("uniform", 0.8, (1, 8)), "cast": Traffic("rectangle", 0.3, (1, 4))}

SERVED = Noc(width=4, height=4, memory="west", classes=(
    NocClass(name="data", vcs=2), NocClass(name="requests"), NocClass(name="replies", replies_to="requests")))
SERVING = {"data": Traffic("uniform", 0.8, (1, 8)), "requests": Traffic("memory", 0.3, (1, 4)),
           "replies": Traffic("reply", length=(1, 8))}


@pytest.mark.parametrize("stall", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("noc, traffic", [(NOC, ALL), *[(SERVED, SERVING)] * DEEP], ids=["casts", *["served"] * DEEP])
def test_all_arrives(noc, traffic, stall):
    """Classes side by side, whatever the nodes' buffers do."""
    packets = 400_000 if DEEP else 3_000
    found = run(noc, traffic, packets=packets, warmup=0, stall=stall, seed=7)
    assert found.sound and found.delivered == found.copies >= found.sent >= packets and found.reported == 0
    assert all(flits > 0 for flits in found.accepted.values())


MESHES = [Noc(width=4, height=4, depth=depth, classes=(
    NocClass(name="data"), NocClass(name="cast", multicast=True, order=order)))
    for depth, order in product((2, 3, 4, 8), ("xy", "yx"))]


@pytest.mark.parametrize("noc", [NOC, *MESHES * DEEP])
def test_multicasts_do_not_deadlock(noc):
    """All nodes send all they can to all others, to rectangles, and beside packets of another class."""
    data, packets = Traffic("uniform", 1.0, (1, 8)), 100_000 if DEEP else 3_000
    for pattern, stall in product(("broadcast", "rectangle"), (0.0, 0.3, 0.9)):
        cast = Traffic(pattern, 1.0, (1, noc.depth))
        found = run(noc, {"data": data, "cast": cast}, packets=packets, warmup=0, stall=stall, seed=noc.depth)
        assert found.sound and found.delivered == found.copies
        found = run(noc, {"cast": cast}, packets=packets * 3 // 10, warmup=0, stall=stall, seed=noc.depth)
        assert found.sound and found.delivered == found.copies


def test_multicasts_follow_each_other():
    """Without a pause on any link, if they leave a slot of the buffers free."""
    found = run(NOC, {"cast": Traffic("broadcast", 2.0, 3, source=(0, 0))}, cycles=3000, warmup=500)
    assert found.accepted["cast"] == 5 / 6


@pytest.mark.parametrize("fault", FAULTS)
def test_checks_see(fault):
    """One fault made behind the mesh's back, and nothing else, is found."""
    found = run(NOC, {"data": Traffic("uniform", 0.5, (1, 4))}, packets=1000, stall=0.2, fault=fault)
    missing = {"misrouted": {"misrouted": 1, "lost": 1}}.get(fault, {fault: 1})
    assert {name: count for name, count in found.faults.items() if count} == missing


def test_latency_without_load():
    found = run(NOC, {"data": Traffic(load=0.002)}, cycles=20_000, warmup=0)
    assert found.latency["data"] == pytest.approx(hops(NOC, "data", found.flows) + 1, abs=0.01)


def test_throughput():
    found = run(NOC, {"data": Traffic()}, cycles=4000, warmup=1000)
    assert 0.7 < found.accepted["data"] / bound(NOC, "data", "uniform") < 1
    use = links(NOC, found.flows)
    assert max(use.values()) <= 1 and sum(flits for (_, port), flits in use.items() if port is Port.L) / 6 == \
        pytest.approx(found.accepted["data"])


@pytest.mark.parametrize("traffic", [{"data": Traffic(load=0.3, length=(1, 4))},
                                     {"cast": Traffic("rectangle", 0.1, (1, 4))}], ids=["data", "cast"])
def test_damaged_heads_are_dropped(traffic):
    """Each bit in turn is wrong in some head: a router says so, and nobody gets it unless that does no harm."""
    bits = sum(flit(NOC.data).values())
    found = run(NOC, traffic, cycles=1000 * bits, flips=bits)
    assert found.flipped == found.reported == bits
    assert found.faults.pop("lost") == found.spoiled > 0
    assert not any(found.faults.values())


def test_bounds():
    """As computed by hand: the middle's links, the hotspot's node, the memories'."""
    for size in 4, 8:
        noc = Noc(width=size, height=size)
        count = size * size
        assert bound(noc, "data", "uniform") == pytest.approx(4 * (count - 1) / (size * count))
        assert bound(noc, "data", "transpose") == pytest.approx((count - size) / (size - 1) / count)
        assert bound(noc, "data", "hotspot") == pytest.approx(1 / (0.9 + 0.1 * (count - 1)))
        assert hops(noc, "data", {"data": shares(noc, "uniform")}) == pytest.approx(2 * size / 3)
    noc = Noc(width=8, height=8, memory="west", classes=SERVED.classes)
    assert bound(noc, "requests", "memory") == pytest.approx(1 / 8)


def test_refusals():
    with pytest.raises(ValueError, match="^data: pattern must be one of uniform, .*, not 'random'$"):
        run(NOC, {"data": Traffic("random")})
    with pytest.raises(ValueError, match="^data: only a square is transposed, not 4 x 3$"):
        run(Noc(width=4, height=3), {"data": Traffic("transpose")})
    with pytest.raises(ValueError, match="^data: rectangle needs a class with multicast$"):
        run(NOC, {"data": Traffic("rectangle")})
    with pytest.raises(ValueError, match="^cast: multicasts have at most 4 flits, not 5$"):
        run(NOC, {"cast": Traffic("rectangle", length=(1, 5))})
    with pytest.raises(ValueError, match="^sums: reductions are for sim.collectives$"):
        run(Noc(classes=(NocClass(name="sums", reduce=True),)), {"sums": Traffic()})
    with pytest.raises(ValueError, match="^fault must be one of lost, .*, not 'fire'$"):
        run(NOC, {"data": Traffic()}, fault="fire")


def test_map_shows_every_link():
    noc = Noc(width=3, height=2)
    use = links(noc, {"data": shares(noc, "uniform")})
    drawing = network.heat(network.Map("title", "", 3, 2, use))
    assert drawing.count("<polygon") == 14 and drawing.count("<rect") == 6
    assert network.colour(0) == "#e3e8e4" and network.colour(2) == "#b0413e"
