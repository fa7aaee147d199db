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
from golden.formats import FORMATS, decode, encode, quantize_blocks
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

    def runs_on(self, family):
        """Whether a datapath family multiplies these formats."""
        known = FAMILIES.get(family)
        return bool(known) and self.a_format in known.activations and self.w_format in known.weights

    def engine(self, config):
        """`config` as it is if it multiplies these formats, else in the scheme's own family.

        Raises
        ------
        ValueError
            When there is no such engine of these sizes.
        """
        if self.runs_on(config.family):
            return config
        try:
            return Matmul(**config.model_dump(exclude={"family", "mx"}), family=self.family)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ValueError(f"{self.title} takes family {self.family}, where {problem['loc'][0]} = "
                             f"{problem['input']} {problem['ctx']['error']}") from None


SCHEMES = {name: scheme for name, scheme in {
    "fp8": Scheme("FP8 (E4M3)", "fp8", "e4m3", "e4m3"),
    "int8": Scheme("INT8", "int8", "int8", "int8"),
    "fp8_fp4": Scheme("FP8 x FP4", "fp8", "e4m3", "e2m1"),
    "fp4": Scheme("FP4 (E2M1)", "fp4", "e2m1", "e2m1"),
}.items() if scheme.runs_on(scheme.family)}
"""By the name that command lines use; those alone that a family can run."""


def gemm(scheme, a, w, *, row_scales=None, column_scales=None, bias=None, c=None, y_format="fp32"):
    """The GEMM `a @ w.T + bias + c` in a scheme.

    Parameters
    ----------
    scheme : Scheme
    a, w : array (M, K), array (N, K)
        Floating point is quantized; integers are codes of the scheme's formats, taken as they are.
    row_scales, column_scales : array (M,), array (N,)
        In place of those that follow from the largest magnitudes: real values are divided by them, and
        the drain multiplies them back.
    bias, c : array (N,), array (M, N)
    y_format : str
        A key of `golden.matmul.RESULT_FORMATS`.

    Returns
    -------
    golden.matmul.Gemm
    """
    a, row_scales = _quantize(scheme, scheme.a_format, a, row_scales)
    w, column_scales = _quantize(scheme, scheme.w_format, w, column_scales)
    return Gemm(a, w, scheme.a_format, scheme.w_format, y_format, row_scales, column_scales, bias, c)


def dequantize(gemm):
    """The values (M, K) and (N, K) that a GEMM's operands stand for, scales included: float64."""
    return tuple(
        decode(FORMATS[format], codes) * (1 if scales is None else np.float64(scales)[:, None])
        for format, codes, scales in ((gemm.a_format, gemm.a, gemm.row_scales),
                                      (gemm.w_format, gemm.w, gemm.column_scales)))


def _quantize(scheme, format, values, scales):
    """Codes and FP32 scales (rows,), or None where there are none."""
    values = np.asarray(values)
    if values.dtype.kind != "f":
        return values.astype(FORMATS[format].dtype), scales
    if scales is not None:
        return encode(FORMATS[format], values / np.float64(scales)[:, None]), scales
    if scheme.scales == "none":
        return encode(FORMATS[format], values), None
    codes, scales = quantize_blocks(FORMATS[format], values, block=(1, values.shape[1]))
    return codes, scales[:, 0]
