# SPDX-License-Identifier: Apache-2.0
"""What the command lines say of a product of matrices: how busy it kept the array, and how far off it is."""

import numpy as np

from golden.families import FAMILIES
from golden.matmul import tile_depth

__all__ = ["bound", "distance", "peak", "utilization"]


def peak(config, gemm):
    """Multiply-accumulates of a GEMM's formats that an engine can do in a cycle."""
    return config.macs // FAMILIES[config.family].rate(gemm.a_format, gemm.w_format)


def utilization(config, gemm, cycles):
    """Share of the multiply-accumulates possible in `cycles` that were the GEMM's own."""
    m, n, k = gemm.shape
    return m * n * k / (cycles * peak(config, gemm))


def bound(config, gemm):
    """The best `utilization` of a GEMM on this array, and what sets it.

    Returns
    -------
    float
    str
        Empty when nothing does.
    """
    m, n, k = gemm.shape
    depth = tile_depth(config, gemm.a_format, gemm.w_format)
    blocks, tiles = -(-n // config.cols), -(-k // depth)
    scales = -(-m // (config.row_bits // 8)) if gemm.mx else 0
    passes, beats = (m + scales) * blocks * tiles, m * -(-n // config.drain)
    best = utilization(config, gemm, max(passes, beats))
    if beats > passes:
        return best, f"{config.drain} results leave a cycle, and K = {k} makes them faster"
    if n % config.cols:
        return best, f"N = {n} leaves columns empty, of {blocks * config.cols}"
    if k % depth:
        return best, f"K = {k} leaves lanes empty, of {tiles * depth}"
    return best, "block scales share the activations' port" if scales else ""


def distance(y, reference):
    """How far `y` is from `reference` where both are finite.

    Returns
    -------
    dict
        "rms": rms(y - reference) / rms(reference); "max": max |y - reference|.
    """
    finite = np.isfinite(y) & np.isfinite(reference)
    off, size = (y - reference)[finite], reference[finite]
    rms = np.sqrt(np.sum(off ** 2) / np.sum(size ** 2)) if size.any() else np.sqrt(np.sum(off ** 2))
    return {"rms": float(rms), "max": float(np.abs(off).max(initial=0.0))}
