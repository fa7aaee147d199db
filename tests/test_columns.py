# SPDX-License-Identifier: Apache-2.0

import pytest

from golden.config import KvCache
from hw.attention.columns import Columns
from sim.run import simulate


@pytest.mark.parametrize("format, beat, head_dim", [
    ("fp8", 32, 64),
    ("bf16", 8, 24),            # two tokens
    ("bf16", 16, 40),
    ("fp8", 64, 8),             # less than a beat
    ("fp8", 16, 40),            # the last beat of a row is not full
])
def test_columns(format, beat, head_dim):
    kv = KvCache(format=format, beat=beat, head_dim=head_dim, lanes=4)
    env = {"KV": kv.model_dump_json()}
    assert simulate(Columns(kv), "sim.benches.columns", env=env, x_initial="unique") == 1
