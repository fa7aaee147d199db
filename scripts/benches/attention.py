# SPDX-License-Identifier: Apache-2.0
"""Figures of attention: beats taken, cycles beyond them, area, and how far its results are from float64's.

    .venv/bin/python -m scripts.benches.attention       the errors alone, as a table of docs/attention.md
"""

import contextlib
import sys

import numpy as np

from golden.config import KvCache
from golden.formats import FP32, decode
from hw.attention.attention import Attention
from hw.emit import Verilog
from hw.flow import asic, liberty
from hw.flow.figures import figure
from hw.flow.report import critical
from sim.attention import Job, run
from sw.attention import head, reference

__all__ = ["BEYOND", "DATA", "LIMIT", "OWN", "errors", "measure"]

GROUP, BEAT = 4, 32
UNITS = {"fp8.dh64": ("fp8", 64, BEAT), "bf16.dh64": ("bf16", 64, BEAT), "fp8.dh128": ("fp8", 128, BEAT),
         "fp8.dh64.wide": ("fp8", 64, 64), "bf16.dh64.wide": ("bf16", 64, 64)}
TABLE = 512                         # blocks of a sequence, which sets the width of its sums: 8,192 tokens
LENGTHS = 16, 32, 64, 128, 250      # tokens of heads that follow each other
LONG = 128                          # of those that the figure is of
AREA, PATH = 150, 1.4               # kGE, ns
ALONE = 40                          # cycles beyond a head's beats

TOKENS, QUERIES = 1024, 8           # of the data that accuracy is measured with
CHANNELS = 5, 32                    # that are larger than others


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
    "balanced": (_normal, {"k": 12, "q": 1 / 12}, "the same, those of Q as much smaller"),
    "sink": (_normal, {}, "normal, and a first token of score 8 to all queries, its V a tenth"),
}
"""How queries, keys and values of variance 1 are drawn, what some columns are multiplied by, and what that is."""

LIMIT = {"bf16": 0.005, "fp8": 0.06}
"""Errors against float64 of what was given: goals. In formats and data of `BEYOND` storing alone costs more."""
BEYOND = {("fp8", "student3"), ("fp8", "keys"), ("bf16", "keys")}
OWN = {"bf16": 0.002, "fp8": 0.008}
"""Errors against float64 of what the cache keeps: goals."""


def measure(quick, library):
    """All figures, one by one.

    Parameters
    ----------
    quick : bool
        Of the units that the issue names, and less data.
    library : list of path
        Liberty files, or none.
    """
    for name, unit in UNITS.items():
        if not quick or name == "fp8.dh64":
            yield from _rate(name, *unit)
    yield from _accuracy(quick)
    yield from _areas(quick, library)


def _rate(name, format, head_dim, beat):
    """Beats of heads that follow each other, and what one alone takes beyond its own."""
    config, rng = KvCache(format=format, head_dim=head_dim, beat=beat), np.random.default_rng(1)
    how = f"RTL, ports never stall, {beat}-byte beats, {GROUP} queries"

    def simulate(lengths, **options):
        heads = [head(config, *(rng.standard_normal((count, head_dim)) for count in (GROUP, tokens, tokens)))
                 for tokens in lengths]
        with contextlib.redirect_stdout(sys.stderr):
            return run(Job(config, GROUP, heads, **options))[0]

    for tokens in LENGTHS:
        beats = [beat for one in simulate([tokens] * 12) for beat in one.beats]
        goal = 95 if tokens == LONG and name == "fp8.dh64" else None
        yield figure(f"attention.beats.{name}" + ("" if tokens == LONG else f".t{tokens}"),
                     round(100 * len(beats) / (beats[-1] - beats[0] + 1), 2), "%",
                     f"{how}; cycles in which a beat is taken, 12 heads of {tokens} tokens, first beat to last",
                     goal, ">=")
    lengths = *LENGTHS, LONG + 1       # a last group of one token is the worst
    alone = simulate(lengths, queue=False)
    yield figure(f"attention.beyond.{name}", max(one.beyond for one in alone), "cycle",
                 f"{how}; one head alone, cycles from its first beat to its last result that are not a beat's, the "
                 f"most of heads of {', '.join(map(str, lengths))} tokens; {-(-head_dim // 2)} of them are words of "
                 "results", ALONE if name == "fp8.dh64" else None, "<=")


def _accuracy(quick):
    """Errors of golden, whose bits the RTL has."""
    for data, (_, _, what) in DATA.items():
        for format, limit in LIMIT.items():
            found = errors(format, data, seeds=8 if quick else 32)
            how = f"golden, head_dim 64, {TOKENS} tokens, {what}; mean over queries of |error| / |row|, against "
            beyond = (format, data) in BEYOND
            yield figure(f"attention.error.{format}.{data}", round(100 * found["all"], 3), "%",
                         f"{how}float64 of what was given" + "; the format alone is beyond the goal" * beyond,
                         None if beyond else 100 * limit, "<=")
            yield figure(f"attention.error.{format}.{data}.own", round(100 * found["own"], 3), "%",
                         f"{how}float64 of what the cache keeps", None if data == "sink" else 100 * OWN[format], "<=")
            yield figure(f"attention.error.{format}.{data}.format", round(100 * found["format"], 3), "%",
                         "float64, the same data; what the cache keeps, against what was given")


def _areas(quick, library):
    """Area and longest path of FP8 and BF16."""
    cells, sizes, paths = liberty.read(library) if library else None, {}, {}
    how = (f"head_dim 64, {BEAT}-byte beats, {GROUP} queries, 8,192 tokens, "
           f"{cells.name if cells else 'generic cells, no library'}")
    for format in LIMIT:
        block = Attention(KvCache(format=format, beat=BEAT, table=TABLE), GROUP)
        text = Verilog(block).text
        report = asic.synthesize(text, block.name, cells, asic.AREA)
        sizes[format] = (report.ge if cells else report.cells) / 1000
        yield figure(f"attention.kge.{format}" if cells else f"attention.kcells.{format}.generic",
                     round(sizes[format], 1), "kGE" if cells else "1000 cells",
                     f"synthesis, area recipe, {how}; logic without memories", AREA if cells else None, "<=")
        yield figure(f"attention.bits.{format}", report.total("bits"), "bit", "memories, counted")
        if cells and not quick:
            fast = asic.synthesize(text, block.name, cells, asic.SPEED)
            paths[format] = critical(fast)[0].length / 1000
            yield figure(f"attention.path_ns.{format}", round(paths[format], 3), "ns",
                         f"synthesis, speed recipe, {how}; clk-q and setup included, no wires", PATH, "<=")
            yield figure(f"attention.kge.{format}.speed", round(fast.ge / 1000, 1), "kGE",
                         f"synthesis, speed recipe, {how}; logic without memories")
    if cells:
        yield figure("attention.kge", round(max(sizes.values()), 1), "kGE", "the larger of FP8 and BF16", AREA, "<=")
    if paths:
        yield figure("attention.path_ns", round(max(paths.values()), 3), "ns", "the longer of FP8's and BF16's", PATH,
                     "<=")


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


def table():
    """Lines of markdown: the errors in per cent."""
    yield "| elements of Q, K, V | FP8: all | format | own | BF16: all | format | own |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for data, (_, _, what) in DATA.items():
        found = [errors(format, data, seeds=32) for format in ("fp8", "bf16")]
        yield f"| {what} | " + " | ".join(
            f"{100 * each[key]:.2f}" for each in found for key in ("all", "format", "own")) + " |"


if __name__ == "__main__":
    print("\n".join(table()))
