# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's tensors as a tile takes them: linear layers in few bits, and what goes with them in FP32.

What software can do once is done here. Elements that turn together become neighbours (`golden.vector.pairs`). Queries
take log2(e) / sqrt(head_dim) along, in the scales of their outputs or in the weight of their norm. Heads are completed
by zeros to `padded` elements, so that each begins with a word of the scratchpad.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from golden.formats import FORMATS, encode, quantize_blocks, quantize_mx
from golden.vector import LOG2E, pairs
from sw.quantize import SCHEMES, Scheme

__all__ = ["FORMATS_OF_WEIGHTS", "Layer", "Linear", "layer", "rope_table"]

FORMATS_OF_WEIGHTS = {
    "fp8": SCHEMES["fp8"],
    "mxfp4": Scheme("MXFP4 weights, MXFP8 activations", "fp8", "e4m3", "e2m1", "block"),
    "int8": SCHEMES["int8"],
    "bf16": SCHEMES["bf16"],
}


@dataclass(frozen=True, eq=False)
class Linear:
    """One linear layer.

    Attributes
    ----------
    codes : array (N, K)
    scales : float32 array (N,) or None
        Of the outputs.
    block_scales : uint8 array (N, ceil(K / 32)) or None
        E8M0.
    bias : float32 array (N,) or None
    """

    codes: np.ndarray
    scales: np.ndarray | None = None
    block_scales: np.ndarray | None = None
    bias: np.ndarray | None = None

    @property
    def shape(self):
        """(N, K)."""
        return self.codes.shape


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, or the last.

    Attributes
    ----------
    linears : dict of str to Linear
        "qkv", "o", "gate", "up", "down", in the order of their use; of the last, "head", which gives logits.
    norms : dict of str to float32 array
        "input", "post", and of every head "q" and "k" where heads have norms; of the last, "last".
    """

    linears: dict
    norms: dict


def layer(checkpoint, scheme, number, padded):
    """The `Layer` of a checkpoint with a number, or the last, in a `Scheme`."""
    model, weights, under = checkpoint.model, checkpoint.weights, f"model.layers.{number}."
    if number == model.layers:
        head = weights["model.embed_tokens.weight" if model.tied else "lm_head.weight"]
        return Layer({"head": _quantize(scheme, _rows(head))},
                     {"last": weights["model.norm.weight"].values(np.float32)})
    scale = LOG2E / sqrt(model.head_dim)

    def rows(name):
        weight, bias = weights[f"{under}{name}.weight"], weights.get(f"{under}{name}.bias")
        return _rows(weight, None if bias is None else bias.values())

    def linear(name):
        return _quantize(scheme, rows(name))

    def norm(name):
        return weights[f"{under}{name}.weight"].values()

    q, k = (rows(f"self_attn.{name}_proj").paired(heads) for name, heads in (("q", model.heads), ("k", model.kv_heads)))
    qkv = zip((q, k, rows("self_attn.v_proj")), (model.heads, model.kv_heads, model.kv_heads),
              (1 if model.head_norms else scale, 1, 1), strict=True)
    norms = {"input": norm("input_layernorm"), "post": norm("post_attention_layernorm")}
    if model.head_norms:
        for name, factor in ("q", scale), ("k", 1):
            norms[name] = np.pad(pairs(norm(f"self_attn.{name}_norm")) * factor, (0, padded - model.head_dim))
    return Layer({
        "qkv": _join([_quantize(scheme, part.padded(heads, padded), fold) for part, heads, fold in qkv]),
        "o": _quantize(scheme, rows("self_attn.o_proj").widened(model.heads, padded)),
        "gate": linear("mlp.gate_proj"), "up": linear("mlp.up_proj"), "down": linear("mlp.down_proj"),
    }, {name: weight.astype(np.float32) for name, weight in norms.items()})


def rope_table(model, positions, padded):
    """Cosines and sines in turn, of every pair: float32, shape (positions, padded)."""
    angles = np.arange(positions)[:, None] * model.rope.frequencies(model.head_dim)
    table = np.stack([np.cos(angles), np.sin(angles)], -1).reshape(positions, -1)
    return np.pad(table, ((0, 0), (0, padded - model.head_dim))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Weights as they were found, (outputs, inputs); scales of outputs, (outputs,) or none; and their bias."""

    array: np.ndarray
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None

    def paired(self, heads):
        """Outputs that turn together side by side."""
        return self._each(lambda rows: pairs(rows.reshape(heads, -1, rows.shape[-1]).swapaxes(1, 2)).swapaxes(1, 2))

    def padded(self, heads, size):
        """Each head completed to `size` outputs."""
        def complete(rows):
            rows = rows.reshape(heads, -1, rows.shape[-1])
            return np.pad(rows, ((0, 0), (0, size - rows.shape[1]), (0, 0)))

        return self._each(complete)

    def _each(self, arrange):
        """The same with its outputs in another order."""
        array, *vectors = (None if rows is None else arrange(rows.reshape(len(self.array), -1))
                           for rows in (self.array, self.scale, self.bias))
        vectors = (None if rows is None else rows.reshape(-1) for rows in vectors)
        return _Rows(array.reshape(-1, self.array.shape[1]), *vectors)

    def widened(self, heads, padded):
        """Inputs by heads, each padded."""
        rows = self.array.reshape(len(self.array), heads, -1)
        rows = np.pad(rows, ((0, 0), (0, 0), (0, padded - rows.shape[-1])))
        return _Rows(rows.reshape(len(rows), -1), self.scale, self.bias)


def _rows(weight, bias=None):
    """The `_Rows` of a `Weight`."""
    scale = None if weight.scale is None else np.broadcast_to(weight.scale[:, 0], len(weight.array))
    return _Rows(weight.array, scale, bias)


def _quantize(scheme, rows, fold=1):
    """A `Linear` in a scheme. FP8 with scales of its own stays as it is, if the scheme has such."""
    fmt, count = FORMATS[scheme.w_format], len(rows.array)
    bias = None if rows.bias is None else np.float32(rows.bias * fold)
    if rows.scale is not None and scheme.w_format == "e4m3" and scheme.scales == "vector":
        return Linear(rows.array.view(np.uint8), np.float32(rows.scale * np.float64(fold)), None, bias)
    values = rows.array.astype(np.float64) * (1 if rows.scale is None else rows.scale[:, None])
    if scheme.scales == "vector":
        codes, scales = quantize_blocks(fmt, values, block=(1, values.shape[1]))
        return Linear(codes, np.float32(scales[:, 0] * np.float64(fold)), None, bias)
    scales = None if fold == 1 else np.full(count, fold, np.float32)
    if scheme.scales == "block":
        codes, blocks = quantize_mx(fmt, values)
        return Linear(codes, scales, blocks, bias)
    return Linear(encode(fmt, values), scales, None, bias)


def _join(parts):
    """Several as one, output after output; where only some have scales or a bias, the others' are ones and zeros."""
    def joined(name, absent):
        found = [getattr(part, name) for part in parts]
        if all(each is None for each in found):
            return None
        return np.concatenate([np.full(len(part.codes), absent, np.float32) if each is None else each
                               for part, each in zip(parts, found, strict=True)])

    return Linear(np.concatenate([part.codes for part in parts]), joined("scales", 1), joined("block_scales", 0),
                  joined("bias", 0))
