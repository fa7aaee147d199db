# SPDX-License-Identifier: Apache-2.0
"""Interfaces of the network."""

import pytest

from golden.config import Noc, NocClass
from hw.noc.interface import Interface
from sim.interface import Network, Pair
from sim.run import simulate

REQUEST, REPLY = NocClass(name="request"), NocClass(name="reply", replies_to="request")
CAST, SUMS = NocClass(name="cast", multicast=True), NocClass(name="sums", reduce=True)
ALL = Noc(classes=(REQUEST, REPLY, CAST, SUMS), reply_buffer=10)
TWO = Noc(data=128, depth=3, width=16, height=16, memory="east", classes=(
    NocClass(name="data", vcs=2), NocClass(name="reply", vcs=2, replies_to="data")), reply_buffer=7)
SHALLOW = Noc(depth=2, width=2, height=2, classes=(NocClass(name="any", vcs=3), CAST))


@pytest.mark.parametrize("config", [ALL, TWO, SHALLOW], ids=["all", "two", "shallow"])
def test_pairs(config):
    assert simulate(Pair(config), "sim.benches.interface", env={"NOC": config.model_dump_json()}) > 10


def test_a_mesh_does_not_deadlock():
    config = Noc(width=3, height=3, memory="west", reply_buffer=9, classes=(
        REQUEST, REPLY, NocClass(name="data", vcs=2)))
    assert simulate(Network(config), "sim.benches.network", env={"NOC": config.model_dump_json()}) == 2


def test_two_classes_of_replies_are_refused():
    classes = REQUEST, REPLY, NocClass(name="second", replies_to="request")
    with pytest.raises(ValueError, match="^Interface: requests of class 'request' must have replies in one class$"):
        Interface(Noc(classes=classes))
