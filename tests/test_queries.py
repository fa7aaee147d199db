# SPDX-License-Identifier: Apache-2.0

import pytest

from golden.config import KvCache
from hw.attention.queries import Queries
from sim.run import simulate


@pytest.mark.parametrize("format, beat, head_dim, lanes, group", [
    ("fp8", 32, 64, 8, 4),
    ("fp8", 16, 40, 8, 1),          # the last beat of a row is not full
    ("bf16", 64, 128, 16, 2),
    ("bf16", 16, 8, 8, 3),          # a row is a word
    ("fp8", 64, 24, 4, 2),          # and less than a beat
])
def test_queries(format, beat, head_dim, lanes, group):
    kv = KvCache(format=format, beat=beat, head_dim=head_dim, lanes=lanes)
    env = {"KV": kv.model_dump_json(), "GROUP": group}
    assert simulate(Queries(kv, group), "sim.benches.queries", env=env, x_initial="unique") == 5


def test_group_is_checked():
    with pytest.raises(ValueError, match="^Queries: group must be at least 1, not 0$"):
        Queries(KvCache(), 0)
