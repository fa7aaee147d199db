# SPDX-License-Identifier: Apache-2.0

import pytest
from amaranth.hdl import unsigned

from golden import stream as golden
from hw.stream import Buffer, DeepQueue, Queue
from sim.run import simulate


@pytest.mark.parametrize("kind, width, args", [
    (Buffer, 1, ()),
    (Buffer, 33, ()),
    (Queue, 8, (5,)),
    (DeepQueue, 8, (7,)),
    (DeepQueue, 8, (16,)),
])
def test_queues_follow_the_model(kind, width, args):
    env = {"MODEL": kind.__name__, "ARGS": " ".join(map(str, args))}
    assert simulate(kind(unsigned(width), *args), "sim.benches.queue", env=env) == 11


def test_queue_of_one_passes_items_at_half_rate():
    model = golden.Queue(1)
    passed = 0
    for n in range(10):
        passed += model.o_valid
        model.step(True, n, True)
    assert passed == 5


def test_golden_never_holds_more_than_its_depth():
    model = golden.Buffer()
    for n in range(5):
        model.step(True, n, False)
    assert list(model.items) == [0, 1] and not model.i_ready


def test_zero_width_is_refused():
    with pytest.raises(ValueError, match="^Buffer: a payload of zero bits needs no queue$"):
        Buffer(unsigned(0))


def test_depth_out_of_range_is_refused():
    with pytest.raises(ValueError, match="^Queue: depth must be 1 to 64, not 65$"):
        Queue(unsigned(8), 65)
    with pytest.raises(ValueError, match="^DeepQueue: depth must be 2 to 65536, not 1$"):
        DeepQueue(unsigned(8), 1)
