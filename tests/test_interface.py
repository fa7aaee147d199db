# SPDX-License-Identifier: Apache-2.0
"""Interfaces of the network. With `DEEP` in the environment: more configurations, a bigger mesh."""

import os

import pytest

from golden.config import Noc, NocClass
from hw.noc.interface import Interface
from hw.noc.network import Network
from sim.formal import interface as formal
from sim.formal.prove import prove
from sim.interface import Pair, reply_words
from sim.run import simulate

DEEP = "DEEP" in os.environ
REQUEST, REPLY = NocClass(name="request"), NocClass(name="reply", replies_to="request")
CAST, SUMS = NocClass(name="cast", multicast=True), NocClass(name="sums", reduce=True)
ALL = Noc(classes=(REQUEST, REPLY, CAST, SUMS), reply_buffer=10)
TWO = Noc(data=128, depth=3, width=16, height=16, memory="east", classes=(
    NocClass(name="data", vcs=2), NocClass(name="reply", vcs=2, replies_to="data")), reply_buffer=7)
SHALLOW = Noc(depth=2, width=2, height=2, classes=(NocClass(name="any", vcs=3), CAST))


@pytest.mark.parametrize("config", [ALL, TWO, *[SHALLOW] * DEEP], ids=["all", "two", *["shallow"] * DEEP])
def test_pairs(config):
    assert simulate(Pair(config), "sim.benches.interface", env={"NOC": config.model_dump_json()}) > 10


@pytest.mark.parametrize("sizes", [
    {"reply_buffer": 9, "memory": "west", "classes": (REQUEST, REPLY, NocClass(name="data", vcs=2))},
    {"groups": 3, "classes": (CAST, SUMS)},
], ids=["replies", "collectives"])
def test_a_mesh_does_not_deadlock(sizes):
    config = Noc(width=3, height=3 if DEEP else 2, **sizes)
    env = {"NOC": config.model_dump_json(), "COUNT": "100" if DEEP else "20"}
    assert simulate(Network(config), "sim.benches.network", env=env) == 2


def test_replies_keep_their_contract(tmp_path):
    (task,) = formal.QUICK
    assert {result.verdict for result in prove(task, folder=tmp_path)} == {"proven", "reached"}


def test_two_classes_of_replies_are_refused():
    classes = REQUEST, REPLY, NocClass(name="second", replies_to="request")
    with pytest.raises(ValueError, match="^Interface: requests of class 'request' must have replies in one class$"):
        Interface(Noc(classes=classes))


def test_replies_fill_what_is_reserved():
    for reserve in range(1, 256):
        words = reply_words(reserve)
        assert words + max(-(-words // 255), 1) == reserve
    assert reply_words(0) is None
