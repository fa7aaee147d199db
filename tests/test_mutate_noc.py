# SPDX-License-Identifier: Apache-2.0
"""What the network's mutants are put to, the network itself passes. The campaign is `make mutate`."""

from sim.mutation import chiplink, router
from sim.run import simulate


def test_jobs_of_routers():
    """Multicasts, reductions and a choice of channels at once: all leaves as golden says, by the rules of the links."""
    block, bench, env = router.BENCHES[1]
    assert simulate(block, bench, env=env) == len(router.jobs())


def test_jobs_of_chip_links():
    for job in chiplink.jobs()[8:]:
        chiplink.check(job)
