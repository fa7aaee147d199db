# SPDX-License-Identifier: Apache-2.0
"""Figures of the network: latency and throughput of the simulated mesh, area and longest path of its routers."""

from functools import lru_cache
from math import ceil

from golden.config import Noc, NocClass
from hw.emit import Verilog
from hw.flow import asic, liberty
from hw.flow.figures import figure
from hw.flow.report import critical
from hw.noc.mesh import router
from scripts.report import network
from sim import collectives
from sim import noc as mesh
from sim.noc import Traffic

__all__ = ["measure", "report"]

SIZES = 4, 8
LENGTHS = 1, 4              # flits of a packet
LATENCY = {4: 3.68, 8: 6.34}
ACCEPTED = {(4, 1): 0.78, (4, 4): 0.66, (8, 1): 0.42, (8, 4): 0.37}
AREA = {1: (13_100, 700), 2: (30_000, 800)}                 # GE and ps, by virtual channels
REGISTERS = 130             # ps of clk-q and setup, which the peers' figures leave out

PAIR = (NocClass(name="requests"), NocClass(name="replies", replies_to="requests"))
MEMORY = Noc(width=8, height=8, memory="west", classes=PAIR)
MIXED = Noc(width=4, height=4, memory="west", classes=(NocClass(name="data", vcs=2), *PAIR))

DEPTHS = 4, 8
WORDS = 2, 8, 32, 128       # of a broadcast
VECTORS = 1, 4, 8, 16, 64   # flits of an all-reduce
CURVE = *range(1, 17), *range(20, 65, 4)

DATA, CAST, SUMS = NocClass(name="data"), NocClass(name="cast", multicast=True), NocClass(name="sums", reduce=True)
CASTS = Noc(width=4, height=4, classes=(DATA, CAST))
ROUTERS = {
    "plain": ((DATA, NocClass(name="other")), "no multicasts, no reductions"),
    "multicast": ((DATA, CAST), "one with multicasts"),
    "collectives": ((CAST, SUMS), "one with multicasts, one with reductions, without their adders"),
}


def plain(size):
    """A square mesh with one class on two virtual channels."""
    return Noc(width=size, height=size, classes=(NocClass(name="data", vcs=2),))


def tiles(size, depth):
    """A square mesh with reductions and multicasts."""
    return Noc(width=size, height=size, depth=depth, classes=(SUMS, CAST))


def measure(quick, library):
    """All figures, one by one.

    Parameters
    ----------
    quick : bool
        Without loads of saturation, multicasts and reductions, areas, and most of the random packets.
    library : list of path
        Liberty files, or none.
    """
    for size in SIZES:
        yield from _uniform(size, quick)
        yield from _uneven(size)
    yield from _memory()
    yield from _random(100_000 if quick else 1_000_000)
    if not quick:
        yield from _multicasts()
        for size in SIZES:
            yield from _broadcasts(size)
            yield from _reductions(size)
        yield from _areas(library)


def report(path, figures):
    """Write a page with the figures, plots of latency and throughput, and maps of the links' use."""
    curves = [network.Curve(size, length, curve(size, length), mesh.bound(plain(size), "data", "uniform"))
              for size in SIZES for length in LENGTHS]
    shown = [(pattern.capitalize(), about, plain(8), plainly(8, pattern)) for pattern, about in (
        ("uniform", "To all others alike."), ("transpose", "From (x, y) to (y, x)."),
        ("hotspot", "Uniform, and one packet in ten to (4, 4)."))]
    shown.append(("Memory", f"Requests to column 0, {MEMORY.order('requests')}, and replies, "
                  f"{MEMORY.order('replies')}, at the same time.", MEMORY, memory()))
    maps = [network.Map(title, about, noc.width, noc.height, mesh.links(noc, found.flows))
            for title, about, noc, found in shown]
    sums, casts = ([network.Times(size, depth, [(count, what(size, depth, count)) for count in CURVE], goal(size))
                    for size in SIZES for depth in DEPTHS]
                   for what, goal in ((reduction, reducing), (broadcast, casting)))
    return network.write(path, curves, maps, sums, casts, figures)


# Runs; equal ones once

@lru_cache
def run(noc, *traffic, cycles=12_000, **options):
    """A `sim.noc.Result` in which nothing went wrong."""
    found = mesh.run(noc, dict(traffic), cycles=cycles, **options)
    if not found.sound:
        raise AssertionError(f"{noc} with {traffic}: {found.faults}")
    return found


def plainly(size, pattern, length=1, load=1.0, **options):
    """A run of the one class of a plain mesh."""
    return run(plain(size), ("data", Traffic(pattern, load, length)), **options)


def idle(size, length):
    """Latency when packets hardly meet, in cycles; of the pattern's mean way, not of the sample's."""
    noc = plain(size)
    found = plainly(size, "uniform", length, 0.002, cycles=20_000)
    expected = mesh.hops(noc, "data", {"data": mesh.shares(noc, "uniform")})
    return found.latency["data"] - mesh.hops(noc, "data", found.flows) + expected


def curve(size, length, pattern="uniform"):
    """Points (load, accepted, latency), up to saturation and beyond."""
    top = plainly(size, pattern, length).accepted["data"]
    limit = 3 * idle(size, length)
    loads = [share * top for share in (0.05, 0.3, 0.6, 0.8)]
    low, high = loads[-1], 1.02 * top
    for _ in range(4):
        loads.append((low + high) / 2)
        low, high = ((loads[-1], high) if plainly(size, pattern, length, loads[-1]).latency["data"] < limit else
                     (low, loads[-1]))
    loads += [1.02 * top, 1.0]
    points = []
    for load in sorted(set(loads)):
        found = plainly(size, pattern, length, load)
        points.append((load, found.accepted["data"], found.latency["data"]))
    return points


def saturation(points, limit):
    """Load at which the latency crosses `limit`."""
    (low, _, below), (high, _, above) = next(pair for pair in zip(points, points[1:], strict=False)
                                             if pair[1][2] >= limit)
    return low + (high - low) * (limit - below) / (above - below)


def memory(length=1):
    """Requests of the nodes without memories to those with them, and a reply to each; not more than all can get."""
    return run(MEMORY, ("requests", Traffic("memory", 0.14, length)), ("replies", Traffic("reply", 0, length)))


def casting(size):
    """Cycles beside its flits that a broadcast may take: hops, and 4 for the interfaces and both ends."""
    return 2 * (size - 1) + 4


def reducing(size):
    """Cycles beside its flits that an all-reduce may take."""
    return 4 * (size - 1) + 20


@lru_cache
def broadcast(size, depth, count):
    """Cycles that so many words take from a corner to all nodes."""
    return collectives.broadcast(tiles(size, depth), (0, 0), count).cycles


@lru_cache
def reduction(size, depth, count):
    """Cycles that the sum of all nodes' vectors takes, and its way to all of them."""
    return collectives.all_reduce(tiles(size, depth), count).cycles


# Figures

def _uniform(size, quick):
    name, unit = f"uniform.{size}x{size}", "flit/node/cycle"
    limit = mesh.bound(plain(size), "data", "uniform")
    how = f"RTL, {size}x{size}, uniform, 2 VCs of 4 flits"
    for length in LENGTHS:
        flits = f"packets of {length}"
        yield figure(f"noc.zero_load.{name}.l{length}", round(idle(size, length), 3), "cycle",
                     f"{how}, {flits}, made to tail received, load 0.002",
                     LATENCY[size] if length == 1 else None, "<=")
        accepted = plainly(size, "uniform", length).accepted["data"]
        yield figure(f"noc.accepted.{name}.l{length}", round(accepted, 4), unit,
                     f"{how}, {flits}, load 1; {accepted / limit:.0%} of the bisection's {limit:.4g}",
                     ACCEPTED[size, length], ">=")
        if not quick:
            limit_latency = 3 * idle(size, length)
            yield figure(f"noc.load_3x.{name}.l{length}", round(saturation(curve(size, length), limit_latency), 3),
                         unit, f"{how}, {flits}, where the mean latency is three times that without load")


def _uneven(size):
    for pattern in "transpose", "hotspot":
        limit = mesh.bound(plain(size), "data", pattern)
        yield figure(f"noc.accepted.{pattern}.{size}x{size}.l1",
                     round(plainly(size, pattern).accepted["data"], 4), "flit/node/cycle",
                     f"RTL, {size}x{size}, 2 VCs of 4 flits, load 1; {limit:.3g} if all are to get the same")


def _memory():
    limit = mesh.bound(MEMORY, "requests", "memory")
    orders = MEMORY.order("requests"), MEMORY.order("replies")
    how = "RTL, requests {} of the others to column 0, a reply {} to each, a VC each".format(*orders)
    for length in LENGTHS:
        found = memory(length)
        for way, name in ("to", "requests"), ("from", "replies"):
            yield figure(f"noc.memory.8x8.{way}" + (f".l{length}" if length > 1 else ""),
                         round(found.accepted[name], 4), "flit/node/cycle",
                         f"{how}, packets of {length}, load 0.1225; bound {limit:.4g}",
                         0.118 if length == 1 else None, ">=")


def _random(packets):
    found = mesh.run(MIXED, {"data": Traffic("uniform", 1.0, (1, 8)), "requests": Traffic("memory", 0.3, (1, 4)),
                             "replies": Traffic("reply", 0, (1, 8))}, packets=packets, stall=0.3)
    how = "RTL, 4x4, classes data, requests, replies, packets of 1 to 8, nodes stall in 3 cycles of 10"
    yield figure("noc.random.packets", found.delivered, "packet", how, packets, ">=")
    for fault, count in found.faults.items():
        yield figure(f"noc.random.{fault}", count, "", how, 0, "==")
    flips = 10 * sum(mesh.flit(64).values())
    found = mesh.run(plain(4), {"data": Traffic("uniform", 0.3, (1, 4))}, cycles=1000 * flips,
                     flips=flips)
    yield figure("noc.flips.reported", found.reported, "", f"RTL, 4x4, {flips} heads with one bit wrong", flips, "==")
    yield figure("noc.flips.dropped", found.faults.pop("lost"), "",
                 "the same; the others go where they should: a bit of the route that nothing there can follow",
                 found.spoiled, "==")
    yield figure("noc.flips.else", sum(found.faults.values()), "", "the same, anything else wrong", 0, "==")


def _multicasts():
    found = mesh.run(CASTS, {"data": Traffic("uniform", 1.0, (1, 8)), "cast": Traffic("rectangle", 1.0, (1, 4))},
                     packets=300_000, stall=0.3)
    how = "RTL, 4x4, packets of 1 to 8 to nodes, of 1 to 4 to rectangles, load 1, nodes stall in 3 cycles of 10"
    yield figure("noc.multicast.random.packets", found.sent, "packet", how, 300_000, ">=")
    yield figure("noc.multicast.random.wrong", sum(found.faults.values()), "",
                 f"the same, {found.delivered} copies that were to arrive: what was lost, twice, astray, out of order "
                 "or damaged", 0, "==")
    how = "RTL, 4x4, packets of 3 flits to all nodes, buffers of 4, load 1"
    nodes = CASTS.width * CASTS.height
    found = run(CASTS, ("cast", Traffic("broadcast", 2.0, 3, (0, 0))))
    yield figure("noc.multicast.sustained.4x4", round(found.accepted["cast"] * nodes / (nodes - 1), 4), "flit/cycle",
                 f"{how} of one node; what each of the others gets", 0.999, ">=")
    found = run(CASTS, ("cast", Traffic("broadcast", 1.0, 3)))
    yield figure("noc.accepted.broadcast.4x4.l3", round(found.accepted["cast"], 4), "flit/node/cycle",
                 f"{how} of every node; what each gets")


def _broadcasts(size):
    for depth in DEPTHS:
        for count in WORDS:
            flits = count + ceil(count / tiles(size, depth).segment("cast"))
            how = (f"RTL with interfaces, {count} words, with heads {flits} flits, from a corner to all, buffers of "
                   f"{depth}, first command to last word; goal flits + {2 * size - 2} hops + 4")
            yield figure(f"noc.broadcast.{size}x{size}.depth{depth}.w{count}", broadcast(size, depth, count), "cycle",
                         how, flits + casting(size), "<=")


def _reductions(size):
    goal = reducing(size)
    for depth in DEPTHS:
        name = f"noc.allreduce.{size}x{size}.depth{depth}"
        how = (f"RTL with interfaces, buffers of {depth}, FP32 sums as golden's at all nodes, first command to last "
               "word")
        for count in VECTORS:
            yield figure(f"{name}.d{count}", reduction(size, depth, count), "cycle", f"{how}; goal D + {goal}",
                         count + goal, "<=")
        longest = max(count for count in range(1, 65) if reduction(size, depth, count) <= count + goal)
        yield figure(f"{name}.longest", longest, "flit", f"the most that takes no more than D + {goal} cycles")
    rounds = 1000 // size ** 2
    collectives.all_reduce(tiles(size, 4), 20, rounds=rounds, stall=0.3)
    yield figure(f"noc.allreduce.{size}x{size}.exact", rounds * size ** 2, "",
                 "vectors of 20 flits one after the other, tiles stall in 3 cycles of 10: those as golden's",
                 rounds * size ** 2, ">=")


def _areas(library):
    cells = liberty.read(library) if library else None
    how = f"synthesis, 5 ports, 64 bits, 4 flits a VC, {cells.name if cells else 'generic cells, no library'}"
    for vcs, (ge, ps) in AREA.items():
        block = router(Noc(classes=(NocClass(name="data", vcs=vcs),)))
        text, name = Verilog(block).text, f"router.vc{vcs}"
        report = asic.synthesize(text, block.name, cells, asic.AREA, whole=True)
        yield figure(f"noc.ge.{name}" if cells else f"noc.cells.{name}.generic",
                     round(report.ge if cells else report.cells), "GE" if cells else "cells", f"{how}, area recipe",
                     ge if cells else None, "<=")
        if cells:
            fast = asic.synthesize(text, block.name, cells, asic.SPEED.at(ps), whole=True)
            yield figure(f"noc.path_ps.{name}", round(critical(fast)[0].length), "ps",
                         f"{how}, speed recipe, clk-q and setup included, no wires", ps, "<=")
            yield figure(f"noc.ge.{name}.speed", round(fast.ge), "GE", f"{how}, speed recipe")
            both = asic.synthesize(text, block.name, cells, asic.BALANCED.at(ps + REGISTERS), whole=True)
            yield figure(f"noc.ge.{name}.balanced", round(both.ge), "GE", f"{how}, balanced recipe")
            yield figure(f"noc.path_ps.{name}.balanced", round(critical(both)[0].length), "ps",
                         f"{how}, the same netlist, clk-q and setup included, no wires")
    if cells:
        yield from _additions(cells, f"{how}, two classes of one VC, area recipe")


def _additions(cells, how):
    """What multicasts and reductions add to a router, the adders apart."""
    sizes = {}
    for name, (classes, what) in ROUTERS.items():
        block = router(Noc(classes=classes))
        report = asic.synthesize(Verilog(block).text, block.name, cells, asic.AREA, ("combine",), whole=True)
        adders = sum(unit.area * unit.count for unit in report.units if unit.name == "combine")
        sizes[name] = cells.ge(report.total("area") - adders)
        yield figure(f"noc.ge.router.{name}", round(sizes[name]), "GE", f"{how}; {what}")
    yield figure("noc.ge.router.adders", round(cells.ge(adders)), "GE",
                 f"{how}; the blocks `combine` of the router with reductions, which are mapped by themselves")
    for name, goal in ("multicast", 8), ("collectives", 15):
        yield figure(f"noc.area.{name}", round(100 * (sizes[name] / sizes["plain"] - 1), 1), "%",
                     f"{how}: what it adds to the plain router", goal, "<=")
