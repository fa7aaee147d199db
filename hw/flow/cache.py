# SPDX-License-Identifier: Apache-2.0
"""Results that take long to make, kept under `build/`."""

import os
import pickle
from pathlib import Path

__all__ = ["remember", "store"]

ROOT = Path("build/flow")


def remember(kind, key, make):
    """The result of `make()`, or what it returned the last time with the same `kind` and `key`.

    A key must name everything that the result depends on; a digest serves. An unreadable file is
    made anew.
    """
    path = ROOT / kind / f"{key}.pickle"
    try:
        return pickle.loads(path.read_bytes())
    except (OSError, pickle.PickleError, EOFError, AttributeError, ImportError):
        pass
    value = make()
    _write(path, pickle.dumps(value))
    return value


def store(kind, name, text):
    """Absolute path of a file with this text; equal names must mean equal texts."""
    path = (ROOT / kind / name).absolute()
    if not path.exists():
        _write(path, text.encode())
    return path


def _write(path, content):
    """Write in one step, since several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
