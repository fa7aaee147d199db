# SPDX-License-Identifier: Apache-2.0
"""The matmul engine: what a GEMM computes, where its operands lie in memory, and how long it takes.

`Y[M, N] = A[M, K] @ W[N, K].T`, the linear layer of checkpoints. Sums are exact; then, each step
rounded once to FP32, in this order: `t = round(S)`, `t *= row_scale`, `t *= column_scale`,
`t += bias`, `t += C`; and one rounding to the output format. A step that is absent is skipped.
"""

from dataclasses import dataclass

import numpy as np

from golden import dot, fp32
from golden.families import FAMILIES, FORMAT_CODES
from golden.formats import FORMATS, FP32

__all__ = ["Gemm", "RESULT_FORMATS", "activation_image", "cycles", "matmul", "weight_image"]

RESULT_FORMATS = ("fp32", "bf16", "e4m3", "e5m2", "int8")


@dataclass(frozen=True, eq=False)
class Gemm:
    """One GEMM and its operands.

    Attributes
    ----------
    a : array (M, K) of codes in `a_format`
    w : array (N, K) of codes in `w_format`
    y_format : str
        One of `RESULT_FORMATS`.
    row_scales : float32 array (M,) or None
    column_scales, bias : float32 array (N,) or None
    c : float32 array (M, N) or None
        Added to the result.
    """

    a: np.ndarray
    w: np.ndarray
    a_format: str = "e4m3"
    w_format: str = "e4m3"
    y_format: str = "fp32"
    row_scales: np.ndarray | None = None
    column_scales: np.ndarray | None = None
    bias: np.ndarray | None = None
    c: np.ndarray | None = None

    @property
    def shape(self):
        """(M, N, K)."""
        return self.a.shape[0], self.w.shape[0], self.a.shape[1]


def matmul(family, gemm):
    """The results of a GEMM.

    Returns
    -------
    y : array (M, N) of codes in `gemm.y_format`
    nans : int
        How many of them are NaN before the last conversion (INT8 has none: they become 0).
    """
    sums, nans = dot.matmul(family, gemm.a_format, gemm.a, gemm.w_format, gemm.w)
    t = np.where(nans, np.uint32(FP32.nan), fp32.round_fixed(sums, FAMILIES[family].lsb))
    if gemm.row_scales is not None:
        t = fp32.mul(t, _codes(gemm.row_scales)[:, None])
    if gemm.column_scales is not None:
        t = fp32.mul(t, _codes(gemm.column_scales))
    if gemm.bias is not None:
        t = fp32.add(t, _codes(gemm.bias))
    if gemm.c is not None:
        t = fp32.add(t, _codes(gemm.c))
    return fp32.to_format(FORMATS[gemm.y_format], t), int(np.count_nonzero(np.isnan(t.view(np.float32))))


def weight_image(config, format, w):
    """Weights in the order in which the engine reads them: N block, K block, output.

    Each output's slice of a K block fills a beat in 8-bit formats and half a beat in 4-bit ones,
    K ascending from bit 0; slices beyond K, and the odd half of a last beat, are zero.

    Parameters
    ----------
    config : golden.config.Matmul
    format : str
    w : array (N, K) of codes

    Returns
    -------
    bytes
        Whole beats of `config.depth` bytes.
    """
    n, k = w.shape
    depth, width = config.depth, FORMATS[format].width
    per_beat = 8 // width
    padded = np.zeros((n, -(-k // depth) * depth), np.uint8)
    padded[:, :k] = w
    image = []
    for first in range(0, n, config.cols):
        block = padded[first:first + config.cols]
        block = np.pad(block, ((0, -len(block) % per_beat), (0, 0)))
        slices = block.reshape(len(block), -1, depth).transpose(1, 0, 2)        # K block, output, K
        image.append(_pack(slices.reshape(-1, depth * per_beat), width).tobytes())
    return b"".join(image)


def activation_image(config, format, a):
    """Activations row-major: bytes, and the pitch of a row in bytes. 4-bit codes lie low nibble first.

    A row starts at a whole byte; the engine may read up to a slice beyond the last one.
    """
    width = FORMATS[format].width
    per_byte = 8 // width
    packed = _pack(np.pad(a, ((0, 0), (0, -a.shape[1] % per_byte))), width)
    return packed.tobytes(), packed.shape[1]


def _pack(codes, width):
    """Codes of 4 or 8 bits along the last axis as bytes, first code in the low bits."""
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    return codes if width == 8 else codes[..., ::2] | codes[..., 1::2] << 4


def _codes(values):
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
