# SPDX-License-Identifier: Apache-2.0
"""The matmul engine: what a GEMM computes, where its operands lie in memory, and how long it takes.

`Y[M, N] = A[M, K] @ W[N, K].T`, the linear layer of checkpoints. Sums are exact; then, each step
rounded once to FP32, in this order: `t = round(S)`, `t *= row_scale`, `t *= column_scale`,
`t += bias`, `t += C`; and one rounding to the output format. A step that is absent is skipped.

With MX scales, the exact sum of each block of 32 along K is rounded to FP32 times both its scales, and
those terms are added up in FP32, from 0 and in increasing k, in place of `round(S)`.
"""

from dataclasses import dataclass

import numpy as np

from golden import dot, fp32
from golden.families import FAMILIES
from golden.formats import E8M0, FORMATS, FP32, MX_BLOCK, is_nan

__all__ = ["Gemm", "PARAMETERS", "RESULT_FORMATS", "activation_image", "blocks", "cycles", "matmul",
           "scale_image", "slices", "tile_depth", "weight_bytes", "weight_image", "weights"]

RESULT_FORMATS = ("fp32", "bf16", "e4m3", "e5m2", "int8")
PARAMETERS = ("row_scales", "column_scales", "bias", "c")
"""The optional operands of a `Gemm`, in the order in which they apply."""


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
    a_scales, w_scales : arrays (M, ceil(K / 32)) and (N, ceil(K / 32)) of E8M0 codes, or None
        MX scales, on both sides or on neither. A NaN among them makes its row or column NaN.
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
    a_scales: np.ndarray | None = None
    w_scales: np.ndarray | None = None

    def __post_init__(self):
        blocks = -(-self.a.shape[1] // MX_BLOCK)
        for name, scales, length in (("a_scales", self.a_scales, "M"), ("w_scales", self.w_scales, "N")):
            if (scales is not None) != self.mx:
                raise ValueError(f"Gemm: {name} must be there on both sides or on neither")
            if self.mx and scales.shape != (len(getattr(self, name[0])), blocks):
                raise ValueError(f"Gemm: {name} must be ({length}, ceil(K / {MX_BLOCK})) = "
                                 f"({len(getattr(self, name[0]))}, {blocks}), not {scales.shape}")

    @property
    def mx(self):
        """Whether blocks of K have scales."""
        return self.a_scales is not None

    @property
    def shape(self):
        """(M, N, K)."""
        return self.a.shape[0], self.w.shape[0], self.a.shape[1]


def matmul(family, gemm, array=None):
    """The results of a GEMM.

    Parameters
    ----------
    family : str
    gemm : Gemm
    array : (int, int)
        Rows and lanes of the array, on which sums of the family's `aligned` formats depend.

    Returns
    -------
    y : array (M, N) of codes in `gemm.y_format`
    nans : int
        How many of them are NaN before the last conversion (INT8 has none: they become 0).

    Raises
    ------
    ValueError
        When the family cannot multiply these formats, or needs `array` to do so.
    """
    if FAMILIES[family].rate(gemm.a_format, gemm.w_format) > 1:
        t = _aligned_sums(family, gemm, array)
    else:
        t = _scaled_sums(family, gemm) if gemm.mx else _sums(family, gemm)
    if gemm.row_scales is not None:
        t = fp32.mul(t, _codes(gemm.row_scales)[:, None])
    if gemm.column_scales is not None:
        t = fp32.mul(t, _codes(gemm.column_scales))
    if gemm.bias is not None:
        t = fp32.add(t, _codes(gemm.bias))
    if gemm.c is not None:
        t = fp32.add(t, _codes(gemm.c))
    return fp32.to_format(FORMATS[gemm.y_format], t), int(np.count_nonzero(np.isnan(t.view(np.float32))))


def _sums(family, gemm, k=slice(None), exponent=0):
    """The exact sums over columns `k` of the operands, times 2**`exponent`, rounded to FP32."""
    sums, nans = dot.matmul(family, gemm.a_format, gemm.a[:, k], gemm.w_format, gemm.w[:, k])
    return np.where(nans, np.uint32(FP32.nan), fp32.round_fixed(sums, FAMILIES[family].lsb + exponent))


def _scaled_sums(family, gemm):
    """FP32 sums of the terms of MX blocks, in increasing k."""
    total = np.zeros(gemm.shape[:2], np.uint32)
    for n in range(gemm.a_scales.shape[1]):
        a, w = (scales[:, n] for scales in (gemm.a_scales, gemm.w_scales))
        exponents = a[:, None].astype(int) + w - 2 * E8M0.bias
        term = _sums(family, gemm, slice(n * MX_BLOCK, (n + 1) * MX_BLOCK), exponents)
        nans = is_nan(E8M0, a)[:, None] | is_nan(E8M0, w)
        total = fp32.add(total, np.where(nans, np.uint32(FP32.nan), term))
    return total


def _aligned_sums(family, gemm, array):
    """The aligned sums, rounded to FP32."""
    if gemm.mx or array is None:
        raise ValueError(f"matmul: {gemm.a_format} x {gemm.w_format} in family {family} " + (
            "has no MX scales" if gemm.mx else "needs array=(rows, lanes)"))
    sums, tags, nans = dot.aligned(*array, gemm.a_format, gemm.a, gemm.w_format, gemm.w)
    return np.where(nans, np.uint32(FP32.nan), fp32.round_fixed(sums, dot.ALIGNED_LSB + tags))


def tile_depth(config, a_format, w_format):
    """Elements of K that a tile of weights covers."""
    return config.depth // FAMILIES[config.family].rate(a_format, w_format)


def slices(config, a_format, w_format):
    """Outputs of which a beat of weights carries a slice."""
    return 2 if FORMATS[w_format].width == 4 or tile_depth(config, a_format, w_format) < config.depth else 1


def weight_image(config, format, w, scales=None, a_format="e4m3"):
    """Weights in the order in which the engine reads them: N block, K block, output.

    A K block is `tile_depth` elements of each output, K ascending from bit 0. Such a slice fills a beat
    in 8-bit formats, half a beat in 4-bit ones and where sums are aligned; if it does not, the rest of the
    half is zero, as are slices beyond K and the odd half of a last beat. MX scales come ahead of the
    slices that they belong to, a byte an output, completed by zeros to whole beats.

    Parameters
    ----------
    config : golden.config.Matmul
    format : str
    w : array (N, K) of codes
    scales : array (N, ceil(K / 32)) of E8M0 codes, or None
    a_format : str
        That of the activations, as it may decide whether sums are aligned.

    Returns
    -------
    bytes
        Whole beats of `config.depth` bytes.
    """
    n, k = w.shape
    depth, per_beat = tile_depth(config, a_format, format), slices(config, a_format, format)
    padded = np.pad(w, ((0, 0), (0, -k % depth)))
    image = []
    for first in range(0, n, config.cols):
        block = padded[first:first + config.cols]
        block = np.pad(block, ((0, -len(block) % per_beat), (0, 0)))
        packed = _pack(block.reshape(len(block), -1, depth), FORMATS[format].width)     # output, K block, byte
        packed = np.pad(packed, ((0, 0), (0, 0), (0, config.depth // per_beat - packed.shape[2])))
        tiles = packed.transpose(1, 0, 2).reshape(packed.shape[1], -1)                  # K block, byte
        if scales is not None:
            ahead = scales[first:first + config.cols].T
            tiles = np.hstack([np.pad(ahead, ((0, 0), (0, -ahead.shape[1] % config.depth))), tiles])
        image.append(tiles.tobytes())
    return b"".join(image)


def weight_bytes(config, format, n, k, mx=False, a_format="e4m3"):
    """Bytes of the `weight_image` of (n, k) weights."""
    per_beat, total = slices(config, a_format, format), 0
    for first in range(0, n, config.cols):
        outputs = min(config.cols, n - first)
        total += -(-outputs // per_beat) + (-(-outputs // config.depth) if mx else 0)
    return total * -(-k // tile_depth(config, a_format, format)) * config.depth


def weights(config, format, image, n, k, mx=False, a_format="e4m3"):
    """The weights (n, k) and scales, or None, of which `image` is the `weight_image`: uint8 array."""
    depth, per_beat = tile_depth(config, a_format, format), slices(config, a_format, format)
    width, k_blocks, found, scales = FORMATS[format].width, -(-k // depth), [], []
    for first in range(0, n, config.cols):
        outputs = min(config.cols, n - first)
        beats, ahead = -(-outputs // per_beat), -(-outputs // config.depth) if mx else 0
        size = (beats + ahead) * config.depth
        tiles, image = image[:k_blocks * size].reshape(k_blocks, size), image[k_blocks * size:]
        scales.append(tiles[:, :outputs].T)
        packed = tiles[:, ahead * config.depth:].reshape(k_blocks, beats * per_beat, -1)[:, :outputs]
        codes = _unpack(packed, width)[..., :depth]                                 # K block, output, element
        found.append(codes.transpose(1, 0, 2).reshape(outputs, -1)[:, :k])
    return np.concatenate(found), np.concatenate(scales) if mx else None


def activation_image(config, format, a):
    """Activations row-major: bytes, and the pitch of a row in bytes. 4-bit codes lie low nibble first.

    A row starts at a whole byte; the engine may read up to a slice beyond the last one.
    """
    packed = _pack(a, FORMATS[format].width)
    return packed.tobytes(), packed.shape[1]


def scale_image(scales):
    """MX scales of activations (M, ceil(K / 32)), K block after K block: bytes, and the pitch of a block."""
    return np.ascontiguousarray(scales.T, np.uint8).tobytes(), len(scales)


def blocks(config, shape):
    """The blocks of results of a GEMM, in order: (row, column, rows, columns).

    All columns of a block first, then M, then N. Blocks are `config.acc_rows` high; one that would leave
    fewer than `config.cols` rows, too few to load weights meanwhile, gives that many to the next. In the
    last block of columns, the last rows are split once more where loading the weights again is free:
    the first `config.cols` of them come last, so that little is left to drain at the end.
    """
    m, n, _ = shape
    for column in range(0, n, config.cols):
        cols, row = min(config.cols, n - column), 0
        while row < m:
            rows = min(config.acc_rows, m - row)
            if 0 < m - row - rows < config.cols <= config.acc_rows // 2:
                rows -= config.cols
            if column + cols == n and row + rows == m and rows >= 2 * config.cols:
                yield row + config.cols, column, rows - config.cols, cols
                yield row, column, config.cols, cols
            else:
                yield row, column, rows, cols
            row += rows


def cycles(config, shape, *, a_format="e4m3", w_format="e4m3", mx=False, latency=1):
    """Cycles of a GEMM alone, from its command to its last result, both counted.

    Holds for a memory that always answers after `latency` <= 8 cycles, a port that always takes results,
    and scales that come in time, as they do but for the very smallest GEMMs. In a tile's time, its
    rows enter one a cycle while the next tile's weights load; a row's results leave `config.drain` a
    cycle behind the last pass. MX scales of a tile's rows and columns take beats of their own ahead of
    them. Everything else is the constant latency of the pipeline.
    """
    uni = config.family == "uni"                    # where exponents take cycles of their own
    spacing = 5 if config.mx else 3 if uni else 2   # cycles between two additions to the same row
    adding = 6 if mx else uni                       # beyond one: FP32, or aligned, where a sum shifts first
    to_drain = config.rows + 4 + 2 * uni + adding   # from a row's last entry to its first read by the drain
    to_result = 15 + uni                            # from that read to the result
    per_beat = slices(config, a_format, w_format)
    tiles = -(-shape[2] // tile_depth(config, a_format, w_format))

    loading = 3 + latency                           # cycle of the next weight beat
    entered = loading - 1                           # cycle of the last row's entry; at first, no beat is there yet
    reads = -1                                      # cycle of the drain's last read
    spare = 0                                       # from here on, the accumulators take row 0 again
    freed, released = [], [-1, -1]                  # reads of each row of the block before; of whole blocks
    for _, _, rows, cols in blocks(config, shape):
        beats = -(-cols // per_beat) + mx * -(-cols // config.depth)
        row_scales = mx * -(-rows * 8 // config.row_bits)
        for tile in range(tiles):
            loading += beats
            swap = max(loading, entered + 1 + row_scales, spare)
            loading = max(loading, swap)
            if tile < tiles - 1:
                entered = swap + rows - 1
                spare = swap + spacing
        entries = []
        for row in range(rows):
            free = min(freed[row] if row < len(freed) else released[-1], released[-1]) + 1
            entered = max(swap if row == 0 else entered + 1, free, released[-2] + 1)
            entries.append(entered)
            if row < spacing - 1:
                spare = entered + spacing - row
        freed = []
        for entry in entries:
            reads = max(reads + 1, entry + to_drain) + -(-cols // config.drain) - 1
            freed.append(reads)
        released.append(reads)
    return reads + to_result + 1


def _pack(codes, width):
    """Codes of 4, 8 or 16 bits along the last axis as bytes, first code in the low bits."""
    if width == 16:
        return np.ascontiguousarray(codes, dtype="<u2").view(np.uint8)
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    if width == 8:
        return codes
    codes = np.concatenate([codes, np.zeros_like(codes[..., :codes.shape[-1] % 2])], axis=-1)
    return codes[..., ::2] | codes[..., 1::2] << 4


def _unpack(image, width):
    """The codes of `_pack`, and what fills their last byte."""
    if width == 16:
        return np.ascontiguousarray(image).view("<u2")
    return image if width == 8 else np.stack([image & 15, image >> 4], -1).reshape(*image.shape[:-1], -1)


def _codes(values):
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
