# SPDX-License-Identifier: Apache-2.0
"""Attention of real queries, keys and values, as the hardware takes it.

Keys and values are rounded as the KV cache rounds them. Queries bring the scale of the scores with them, and log2(e),
as the hardware computes powers of two. What a query sees are tokens of its stream from `first` up to `end`, and the
first `sinks`: so causal masks and sliding windows are numbers.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import e, log2, sqrt

import numpy as np

from golden import attention as golden
from golden.attention import Attended, score_code
from golden.formats import FP32, decode
from golden.kvstore import dequantize, quantize
from golden.scores import FRACTION, WHOLE

__all__ = ["NONE", "Head", "Mask", "gather", "head", "reference"]

LOG2E = log2(e)
NONE = -1 << WHOLE - 1 + FRACTION       # in place of a sink's score


@dataclass(frozen=True)
class Mask:
    """What queries see.

    Attributes
    ----------
    first, end : array of int, shape (queries,)
        Of the stream's tokens.
    sinks : int
    """

    first: np.ndarray
    end: np.ndarray
    sinks: int = 0

    @classmethod
    def of(cls, queries, tokens, *, positions=None, window=None, sinks=0):
        """That of queries at `positions` (by default, all behind the last token), which see themselves, what was
        before them and, with a `window`, of that the last `window` tokens."""
        end = np.full(queries, tokens) if positions is None else np.asarray(positions) + 1
        first = np.zeros_like(end) if window is None else np.maximum(end - window, 0)
        return cls(first, end, sinks)

    def __getitem__(self, index):
        return replace(self, first=self.first[index], end=self.end[index])

    def seen(self, tokens):
        """Which tokens each query sees: bool, shape (queries, tokens)."""
        place = np.arange(tokens)
        return (place < self.end[:, None]) & ((place >= self.first[:, None]) | (place < self.sinks))


@dataclass(frozen=True)
class Head:
    """Queries, and the stream of keys and values that they attend to.

    Attributes
    ----------
    kv : golden.config.KvCache
    queries : array of uint32, shape (queries, head_dim)
    k, v : array of uint8 or uint16, shape (tokens, head_dim)
    k_scales, v_scales : array of uint8, shape (tokens,)
        Zeros with BF16.
    mask : Mask
    sink : array of int, shape (queries,)
        Codes of `golden.attention.score_code`, or `NONE`.
    part : bool
    """

    kv: object
    queries: np.ndarray
    k: np.ndarray
    v: np.ndarray
    k_scales: np.ndarray
    v_scales: np.ndarray
    mask: Mask
    sink: np.ndarray
    part: bool = False

    def passes(self, group):
        """The same, `group` queries at a time."""
        return [self[at:at + group] for at in range(0, len(self.queries), group)]

    def __getitem__(self, index):
        return replace(self, queries=self.queries[index], mask=self.mask[index], sink=self.sink[index])

    @cached_property
    def attended(self):
        """What golden says of it."""
        none = self.sink == NONE
        scales = (self.k_scales, self.v_scales) if self.kv.format == "fp8" else ()
        found = [golden.attention(self.kv, own.queries, self.k, self.v, *scales, first=own.mask.first,
                                  end=own.mask.end, sinks=own.mask.sinks, sink=sink, part=self.part)
                 for own, sink in ((self[none], None), (self[~none], self.sink[~none]))]
        back = np.argsort(np.argsort(~none, kind="stable"))
        return Attended(*(each[back] for each in vars(gather(found)).values()))

    @property
    def reference(self):
        """The same in float64: (queries, head_dim), of exactly these operands."""
        sink = np.where(self.sink == NONE, -np.inf, self.sink / (1 << FRACTION))
        k, v = (dequantize(self.kv.format, *rows) for rows in ((self.k, self.k_scales), (self.v, self.v_scales)))
        return golden.reference(decode(FP32, self.queries), k, v, self.mask.seen(len(k)), sink)


def head(kv, q, k, v, *, scale=None, mask=None, sink=None, part=False, k_scales=None, v_scales=None):
    """The `Head` of real queries (queries, head_dim), keys and values (tokens, head_dim).

    Parameters
    ----------
    kv : golden.config.KvCache
    q, k, v : arrays
        Keys and values that are not floating point are codes of the cache's format.
    scale : float
        Of the scores; 1 / sqrt(head_dim) by default.
    mask : Mask
        By default every query sees all tokens.
    sink : array (queries,)
        Logits that take part in the sum of all; -inf where there is none.
    part : bool
    k_scales, v_scales : array of uint8, shape (tokens,)
        Of codes in FP8.
    """
    scale = 1 / sqrt(kv.head_dim) if scale is None else scale
    (k, k_scales), (v, v_scales) = (_stored(kv, *rows) for rows in ((k, k_scales), (v, v_scales)))
    return Head(kv, _fp32(np.float64(q) * scale * LOG2E), k, v, k_scales, v_scales,
                Mask.of(len(q), len(k)) if mask is None else mask,
                np.full(len(q), NONE) if sink is None else np.where(
                    np.isneginf(sink), NONE, score_code(np.float64(sink) * LOG2E)), part)


def reference(q, k, v, *, scale=None, mask=None, sink=None):
    """Attention in float64, of what `head` takes."""
    scale = 1 / sqrt(q.shape[1]) if scale is None else scale
    mask = Mask.of(len(q), len(k)) if mask is None else mask
    return golden.reference(np.float64(q) * scale * LOG2E, np.float64(k), np.float64(v), mask.seen(len(k)),
                            None if sink is None else np.float64(sink) * LOG2E)


def gather(passes):
    """What several passes gave, as that of one."""
    return Attended(*(np.concatenate([getattr(each, name) for each in passes])
                      for name in ("rows", "totals", "exponents")))


def _stored(kv, rows, scales):
    """Rows as the cache keeps them."""
    if rows.dtype.kind == "f":
        return quantize(kv.format, _fp32(rows))[:2]
    return rows, np.zeros(len(rows), np.uint8) if scales is None else scales


def _fp32(values):
    with np.errstate(over="ignore"):
        return np.float32(values).view(np.uint32)
