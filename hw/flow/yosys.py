# SPDX-License-Identifier: Apache-2.0
"""Yosys in a process of its own, so that a crash or its log stays contained."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["run"]

_CHILD = """
from pyosys import libyosys
libyosys.run_pass("tee -q -o yosys.log script yosys.ys", libyosys.Design())
"""


def run(script, files, results):
    """Run a Yosys script.

    Parameters
    ----------
    script : str
        Commands, which see `files` in their working directory.
    files : dict of str to str
        Name and contents.
    results : list of str
        Files that the script writes.

    Returns
    -------
    list of str
        Contents of `results`.

    Raises
    ------
    RuntimeError
        With Yosys' own message.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, text in {**files, "yosys.ys": script}.items():
            (folder / name).write_text(text)
        done = subprocess.run([sys.executable, "-c", _CHILD], cwd=folder, capture_output=True, text=True)
        log = folder / "yosys.log"
        log = log.read_text() if log.exists() else ""
        errors = re.findall(r"^.*\b(?:ERROR|Assertion|Error): ?.*", done.stdout + done.stderr + log, re.M)
        if done.returncode or errors:
            reason = "; ".join(dict.fromkeys(errors)) or (done.stderr or log).strip()[-800:]
            raise RuntimeError(f"yosys: {reason}")
        for name in results:
            if not (folder / name).exists():
                raise RuntimeError(f"yosys: did not write {name}:\n{log[-800:]}")
        return [(folder / name).read_text() for name in results]
