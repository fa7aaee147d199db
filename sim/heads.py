# SPDX-License-Identifier: Apache-2.0
"""Heads to attend to: random ones of every kind that has bits of its own."""

import numpy as np

from golden.attention import score_code
from golden.formats import BF16, E4M3, E8M0, FP32, is_nan
from golden.kvstore import quantize
from sw.attention import NONE, Head, Mask

__all__ = ["KINDS", "draw"]

KINDS = ("plain", "spread", "codes", "largest", "nan", "small")
"""Normal numbers; of all magnitudes; any codes; the largest; some that are not finite; subnormals and zeros."""

CORNERS = np.array([0, 1, 0x7FFFFF, 0x800000, 0x3F7FFFFF, 0x3F800000, 0x7F7FFFFF], np.uint32)


def draw(rng, kv, queries, tokens, kind="plain", *, masked=None, part=None):
    """A `Head`.

    Parameters
    ----------
    rng : numpy.random.Generator
    kv : golden.config.KvCache
    queries, tokens : int
    kind : str
        One of `KINDS`.
    masked : bool
        Whether queries see only some tokens, a few of them none, and have sinks; by default sometimes.
    part : bool
        By default sometimes.
    """
    size, fmt = (tokens, kv.head_dim), BF16 if kv.format == "bf16" else E4M3
    (k, k_scales), (v, v_scales) = (_rows(rng, kv, fmt, size, kind) for _ in range(2))
    masked = rng.random() < 0.7 if masked is None else masked
    part = rng.random() < 0.2 if part is None else part
    mask, sink = Mask.of(queries, tokens), np.full(queries, NONE)
    if masked:
        mask = Mask(rng.integers(0, tokens + 1, queries) * rng.integers(0, 2, queries),
                    rng.integers(0, tokens + 1, queries), int(rng.integers(0, min(tokens, 6) + 1)))
        wide = np.where(rng.random(queries) < 0.5, 4, 1 << 15)
        sink = np.where(rng.random(queries) < 0.5, score_code(rng.normal(size=queries) * wide), NONE)
    return Head(kv, _queries(rng, (queries, kv.head_dim), kind), k, v, k_scales, v_scales, mask, sink, bool(part))


def _queries(rng, shape, kind):
    values = rng.standard_normal(shape)
    if kind == "largest":
        values = rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.choice([0, 40, 127])
    elif kind == "small":
        values *= rng.choice([0, 1e-38, 1e-41], shape)
    elif kind == "spread":
        values *= np.exp2(rng.integers(-12, 13, shape) + rng.integers(-30, 8, (len(values), 1)))
    codes = np.float32(values).view(np.uint32)
    if kind == "codes":
        codes = rng.integers(0, 0x7F800000, shape, dtype=np.uint32) | rng.integers(0, 2, shape, dtype=np.uint32) << 31
        near = rng.integers(110, 135, (shape[0], 1)) + rng.integers(-4, 5, shape)
        codes = np.where(rng.random((shape[0], 1)) < 0.7, codes & 0x807FFFFF | near.astype(np.uint32) << 23, codes)
    if kind == "nan":
        odd = rng.choice(np.array([FP32.nan, FP32.inf, FP32.inf | 1 << 31, 0x7F800001], np.uint32), shape)
        codes = np.where(rng.random(shape) < 0.3 / shape[1], odd, codes)
    return np.where(rng.random(shape) < 0.02, rng.choice(CORNERS[:-1], shape), codes).astype(np.uint32)


def _rows(rng, kv, fmt, shape, kind):
    """Codes and scales."""
    values = rng.standard_normal(shape)
    if kind == "spread":
        values *= np.exp2(rng.integers(-30, 31, (shape[0], 1)) + rng.integers(-6, 7, shape))
    codes, scales, _ = quantize(kv.format, np.float32(values).view(np.uint32))
    if kind in ("codes", "largest", "small"):
        codes = {"codes": rng.integers(0, 1 << fmt.width, shape),
                 "largest": fmt.max - rng.integers(0, 2, shape) | rng.integers(0, 2, shape) << fmt.width - 1,
                 "small": rng.integers(0, 2 << fmt.mantissa, shape) * rng.integers(0, 2, shape)}[kind]
        codes = np.where((codes & (1 << fmt.width - 1) - 1) > fmt.max, 1, codes).astype(fmt.dtype)
        scales = {"codes": rng.integers(0, E8M0.nan, shape[0]), "largest": np.full(shape[0], E8M0.nan - 1),
                  "small": rng.integers(0, 3, shape[0])}[kind].astype(np.uint8) * (fmt is E4M3)
        near = rng.integers(120, 130, shape[0])
        scales = np.where(rng.random(shape[0]) < 0.7 * (fmt is E4M3) * (kind == "codes"), near, scales)
    if kind == "nan":
        odd = rng.choice([fmt.nan, fmt.nan | 1 << fmt.width - 1, fmt.max + 1], shape)
        assert (is_nan(fmt, odd) | (odd == fmt.inf)).all()
        codes = np.where(rng.random(shape) < 1 / (1 + shape[0]) / shape[1], odd, codes)
        scales = np.where(rng.random(shape[0]) < 0.1 * (fmt is E4M3), E8M0.nan, scales)
    return codes.astype(fmt.dtype), scales.astype(np.uint8)
