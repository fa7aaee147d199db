# SPDX-License-Identifier: Apache-2.0
"""Attention of some queries to one head of the KV cache, in the integers that the hardware computes with.

    out = sum_t 2**s_t v_t / sum_t 2**s_t,  s_t = q . k_t

so that queries are to be multiplied by log2(e) / sqrt(head_dim) beforehand. All operands are integers with an exponent
that several share, all sums are of integers:

- A query's elements share the exponent of the largest. Its dot product with a key is exact (FP8), or its products are
  aligned to the largest exponent of a beat (BF16), cut off `GUARD` places below. It is rounded once, to a score with
  `FRACTION` bits after the point.
- Tokens are taken in groups. The powers of two of a group share an exponent for each query, V's scales among it. Their
  products with a column of values are summed like those of a key, aligned, if they are, to the largest exponent of the
  group's values. The sum joins the groups' before: whichever has the smaller exponent is shifted to that of the other.
- The same powers are summed, and their reciprocal is multiplied with the sum of values at the end.

The largest score of all is never needed: an exponent takes its place, so that parts of a sequence may be attended to
one by one and joined (`join`), with no loss but that of the last places.
"""

from dataclasses import dataclass

import numpy as np

from golden import fp32
from golden.formats import BF16, E8M0, FP32, decode, is_nan
from golden.scores import DOWN, FRACTION, GUARD, QUOTIENT, SHARE, WHOLE, Widths
from golden.tables import CHOICE, chords

__all__ = ["Attended", "attention", "integers", "join", "reference", "score_code"]

NEVER = -(1 << 20)          # an exponent below all others
MOST = (1 << WHOLE - 1 + FRACTION) - 1


@dataclass(frozen=True)
class Attended:
    """What came of the queries.

    Attributes
    ----------
    rows : array of uint32, shape (queries, head_dim)
        FP32 codes: the weighed means of the values; in a part, their weighed sums over 2**`exponents`.
    totals : array of uint32, shape (queries,)
        FP32 codes: the sums of the powers of two over 2**`exponents`.
    exponents : array of int, shape (queries,)
        0 where nothing was attended to.
    """

    rows: np.ndarray
    totals: np.ndarray
    exponents: np.ndarray


def attention(kv, queries, k, v, k_scales=None, v_scales=None, *, first=0, end=None, sinks=0, sink=None, part=False):
    """Attention to the tokens of one stream.

    Parameters
    ----------
    kv : golden.config.KvCache
    queries : array of uint32, shape (queries, head_dim)
        FP32 codes.
    k, v : array of uint8 or uint16, shape (tokens, head_dim)
        Codes of the cache's format; what is not finite is NaN.
    k_scales, v_scales : array of uint8, shape (tokens,)
        E8M0, with FP8.
    first, end : int or array of int, shape (queries,)
        Which tokens a query attends to: those from `first` up to `end`, which is by default the last.
    sinks : int
        Tokens at the beginning that it attends to as well, up to `end`.
    sink : array of int, shape (queries,)
        A score that takes part in the sum of all, but has no value; a code of `score_code`. By default there is none.
    part : bool
        Do not divide.

    Returns
    -------
    Attended
    """
    widths, size, tokens = Widths(kv), len(queries), len(k)
    place = np.arange(tokens)
    first, end = (np.broadcast_to(each, size)[:, None] for each in (first, tokens if end is None else end))
    seen = (place < end) & ((place >= first) | (place < sinks))
    none = np.zeros(tokens, np.uint8)
    k_scales, v_scales = (none if each is None else each for each in (k_scales, v_scales))
    k_lanes, v_lanes = _lanes(widths, k), _lanes(widths, v)
    bad = k_lanes.bad.any(-1) | v_lanes.bad.any(-1)
    if not widths.aligned:
        bad |= (k_scales == E8M0.nan) | (v_scales == E8M0.nan)
    operands, exponents, nan = integers(widths, queries)
    nan = nan | (seen & bad).any(-1)
    scores = _scores(widths, operands, exponents, k_lanes, k_scales)

    state = _State(widths, size, sink)
    for at in range(0, tokens, widths.tokens):
        group = slice(at, at + widths.tokens)
        state.take(scores[:, group], seen[:, group], v_lanes[group], v_scales[group].astype(np.int64))
    return state.finish(kv.head_dim, nan, part)


def join(parts):
    """What attention to all tokens gives, from parts of them: float64, shape (queries, head_dim)."""
    exponents = np.stack([np.where(each.totals, each.exponents, NEVER) for each in parts])
    weights = np.exp2((exponents - exponents.max(0)).astype(np.float64))
    rows = sum(weight[:, None] * decode(FP32, each.rows) for weight, each in zip(weights, parts, strict=True))
    totals = sum(weight * decode(FP32, each.totals) for weight, each in zip(weights, parts, strict=True))
    return np.divide(rows, totals[:, None], out=np.zeros_like(rows), where=(totals != 0)[:, None])


def reference(queries, k, v, seen, sink=None):
    """The same in float64: of values, with `seen` (queries, tokens) and sinks, -inf where there is none."""
    scores = np.where(seen, queries @ k.T, -np.inf)
    sink = np.full(len(queries), -np.inf) if sink is None else sink
    top = np.maximum(scores.max(-1, initial=-np.inf), sink)
    top = np.where(np.isfinite(top), top, 0)
    powers = np.exp2(scores - top[:, None])
    totals = powers.sum(-1) + np.exp2(sink - top)
    return powers @ v / np.where(totals == 0, 1, totals)[:, None]


def score_code(values):
    """Scores in units of 2**-`FRACTION`, the nearest: int64."""
    return np.clip(np.rint(np.asarray(values) * (1 << FRACTION)), -MOST, MOST).astype(np.int64)


@dataclass(frozen=True)
class _Lanes:
    """Elements of keys or values as the lanes see them; what is not finite is `bad` and counts as zero."""

    significands: np.ndarray
    exponents: np.ndarray
    bad: np.ndarray

    def __getitem__(self, index):
        return _Lanes(self.significands[index], self.exponents[index], self.bad[index])


def _lanes(widths, codes):
    fmt = widths.fmt
    codes = codes.astype(np.int64)
    field = codes >> fmt.mantissa & (1 << fmt.exponent) - 1
    bad = field == BF16.inf >> BF16.mantissa if widths.aligned else is_nan(fmt, codes)
    significands = np.where(bad, 0, codes & (1 << fmt.mantissa) - 1 | (field != 0) << fmt.mantissa)
    exponents = np.maximum(np.where(bad, 0, field), 1) - 1 + widths.least
    return _Lanes(np.where(codes >> fmt.width - 1, -significands, significands), exponents, bad)


def integers(widths, queries):
    """Queries as integers of `widths.operand` bits and a sign, the exponent field of each row, and which are NaN."""
    x = fp32.flush(queries).astype(np.int64)
    field = x >> FP32.mantissa & 0xFF
    nan, field = (field == 0xFF).any(-1), np.where(field == 0xFF, 0, field)
    significands = np.where(field == 0, 0, x & (1 << FP32.mantissa) - 1 | 1 << FP32.mantissa)
    largest = field.max(-1)
    places = FP32.mantissa - widths.operand + np.minimum(largest[:, None] - field, 32)
    magnitudes = np.minimum((significands >> places) + 1 >> 1, (1 << widths.operand) - 1)
    return np.where(x >> 31, -magnitudes, magnitudes), largest, nan


def _top(widths, lanes, axis):
    """The largest exponent, to which products are aligned, or none."""
    return lanes.exponents.max(axis) if widths.aligned else np.int64(0)


def _sums(widths, lanes, operands, top):
    """Sums of products over the last axis of `lanes` (..., n) and `operands` (queries, ..., n)."""
    if not widths.aligned:
        return (operands * (lanes.significands << lanes.exponents)).sum(-1)
    products = operands * lanes.significands
    places = np.minimum(top[..., None] - lanes.exponents, 32)
    return (np.sign(products) * (np.abs(products) << GUARD >> places)).sum(-1)


def _scores(widths, operands, exponents, lanes, scales):
    """Scores of all keys, rounded: int64, shape (queries, tokens)."""
    kv, size = widths.kv, widths.elements
    total = top = None
    for beat in range(kv.row_beats):
        part = slice(beat * size, (beat + 1) * size)
        tag = _top(widths, lanes[:, part], -1)
        sums = _sums(widths, lanes[:, part], operands[:, None, part], tag)
        total, top = (sums, tag) if total is None else _align(total, top, sums, tag)
    lsb = exponents[:, None] - FP32.bias + 1 - widths.operand + scales.astype(np.int64) + top + widths.unit
    up = np.clip(lsb + FRACTION, 0, 40)
    down = np.maximum(-lsb - FRACTION, 0)
    limit = MOST >> up
    scaled = np.where(np.abs(total) > limit, np.sign(total) * MOST, total << np.where(np.abs(total) > limit, 0, up))
    places = np.clip(down, 1, DOWN)
    rounded = np.where(down > DOWN, 0, (total + (np.int64(1) << places - 1)) >> places)
    return np.where(down > 0, np.clip(rounded, -MOST, MOST), scaled)


def _align(total, top, more, tag):
    """The sum of `total` * 2**`top` and `more` * 2**`tag`, whichever is smaller shifted down; and its exponent."""
    most = np.maximum(top, tag)
    return _down(total, most - top) + _down(more, most - tag), most


def _down(values, places):
    """Shifted down and rounded, half up."""
    places = np.minimum(places, 62)
    return (values >> places) + np.where(places > 0, values >> np.maximum(places, 1) - 1 & 1, 0)


class _State:
    """What the groups so far come to."""

    def __init__(self, widths, size, sink):
        self.widths = widths
        columns = 2 * widths.columns
        self.sums, self.tag = np.zeros((size, columns), np.int64), np.full(size, NEVER)
        self.total, self.top = np.zeros(size, np.int64), np.full(size, NEVER)
        if sink is not None:
            self.total, self.top = _power(widths, np.asarray(sink)) << SHARE, np.asarray(sink) >> FRACTION

    def take(self, scores, seen, lanes, scales):
        """A group of tokens."""
        widths, some = self.widths, seen.any(-1)
        powers, whole = _power(widths, scores), np.where(seen, scores >> FRACTION, NEVER)
        top = whole.max(-1)
        share = np.where(seen, _down(powers << SHARE, top[:, None] - whole), 0).sum(-1)
        shared = np.where(seen, whole + scales, NEVER).max(-1)
        operands = np.where(seen, _down(powers, shared[:, None] - whole - scales), 0)

        columns = _Lanes(*(np.pad(each.T, [(0, self.sums.shape[1] - each.shape[1]), (0, 0)]) for each in (
            lanes.significands, lanes.exponents, lanes.bad)))
        tag = _top(widths, columns, None)
        sums = _sums(widths, columns, operands[:, None, :], tag)
        joined, tag = _align(self.sums, self.tag[:, None], sums >> widths.drop, (shared + tag)[:, None])
        self.sums, self.tag = np.where(some[:, None], joined, self.sums), np.where(some, tag[:, 0], self.tag)
        joined = _align(self.total, self.top, share, top)
        self.total, self.top = (np.where(some, new, old) for new, old in zip(
            joined, (self.total, self.top), strict=True))

    def finish(self, length, nan, part):
        """`Attended`."""
        widths = self.widths
        none = self.total == 0
        high, fraction = _normal(self.total, QUOTIENT)
        factors, binades = (np.where(part, known, other) for known, other in (
            (1 << QUOTIENT, _reciprocal(fraction)), (-self.top, SHARE - self.top - high)))
        factors, binades = factors[:, None], binades[:, None]
        if part:
            binades = binades - (widths.operand - 1)
        magnitudes = np.where(self.sums < 0, ~self.sums, self.sums)
        place, fraction = _normal(magnitudes, QUOTIENT - 1)
        product = (fraction + (1 << QUOTIENT - 1)) * factors
        over = product >> 2 * QUOTIENT - 1
        mantissa = (product << FP32.mantissa >> 2 * QUOTIENT - 2 + over) & (1 << FP32.mantissa) - 1
        exponent = place + self.tag[:, None] + widths.unit + widths.drop + binades - 1 + over + FP32.bias
        rows = np.where(exponent >= 255, fp32.INF, np.where(exponent <= 0, 0, exponent << 23 | mantissa))
        rows = np.where((magnitudes == 0) | none[:, None], 0, rows | np.where(self.sums < 0, fp32.SIGN, 0))
        rows = np.where(nan[:, None], fp32.NAN, rows)[:, :length].astype(np.uint32)
        high, fraction = _normal(self.total, 23)
        totals = np.where(none, 0, high - SHARE - (widths.operand - 1) + FP32.bias << 23 | fraction)
        totals = np.where(nan, fp32.NAN, totals).astype(np.uint32)
        return Attended(rows, totals, np.where(none, 0, self.top))


def _power(widths, scores):
    """2 ** the scores' fractions, in [1, 2): `widths.operand` bits, rounded."""
    fraction = scores & (1 << FRACTION) - 1
    low = FRACTION - CHOICE
    below, above = _chord(chords("exp2", widths.operand + 1), fraction >> low)
    line = (below << low) + (above - below) * (fraction & (1 << low) - 1)
    return np.minimum((line >> low + 1) + 1 >> 1, (1 << widths.operand) - 1)


def _reciprocal(fraction):
    """2**`QUOTIENT` / (1 + `fraction` / 2**`QUOTIENT`), rounded."""
    low = QUOTIENT - CHOICE
    below, above = _chord(chords("reciprocal", QUOTIENT - 1), fraction >> low)
    return (below << low) + (above - below) * (fraction & (1 << low) - 1) + (1 << low - 1) >> low


def _chord(table, index):
    table = np.array(table, np.int64)
    return table[index], table[index + 1]


def _normal(values, bits):
    """The place of the highest one of values, 0 in zeros, and `bits` bits that follow it."""
    place = np.zeros_like(values)
    for step in 32, 16, 8, 4, 2, 1:
        place = np.where(values >> place + step > 0, place + step, place)
    shifted = np.where(place > bits, values >> np.maximum(place - bits, 0), values << np.maximum(bits - place, 0))
    return place, shifted & (1 << bits) - 1
