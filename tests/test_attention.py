# SPDX-License-Identifier: Apache-2.0
"""Attention: golden against fractions and float64, the hardware against golden."""

import os
from dataclasses import replace
from math import exp

import naive_attention as naive
import numpy as np
import pytest

from golden.attention import join
from golden.config import KvCache
from golden.formats import FP32, decode
from hw.attention.attention import Attention
from hw.attention.ports import Error
from scripts.benches.attention import BEYOND, DATA, LIMIT, OWN, errors
from scripts.measure import distance
from sim.attention import Job, run
from sim.heads import KINDS, draw
from sw.attention import NONE, Mask, gather, head, reference

DEEP = "DEEP" in os.environ
FORMATS = "bf16", "fp8"


def cache(format, head_dim=64, beat=32, **options):
    return KvCache(**{"format": format, "head_dim": head_dim, "beat": beat, "lanes": 4, "block_tokens": 4} | options)


def normal(config, queries, tokens, seed=0):
    """Real queries, keys and values."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((count, config.head_dim)) for count in (queries, tokens, tokens)]


def rows(attended):
    return decode(FP32, attended.rows)


def relative(found, exact):
    return distance(found, exact)["rms"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_golden_against_fractions(format, kind):
    """Every bit of small heads."""
    rng, nans = np.random.default_rng([KINDS.index(kind), format == "fp8"]), 0
    for _ in range(400 if DEEP else 15):
        config = cache(format, int(8 * rng.integers(1, 6)), int(2 ** rng.integers(3, 6)))
        given = draw(rng, config, int(rng.integers(1, 5)), int(rng.integers(1, 40)), kind)
        mask, sink = given.mask, [None if code == NONE else int(code) for code in given.sink]
        wanted = naive.attention(config, given.queries, given.k, given.v, given.k_scales, given.v_scales,
                                 first=mask.first, end=mask.end, sinks=mask.sinks, sink=sink, part=given.part)
        found = given.attended
        assert (found.rows.tolist(), found.totals.tolist(), found.exponents.tolist()) == wanted
        nans += wanted[1].count(FP32.nan)
    assert bool(nans) == (kind == "nan")


def test_float64_against_softmax():
    """The reference that accuracy is measured with, on numbers small enough to do without its care."""
    q, k, v = normal(cache("bf16", 8), 3, 7)
    mask, sink = Mask(np.array([0, 2, 5]), np.array([7, 6, 1]), 1), [1, -2, 0]
    found = reference(q, k, v, scale=0.3, mask=mask, sink=sink)
    for n, row in enumerate(found):
        seen = [t for t in range(7) if t < mask.end[n] and (t >= mask.first[n] or t < 1)]
        powers = [exp(0.3 * sum(a * b for a, b in zip(q[n], k[t], strict=True))) for t in seen]
        total = sum(powers) + exp(sink[n])
        for column, value in enumerate(row):
            assert value == pytest.approx(sum(p * v[t, column] for p, t in zip(powers, seen, strict=True)) / total)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("data", DATA)
def test_accuracy(format, data):
    """The goals, but for data that the format alone is too coarse for; and little is added to a format's error."""
    found = errors(format, data, seeds=32 if DEEP else 8)
    assert found["own"] <= OWN[format] * (3 if data == "sink" else 1)       # docs/attention.md says why
    assert found["all"] <= 1.05 * np.hypot(found["format"], found["own"])
    assert (found["format"] > LIMIT[format]) == ((format, data) in BEYOND)
    assert found["all"] <= LIMIT[format] or (format, data) in BEYOND | {("bf16", "sink")}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("head_dim", [8, 24, 64, 128])
@pytest.mark.parametrize("tokens", [1, 15, 200])
def test_windows_sinks_and_causal_masks(format, head_dim, tokens):
    """Against float64 of what the cache keeps, queries with and without a sink's logit."""
    config = cache(format, head_dim)
    q, k, v = normal(config, 6, tokens)
    positions = np.linspace(0, tokens - 1, 6).astype(int)
    for mask in (Mask.of(6, tokens), Mask.of(6, tokens, positions=positions),
                 Mask.of(6, tokens, positions=positions, window=9, sinks=2)):
        for sink in (None, np.array([0.0, 3, -3, -np.inf, 20, -20])):
            given = head(config, q, k, v, mask=mask, sink=sink)
            assert relative(rows(given.attended), given.reference) < 1.5 * OWN[format]


@pytest.mark.parametrize("format", FORMATS)
def test_what_sees_nothing_gives_zeros(format):
    config = cache(format)
    mask = Mask(np.array([0, 5, 20, 3]), np.array([0, 5, 20, 2]), 0)
    for part in (False, True):
        found = head(config, *normal(config, 4, 20), mask=mask, part=part).attended
        assert not found.rows.any() and not found.totals.any() and not found.exponents.any()
    found = head(config, *normal(config, 4, 20), mask=mask, sink=np.full(4, 2.0)).attended
    assert not found.rows.any() and (decode(FP32, found.totals) * 2.0 ** found.exponents
                                     == pytest.approx(exp(2), rel=1e-3))


def test_sinks_are_tokens_without_values():
    """A sink's score is as good as that of a token whose value is zero."""
    config = cache("bf16", 8)
    q, k, v = normal(config, 4, 21)
    k[-1], v[-1] = 0.5, 0
    scores = q @ k[-1] / np.sqrt(8)
    token = head(config, q, k, v).attended
    sink = head(config, q, k[:-1], v[:-1], sink=scores).attended
    np.testing.assert_allclose(rows(sink), rows(token), rtol=2e-3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cuts, limit", [([16, 64], 5e-4), ([0, 80, 100], 5e-4), ([50], None), ([1, 1, 2, 99], None)])
def test_parts_join(format, cuts, limit):
    """Parts of a sequence, some of them empty, as the whole: in all but last places, or where they begin within a
    group, as near as either is to float64."""
    config = cache(format)
    q, k, v = normal(config, 4, 100)
    q[2] *= 30
    mask = Mask(np.array([0, 40, 0, 0]), np.array([100, 60, 100, 30]), 3)
    whole = head(config, q, k, v, mask=mask, sink=np.array([1, -np.inf, -np.inf, -np.inf]))
    parts = []
    for low, high in zip([0, *cuts], [*cuts, 100], strict=True):
        own = Mask(*(np.clip(each - low, 0, high - low) for each in (mask.first, mask.end)), max(mask.sinks - low, 0))
        sink = whole.sink if low == 0 and not parts else np.full(4, NONE)
        parts.append(replace(whole, k=whole.k[low:high], v=whole.v[low:high], k_scales=whole.k_scales[low:high],
                             v_scales=whole.v_scales[low:high], mask=own, sink=sink, part=True).attended)
    assert relative(join(parts), rows(whole.attended)) < (limit or OWN[format])


def test_parts_far_below_one_join():
    """A part that saw nothing has no weight, however small all others' powers are."""
    config = cache("bf16", 8)
    q, k, v = np.full((1, 8), -100.0), np.full((4, 8), 10.0), np.ones((4, 8))
    seen = head(config, q, k, v, part=True)
    nothing = replace(seen, mask=Mask(np.array([4]), np.array([4])))
    assert seen.attended.exponents[0] < -2000
    np.testing.assert_allclose(join([seen.attended, nothing.attended]), 1, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", FORMATS)
def test_queries_are_on_their_own(format, kind):
    """Whatever passes they go in, in whatever order."""
    rng = np.random.default_rng(3)
    given = draw(rng, cache(format, 16), 7, 50, kind)
    whole = vars(given.attended)
    passes, turned = vars(gather([each.attended for each in given.passes(3)])), vars(given[::-1].attended)
    for name, each in whole.items():
        assert (passes[name] == each).all() and (turned[name][::-1] == each).all()


def test_tokens_that_nobody_sees():
    """In FP8 they do not matter at all. In BF16 values are aligned within a group, so last places may differ."""
    for format, limit in ("fp8", 0), ("bf16", 1e-4):
        config = cache(format)
        q, k, v = normal(config, 4, 60)
        mask = Mask(np.full(4, 10), np.full(4, 45))
        found = rows(head(config, q, k, v, mask=mask).attended)
        k[:10], v[45:] = 99, v[45:] * 3
        assert relative(rows(head(config, q, k, v, mask=mask).attended), found) <= limit


# RTL


UNITS = {
    "fp8": (KvCache(beat=32), 4),
    "bf16": (cache("bf16", 24, 16), 3),
    "single": (cache("fp8", 8, 16, block_tokens=1, table=64), 1),
}
if DEEP:
    UNITS |= {f"{format}-{head_dim}-{beat}-{group}": (cache(format, head_dim, beat, block_tokens=size), group)
              for format, head_dim, beat, group, size in [
                  ("bf16", 64, 32, 4, 16), ("fp8", 128, 32, 8, 16), ("bf16", 128, 64, 2, 16), ("fp8", 8, 32, 8, 4),
                  ("fp8", 40, 16, 2, 8), ("bf16", 8, 8, 1, 2), ("fp8", 64, 8, 5, 4), ("bf16", 80, 32, 6, 32),
                  ("fp8", 256, 64, 1, 16), ("bf16", 16, 64, 2, 256)]}
PORTS = "commands", "queries", "beats", "results", "completions"


def lengths(config):
    """Numbers of tokens: one, those of a block and of a group with their neighbours, more."""
    group = config.beat // (2 if config.format == "bf16" else 1) // 2
    near = {size + off for size in (config.block_tokens, group, 2 * group) for off in (-1, 0, 1)}
    return sorted(near - {0, -1} | {1, 2, 3 * config.block_tokens + group + 1})


def heads(config, group, seed, *, rounds=1, **options):
    """Of all kinds and lengths, in any order."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        for tokens in rng.permutation(lengths(config)):
            for kind in rng.permutation(KINDS):
                yield draw(rng, config, int(rng.integers(1, group + 1)), int(tokens), str(kind), **options)


@pytest.mark.parametrize("name", UNITS)
def test_heads_under_stalls(name):
    """Every bit at no stall and at heavy ones, with every port seen held back and starved."""
    config, group = UNITS[name]
    for stall in (0, 0.3, 0.7, 0.9) if DEEP else (0, 0.6):
        given = list(heads(config, group, name == "bf16", rounds=4 if DEEP else 1))
        _, seen = run(Job(config, group, given, stall=stall, seed=3, ragged=stall != 0.6), x_initial="unique")
        for port in PORTS if stall else ():
            assert seen[port, "held back"] and seen[port, "starved"], f"{port} did not stall both ways"


@pytest.mark.parametrize("name", UNITS)
def test_short_heads(name):
    """Many of a few tokens, whose queries may wait for beats or beats for queries."""
    config, group = UNITS[name]
    rng = np.random.default_rng(4)
    for late, stall in (0, 0), (200, 0.2):
        tokens = (1, 1, 1, 2, 2, 2, 3, 3, 1) * 2
        given = [draw(rng, config, int(rng.integers(1, group + 1)), each) for each in tokens]
        run(Job(config, group, given, late=late, stall=stall))


@pytest.mark.parametrize("name", UNITS)
def test_nobody_takes_what_comes_out(name):
    """Neither results nor completions, for so long that all stands still."""
    config, group = UNITS[name]
    rng = np.random.default_rng(10)
    run(Job(config, group, [draw(rng, config, group, tokens) for tokens in (40, 17, 1, 0, 2, 0, 0, 1, 3, 0, 0, 20)],
            held=1000))


@pytest.mark.parametrize("name", UNITS)
def test_reset_in_the_midst(name):
    config, group = UNITS[name]
    run(Job(config, group, list(heads(config, group, 5))[:12], interrupted=(3, 50, 217)))


@pytest.mark.parametrize("name", UNITS)
def test_what_is_wrong_is_said_and_disturbs_nobody(name):
    """Commands and streams that cannot be: each head concerned says so, those around are exact."""
    config, group = UNITS[name]
    rng = np.random.default_rng(6)
    size = 2 * config.row_beats
    bad = [("commands", {"queries": 0}, Error.COMMAND),
           *(("commands", {"queries": more}, Error.COMMAND) for more in range(group + 1, 1 << group.bit_length())),
           *(("commands", {"tokens": 13 + off}, Error.LENGTH) for off in (-12, -5, -1, 1, 4, 40)),
           *(("broken", off, Error.LENGTH) for off in (-1, -3, -size, 1, 2, size, 40)),
           *(("flagged", at, Error.DATA) for at in (0, 3, 11, 12 * size))]
    given = [draw(rng, config, group, 13) for _ in range(2 * len(bad) + 1)]
    options = {"commands": {}, "broken": {}, "flagged": set()}
    for n, (what, value, _) in enumerate(bad):
        if what == "flagged":
            options[what].add((2 * n + 1, value))
        else:
            options[what][2 * n + 1] = value
    runs, _ = run(Job(config, group, given, stall=0 if name == "bf16" else 0.4, seed=1, **options))
    assert [Error(one.error) for one in runs[1::2]] == [code for *_, code in bad]
    assert not any(one.error for one in runs[::2])
    for one, (_, _, code) in zip(runs[1::2], bad, strict=True):
        assert code != Error.COMMAND or not one.attended.rows.any()


def test_heads_of_no_tokens_wait_for_their_queries():
    """A slot is still an older head's when two of its followers come and go before it is released."""
    (config, group), rng = UNITS["single"], np.random.default_rng(7)
    run(Job(config, group, [draw(rng, config, group, tokens) for tokens in (9, 0, 0, 9, 1, 1, 0, 0, 0, 1, 9)]))


def test_heads_of_no_tokens_know_nothing_of_others():
    """Not even of a NaN, where theirs would be."""
    (config, group), rng = UNITS["single"], np.random.default_rng(8)
    given = [draw(rng, config, group, tokens, masked=False) for tokens in (32, 0, 0, 9)]
    run(Job(config, group, [replace(given[0], v=given[0].v | 0x7F), *given[1:]]))


def test_a_query_that_sees_nothing_at_first():
    """Its sums begin with what it sees, however large those of the head before were."""
    (config, group), rng = UNITS["single"], np.random.default_rng(9)
    given = [draw(rng, config, group, 32, masked=False) for _ in range(2)]
    mask = Mask(np.full(group, 16), np.full(group, 32))
    run(Job(config, group, [replace(each, v_scales=np.full(32, scale, np.uint8), mask=mask)
                            for each, scale in zip(given, (200, 50), strict=True)]))


@pytest.mark.parametrize("config, group", [UNITS["fp8"], (cache("fp8", 16, 16, table=64), 2)],
                         ids=["group of a block", "group of two blocks"])
def test_no_beat_waits(config, group):
    """Of heads that follow each other, also if they are not of whole groups."""
    given = [head(config, *normal(config, group, tokens)) for tokens in (64, 200, 100, 64, 128)]
    runs, _ = run(Job(config, group, given))
    beats = [beat for one in runs for beat in one.beats]
    assert len(beats) / (beats[-1] - beats[0] + 1) > 0.95


def test_a_head_alone():
    """After its last beat pass the columns of a group, and perhaps those that are left of the one before."""
    config, group = UNITS["fp8"]
    runs, _ = run(Job(config, group, [head(config, *normal(config, group, n)) for n in (64, 17)], queue=False))
    assert [one.beyond for one in runs] == [config.head_dim // 2 + 15, config.head_dim + 8]


def test_groups_that_cannot_be():
    with pytest.raises(ValueError, match="^Attention: group must be 1 to 8, not 9$"):
        Attention(UNITS["fp8"][0], 9)
