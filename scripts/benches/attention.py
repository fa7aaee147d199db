# SPDX-License-Identifier: Apache-2.0
"""Figures of attention: beats taken, cycles beyond them, area, and how far its results are from float64's."""

import numpy as np

from golden.config import KvCache
from golden.formats import FP32, decode
from sw.attention import head, reference

__all__ = ["BEYOND", "DATA", "LIMIT", "OWN", "errors"]

TOKENS, QUERIES = 1024, 8
CHANNELS = 5, 32            # that are larger than others


def _normal(rng, shape):
    return rng.standard_normal(shape)


def _laplace(rng, shape):
    return rng.laplace(scale=0.5 ** 0.5, size=shape)


def _student(freedom):
    return lambda rng, shape: rng.standard_t(freedom, shape) * (1 - 2 / freedom) ** 0.5


DATA = {
    "normal": (_normal, {}, "normal"),
    "laplace": (_laplace, {}, "Laplace's distribution"),
    "student5": (_student(5), {}, "Student's t, 5 degrees of freedom"),
    "student3": (_student(3), {}, "Student's t, 3 degrees of freedom"),
    "values": (_normal, {"v": 12}, "normal, two columns of V 12 times as large"),
    "keys": (_normal, {"k": 12}, "normal, two columns of K 12 times as large"),
    "sink": (_normal, {}, "normal, and a first token of score 8 to all queries, its V a tenth"),
    "balanced": (_normal, {"k": 12, "q": 1 / 12}, "the same, those of Q as much smaller"),
}
"""How queries, keys and values of variance 1 are drawn, what some columns are multiplied by, and what that is."""

LIMIT = {"bf16": 0.005, "fp8": 0.06}
"""Errors against float64 of what was given: goals. In formats and data of `BEYOND` storing alone costs more."""
BEYOND = {("fp8", "student3"), ("fp8", "keys"), ("bf16", "keys")}
OWN = {"bf16": 0.002, "fp8": 0.008}
"""Errors against float64 of what the cache keeps: goals."""


def errors(format, name, *, head_dim=64, seeds=8):
    """Relative errors of golden's rows, the mean over queries.

    Returns
    -------
    dict of str to float
        "all", against float64 of what was given; "own", of what the cache keeps; "format", of the two from each other.
    """
    draw, factors, _ = DATA[name]
    config, found = KvCache(format=format, head_dim=head_dim, beat=32), []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        given = {letter: draw(rng, (count, head_dim)) for letter, count in zip("qkv", (QUERIES, TOKENS, TOKENS),
                                                                               strict=True)}
        for letter, factor in factors.items():
            given[letter][:, CHANNELS] *= factor
        if name == "sink":
            given["q"][:, 0], given["k"][:, 0], given["k"][0, 0] = 8, 0, head_dim ** 0.5
            given["v"][0] /= 10
        one, exact = head(config, **given), reference(**given)
        rows, stored = decode(FP32, one.attended.rows), one.reference
        found.append([_norm(off) / _norm(exact) for off in (rows - exact, rows - stored, stored - exact)])
    return dict(zip(("all", "own", "format"), np.mean(found, axis=(0, 2)).tolist(), strict=True))


def _norm(rows):
    return np.sqrt((rows ** 2).sum(axis=-1))
