# SPDX-License-Identifier: Apache-2.0
"""Every number format, bit by bit: what a code means and which code a value rounds to.

Sources: OCP 8-bit Floating Point (OFP8) v1.0 for E4M3 and E5M2; OCP Microscaling Formats (MX) v1.0
for E2M1, E8M0 and blocks of 32; IEEE 754-2019 for FP32, of which BF16 is the upper half.

Codes are arrays of unsigned integers (`Format.dtype`), values are float64, which holds every value of
every format exactly. There is one rounding, to nearest with ties to even, straight from the exact
value. Subnormals are honoured in every format; that FP32 *arithmetic* flushes them is `golden.fp32`.

| format | max | past max, saturating | not saturating | NaN, canonical | Inf |
|---|---|---|---|---|---|
| E4M3 | 448 | 448 | NaN | 0x7F | none |
| E5M2 | 57344 | 57344 | Inf | 0x7E | 0x7C |
| E2M1 | 6 | 6 | 6 | none: NaN becomes +0 | none |
| INT8 | 127 | 127, and -127 | 127, and -127 | none: NaN becomes +0 | none |
| E8M0 | 2^127 | 2^127 | NaN | 0xFF; also for zero and negatives | none |
| BF16, FP32 | | Inf | Inf | 0x7FC0, 0x7FC00000 | as IEEE |
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

__all__ = ["BF16", "E2M1", "E4M3", "E5M2", "E8M0", "FORMATS", "FP32", "INT8", "MX_BLOCK", "Format",
           "decode", "dequantize_blocks", "dequantize_mx", "encode", "fixed_parts", "is_inf", "is_nan",
           "quantize_blocks", "quantize_mx", "round_fixed", "round_ordinal"]

MX_BLOCK = 32       # elements that share one scale


@dataclass(frozen=True, repr=False)
class Format:
    """One number format: sign, `exponent` bits, `mantissa` bits, from the top.

    With exponent field e and mantissa field f, the magnitude is f * 2**lsb where e is 0 (subnormal),
    else (2**mantissa + f) * 2**(lsb + e - 1). INT8 is the case of no exponent bits, in two's complement;
    E8M0 has no sign and no mantissa, and its value is 2**(e - bias).

    Attributes
    ----------
    name : str
        Key in `FORMATS`.
    exponent, mantissa, bias : int
    max : int
        Code of the largest finite value.
    nan, inf : int or None
        Codes of the canonical NaN and of +Inf.
    """

    name: str
    exponent: int
    mantissa: int
    bias: int
    max: int
    nan: int | None = None
    inf: int | None = None

    def __repr__(self):
        return self.name.upper()

    @property
    def signed(self):
        return self is not E8M0

    @property
    def width(self):
        """Bits of a code."""
        return self.signed + self.exponent + self.mantissa

    @property
    def lsb(self):
        """Exponent of the smallest magnitude but zero, which is 2**lsb."""
        return 1 - self.bias - self.mantissa

    def overflow(self, saturate):
        """Code of what is past `max`."""
        if self.nan is None or saturate and self.width <= 8:
            return self.max
        return self.nan if self.inf is None else self.inf

    @property
    def dtype(self):
        """The unsigned numpy type of codes."""
        return np.dtype(np.uint8 if self.width <= 8 else np.uint16 if self.width <= 16 else np.uint32)


E4M3 = Format("e4m3", 4, 3, bias=7, max=0x7E, nan=0x7F)
E5M2 = Format("e5m2", 5, 2, bias=15, max=0x7B, nan=0x7E, inf=0x7C)
E2M1 = Format("e2m1", 2, 1, bias=1, max=0x7)
E8M0 = Format("e8m0", 8, 0, bias=127, max=0xFE, nan=0xFF)
INT8 = Format("int8", 0, 7, bias=-6, max=0x7F)
BF16 = Format("bf16", 8, 7, bias=127, max=0x7F7F, nan=0x7FC0, inf=0x7F80)
FP32 = Format("fp32", 8, 23, bias=127, max=0x7F7FFFFF, nan=0x7FC00000, inf=0x7F800000)

FORMATS = {fmt.name: fmt for fmt in (E4M3, E5M2, E2M1, E8M0, INT8, BF16, FP32)}


def is_nan(fmt, codes):
    """Which `codes` are NaN, canonical or not: bool, same shape."""
    return (_magnitude(fmt, codes) > (fmt.max if fmt.inf is None else fmt.inf)) & (fmt.nan is not None)


def is_inf(fmt, codes):
    """Which `codes` are an infinity: bool, same shape."""
    return _magnitude(fmt, codes) == (-1 if fmt.inf is None else fmt.inf)


def decode(fmt, codes):
    """The values of `codes`, exactly: float64, same shape."""
    if fmt is FP32:         # as any processor has it
        with np.errstate(invalid="ignore"):     # NaN that would signal
            return np.asarray(codes, np.uint32).view(np.float32).astype(np.float64)
    return _values(fmt)[codes]


@cache
def _values(fmt):
    """The values of all codes."""
    codes = np.arange(1 << fmt.width)
    magnitude = _magnitude(fmt, codes)
    exponent = magnitude >> fmt.mantissa
    if fmt is E8M0:
        values = np.ldexp(1.0, exponent - fmt.bias)
    else:
        significand = magnitude - (np.maximum(exponent - 1, 0) << fmt.mantissa)
        values = np.ldexp(significand.astype(np.float64), np.maximum(exponent - 1, 0) + fmt.lsb)
        values = np.where(codes >> (fmt.width - 1) & 1, -values, values)
    values = np.where(is_inf(fmt, codes), np.copysign(np.inf, values), values)
    return np.where(is_nan(fmt, codes), np.nan, values)


def encode(fmt, values, *, saturate=True):
    """The codes nearest to `values`, ties to even.

    Parameters
    ----------
    fmt : Format
    values : array of float64
        Anything that float64 holds exactly; float32 and integers up to 2**53 included.
    saturate : bool
        What OFP8 and E8M0 do past their largest value, see the table above; infinities likewise.

    Returns
    -------
    array of fmt.dtype, same shape
    """
    values = np.asarray(values, dtype=np.float64)
    if fmt is FP32:
        with np.errstate(over="ignore"):
            return np.where(np.isnan(values), np.uint32(FP32.nan), values.astype(np.float32).view(np.uint32))
    finite = np.isfinite(values)
    fraction, exponent = np.frexp(np.where(finite, np.abs(values), 0.0))
    significand = np.ldexp(fraction, 53).astype(np.uint64)
    codes = _finish(fmt, np.signbit(values), significand, exponent - 53, np.isinf(values), saturate)
    return np.where(np.isnan(values), fmt.nan or 0, codes).astype(fmt.dtype)


def round_fixed(fmt, integers, lsb, *, saturate=True):
    """The codes nearest to `integers` * 2**`lsb`, ties to even: one rounding of an exact sum.

    Parameters
    ----------
    fmt : Format
    integers : array of int64, or of object holding Python integers of any size
    lsb : int or array of int
    saturate : bool
        As in `encode`.

    Returns
    -------
    array of fmt.dtype, same shape
    """
    sign, magnitude, lsb = fixed_parts(integers, lsb)
    return _finish(fmt, sign, magnitude, lsb, False, saturate).astype(fmt.dtype)


def fixed_parts(integers, lsb):
    """`integers` * 2**`lsb` as (sign, uint64 magnitude, lsb), arrays that round to the same code.

    Python integers too long for 62 bits are cut there, and the last bit kept says whether anything was
    lost, which is all that a later rounding to fewer bits can tell.
    """
    integers = np.asarray(integers)
    if integers.dtype == object:
        sign, magnitude, cut = np.vectorize(_cut, otypes=[bool, np.uint64, np.int64])(integers)
        return sign, magnitude, lsb + cut
    integers = integers.astype(np.int64)
    return integers < 0, np.abs(integers).view(np.uint64), np.asarray(lsb)


def round_ordinal(magnitude, lsb, mantissa, floor):
    """Round `magnitude` * 2**`lsb` to `mantissa` + 1 bits, none of them worth less than 2**`floor`.

    Nearest, ties to even. The result counts the representable values upwards from zero, which is how
    IEEE 754 orders its codes: exponent field above, mantissa field below, a carry moving from one to
    the other by itself.

    Parameters
    ----------
    magnitude : array of uint64, at most 2**63
    lsb : array of int
    mantissa, floor : int

    Returns
    -------
    array of int64
    """
    length = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    length -= (magnitude >> np.maximum(length - 1, 0).astype(np.uint64)) == 0     # float64 rounded up
    binade = np.where(magnitude == 0, 0, np.maximum(length + lsb - 1 - mantissa - floor, 0))
    drop = binade + floor - lsb                                       # the last place is 2**(binade + floor)
    kept = magnitude << np.clip(-drop, 0, 63).astype(np.uint64)       # for drop <= 0: room for all bits
    down = np.clip(drop, 1, 63).astype(np.uint64)
    odd = magnitude >> down & np.uint64(1)
    nearest = (magnitude + (np.uint64(1) << (down - np.uint64(1))) - np.uint64(1) + odd) >> down
    kept = np.where(drop > 0, np.where(drop > 63, 0, nearest), kept)
    return (binade << mantissa) + kept.astype(np.int64)


def quantize_mx(fmt, values, *, rule="floor"):
    """Blocks of 32 elements along the last axis, sharing one E8M0 scale each (OCP MX v1.0, section 6.3).

    Parameters
    ----------
    fmt : Format
        E4M3, E5M2 or E2M1.
    values : array of float64, shape (..., K)
        A last block of fewer than 32 elements is completed by zeros for its scale.
    rule : str
        "floor", OCP's: the scale brings the largest element into the top binade of `fmt`, where it may
        saturate. "ceil": the smallest scale under which no element saturates.

    Returns
    -------
    codes : array of uint8, shape (..., K)
    scales : array of uint8, shape (..., ceil(K / 32))
        E8M0. NaN for a block that holds a NaN or an infinity or is too large to scale; its codes are 0.
    """
    _check_mx(fmt)
    if rule not in ("floor", "ceil"):
        raise ValueError(f"quantize_mx: rule must be 'floor' or 'ceil', not {rule!r}")
    values = np.asarray(values, dtype=np.float64)
    top_fraction, top_exponent = np.frexp(decode(fmt, fmt.max))
    blocks = _blocks(values)
    fraction, exponent = np.frexp(np.abs(blocks).max(axis=-1))
    exponent = exponent - top_exponent + ((rule == "ceil") & (fraction > top_fraction))
    exponent = np.where(fraction == 0, -E8M0.bias, np.maximum(exponent, -E8M0.bias))
    bad = ~np.isfinite(fraction) | (exponent > E8M0.bias)
    scales = np.where(bad, E8M0.nan, exponent + E8M0.bias).astype(np.uint8)
    blocks = np.where(bad[..., None], 0.0, np.ldexp(blocks, -exponent[..., None]))
    return encode(fmt, blocks).reshape(*values.shape[:-1], -1)[..., :values.shape[-1]], scales


def dequantize_mx(fmt, codes, scales):
    """The values of MX `codes` (..., K) under `scales` (..., ceil(K / 32)): float64, shape of `codes`."""
    _check_mx(fmt)
    scales = np.repeat(decode(E8M0, scales), MX_BLOCK, axis=-1)
    return decode(fmt, codes) * scales[..., :np.shape(codes)[-1]]


def quantize_blocks(fmt, values, block=(128, 128)):
    """Rectangular blocks of a matrix, each with an FP32 scale that puts its largest element at `fmt`'s max.

    Parameters
    ----------
    fmt : Format
    values : array of float64, shape (rows, columns)
    block : (int, int)
        Blocks at the right and lower edges may be smaller.

    Returns
    -------
    codes : array of fmt.dtype, shape (rows, columns)
    scales : array of float32, shape (ceil(rows / block[0]), ceil(columns / block[1]))
        A block of zeros has scale 1; no scale is subnormal, as FP32 units would take it for zero.
    """
    values = np.asarray(values, dtype=np.float64)
    starts = [np.arange(0, size, step) for size, step in zip(values.shape, block, strict=True)]
    largest = np.maximum.reduceat(np.maximum.reduceat(np.abs(values), starts[0], axis=0), starts[1], axis=1)
    scales = np.where(largest == 0, 1, np.maximum(largest / decode(fmt, fmt.max), 2.0 ** -126))
    scales = scales.astype(np.float32)
    return encode(fmt, values / _spread(scales, block, values.shape)), scales


def dequantize_blocks(fmt, codes, scales, block=(128, 128)):
    """The values of `codes` under the `scales` of `quantize_blocks`: float64, shape of `codes`."""
    return decode(fmt, codes) * _spread(scales, block, np.shape(codes))


def _magnitude(fmt, codes):
    """Codes without their sign: int64, ordered as the magnitudes they stand for."""
    codes = np.asarray(codes).astype(np.int64)
    if fmt is INT8:
        return np.abs(codes.astype(np.int8).astype(np.int64))
    return codes & ((1 << fmt.exponent + fmt.mantissa) - 1)


def _cut(integer):
    """Sign, the upper 62 bits of the magnitude with the rest gathered in the last, bits left out."""
    magnitude = abs(integer)
    cut = max(magnitude.bit_length() - 62, 0)
    return integer < 0, magnitude >> cut | (magnitude & (1 << cut) - 1 != 0), cut


def _finish(fmt, sign, magnitude, lsb, infinite, saturate):
    """Round, treat overflow, attach the sign."""
    if fmt is E8M0:
        codes = np.maximum(round_ordinal(magnitude, lsb, 0, -E8M0.bias) - 1, 0)
        ordinary = ~sign & (infinite | (magnitude != 0))
    else:
        codes, ordinary = round_ordinal(magnitude, lsb, fmt.mantissa, fmt.lsb), True
    codes = np.where(infinite | (codes > fmt.max), fmt.overflow(saturate), codes)
    if fmt is E8M0:
        return np.where(ordinary, codes, E8M0.nan)
    if fmt is INT8:
        return np.where(sign, -codes, codes) & 0xFF
    return np.where(sign & (codes != fmt.nan), codes | 1 << (fmt.width - 1), codes)


def _check_mx(fmt):
    if fmt not in (E4M3, E5M2, E2M1):
        raise ValueError(f"MX: the element format must be E4M3, E5M2 or E2M1, not {fmt!r}")


def _blocks(values):
    """(..., K) to (..., ceil(K / 32), 32), completed by zeros."""
    missing = -values.shape[-1] % MX_BLOCK
    values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    return values.reshape(*values.shape[:-1], -1, MX_BLOCK)


def _spread(scales, block, shape):
    """One float64 scale an element."""
    spread = np.repeat(np.repeat(scales.astype(np.float64), block[0], axis=0), block[1], axis=1)
    return spread[:shape[0], :shape[1]]
