# SPDX-License-Identifier: Apache-2.0
"""How a job gets into a bench and its result out, both being Python objects and the bench another process."""

import os
import pickle
import tempfile
from pathlib import Path

__all__ = ["finish", "given", "submit"]


def submit(block, bench, job, **options):
    """Run a bench that plays a job (see `given` and `finish`) on a block; return the job's result.

    Raises
    ------
    AssertionError
        When the bench fails.
    """
    from sim.run import simulate  # which no bench needs

    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "job", Path(folder) / "result"
        given.write_bytes(pickle.dumps(job))
        simulate(block, bench, env={"JOB": given, "RESULT": result}, **options)
        return pickle.loads(result.read_bytes())


def given():
    """In a bench: the job."""
    return pickle.loads(Path(os.environ["JOB"]).read_bytes())


def finish(result):
    """In a bench: what `submit` returns."""
    Path(os.environ["RESULT"]).write_bytes(pickle.dumps(result))
