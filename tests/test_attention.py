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
from scripts.benches.attention import BEYOND, DATA, LIMIT, OWN, errors
from scripts.measure import distance
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
    assert found["own"] <= OWN[format]
    assert found["all"] <= 1.2 * found["format"]
    assert (found["all"] <= LIMIT[format]) == (found["format"] <= LIMIT[format]) == ((format, data) not in BEYOND)


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
@pytest.mark.parametrize("cuts, limit", [([16, 64], 1e-4), ([0, 80, 100], 1e-4), ([50], None), ([1, 1, 2, 99], None)])
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
    for format, limit in ("fp8", 0), ("bf16", 1e-5):
        config = cache(format)
        q, k, v = normal(config, 4, 60)
        mask = Mask(np.full(4, 10), np.full(4, 45))
        found = rows(head(config, q, k, v, mask=mask).attended)
        k[:10], v[45:] = 99, v[45:] * 3
        assert relative(rows(head(config, q, k, v, mask=mask).attended), found) <= limit
