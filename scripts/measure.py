# SPDX-License-Identifier: Apache-2.0
"""What the command lines say of a product of matrices: how busy it kept the array, and how far off it is."""

import numpy as np

from golden.families import FAMILIES
from golden.formats import FORMATS

__all__ = ["distance", "peak", "utilization"]


def peak(config, gemm):
    """Multiply-accumulates of a GEMM's formats that an engine can do in a cycle."""
    width = max(FORMATS[gemm.a_format].width, FORMATS[gemm.w_format].width)
    slower = max(width // FAMILIES[config.family].bits, 1)
    return config.macs // slower ** 2


def utilization(config, gemm, cycles):
    """Share of the multiply-accumulates possible in `cycles` that were the GEMM's own."""
    m, n, k = gemm.shape
    return m * n * k / (cycles * peak(config, gemm))


def distance(y, reference):
    """How far `y` is from `reference`, where both are finite: root mean square, relative, and largest, absolute.

    Returns
    -------
    dict
        "rms": rms(y - reference) / rms(reference); "max": max |y - reference|.
    """
    finite = np.isfinite(y) & np.isfinite(reference)
    off, size = (y - reference)[finite], reference[finite]
    rms = np.sqrt(np.sum(off ** 2) / np.sum(size ** 2)) if size.any() else np.sqrt(np.sum(off ** 2))
    return {"rms": float(rms), "max": float(np.abs(off).max(initial=0.0))}
