# SPDX-License-Identifier: Apache-2.0
"""Bugs by hand in the interface, as in `sim.mutation.bugs`.

    python -m sim.mutation.interface_bugs NUMBER
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from sim.mutation import bugs
from sim.mutation.bugs import Bug

__all__ = ["BUGS"]

BUGS = [
    Bug("a packet of the size that just fits is cut", "hw.noc.sender",
        "more.eq(given.length > size)", "more.eq(given.length >= size)", "sender"),
    Bug("the words of what is refused stay", "hw.noc.sender",
        "refused.eq(given.length != 0)", "refused.eq(0)", "sender"),
    Bug("a request leaves when there is nearly place for its reply", "hw.noc.sender",
        "reserve <= self.room if", "reserve <= self.room + 1 if", "sender"),
    Bug("the order of heads is forgotten", "hw.noc.receiver",
        "before[u, n] = ~since[len(stamp) - 1]", "before[u, n] = since[len(stamp) - 1]"),
    Bug("a packet's mark comes off before its end", "hw.noc.receiver",
        "spoiled & begun | damaged | wrong", "damaged | wrong", "receiver"),
    Bug("what is dropped gives no credit", "hw.noc.receiver",
        "self.credit[n].eq(queue.o.valid & queue.o.ready)",
        "self.credit[n].eq(queue.o.valid & queue.o.ready & ~drops[n])", "receiver"),
    Bug("replies that leave make no place", "hw.noc.receiver",
        "self.dropped + (self.o.valid & self.o.ready)", "self.dropped", "replies"),
    Bug("a packet that goes on takes the virtual channel of the next", "hw.noc.interface",
        "output.owns[n].eq(~sender.flit.head)", "output.owns[n].eq(0)"),
]


def _judge(bug):
    # Only now: these modules must see the bug.
    from sim.interface import Pair
    from sim.mutation.interface import CONFIG, inside
    from sim.mutation.judge import breach
    from sim.run import simulate

    with tempfile.TemporaryDirectory() as folder:
        if bug.judge:
            task = next(target.task for target in inside()[1] if target.label == bug.judge)
            found = breach(replace(task, depth=task.depth + 4), Path(folder), timeout=200)
            return found and f"contract, cycle {found[1]}: {found[0]}"
        try:
            simulate(Pair(CONFIG), "sim.benches.interface", seed=1, env={"NOC": CONFIG.model_dump_json()},
                     folder=Path(folder))
        except AssertionError as error:
            return f"simulation: {str(error).splitlines()[0].partition(';')[0]}"
    return None


if __name__ == "__main__":
    planted = BUGS[int(sys.argv[1])]
    bugs._plant(planted)
    print(json.dumps(_judge(planted)))
