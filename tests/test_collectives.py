# SPDX-License-Identifier: Apache-2.0
"""Collectives through the interfaces: the bits are golden's, and they come in time."""

import os

import pytest

from golden.config import Noc, NocClass
from golden.noc import Message
from golden.packet import Reduction
from sim.collectives import Group, all_reduce, broadcast, run, whole

DEEP = "DEEP" in os.environ
SUMS, CAST = NocClass(name="sums", reduce=True), NocClass(name="cast", multicast=True)
NOC = Noc(width=2, height=2, classes=(SUMS, CAST))
LARGE = [Noc(width=size, height=size, depth=depth, classes=(SUMS, CAST)) for size in (4, 8) for depth in (2, 4, 8)]


def network(noc):
    return f"{noc.width}x{noc.height}x{noc.depth}"


@pytest.mark.parametrize("noc", [NOC, *LARGE * DEEP], ids=network)
@pytest.mark.parametrize("op", Reduction)
def test_all_reduce_under_stalls(noc, op):
    """Groups of all nodes and of some, with roots of their own."""
    end = noc.width - 1, noc.height - 1
    groups = [whole(noc), Group((0, 0), end, end), Group((0, 0), (1, 0), (1, 0)), Group((0, 1), (1, 0), (0, 1))]
    for stall in 0.0, 0.3, 0.8:
        all_reduce(noc, 10, groups, rounds=20 if DEEP else 6, op=op, stall=stall, seed=op)


@pytest.mark.parametrize("noc", [NOC, *[noc for noc in LARGE if noc.depth > 2] * DEEP], ids=network)
def test_all_reduce_in_time(noc):
    for count in 1, 4, 8:
        assert all_reduce(noc, count).cycles <= count + 4 * (noc.width - 1) + 20


@pytest.mark.parametrize("noc", [NOC, *[noc for noc in LARGE if noc.depth > 2] * DEEP], ids=network)
def test_broadcast_in_time(noc):
    for words in 2, 8, 32:
        flits = words - words // -noc.segment("cast")
        assert broadcast(noc, (0, 0), words).cycles == flits + 2 * (noc.width - 1) + 3


def test_errors_are_told():
    with pytest.raises(RuntimeError, match="a router or an interface reported an error"):
        run(NOC, [Message((0, 0), "cast", (0, 0))])


def test_refusals():
    with pytest.raises(ValueError, match="^groups must have roots of their own, not "):
        all_reduce(NOC, 1, [whole(NOC)] * 2)
    with pytest.raises(ValueError, match="^collectives need 64 bits, a class of reductions, and one with multicast$"):
        run(Noc(), [])
