# SPDX-License-Identifier: Apache-2.0
"""What the KV cache keeps in memory, byte by byte, and the beats in which a stream reads it.

A block is a run of segments, one for each layer and head. Each part of a segment takes whole beats:

    scales   FP8 alone: of each token, four bytes: K's scale and checksum, V's scale and checksum
    K        a row of each token, completed by zeros to whole beats
    V        likewise

Rows come in FP32 and are rounded once, to nearest even: to BF16; or to E4M3 under a scale of their own, the
smallest power of two under which no element is past 448. Subnormals of FP32 are zeros. What is not finite in
the row's format becomes its NaN and is counted, and has no part in the scale.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from golden.config import KV_FORMATS
from golden.formats import BF16, E4M3, E8M0, FP32, decode, encode
from golden.fp32 import flush, to_format
from golden.paging import CRC, Move, Part

__all__ = ["Beat", "Store", "checksum", "dequantize", "quantize"]

FIELD, FRACTION = 0x7F800000, 0x007FFFFF
TOP = 0x600000              # fraction of 448 = 1.75 * 2**8
SCALES_BYTES = 4            # of a token


def quantize(format, rows):
    """Rows of K or V in the cache's format.

    Parameters
    ----------
    format : str
        "bf16" or "fp8".
    rows : array of uint32, shape (..., head_dim)
        FP32 codes.

    Returns
    -------
    codes : array of uint16 or uint8, shape (..., head_dim)
    scales : array of uint8, shape (...)
        E8M0; zeros with BF16, which has none.
    nans : int
        Elements that were not finite or did not stay so.
    """
    rows = flush(rows)
    if format == "bf16":
        codes, scales = to_format(BF16, rows), np.zeros(rows.shape[:-1], np.uint8)
        bad = codes & BF16.inf == BF16.inf
        return np.where(bad, BF16.nan, codes).astype(np.uint16), scales, int(bad.sum())
    bad = rows & FIELD == FIELD
    amax = np.where(bad, 0, rows & ~np.uint32(1 << 31)).max(axis=-1).astype(np.int64)
    binade = (amax >> FP32.mantissa) + ((amax & FRACTION) > TOP)
    scales = np.maximum(binade - 8, 0)                  # E8M0 has FP32's bias
    values = np.ldexp(decode(FP32, np.where(bad, 0, rows)), FP32.bias - scales[..., None])
    codes = np.where(bad, E4M3.nan, encode(E4M3, values))
    return codes.astype(np.uint8), scales.astype(np.uint8), int(bad.sum())


def dequantize(format, codes, scales):
    """The values of rows (..., head_dim) that the cache keeps: float64."""
    return decode(BF16, codes) if format == "bf16" else decode(E4M3, codes) * decode(E8M0, scales)[..., None]


def _remainder(byte):
    for _ in range(8):
        byte = byte << 1 ^ (0x100 | CRC if byte & 0x80 else 0)
    return byte


REMAINDERS = np.array([_remainder(byte) for byte in range(256)], np.uint8)


def checksum(data):
    """CRC-8/AUTOSAR of bytes along the last axis."""
    crc = np.uint8(0xFF)
    for column in np.moveaxis(np.asarray(data, np.uint8), -1, 0):
        crc = REMAINDERS[crc ^ column]
    return crc ^ np.uint8(0xFF)


@dataclass(frozen=True)
class Beat:
    """A beat of a stream.

    Attributes
    ----------
    data : bytes
    part : Part
    slot : int
        Of K and V: whose row this is a part of.
    head : int
    first, last : bool
        Of this head's beats.
    end : bool
        The stream's last.
    error : bool
        The end of a row that does not fit its checksum.
    """

    data: bytes
    part: Part
    slot: int
    head: int
    first: bool
    last: bool
    end: bool
    error: bool


class Store:
    """The memory of the KV cache.

    Parameters
    ----------
    config : golden.config.KvCache

    Attributes
    ----------
    pool : array of uint8, shape (blocks, layers, kv_heads, bytes of a segment)
        All blocks as they lie in memory.
    host : dict of int to array of uint8
        Slots of host memory, each a block.
    nans : int
        Elements that became NaN.
    """

    def __init__(self, config):
        self.config = config
        self.pool = np.zeros((config.blocks, config.layers, config.kv_heads,
                              config.segment_beats(config.block_tokens) * config.beat), np.uint8)
        self.host, self.nans = {}, 0

    def address(self, block, layer=0, head=0):
        """The first byte of a segment."""
        return ((block * self.config.layers + layer) * self.config.kv_heads + head) * self.pool.shape[-1]

    def write(self, ranges, layer, k, v):
        """Carry out a `WRITE`: FP32 codes, shape (tokens, kv_heads, head_dim), to the slots of `ranges`."""
        slots = [(block, first + n) for block, first, count in ranges for n in range(count)]
        for (block, slot), *rows in zip(slots, k, v, strict=True):
            for head in range(self.config.kv_heads):
                for part, row in zip((Part.K, Part.V), rows, strict=True):
                    codes, scale, nans = quantize(self.config.format, row[head])
                    self.nans += nans
                    self.put(block, part, slot, codes, scale, layer, head)

    def put(self, block, part, slot, codes, scale=0, layer=0, head=0):
        """Put a row, as `quantize` gives it, to a slot."""
        segment = self.pool[block, layer, head]
        data = codes.astype(codes.dtype.newbyteorder("<")).view(np.uint8)
        run = self._run(part, slot, slot + 1)
        segment[run] = 0
        segment[run.start:run.start + len(data)] = data
        if KV_FORMATS[self.config.format][1]:
            at = SCALES_BYTES * slot + 2 * (part == Part.V)
            segment[at:at + 2] = scale, checksum([scale, *data])

    def move(self, kind, source, target, slots):
        """Carry out one of the controller's `moves`: the first slots of a block, no other byte.

        A slot that host memory does not have is left alone, and what comes from it is lost.
        """
        if {Move.OUT: target, Move.IN: source}.get(kind, 0) >= self.config.host_blocks:
            return
        blank = np.zeros_like(self.pool[0])
        old = self.host.get(source, blank) if kind == Move.IN else self.pool[source]
        new = self.host.setdefault(target, blank) if kind == Move.OUT else self.pool[target]
        for part in Part:
            run = self._run(part, 0, slots)
            new[..., run] = old[..., run]

    def stream(self, ranges, layer, heads):
        """The beats of a `STREAM`, head after head. Scales of slots that it does not read are zeros."""
        config, beats = self.config, []
        last_head = heads.bit_length() - 1
        for head in (head for head in range(config.kv_heads) if heads >> head & 1):
            own = []
            for block, first, count in ranges:
                segment = self.pool[block, layer, head].copy()
                used = self._run(Part.SCALES, first, first + count)
                segment[:used.start] = 0
                end = config.scale_beats * config.beat
                segment[used.stop:end] = 0
                own += [(segment[at:at + config.beat].tobytes(), Part.SCALES, 0, False)
                        for at in range(0, end, config.beat)]
                for part, slot in product((Part.K, Part.V), range(first, first + count)):
                    run, fits = self._run(part, slot, slot + 1), self._fits(segment, part, slice(slot, slot + 1)).all()
                    own += [(segment[at:at + config.beat].tobytes(), part, slot,
                             not fits and at + config.beat == run.stop)
                            for at in range(run.start, run.stop, config.beat)]
            final = len(own) - 1
            beats += [Beat(*each, head, n == 0, n == final, n == final and head == last_head, error)
                      for n, (*each, error) in enumerate(own)]
        return beats

    def rows(self, ranges, layer, head):
        """What a `STREAM` holds: codes of K and of V (tokens, head_dim), and with FP8 the scales of both (tokens,)."""
        slots = [(self.pool[block, layer, head], slot)
                 for block, first, count in ranges for slot in range(first, first + count)]
        size, kept = KV_FORMATS[self.config.format]
        found = []
        for part in Part.K, Part.V:
            runs = [segment[self._run(part, slot, slot + 1)][:size * self.config.head_dim] for segment, slot in slots]
            found.append(np.stack(runs).view("<u2" if size == 2 else np.uint8))
        if kept:
            found += [np.stack([segment[SCALES_BYTES * slot + 2 * n] for segment, slot in slots]) for n in range(2)]
        return found

    def fits(self, ranges, layer, head):
        """Whether all rows that a `STREAM` holds fit their checksums, if they have any."""
        return all(self._fits(self.pool[block, layer, head], part, slice(first, first + count)).all()
                   for block, first, count in ranges for part in (Part.K, Part.V))

    def _fits(self, segment, part, slots):
        """Whether each row of a slice of slots fits its checksum, if it has one."""
        if not self.config.scale_beats:
            return np.ones(slots.stop - slots.start, bool)
        run = segment[self._run(part, slots.start, slots.stop)]
        sums = segment[self._run(Part.SCALES, slots.start, slots.stop)].reshape(-1, 2, 2)[:, int(part == Part.V)]
        rows = run.reshape(len(sums), -1)[:, :self.config.head_dim]
        return checksum(np.column_stack([sums[:, 0], rows])) == sums[:, 1]

    def _run(self, part, first, end):
        """Where the rows or scales of some slots lie in a segment."""
        config = self.config
        if part == Part.SCALES:
            return slice(SCALES_BYTES * first, SCALES_BYTES * end) if config.scale_beats else slice(0, 0)
        row = config.row_beats * config.beat
        start = config.scale_beats * config.beat + (part == Part.V) * config.block_tokens * row
        return slice(start + first * row, start + end * row)
