# SPDX-License-Identifier: Apache-2.0
"""The language model, from tokens to logits, in plain floating point: what quantized hardware is held against.

    model = Llama(description, weights)
    for token in islice(generate(model, prompt), 64): ...

Weights have the names of checkpoints (`golden.model.Model.shapes`). Arrays are of one sequence, tokens first.
"""

from math import sqrt

import numpy as np

__all__ = ["Cache", "Llama", "generate", "perplexity", "rms_norm", "rope", "silu", "softmax"]


class Llama:
    """A model and its weights.

    Parameters
    ----------
    model : golden.model.Model
    weights : dict
        An array for each of `model.shapes`.
    dtype : dtype
        In which everything is computed.
    """

    def __init__(self, model, weights, dtype=np.float64):
        self.model = model
        self.weights = {name: np.asarray(weights[name], dtype) for name in model.shapes}

    def __call__(self, tokens, cache=None):
        """Logits of what follows each token: (tokens, vocabulary).

        Tokens follow those that a `cache` has seen already, and join them.
        """
        model, cache = self.model, Cache(self.model) if cache is None else cache
        embedding = self.weights["model.embed_tokens.weight"]
        turns = self._turns(len(cache) + np.arange(len(tokens)))
        x = embedding[tokens]                                                           # (tokens, hidden)
        for layer, window in enumerate(model.windows):
            name = f"model.layers.{layer}"
            x = x + self._attention(self._norm(x, f"{name}.input_layernorm"), name, turns, cache.layers[layer], window)
            x = x + self._mlp(self._norm(x, f"{name}.post_attention_layernorm"), name)
        head = embedding if model.tied else self.weights["lm_head.weight"]
        return self._norm(x, "model.norm") @ head.T

    def _attention(self, x, name, turns, cache, window):
        model, (cos, sin) = self.model, turns
        q = self._linear(x, f"{name}.self_attn.q_proj").reshape(len(x), model.heads, model.head_dim)
        k = self._linear(x, f"{name}.self_attn.k_proj").reshape(len(x), model.kv_heads, model.head_dim)
        v = self._linear(x, f"{name}.self_attn.v_proj").reshape(len(x), model.kv_heads, model.head_dim)
        if model.head_norms:
            q, k = self._norm(q, f"{name}.self_attn.q_norm"), self._norm(k, f"{name}.self_attn.k_norm")
        k, v = cache.append(rope(k, cos, sin), v)                                       # (context, kv_heads, head_dim)
        q = rope(q, cos, sin).reshape(len(x), model.kv_heads, -1, model.head_dim)       # groups of heads share keys
        scores = np.einsum("tkgd,ckd->kgtc", q, k, optimize=True) / sqrt(model.head_dim)
        scores[..., ~_seen(len(x), len(k), window)] = -np.inf
        heads = np.einsum("kgtc,ckd->tkgd", softmax(scores), v, optimize=True)
        return self._linear(heads.reshape(len(x), -1), f"{name}.self_attn.o_proj")

    def _mlp(self, x, name):
        gate, up = (self._linear(x, f"{name}.mlp.{part}_proj") for part in ("gate", "up"))
        return self._linear(silu(gate) * up, f"{name}.mlp.down_proj")

    def _linear(self, x, name):
        y = x @ self.weights[f"{name}.weight"].T
        return y + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def _norm(self, x, name):
        return rms_norm(x, self.weights[f"{name}.weight"], self.model.epsilon)

    def _turns(self, positions):
        """Cosines and sines of all pairs at some positions: (tokens, 1, head_dim / 2) each."""
        angles = positions[:, None, None] * self.model.rope.frequencies(self.model.head_dim)
        dtype = self.weights["model.norm.weight"].dtype
        return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


class Cache:
    """Keys and values of the tokens that a model has seen; its length is how many."""

    def __init__(self, model):
        self.layers = [_LayerCache() for _ in range(model.layers)]

    def __len__(self):
        last = self.layers[-1].k
        return 0 if last is None else len(last)


class _LayerCache:
    """Of one layer: `k` and `v`, (tokens, kv_heads, head_dim) or None."""

    k = v = None

    def append(self, k, v):
        """Joins new keys and values, and returns all."""
        self.k = k if self.k is None else np.concatenate([self.k, k])
        self.v = v if self.v is None else np.concatenate([self.v, v])
        return self.k, self.v


def rms_norm(x, weight, epsilon):
    """Rows of mean square 1, times `weight`."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def rope(x, cos, sin):
    """Elements i and i + head_dim / 2 turned."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def silu(x):
    """x times its sigmoid."""
    return x / (1 + np.exp(-np.maximum(x, -80)))        # below it is 0 in all but name, and exp would overflow


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _seen(count, context, window):
    """Which tokens of a context its last `count` see: themselves and what was before, at most `window` in all."""
    back = np.arange(context - count, context)[:, None] - np.arange(context)
    return (back >= 0) & (back < (window or context))


def generate(model, prompt):
    """Tokens that follow a prompt, the likeliest each time, without end.

    Parameters
    ----------
    model : callable
        `Llama`, or what else gives logits of tokens with a cache.
    prompt : sequence of int
    """
    cache, tokens = Cache(model.model), prompt
    while True:
        tokens = [int(model(np.asarray(tokens), cache)[-1].argmax())]
        yield tokens[0]


def perplexity(logits_of, sequences):
    """How many tokens a model hesitates between, on average: exp of the mean cross entropy of all but first tokens.

    Parameters
    ----------
    logits_of : callable
        Of tokens, an array of int, the logits of what follows each: (tokens, vocabulary).
    sequences : iterable of arrays of int
    """
    total, count = 0.0, 0
    for tokens in sequences:
        logits = np.asarray(logits_of(tokens[:-1]), np.float64)
        top = logits.max(-1)
        total += (top + np.log(np.exp(logits - top[:, None]).sum(-1))).sum()
        total -= logits[np.arange(len(logits)), tokens[1:]].sum()
        count += len(logits)
    return float(np.exp(total / count))
