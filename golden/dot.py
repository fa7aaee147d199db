# SPDX-License-Identifier: Apache-2.0
"""Exact dot products: integers on the family's fixed-point grid.

Every operand is an integer times a power of two, so every product is one, and sums of any length and
order are plain integer arithmetic. Rounding happens once, after it, in `golden.matmul`.
"""

import numpy as np

from golden.families import FAMILIES
from golden.formats import FORMATS, decode, is_inf, is_nan

__all__ = ["integers", "matmul", "special"]


def integers(format, codes):
    """Operands as int64, in units of the format's smallest magnitude; NaN and Inf count as zero.

    Parameters
    ----------
    format : str
        A key of `golden.formats.FORMATS`.
    codes : array of unsigned integers
    """
    fmt = FORMATS[format]
    values = np.where(special(format, codes), 0, decode(fmt, codes))
    return np.ldexp(values, -fmt.lsb).astype(np.int64)


def special(format, codes):
    """Which operands are NaN or infinite."""
    fmt = FORMATS[format]
    return is_nan(fmt, codes) | is_inf(fmt, codes)


def matmul(family, a_format, a, w_format, w):
    """`a @ w.T` exactly.

    Parameters
    ----------
    family : str
        A key of `golden.families.FAMILIES`.
    a_format, w_format : str
        Formats that the family multiplies.
    a : array (M, K) of codes
    w : array (N, K) of codes

    Returns
    -------
    sums : array (M, N) of int64
        In units of 2**lsb of the family.
    nans : array (M, N) of bool
        A NaN or an infinity took part: the row of `a` or the row of `w` holds one.

    Raises
    ------
    ValueError
        When a format is not one of the family's, or shapes do not agree.
    """
    known = FAMILIES[family]
    for name, given, allowed in (("a_format", a_format, known.activations), ("w_format", w_format, known.weights)):
        if given not in allowed:
            raise ValueError(f"matmul: {name} must be one of {', '.join(allowed)} in family {family}, not {given!r}")
    if a.ndim != 2 or w.ndim != 2 or a.shape[1] != w.shape[1]:
        raise ValueError(f"matmul: a and w must be (M, K) and (N, K), not {a.shape} and {w.shape}")
    shift = FORMATS[a_format].lsb + FORMATS[w_format].lsb - known.lsb       # products may lie on a coarser grid
    sums = (integers(a_format, a) @ integers(w_format, w).T) << shift
    return sums, special(a_format, a).any(axis=1)[:, None] | special(w_format, w).any(axis=1)
