# SPDX-License-Identifier: Apache-2.0
"""Numbers worth computing with: FP32 codes and integers on the way to them; and what the processor makes of them."""

import numpy as np

__all__ = ["CORNERS", "ieee", "integers", "pairs"]

# Zeros, subnormals, the smallest and largest normals, one and its neighbours, infinities, NaNs; all signs.
CORNERS = [sign | code for sign in (0, 1 << 31) for code in (
    0, 1, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FFFFFFF,
    0x4B000001, 0x7E800000, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000,
    0x7FFFFFFF)]


def pairs(count, rng):
    """Two arrays of FP32 codes: corners with corners, and `count` each of

    - any with any;
    - close magnitudes, whose sums cancel;
    - products near 1, near the smallest and near the largest normal number;
    - short significands, whose products end near the rounding place: ties.
    """
    corners = np.array(CORNERS, np.uint32)
    a, b = rng.integers(0, 1 << 32, (2, 4, count), dtype=np.uint32)
    spread = rng.integers(-3 << 23, 3 << 23, (2, count)).astype(np.uint32)
    b[1] = a[1] + spread[0] ^ rng.choice(np.array([0, 1 << 31], np.uint32), count)
    product = np.array([0x3F800000, 0x40000000, 0x7F000000, 0xBF000000], np.uint32)
    b[2] = rng.choice(product, count) - a[2] + spread[1]
    zeros = rng.integers(0, 24, count)
    rest = np.clip(rng.integers(20, 26, count) - zeros, 0, 23)
    a[3], b[3] = a[3] >> zeros << zeros, b[3] >> rest << rest
    x, y = np.meshgrid(corners, corners)
    return np.append(x, a), np.append(y, b)


@np.errstate(all="ignore")
def ieee(operation, a, b):
    """Sums ("Add") or products ("Multiply") of FP32 codes by the processor's own arithmetic, by the rules of
    `golden.fp32`: subnormal operands and results are zeros, NaN is canonical.
    """
    smallest = np.float32(2.0**-126)

    def flush(x):
        return np.where(np.abs(x) < smallest, np.copysign(np.float32(0), x), x)

    x, y = (flush(each.view(np.float32)) for each in (a, b))
    if operation == "Add":
        result = flush(x + y)           # those that small are exact
    else:
        # The processor rounds small products to fewer bits: whether they are below is seen 2**64 above.
        small, large = np.where(np.abs(x) < np.abs(y), (x, y), (y, x))
        below = np.abs(small * np.float32(2.0**64) * large) < smallest * np.float32(2.0**64)
        result = x * y
        result = np.where((np.abs(result) <= smallest) & below, np.copysign(np.float32(0), result), result)
    return np.where(np.isnan(result), np.uint32(0x7FC00000), result.view(np.uint32))


def integers(count, width, rng):
    """Signed integers of `width` bits: of every length, half of them ties or near ties; the extremes."""
    low, high = -1 << width - 1, (1 << width - 1) - 1
    length = rng.integers(0, width, count)
    drop = rng.integers(0, 64, count) * rng.integers(0, 2, count) % np.maximum(length, 1)
    values = rng.integers(low, high, count, endpoint=True) >> (width - 1 - length)
    values = (values >> drop << drop) + rng.integers(-1, 2, count) * rng.integers(0, 2, count)
    return np.concatenate([[0, 1, -1, low, low + 1, high], np.clip(values, low, high)])
