# SPDX-License-Identifier: Apache-2.0
"""The chip link's mutants, and what they are put to."""

from dataclasses import replace

from hw.noc.chiplink import Arrivals, Framer, Parser, Replay, Session
from hw.noc.framing import Deframer, Enframer
from sim.chiplink import SIDES, WIDTH, Job, Pair, play
from sim.formal.chiplink import ArrivalsRules, ReplayRules, SessionRules
from sim.formal.prove import Task
from sim.mutation.campaign import Unwatched, judged
from sim.mutation.mutants import Target

__all__ = ["BENCH", "check", "inside", "jobs", "run"]

BENCH = "sim.benches.chiplink_mutants"
VCS, DEPTH, SLOTS, BURST, SETTLE, PATIENCE = 2, 2, 4, 3, 6, 2_000


def run(folder, progress, label=""):
    """Judge the mutants of the blocks whose label begins so; return a list of `campaign.Verdict`."""
    return judged("chiplink", inside(), jobs(), BENCH, folder, progress, label)


def inside():
    """Two sides, and what of them is mutated: both alike."""
    top = Pair(VCS, DEPTH, slots=SLOTS, burst=BURST, settle=SETTLE, patience=PATIENCE)
    link, sizes = top.link, (WIDTH, VCS, DEPTH, SLOTS)
    return top, [
        Target("chiplink_replay", Task(Replay(*sizes), ReplayRules, depth=12)),
        Target("chiplink_arrivals", Task(Arrivals(*sizes), ArrivalsRules, depth=12)),
        Target("chiplink_session", Task(Session(SETTLE), SessionRules, depth=24)),
        Target("chiplink_framer", Task(Framer(WIDTH, VCS, SLOTS, BURST), Unwatched)),
        Target("chiplink_parser", Task(Parser(WIDTH, VCS, SLOTS), Unwatched)),
        Target("chiplink_enframer", Task(Enframer(), Unwatched)),
        Target("chiplink_deframer", Task(Deframer(), Unwatched)),
        Target("chiplink", Task(link, Unwatched)),
    ]


def check(job):
    """Play a job; all flits come once and in order, unless the job sees to it that they do not."""
    [result] = play(inside()[0], [replace(job, cycles=50_000)])
    wrong = [side for side in SIDES if result[f"wrong_{side}"] or not result[f"complete_{side}"]]
    assert not wrong or any(name.startswith("flood") for event in job.events.values() for name in event), (
        f"flits to the {wrong[0]} are wrong or missing")


def jobs():
    """All kinds of lines: good and bad ones, full and idle ones; a cut, resets, flits without credit."""
    line = {"burst": BURST, "timeout": 300, "cycles": 30_000}
    return [
        Job(60, ideal=1, seed=3, **line),
        Job(60, loss=100, errors=2, late=80, seed=4, **line),
        Job(300, ideal=1, seed=5, **line),          # numbers begin anew
        Job(40, loss=60, idle=950, hold=950, seed=6, **line),
        Job(40, loss=60, late=100, seed=7, **line, events={
            600: {"reset_left": 1, "epoch_left": 1, "resume_left": 1}, 605: {"reset_left": 0}}),
        Job(60, seed=8, ideal=1, **line, events={
            400: {"cut_right": 1}, **{cycle: {} for cycle in range(2_000, 2_800, 20)}, 3_600: {"cut_right": 0},
            4_500: {"clear_left": 1, "clear_right": 1}, 4_505: {"clear_left": 0, "clear_right": 0}}),
        Job(40, seed=9, **{**line, "cycles": 3_000}, events={
            700: {"flood_left": 1}, 800: {"flood_left": 0}, 1_600: {"clear_left": 1}, 1_605: {"clear_left": 0}}),
        Job(40, errors=12, loss=20, seed=10, **{**line, "burst": 1, "timeout": 100}),
        Job(150, idle=900, ideal=1, seed=11, **line),
        Job(15, ideal=1, seed=12, **line, events={80: {"ideal": 0, "stall": 10}}),      # the line's buffers are full
        Job(20, idle=960, ideal=1, seed=13, **{**line, "timeout": 4_000}),
        *(Job(10, ideal=1, seed=cycle, **line, events={cycle: {"reset_left": 1}, cycle + 2: {"reset_left": 0}})
          for cycle in (4, 7, 10, 13)),                         # in the greeting
    ]
