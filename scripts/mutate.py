# SPDX-License-Identifier: Apache-2.0
"""Mutate the control logic and see whether contracts (`sim/formal`) and simulation notice.

    scripts/mutate.py                   # all blocks, all bugs by hand
    scripts/mutate.py --block kvcache   # blocks whose label begins so, such as kvstore, router, reduce, interface,
                                        # chiplink, vector, attention, or router_fork; the engine's parts have their own
    scripts/mutate.py --bugs            # only the bugs by hand
    scripts/mutate.py --write           # the results of the last full run into docs/mutation.md

Exits with 1 if a mutant survives for no stated reason, or a bug by hand is not caught.
"""

import argparse
import json
import re
import sys
import time
from dataclasses import asdict

from hw.flow.figures import dump, figure
from sim.mutation import attention, campaign, chiplink, interface, kvcache, kvstore, noc_reduce, router, vector
from sim.mutation.bugs import BUGS, caught
from sim.mutation.campaign import Verdict
from sim.mutation.mutants import SEED
from sim.mutation.reasons import REASONS
from sim.run import ROOT

CAMPAIGNS = [each.run for each in (campaign, kvcache, kvstore, router, noc_reduce, interface, chiplink,
                                  vector, attention)]
FOLDER, PAGE = ROOT / "build" / "mutation", ROOT / "docs" / "mutation.md"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", default="", metavar="PREFIX", help="only blocks whose label begins so")
    parser.add_argument("--bugs", action="store_true", help="only the bugs by hand")
    parser.add_argument("--write", action="store_true", help="write the last results into docs/mutation.md")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    arguments = parser.parse_args(argv)
    kept, start = FOLDER / "results.json", time.monotonic()

    def progress(text):
        print(f"{time.monotonic() - start:7.0f} s  {text}", file=sys.stderr, flush=True)

    def known():
        return json.loads(kept.read_text()) if kept.exists() else {"mutants": [], "bugs": []}

    if not arguments.write:
        FOLDER.mkdir(parents=True, exist_ok=True)
        if not arguments.bugs:
            fresh = [asdict(verdict) for each in CAMPAIGNS for verdict in each(FOLDER, progress, arguments.block)]
            labels = {fields["label"] for fields in fresh}
            others = [fields for fields in known()["mutants"] if fields["label"] not in labels]
            mutants = sorted(others + fresh, key=place)
            kept.write_text(json.dumps({**known(), "mutants": mutants}, indent=1))
        if not arguments.block:
            fresh = []
            for number, bug in enumerate(BUGS):
                progress(bug.name)
                fresh.append(caught(number))
            kept.write_text(json.dumps({**known(), "bugs": fresh}, indent=1))
    verdicts, bugs = [Verdict(**fields) for fields in known()["mutants"]], known()["bugs"]
    if arguments.write:
        before, mark, _ = PAGE.read_text().partition("<!-- scripts/mutate.py --write -->\n")
        PAGE.write_text(before + mark + "\n" + "\n".join(page(verdicts, bugs)) + "\n")
    print(dump(figures(verdicts, bugs)) if arguments.json else "\n".join(page(verdicts, bugs)))
    sys.exit(any(verdict.survives and not reason(verdict) for verdict in verdicts) or not all(bugs))


def place(fields):
    """Where a verdict stands: by its block, then by its number."""
    return fields["label"], int(fields["name"].rpartition("-")[2])


def reason(verdict):
    """Why a survivor is no cause for worry, if it is not."""
    return next((text for label, pattern, text in REASONS
                 if label == verdict.label and re.search(pattern, verdict.change)), "")


def count(verdicts):
    """Mutants: all, found by the contract, by simulation, by either, the same as the block, and the rest."""
    return [len(verdicts), *(sum(map(bool, column)) for column in zip(*(
        (v.contract, v.simulation, v.contract or v.simulation, v.same, v.survives) for v in verdicts), strict=True))]


def page(verdicts, bugs):
    """Lines of Markdown: a table of blocks, the survivors, and the bugs by hand."""
    labels = list(dict.fromkeys(verdict.label for verdict in verdicts))
    rows = [(f"`{label}`", [v for v in verdicts if v.label == label]) for label in labels] + [("all", verdicts)]
    yield f"Seed {SEED}.\n"
    yield "| block | mutants | found by contract | found by simulation | found | no change | survive |"
    yield "|---|---|---|---|---|---|---|"
    for name, mine in rows if verdicts else ():
        yield f"| {name} | {' | '.join(map(str, count(mine)))} |"
    yield "\n## Survivors\n\n| mutant | change | why |\n|---|---|---|"
    for v in verdicts:
        if v.survives:
            yield f"| {v.name} | {v.change} | {reason(v) or '**not explained**'} |"
    yield "\n## Bugs by hand\n\n| bug | where | caught by |\n|---|---|---|"
    for bug, how in zip(BUGS, bugs, strict=False):
        yield f"| {bug.name} | `{bug.module.replace('.', '/')}.py` | {how or '**nothing**'} |"


def figures(verdicts, bugs):
    how = f"Yosys mutate, seed {SEED}; contracts, simulation, equivalence"
    names = ("all", "contract", "simulation", "found", "same", "survive")
    found = [figure(f"mutation.{name}", value, "mutants", how)
             for name, value in zip(names, count(verdicts) if verdicts else (), strict=False)]
    return [*found, figure("mutation.unexplained", sum(v.survives and not reason(v) for v in verdicts), "mutants", how,
                           0, "<="),
            figure("mutation.bugs", sum(map(bool, bugs)), "bugs", "bugs by hand that are caught", len(BUGS), ">=")]


if __name__ == "__main__":
    main()
