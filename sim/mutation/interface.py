# SPDX-License-Identifier: Apache-2.0
"""The interface's mutants, and what they are put to: two interfaces with the same mutant, back to back."""

from golden.config import Noc, NocClass
from hw.noc.interface import Interface
from hw.noc.receiver import Receiver, Replies, word
from hw.noc.sender import Sender
from sim.formal.interface import ReceiverRules, RepliesRules, SenderRules
from sim.formal.prove import Task
from sim.interface import Pair
from sim.mutation.campaign import Unwatched, Verdict
from sim.mutation.judge import breaches, same
from sim.mutation.mutants import Pool, Target
from sim.mutation.simulation import failures

__all__ = ["BENCH", "CONFIG", "JOBS", "REASONS", "inside", "run"]

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
]
"""Names of `sim.pair` and what they are called with, in the order in which they are tried."""

REASONS = [
    ("sender", r"\$87\.B\[12\]|\$155\.B\[8\]", "bit 8 or 12 of a length: no message is that long here"),
    ("receiver", r"^const0 at `\$procmux\$(79|81|83|85)\.Y\[[123]\]|^const0 at .*\(`source`\)",
     "a coordinate's bit, of a node that is not on a mesh of 3 x 3"),
    ("receiver", r"\(`full`\)", "a flit without a credit, which does not come"),
    ("receiver", r"\(`coming`\)|\$180\.A\[0\]|\$137\.Y\[0\]",
     "the order of packets while several heads in a row are damaged"),
    ("interface", r"`(ask_sender|output)\.bucket|\(`bucket__[01]`\)",
     "the bucket of a class of one virtual channel, at which nobody looks"),
    ("interface", r"^const0 at .*\(`bucket_122`\)", "fewer buckets: the same order, fewer choices"),
]
"""Why mutants that nothing notices are no cause for worry: block, pattern of the change, reason."""


def inside():
    """Two interfaces, and what of them is mutated."""
    names = [each.name for each in CONFIG.classes]
    vcs = tuple(CONFIG.channels("data"))
    return Pair(CONFIG), [
        Target("sender", Task(Sender(CONFIG, names[0]), SenderRules, depth=8)),
        Target("receiver", Task(Receiver(CONFIG.data, CONFIG.depth, vcs), ReceiverRules, depth=8)),
        Target("replies", Task(Replies(word(CONFIG.data), CONFIG.reply_buffer, 1), RepliesRules, depth=12)),
        Target("interface", Task(Interface(CONFIG), Unwatched), compared=False),
    ]


def run(folder, progress, label=""):
    """Judge the mutants of the blocks whose label begins so; return a list of `campaign.Verdict`.

    All are simulated; those that pass are put to their contracts, and the rest is compared with the block.
    """
    top, targets = inside()
    chosen = [target for target in targets if target.label.startswith(label)]
    if not chosen:
        return []
    pool, verdicts = Pool(top, chosen, folder / "interface"), []
    progress(f"interface: {len(pool.mutants)} mutants in one simulation")
    failed = failures(pool, JOBS, pool.mutants, BENCH)
    if 0 in failed:
        raise RuntimeError(f"the interface itself fails job {failed[0]}")
    for target in chosen:
        left = [mutant for mutant in pool.of(target) if mutant.number not in failed]
        progress(f"{target.label}: {len(left)} of {len(pool.of(target))} left for the contract")
        broken = breaches(pool, target, left, timeout=30) if left and target.task.contract is not Unwatched else {}
        left = [mutant for mutant in left if mutant.number not in broken]
        equal = same(pool, target, left, timeout=30) if target.compared else set()
        for mutant in pool.of(target):
            breach, failure = broken.get(mutant.number), failed.get(mutant.number)
            verdicts.append(Verdict(
                target.label, mutant.name, str(mutant), breach and f"cycle {breach[1]}: {breach[0]}" or "",
                failure and f"job {failure[0]}: {failure[1]}" or "", mutant.number in equal))
    return verdicts
