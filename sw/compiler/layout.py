# SPDX-License-Identifier: Apache-2.0
"""Where everything of a model lies in a tile's memory.

    programs | tokens in | tokens and logits out | embedding | rotary table | layers | pool of the KV cache

Of each layer, and of the output layer behind them, there is a *record* of what it needs beside its weights (norms,
scales, biases, in FP32), and then its weights, in the order of their use, one linear read.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import ValidationError

from golden import matmul
from golden.config import check_tile, words
from golden.formats import BF16, encode
from golden.isa import BYTES, K_MAX
from sw.compiler.weights import FORMATS_OF_WEIGHTS, layer, rope_table

__all__ = ["STEPS", "Layout", "ModelError", "Place", "align", "fit"]

PAGE = 4096
PROGRAMS = 4            # that fit into memory at a time
STEPS = 8               # of decoding, with all sequences, whose results fit
BYTE = 8                # a head of the KV cache has a multiple of so many elements
PICK = 8                # bytes of a token: its logit, and its number


class ModelError(ValueError):
    """A model that a chip cannot run, and why, in a line."""


@dataclass(frozen=True)
class Place:
    """A linear layer.

    Attributes
    ----------
    n, k : int
    weights : int
        Where they begin, from the layer's first weights on.
    scales, bias : int or None
        Where they begin in the record.
    """

    n: int
    k: int
    weights: int
    scales: int | None
    bias: int | None


def fit(chip, model, weights="fp8"):
    """A chip with what a model takes: its KV cache, groups of heads, and formats of weights.

    Raises
    ------
    ModelError
        When there is none.
    """
    scheme, kv = _scheme(weights), chip.kvcache
    table = min(kv.table, -(-model.positions // kv.block_tokens))
    try:
        return chip.model_copy(update={
            "matmul": scheme.engine(chip.matmul),
            "attention": type(chip.attention)(group=max(chip.attention.group, model.heads // model.kv_heads)),
            "kvcache": type(kv)(**kv.model_dump() | {
                "layers": model.layers, "kv_heads": model.kv_heads, "beat": chip.memory.channel,
                "head_dim": _head_dim(chip, model), "lanes": min(kv.lanes, chip.memory.channel // 2),
                "table": table, "blocks": min(kv.blocks, kv.sequences * table + 1)})})
    except ValidationError as error:
        problem = error.errors()[0]
        raise ModelError(f"{chip.name}: {problem['loc'][-1]} = {problem['input']}: "
                         f"{problem.get('ctx', {}).get('error') or problem['msg']}") from None
    except ValueError as error:
        raise ModelError(f"{chip.name}: {error}") from None


def _scheme(weights):
    if weights not in FORMATS_OF_WEIGHTS:
        raise ModelError(f"weights = {weights}: must be {words(FORMATS_OF_WEIGHTS)}")
    return FORMATS_OF_WEIGHTS[weights]


def _head_dim(chip, model):
    """Elements of a head, with what completes words of the scratchpad and the KV cache's bytes."""
    return align(model.head_dim, max(chip.word // 4, BYTE))


def align(size, unit):
    """The next multiple of `unit`."""
    return -(-size // unit) * unit


class Layout:
    """A model in the memory of a tile.

    Parameters
    ----------
    checkpoint : sw.compiler.checkpoint.Checkpoint
    chip : golden.config.Chip
    weights : str
        A key of `FORMATS_OF_WEIGHTS`.
    context : int
        Tokens of a sequence at most; by default as many as model and KV cache have room for.

    Attributes
    ----------
    word : int
        Bytes of a word of the scratchpad, with which all rows in it begin.
    head_dim : int
        Elements of a head, with what completes it.
    linears : dict of str to Place
        By the names that `sw.compiler.weights.Layer` has.
    norms : dict of str to int
        Where they begin in the record.
    record, pitch : int
        Bytes of a record, and from one layer to the next.
    rows, results : int
        Tokens that there is room for on their way in, and of what comes out.
    at : dict of str to int
        First bytes of the parts of memory.
    size : int
        Bytes of memory in all.

    Raises
    ------
    ModelError
    ConfigError
        The chip is no tile.
    """

    def __init__(self, checkpoint, chip, weights="fp8", context=None):
        self.checkpoint, self.chip, self.model = checkpoint, chip, checkpoint.model
        self.scheme, self.word = _scheme(weights), chip.word
        self.unit = max(chip.memory.channel, self.word)
        self.head_dim = _head_dim(chip, self.model)
        self._check()
        room = chip.kvcache.table * chip.kvcache.block_tokens
        self.context = min(self.model.positions, room) if context is None else context
        if not 1 <= self.context <= min(self.model.positions, room):
            raise ModelError(f"context = {self.context}: must be 1 to {min(self.model.positions, room)}, as "
                             f"max_position_embeddings is {self.model.positions} and a sequence has {room} slots")
        self._build()

    def _check(self):
        """Refuse what the chip cannot do."""
        model, chip, scheme = self.model, self.chip, self.scheme
        kv, name, beat = chip.kvcache, chip.name, chip.matmul.row_bits // 8
        begins = {row for rows in range(1, max(kv.sequences, chip.matmul.acc_rows) + 1)
                  for row, *_ in matmul.blocks(chip.matmul, (rows, 1, 1))}
        for wrong, sentence in (
            (not scheme.runs_on(chip.matmul.family),
             f"weights in {scheme.title}: need matmul.family = {scheme.family}, not {chip.matmul.family}"),
            (scheme.scales == "block" and not chip.matmul.mx,
             f"weights in {scheme.title}: need matmul.mx = true"),
            (scheme.scales == "block" and any(row % beat for row in begins),        # where scales of rows are read
             f"weights in {scheme.title}: need matmul.cols and acc_rows in multiples of {beat}, not "
             f"{chip.matmul.cols} and {chip.matmul.acc_rows}"),
            (chip.memory.channel > chip.matmul.depth,
             f"memory.channel = {chip.memory.channel}: must be matmul.lanes x rows = {chip.matmul.depth} or less"),
            (kv.beat != chip.memory.channel,
             f"kvcache.beat = {kv.beat}: must be memory.channel = {chip.memory.channel}"),
            (kv.kv_heads != model.kv_heads,
             f"kvcache.kv_heads = {kv.kv_heads}: must be that of the model, {model.kv_heads}"),
            (kv.head_dim != self.head_dim,
             f"kvcache.head_dim = {kv.head_dim}: must be {self.head_dim}, that of the model in whole words"),
            (kv.layers < model.layers, f"kvcache.layers = {kv.layers}: must be {model.layers} or more"),
            (chip.attention.group < model.heads // model.kv_heads,
             f"attention.group = {chip.attention.group}: must be {model.heads // model.kv_heads} or more"),
            (max(model.hidden, model.intermediate) > chip.vector.row_max,
             f"vector.row_max = {chip.vector.row_max}: must be {max(model.hidden, model.intermediate)} or more"),
            (max(model.hidden, model.intermediate, model.heads * self.head_dim) > chip.matmul.k_max,
             f"matmul.k_max = {chip.matmul.k_max}: must be "
             f"{max(model.hidden, model.intermediate, model.heads * self.head_dim)} or more"),
        ):
            if wrong:
                raise ModelError(f"{name}: {sentence}")
        check_tile(chip)

    def _build(self):
        """Give everything its place, in bytes."""
        model, chip = self.model, self.chip
        self.linears, self.norms = {}, {}
        records, weights = zip(*(self._place(number) for number in (0, model.layers)), strict=True)
        self.record = max(records)
        self.pitch = align(self.record + weights[0], self.unit)

        self.rows = max(chip.kvcache.sequences, chip.matmul.acc_rows)
        self.results = max(STEPS * chip.kvcache.sequences, self.rows)
        sizes = {
            "programs": PROGRAMS * chip.sequencer.instructions * BYTES,
            "tokens": self.rows * self.pick,
            "results": self.results * self.result_pitch,
            "embedding": model.vocabulary * self.embedding_pitch,
            "rope": self.context * self.rope_pitch,
            "layers": model.layers * self.pitch + self.record + weights[1],
        }
        self.at, end = {}, 0
        for name, size in sizes.items():
            self.at[name], end = end, align(end + size, PAGE)
        self.at["kv"], self.size = end, end + chip.kvcache.blocks * chip.kvcache.block_bytes
        if self.size > 1 << 32:
            raise ModelError(f"{chip.name}: model and KV cache take {self.size} bytes; a tile reaches {1 << 32}")

    def _place(self, number):
        """Note where a layer's norms, scales and weights go; bytes of its record and of its weights."""
        found, at, offset = layer(self.checkpoint, self.scheme, number, self.head_dim), 0, 0
        for name, vector in found.norms.items():
            self.norms[name], at = at, align(at + vector.nbytes, self.unit)
        for name, linear in found.linears.items():
            places = []
            for part in linear.scales, linear.bias:
                places.append(None if part is None else at)
                at = at if part is None else align(at + part.nbytes, self.unit)
            self.linears[name] = Place(*linear.shape, offset, *places)
            offset += self.weight_bytes(*linear.shape)
        return at, offset

    def weight_bytes(self, n, k):
        """Bytes of (n, k) weights as they lie in memory."""
        scheme = self.scheme
        return matmul.weight_bytes(self.chip.matmul, scheme.w_format, n, k, scheme.scales == "block", scheme.a_format)

    @property
    def pick(self):
        """Bytes from one chosen token to the next, in memory."""
        return align(PICK, self.chip.memory.channel)

    @property
    def picks(self):
        """Bytes of the likeliest tokens, in memory."""
        return align(PICK * K_MAX, self.chip.memory.channel)

    @property
    def result_pitch(self):
        """Bytes from what one token gives to the next: the likeliest tokens, and logits."""
        return self.picks + align(4 * self.model.vocabulary, self.chip.memory.channel)

    @property
    def embedding_pitch(self):
        """Bytes of a token's embedding, in BF16."""
        return align(2 * self.model.hidden, self.chip.memory.channel)

    @property
    def rope_pitch(self):
        """Bytes of a position's cosines and sines, in FP32."""
        return align(4 * self.head_dim, self.chip.memory.channel)

    @cached_property
    def image(self):
        """What memory holds at the begin: uint8, up to the pool of the KV cache."""
        model, image = self.model, np.zeros(self.at["kv"], np.uint8)

        def put(address, array):
            data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
            image[address:address + len(data)] = data

        def put_rows(name, pitch, rows):
            rows = np.ascontiguousarray(rows).view(np.uint8)
            put(self.at[name], np.pad(rows, ((0, 0), (0, pitch - rows.shape[1]))))

        embedding = self.checkpoint.weights["model.embed_tokens.weight"].values()
        put_rows("embedding", self.embedding_pitch, encode(BF16, embedding))
        put_rows("rope", self.rope_pitch, rope_table(model, self.context, self.head_dim))
        for number in range(model.layers + 1):
            found, record = layer(self.checkpoint, self.scheme, number, self.head_dim), self.layer(number)
            for name, vector in found.norms.items():
                put(record + self.norms[name], vector)
            for name, linear in found.linears.items():
                place = self.linears[name]
                for part, at in (linear.scales, place.scales), (linear.bias, place.bias):
                    if part is not None:
                        put(record + at, part)
                put(record + self.record + place.weights, np.frombuffer(matmul.weight_image(
                    self.chip.matmul, self.scheme.w_format, linear.codes, linear.block_scales,
                    self.scheme.a_format), np.uint8))
        return image

    def layer(self, number):
        """Where a layer's record begins."""
        return self.at["layers"] + number * self.pitch
