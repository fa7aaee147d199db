# SPDX-License-Identifier: Apache-2.0
"""What the vector engine computes, instruction by instruction, as the hardware rounds.

Everything between operands and results is FP32 by the rules of `golden.fp32`. An instruction works on rows, which lie
along the last axis, in three steps:

- the *front* makes an element of every element (or of two neighbours): `kept`;
- *scalars* of the row follow from it: a sum, the largest magnitude, a scale;
- the *back* multiplies what was kept by a `factor` of the row or block, and rounds to the results' format.

**Order of sums.** A beat is `lanes` elements of a row; what a last beat lacks counts as +0. Within a beat neighbours
are added in pairs, then neighbouring sums, and so on. Beat n goes to partial sum n mod `PARTIALS`, in order; at the
end partial sums are added in pairs as well. Nothing else depends on `lanes`.
"""

from dataclasses import dataclass
from math import log

import numpy as np

from golden import formats, fp32, functions
from golden.formats import E8M0, FORMATS, FP32, MX_BLOCK
from golden.isa import K_MAX, PARTIALS, Operation, Quantize, Second
from golden.tables import LIFT, LOWEST

__all__ = ["LOG2E", "QUANTIZED", "Instruction", "Result", "check", "code", "execute", "image", "pairs", "rms_norm",
           "rope", "scalar_image", "scale_blocks", "scale_rows", "second", "silu", "softmax", "top_k", "total"]

LOG2E = 1 / log(2)
MINUS_INF = fp32.INF | fp32.SIGN

QUANTIZED = {
    Quantize.NONE: ("fp32", "bf16", "e4m3", "e5m2", "int8", "e2m1"),
    Quantize.ROW: ("e4m3", "e5m2", "int8", "e2m1"),
    Quantize.MX: ("e4m3", "e5m2", "e2m1"),
    Quantize.MX_CEIL: ("e4m3", "e5m2", "e2m1"),
}
"""Formats that results can have."""


@dataclass(frozen=True)
class Instruction:
    """One operation on rows of x and y.

    Attributes
    ----------
    operation : Operation
    x_format, y_format, result_format : str
        Names in `golden.formats.FORMATS`. A y of "e8m0" has the scales of blocks of 32 elements of x.
    alpha, beta : float
        Constants, rounded to FP32; see `Operation`.
    quantize : Quantize
    k : int
        Of `TOP_K`.
    """

    operation: Operation
    x_format: str = "bf16"
    y_format: str = "bf16"
    result_format: str = "bf16"
    alpha: float = 1.0
    beta: float = -0.0
    quantize: Quantize = Quantize.NONE
    k: int = 1


@dataclass
class Result:
    """What an instruction writes.

    Attributes
    ----------
    codes : array (rows, length) of the results' format, or None
    scalars : array or None
        Scales, uint32 (rows, 1) or, of MX, uint8 (rows, blocks). Of `TOP_K` uint32 (rows, k, 2): value and place.
    nans : int
        Results that are NaN, before the format may turn them into something else.
    """

    codes: np.ndarray | None
    scalars: np.ndarray | None = None
    nans: int = 0


def code(value):
    """The FP32 code nearest to a number."""
    return fp32.to_format(FP32, formats.encode(FP32, value))


def check(instruction, shape, row_max):
    """Refuse what the hardware refuses: an instruction on an x of `shape`, where a whole row has `row_max` elements.

    Raises
    ------
    ValueError
        Naming what is wrong, and what is allowed.
    """
    operation, quantize, name = instruction.operation, instruction.quantize, instruction.operation.name.lower()
    scales = instruction.y_format == E8M0.name
    whole = operation in (Operation.RMS_NORM, Operation.SOFTMAX) or quantize == Quantize.ROW
    rows, length = shape
    for wrong, what in (
        (rows == 0, "x of no rows"),
        (operation in (Operation.SOFTMAX, Operation.TOP_K) and quantize,
         f"quantize = {quantize.name.lower()}: must be none with {name}"),
        (instruction.result_format not in QUANTIZED[quantize],
         f"output = {instruction.result_format}: must be one of {', '.join(QUANTIZED[quantize])} "
         f"with quantize = {quantize.name.lower()}"),
        (operation == Operation.TOP_K and not 1 <= instruction.k <= min(K_MAX, length),
         f"k = {instruction.k}: must be 1 to {min(K_MAX, length)} in rows of {length} elements"),
        (operation == Operation.ROPE and length % 2, f"rows of {length} elements: must be even with {name}"),
        (length == 0 or whole and length > row_max,
         f"rows of {length} elements: must have 1 to {row_max}, as row_max says" if whole else "rows of no elements"),
        (scales and (operation not in (Operation.MUL, Operation.TOP_K)
                     or instruction.x_format not in QUANTIZED[Quantize.MX]),
         f"y of {E8M0.name}: must be with mul or top_k of {', '.join(QUANTIZED[Quantize.MX])}, "
         f"not {name} of {instruction.x_format}"),
    ):
        if wrong:
            raise ValueError(what)


def execute(instruction, x, y=None, *, lanes):
    """The `Result` of an instruction.

    Parameters
    ----------
    instruction : Instruction
    x : array (rows, length) of codes
    y : array of codes, or None
        (rows, length), or (1, length): the same for all rows; or (rows, 1): a number a row. Of scales of blocks
        (rows, blocks) or (1, blocks).
    lanes : int
        Elements of a beat.
    """
    operation, fmt = instruction.operation, FORMATS[instruction.result_format]
    alpha, beta = code(instruction.alpha), code(instruction.beta)
    x, y = _operands(instruction, x, y)
    share, lag = np.broadcast_to(code(1), x.shape[:-1]), 0
    match operation:
        case Operation.MUL | Operation.TOP_K:
            kept = fp32.mul(x, y)
        case Operation.ADD:
            kept = fp32.add(fp32.mul(x, alpha), fp32.mul(y, beta))
        case Operation.ROPE:
            kept = rope(x, np.broadcast_to(y, x.shape))
        case Operation.SILU:
            kept = silu(x, y, alpha)
        case Operation.RMS_NORM:
            kept, share = rms_norm(x, y, alpha, beta, lanes)
        case Operation.SOFTMAX:
            kept, share, lag = softmax(x, alpha, lanes)
    if operation == Operation.TOP_K:
        return Result(None, np.stack(top_k(kept, instruction.k), -1).astype(np.uint32))

    match instruction.quantize:
        case Quantize.NONE:
            factor, scales = fp32.mul(share[..., None], code(1), lag), None
        case Quantize.ROW:
            factor, scales = scale_rows(fmt, kept, share)
        case rule:
            factor, scales = scale_blocks(fmt, kept, share, ceil=rule == Quantize.MX_CEIL)
    found = fp32.mul(kept, factor)
    return Result(fp32.to_format(fmt, found), scales, int(formats.is_nan(FP32, found).sum()))


def second(y, shape, name):
    """What kind of y an array of a format is, beside an x of some shape."""
    if y is None:
        return Second.ABSENT
    return Second.BLOCK if name == E8M0.name else Second.ROW if y.shape[-1] == 1 < shape[-1] else Second.ELEMENT


def image(name, codes):
    """Rows of codes as they lie in memory: uint8 (rows, bytes). Of 4-bit codes the first is in the lower half."""
    if FORMATS[name].width == 4:
        codes = np.pad(codes, [(0, 0), (0, codes.shape[-1] % 2)])
        return codes[:, ::2] | codes[:, 1::2] << 4
    return np.ascontiguousarray(codes.astype(FORMATS[name].dtype.newbyteorder("<"))).view(np.uint8)


def scalar_image(quantize, scalars):
    """Scalars of a `Result` as they lie in memory, uint8: what is a pitch apart, in rows. Scales of MX lie block by
    block, a byte for each row of elements, as GEMMs take them; all others row by row."""
    if quantize in (Quantize.MX, Quantize.MX_CEIL):
        scalars = scalars.T
    return np.ascontiguousarray(scalars.reshape(len(scalars), -1)).view(np.uint8)


# Fronts

def rope(x, y):
    """Neighbours as complex numbers, multiplied: rotary embedding, with cosines and sines in turn in y."""
    a, b, c, d = x[..., ::2], x[..., 1::2], y[..., ::2], y[..., 1::2]
    real = fp32.add(fp32.mul(a, c), fp32.mul(b, d ^ fp32.SIGN))
    imaginary = fp32.add(fp32.mul(b, c), fp32.mul(a, d))
    return np.stack([real, imaginary], -1).reshape(x.shape)


def pairs(x):
    """Rows whose halves belong together, as Llama has them, with partners side by side, as `rope` has them."""
    return np.stack(np.split(x, 2, -1), -1).reshape(x.shape)


def silu(x, y, alpha):
    """x * y / (1 + 2**(alpha * x)); the quotient is 2**LIFT too large for a while, so that it is a normal number."""
    lifted = np.uint32(FP32.bias - LIFT << FP32.mantissa)
    power = functions.exp2(fp32.mul(x, alpha), -LIFT)
    return fp32.mul(functions.reciprocal(fp32.add(power, lifted)), fp32.mul(x, y), -LIFT)


def rms_norm(x, y, alpha, beta, lanes):
    """x * y, and of each row 1 / sqrt(alpha * sum(x**2) + beta)."""
    mean = fp32.mul(total(fp32.mul(x, x), lanes), alpha)
    return fp32.mul(x, y), functions.rsqrt(fp32.add(mean, beta))


def softmax(x, alpha, lanes):
    """2**(alpha * x - m), of each row 1 over its sum, and of each element how far m was behind.

    m is the largest integer part of alpha * x in the row so far, beat by beat; when it grows, the sum so far is scaled,
    exactly. The sum of a row of -Inf is 0, and so is what stands for 1 over it.
    """
    t = fp32.mul(x, alpha)
    most = np.stack([functions.whole(beat).max(-1) for beat in _beats(t, lanes, MINUS_INF)], -1)
    most = np.maximum(np.maximum.accumulate(most, -1), LOWEST)
    each = np.repeat(most, lanes, -1)[..., :t.shape[-1]]            # of each element
    power = functions.exp2(t, -each)
    whole = total(power, lanes, most)
    return power, np.where(whole == 0, 0, functions.reciprocal(whole)).astype(np.uint32), each - most[..., -1:]


# Scalars

def total(x, lanes, most=None):
    """The sum of each row: shape (...). With `most` (..., beats), beat n counts 2**most[n], the sum as the last."""
    beats = _tree(np.stack(_beats(x, lanes)))
    sums = np.zeros((PARTIALS, *x.shape[:-1]), np.uint32)
    if most is None:
        beats = np.pad(beats, [(0, -len(beats) % PARTIALS)] + [(0, 0)] * (beats.ndim - 1))     # + 0 changes nothing
        for turn in beats.reshape(-1, *sums.shape):
            sums = fp32.add(sums, turn)
    else:
        for n, beat in enumerate(beats):
            if n:
                sums = fp32.mul(sums, code(1), np.maximum(most[..., n - 1] - most[..., n], -255))
            sums[n % PARTIALS] = fp32.add(sums[n % PARTIALS], beat)
    return _tree(np.moveaxis(sums, 0, -1))


def top_k(x, k):
    """The `k` largest of each row and where they are, the largest first; of equal ones the first. NaN is above all.

    Returns
    -------
    values : uint32, shape (..., k)
    places : int64, shape (..., k)
    """
    x = fp32.flush(x)
    nan = x & ~fp32.SIGN > fp32.INF
    rank = np.where(nan, 0xFFFFFFFF, np.where(x & fp32.SIGN, ~x, x | fp32.SIGN)).astype(np.int64)
    places = np.argsort(-rank, axis=-1, kind="stable")[..., :k]
    return np.where(np.take_along_axis(nan, places, -1), fp32.NAN, np.take_along_axis(x, places, -1)), places


def scale_rows(fmt, kept, share):
    """Scales that bring the largest magnitude of each row to `fmt`'s largest, and the factors that do so.

    A scale is the magnitude times 1 / max, at least 2**-126; of a row of zeros it is 1. The factor is its reciprocal.
    The share takes no part in that; the scale is multiplied by it.

    Returns
    -------
    factors, scales : uint32, shape (..., 1)
    """
    largest = _largest(kept)[..., None]
    scales = np.maximum(fp32.mul(largest, code(1 / formats.decode(fmt, fmt.max))), fp32.NORMAL)
    scales = np.where(largest == 0, code(1), scales).astype(np.uint32)
    return functions.reciprocal(scales), fp32.mul(scales, share[..., None])


def scale_blocks(fmt, kept, share, ceil=False):
    """E8M0 scales of blocks of 32 by the rules of `formats.quantize_mx`, and share over scale for each element.

    The scale is that of the largest magnitude times the share. Without a finite one it is NaN, and so are all elements.
    The factor's exponent is at most the largest.

    Returns
    -------
    factors : uint32, shape of `kept`
    scales : uint8, shape (..., blocks)
    """
    largest = fp32.mul(np.stack([_largest(block) for block in _beats(kept, MX_BLOCK)], -1), share[..., None])
    top = int(code(formats.decode(fmt, fmt.max)))
    exponent = (largest >> FP32.mantissa).astype(np.int64)
    above = ceil & (largest & 0x7FFFFF > top & 0x7FFFFF)
    scales = np.where(largest == 0, 0, np.maximum(exponent - (top >> FP32.mantissa) + FP32.bias + above, 0))
    scales = np.where(exponent == 255, E8M0.nan, scales)
    field = (share >> FP32.mantissa)[..., None] + E8M0.bias - scales
    factor = np.clip(field, 0, 254) << FP32.mantissa | (share & 0x7FFFFF)[..., None]
    factor = np.where(scales == E8M0.nan, fp32.NAN, np.where((field <= 0) | (share == 0)[..., None], 0, factor))
    return np.repeat(factor.astype(np.uint32), MX_BLOCK, -1)[..., :kept.shape[-1]], scales.astype(np.uint8)


def _operands(instruction, x, y):
    """x and y in FP32; scales of blocks become part of x, exactly."""
    fmt = FORMATS[instruction.x_format]
    if y is not None and instruction.y_format == E8M0.name:
        x, y = formats.dequantize_mx(fmt, x, y), 1
    else:
        x, y = formats.decode(fmt, x), 1 if y is None else formats.decode(FORMATS[instruction.y_format], y)
    return [fp32.flush(formats.encode(FP32, each)) for each in (x, y)]


def _largest(x):
    """The largest magnitude of each row; NaN is above all."""
    return np.maximum.reduce(fp32.flush(x) & ~fp32.SIGN, axis=-1)


def _beats(x, lanes, absent=0):
    """The beats of rows, one after the other: (..., lanes)."""
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % lanes)], constant_values=absent)
    return [x[..., first:first + lanes] for first in range(0, x.shape[-1], lanes)]


def _tree(x):
    """The sum of a beat of a power of two of elements."""
    while x.shape[-1] > 1:
        x = fp32.add(x[..., ::2], x[..., 1::2])
    return x[..., 0]
