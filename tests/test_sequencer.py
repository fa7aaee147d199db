# SPDX-License-Identifier: Apache-2.0
"""The sequencer: its reference, and the RTL against it. With `DEEP` in the environment: more programs."""

import os

import pytest

from golden.config import Sequencer as Config
from hw.sequencer.sequencer import Sequencer
from sim.run import simulate

DEEP = "DEEP" in os.environ


@pytest.mark.parametrize(("sizes", "beat"), [({}, 16), ({"instructions": 32, "queue": 2}, 128)], ids=["usual", "wide"])
def test_rtl(sizes, beat):
    config = Config(patience=300, **sizes)
    env = {"CONFIG": config.model_dump_json(), "PROGRAMS": 50 if DEEP else 6}
    assert simulate(Sequencer(config, beat), "sim.benches.sequencer", env=env) > 10
