# SPDX-License-Identifier: Apache-2.0
"""Real matrices in the formats that the matmul engine multiplies.

A row of activations and an output channel of weights each carry one FP32 scale, which brings the
largest magnitude to the format's largest value and which the drain multiplies back. In MX, blocks of
32 along K carry an E8M0 scale each, which the array itself applies. BF16 and E5M2 have range enough
to do without.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from golden.config import Matmul
from golden.families import FAMILIES
from golden.formats import FORMATS, decode, dequantize_mx, encode, quantize_blocks, quantize_mx
from golden.matmul import Gemm

__all__ = ["SCHEMES", "Scheme", "dequantize", "gemm"]


@dataclass(frozen=True)
class Scheme:
    """One way to put a GEMM into few bits.

    Attributes
    ----------
    title : str
        For people.
    family : str
        The datapath family made for it, a key of `golden.families.FAMILIES`.
    a_format, w_format : str
        Keys of `golden.formats.FORMATS`.
    scales : str
        "vector": an FP32 scale a row of A and a row of W. "block": E8M0 for each 32 of K. "none".
    """

    title: str
    family: str
    a_format: str
    w_format: str
    scales: str = "vector"

    @property
    def operands(self):
        """What is multiplied, in words."""
        both = f"{FORMATS[self.a_format]!r} x {FORMATS[self.w_format]!r}"
        return both + {"vector": "", "block": ", MX scales", "none": ", no scales"}[self.scales]

    def runs_on(self, family):
        """Whether a datapath family multiplies these formats."""
        known = FAMILIES.get(family)
        return bool(known) and self.a_format in known.activations and self.w_format in known.weights

    def engine(self, config):
        """`config` as it is if it can run the scheme, else with the family and block scales changed.

        Raises
        ------
        ValueError
            When there is no such engine of these sizes.
        """
        block = self.scales == "block"
        family = config.family if self.runs_on(config.family) else self.family
        if family == config.family and (config.mx or not block):
            return config
        try:
            return Matmul(**config.model_dump() | {"family": family, "mx": block})
        except ValidationError as error:
            problem = error.errors()[0]
            raise ValueError(f"{self.title} takes an engine with {problem['loc'][0]} = {problem['input']}: "
                             f"{problem['ctx']['error']}") from None


SCHEMES = {name: scheme for name, scheme in {
    "fp8": Scheme("FP8", "fp8", "e4m3", "e4m3"),
    "int8": Scheme("INT8", "int8", "int8", "int8"),
    "mxfp8": Scheme("MXFP8", "fp8", "e4m3", "e4m3", "block"),
    "mxfp4": Scheme("MXFP4", "fp4", "e2m1", "e2m1", "block"),
    "fp4": Scheme("FP4", "fp4", "e2m1", "e2m1"),
    "fp8_fp4": Scheme("FP8 x FP4", "fp8", "e4m3", "e2m1"),
    "bf16": Scheme("BF16", "uni", "bf16", "bf16", "none"),
    "e5m2": Scheme("E5M2", "uni", "e5m2", "e5m2"),
}.items() if scheme.runs_on(scheme.family)}
"""By the name that command lines use; those alone that a family can run."""


def gemm(scheme, a, w, *, y_format="fp32", row_scales=None, column_scales=None, a_scales=None, w_scales=None,
         **added):
    """The GEMM `a @ w.T` in a scheme.

    Parameters
    ----------
    scheme : Scheme
    a, w : array (M, K), array (N, K)
        Floating point is quantized; integers are codes of the scheme's formats, taken as they are.
    y_format : str
        One of `golden.matmul.RESULT_FORMATS`.
    row_scales, column_scales : array (M,), array (N,)
        In place of those that follow from the largest magnitudes: real values are divided by them, and
        the drain multiplies them back.
    a_scales, w_scales : arrays (M, ceil(K / 32)), (N, ceil(K / 32)) of E8M0 codes
        Of the blocks of codes in MX.
    added : array
        `bias` (N,), `c` (M, N).

    Returns
    -------
    golden.matmul.Gemm
    """
    a, row_scales, a_scales = _quantize(scheme, scheme.a_format, a, row_scales, a_scales)
    w, column_scales, w_scales = _quantize(scheme, scheme.w_format, w, column_scales, w_scales)
    return Gemm(a, w, scheme.a_format, scheme.w_format, y_format, row_scales, column_scales,
                a_scales=a_scales, w_scales=w_scales, **added)


def dequantize(gemm):
    """The values (M, K) and (N, K) that a GEMM's operands stand for, all scales included: float64."""
    return (_values(FORMATS[gemm.a_format], gemm.a, gemm.row_scales, gemm.a_scales),
            _values(FORMATS[gemm.w_format], gemm.w, gemm.column_scales, gemm.w_scales))


def _quantize(scheme, format, values, vector, blocks):
    """Codes, FP32 scales of rows or None, E8M0 scales of blocks or None."""
    values, fmt = np.asarray(values), FORMATS[format]
    if values.dtype.kind != "f":
        if scheme.scales == "block" and blocks is None:
            raise ValueError(f"gemm: codes in {scheme.title} need a_scales and w_scales of their blocks")
        return values.astype(fmt.dtype), vector, blocks
    if vector is not None:
        values = values / np.float64(vector)[:, None]
    if scheme.scales == "block":
        codes, blocks = quantize_mx(fmt, values)
        return codes, vector, blocks
    if scheme.scales == "none" or vector is not None:
        return encode(fmt, values), vector, None
    codes, vector = quantize_blocks(fmt, values, block=(1, values.shape[1]))
    return codes, vector[:, 0], None


def _values(fmt, codes, vector, blocks):
    values = decode(fmt, codes) if blocks is None else dequantize_mx(fmt, codes, blocks)
    return values if vector is None else values * np.float64(vector)[:, None]
