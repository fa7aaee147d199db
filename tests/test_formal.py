# SPDX-License-Identifier: Apache-2.0
"""Contracts are proven, and a broken block is found out. The whole of it is `make formal`."""

import json

import pytest
from amaranth.hdl import Module

from golden.families import FAMILIES
from hw.fetch import Fetch
from hw.matmul.engine import Engine
from hw.stream import Queue
from scripts import formal
from sim.formal.cones import cones, waits
from sim.formal.prove import Task, prove
from sim.formal.stream import Fifo
from sim.formal.tasks import QUICK, config


@pytest.mark.parametrize("task", [task for task in QUICK if not task.block.name.startswith("fetch")],
                         ids=lambda task: task.block.name)
def test_quick_blocks_keep_their_contracts(task, tmp_path):
    results = prove(task, folder=tmp_path)
    assert {result.verdict for result in results} == {"proven", "reached"}


class Leaky(Queue):
    """A queue that overwrites an item when it is full."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.shape, self.depth)
        m.d.comb += [
            queue.i.payload.eq(self.i.payload), queue.i.valid.eq(self.i.valid), self.i.ready.eq(1),
            self.o.payload.eq(queue.o.payload), self.o.valid.eq(queue.o.valid), queue.o.ready.eq(self.o.ready),
        ]
        return m


def test_a_broken_queue_fails(tmp_path):
    verdicts = {result.property: result.verdict for result in prove(Task(Leaky(2, 2), Fifo), folder=tmp_path)}
    assert verdicts["never too many"] == "failed"
    assert verdicts["each item comes out unchanged, in its turn"] == "failed"
    assert verdicts["ready while there is room"] == "proven"
    assert list(tmp_path.glob("leaky_2x2/prove/engine_0/*.vcd"))        # to look at


def test_bounded_runs_say_how_far(tmp_path):
    result, *_ = prove(Task(Queue(1, 1), Fifo, depth=5, cover=0), folder=tmp_path)
    assert (result.verdict, result.engine, result.depth, result.good) == ("holds", "bmc3", 5, True)


def test_command_prints_figures(capsys):
    with pytest.raises(SystemExit) as ended:
        formal.main(["--block", "queue_2x1", "--json"])
    assert ended.value.code == 0
    figures = {figure["name"]: figure for figure in json.loads(capsys.readouterr().out)["figures"]}
    assert figures["formal.proven"]["value"] == figures["formal.proven.queue_2x1"]["value"] == 6
    assert figures["formal.open"]["holds"]


def test_unknown_block_is_named():
    with pytest.raises(SystemExit, match=r"^formal: no block is called lost\.\.\.; there are queue_2x1, "):
        formal.main(["--block", "lost"])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_port_of_the_engine_answers_within_the_cycle(family):
    """No valid waits for a ready; nor does anything else at the engine's ports depend on another in its cycle."""
    small = config(family, cols=2, n_max=4)
    assert not any(outputs for port, outputs in cones(Engine(small)).items() if port != "rst")


class Waiting(Queue):
    """A queue that offers nothing until somebody is ready for it."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.shape, self.depth)
        m.d.comb += [
            queue.i.payload.eq(self.i.payload), queue.i.valid.eq(self.i.valid), self.i.ready.eq(queue.i.ready),
            self.o.payload.eq(queue.o.payload), self.o.valid.eq(queue.o.valid & self.o.ready),
            queue.o.ready.eq(self.o.ready),
        ]
        return m


def test_a_valid_that_waits_is_found():
    assert waits(Waiting(2, 2)) == [("o__ready", "o__valid")]
    assert waits(Queue(2, 2)) == []
    assert waits(Fetch(1, 2, 2, 2)) == [("o__ready", "response__ready"), ("request__ready", "i__ready")]
