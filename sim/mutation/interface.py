# SPDX-License-Identifier: Apache-2.0
"""The interface's mutants, and what they are put to: two interfaces with the same mutant, back to back."""

from golden.config import Noc, NocClass
from hw.noc.interface import Interface
from hw.noc.receiver import Receiver, Replies, word
from hw.noc.sender import Sender
from sim.formal.interface import ReceiverRules, RepliesRules, SenderRules
from sim.formal.prove import Task
from sim.interface import Pair
from sim.mutation.campaign import Unwatched, judged
from sim.mutation.mutants import Target

__all__ = ["BENCH", "BENCHES", "CONFIG", "JOBS", "TOP", "inside", "run"]

BENCH = "sim.benches.interface_mutants"
CONFIG = Noc(width=3, height=3, depth=3, memory="north", reply_buffer=7, classes=(
    NocClass(name="ask", multicast=True), NocClass(name="reply", replies_to="ask"), NocClass(name="data", vcs=2)))
"""A class with all that a sender does but reductions, and one with all that a receiver does."""

JOBS = [
    ("random_traffic", {"count": 12}),
    ("random_traffic", {"idle": 0.6, "stall": 0.9, "count": 12}),
    ("flit_a_cycle", {"kind": "data"}),
    ("flit_a_cycle", {"kind": "ask"}),
    ("replies_sink", {}),
    ("refusals", {}),
    ("damage", {"kind": "data", "words": 2}),
    ("damage", {"kind": "reply", "words": 0}),
    ("random_traffic", {"idle": 0.0, "stall": 0.8, "count": 40}),
    ("reset_in_traffic", {}),
    ("damage", {"kind": "ask", "words": 0}),
]
"""Names of `sim.pair` and what they are called with, in the order in which they are tried."""

TOP = Pair(CONFIG)
BENCHES = [(TOP, "sim.benches.interface", {"NOC": CONFIG.model_dump_json()})]
"""Block, bench and its environment, for bugs by hand."""


def inside():
    """Two interfaces, and what of them is mutated."""
    names = [each.name for each in CONFIG.classes]
    vcs = tuple(CONFIG.channels("data"))
    return TOP, [
        Target("interface_sender", Task(Sender(CONFIG, names[0]), SenderRules, depth=8)),
        Target("interface_receiver", Task(Receiver(CONFIG.data, CONFIG.depth, vcs), ReceiverRules, depth=8)),
        Target("interface_replies", Task(Replies(word(CONFIG.data), CONFIG.reply_buffer, 1), RepliesRules, depth=12)),
        Target("interface", Task(Interface(CONFIG), Unwatched), compared=False),
    ]


def run(folder, progress, label=""):
    """Judge the mutants of the blocks whose label begins so; return a list of `campaign.Verdict`."""
    return judged("interface", inside(), JOBS, BENCH, folder, progress, label)
