# SPDX-License-Identifier: Apache-2.0
"""Routers: what comes in goes out where it must, whole, once and in order."""

import pytest

from golden.config import Noc, NocClass
from hw.noc.mesh import router
from sim.run import simulate

ONE = (NocClass(name="data"),)
TWO = (NocClass(name="data", vcs=2),)
SERVE = (NocClass(name="request", order="yx"), NocClass(name="reply", order="xy", replies_to="request"))
MIXED = (NocClass(name="data", vcs=2), NocClass(name="request", order="yx"), NocClass(name="reply"))


@pytest.mark.parametrize("sides, sizes, classes", [
    ("NESW", {}, ONE),
    ("NESW", {}, TWO),
    ("NESW", {"depth": 3}, SERVE),
    ("NESW", {"depth": 5, "data": 128}, MIXED),
    ("ES", {"output_register": True}, TWO),
    ("NEW", {"depth": 2}, SERVE),
])
def test_router(sides, sizes, classes):
    noc = Noc(width=4, height=4, classes=classes, **sizes)
    env = {"CONFIG": noc.model_dump_json(), "SIDES": sides}
    assert simulate(router(noc, sides), "sim.benches.router", env=env) == 7
