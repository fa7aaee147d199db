# SPDX-License-Identifier: Apache-2.0
"""Text of our own models: bytes as tokens, and Python's standard library to learn from.

A sequence begins with `BOS`, in front of the beginning of a line; `EOS` ends a file. Files are split by a hash of their
path, so that with any version of Python a model is tested on what it has not learned from.
"""

import sysconfig
from hashlib import sha256
from pathlib import Path

import numpy as np

__all__ = ["BOS", "EOS", "VOCABULARY", "decode", "encode", "held_out", "lines", "sequences", "training"]

BOS, EOS, VOCABULARY = 256, 257, 258
HELD_OUT = 20           # a file of so many
LEFT_OUT = {"encodings", "idle_test", "pydoc_data", "site-packages", "test", "tests"}       # tables, tests, and others'


def encode(text):
    """Tokens of a prompt, which begins with `BOS`: array of int."""
    return np.array([BOS, *text.encode()])


def decode(tokens):
    """The text that tokens are; what is not UTF-8 shows as such, `BOS` and `EOS` not at all."""
    return bytes(token for token in tokens if token < BOS).decode(errors="replace")


def training():
    """Tokens of all files to learn from, an `EOS` after each: array of uint16."""
    return _tokens(lambda number: number % HELD_OUT != 0)


def held_out(length):
    """Sequences of the files held out, one for every `length` tokens: array of uint16, (sequences, 1 + length)."""
    tokens = _tokens(lambda number: number % HELD_OUT == 0)
    begins = lines(tokens, length)
    return sequences(tokens, begins[np.searchsorted(begins, np.arange(0, begins[-1], length))], length)


def lines(tokens, length):
    """Where a line begins, with `length` tokens from there on: array of int."""
    ends = tokens[:-length]
    return np.append(0, np.flatnonzero((ends == ord("\n")) | (ends == EOS)) + 1)


def sequences(tokens, begins, length):
    """`BOS` and the `length` tokens from each of `begins` on: (begins, 1 + length)."""
    return np.pad(tokens[begins[:, None] + np.arange(length)], [(0, 0), (1, 0)], constant_values=BOS)


def _tokens(chosen):
    """Of the files of whose hashes this is true."""
    library = Path(sysconfig.get_path("stdlib"))
    names = sorted(path.relative_to(library).as_posix() for path in library.rglob("*.py"))
    files = [(library / name).read_bytes() for name in names
             if not LEFT_OUT & set(name.split("/")) and not name.startswith("_sysconfigdata")
             and chosen(int(sha256(name.encode()).hexdigest(), 16))]
    return np.concatenate([np.append(np.frombuffer(file, np.uint8), np.uint16(EOS)) for file in files])
