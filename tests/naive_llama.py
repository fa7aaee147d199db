# SPDX-License-Identifier: Apache-2.0
"""The language model once more, as directly as it can be said: a token, a head and a pair of elements at a time."""

import cmath
from math import exp, pi, sqrt

import numpy as np


def logits(model, weights, tokens):
    """Of what follows each token: (tokens, vocabulary)."""
    def norm(x, weight):
        return np.array(x) * weight / sqrt(sum(e * e for e in x) / len(x) + model.epsilon)

    def linear(x, name):
        return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0)

    def turned(head, position):
        half = model.head_dim // 2
        pairs = [complex(head[i], head[i + half]) * cmath.exp(1j * position * frequency(model.rope, i / half))
                 for i in range(half)]
        return np.array([pair.real for pair in pairs] + [pair.imag for pair in pairs])

    def heads(x, name, count, position):
        found = linear(x, f"{name}_proj").reshape(count, model.head_dim)
        if model.head_norms:
            found = [norm(head, weights[f"{name}_norm.weight"]) for head in found]
        return [turned(head, position) for head in found]

    stream = [weights["model.embed_tokens.weight"][token] for token in tokens]
    for layer in range(model.layers):
        at, window = f"model.layers.{layer}", model.windows[layer] or len(tokens)
        keys, values, attended = [], [], []
        for position, x in enumerate(stream):
            x = norm(x, weights[f"{at}.input_layernorm.weight"])
            queries = heads(x, f"{at}.self_attn.q", model.heads, position)
            keys.append(heads(x, f"{at}.self_attn.k", model.kv_heads, position))
            values.append(linear(x, f"{at}.self_attn.v_proj").reshape(model.kv_heads, model.head_dim))
            seen = range(max(0, position + 1 - window), position + 1)
            row = []
            for head, query in enumerate(queries):
                shared = head * model.kv_heads // model.heads
                powers = [exp(sum(query * keys[back][shared]) / sqrt(model.head_dim)) for back in seen]
                row.append(sum(power * values[back][shared] for power, back in zip(powers, seen, strict=True))
                           / sum(powers))
            attended.append(linear(np.concatenate(row), f"{at}.self_attn.o_proj"))
        stream = [x + y for x, y in zip(stream, attended, strict=True)]
        for position, x in enumerate(stream):
            x = norm(x, weights[f"{at}.post_attention_layernorm.weight"])
            gates = [gate / (1 + exp(-gate)) for gate in linear(x, f"{at}.mlp.gate_proj")]
            stream[position] = stream[position] + linear(gates * linear(x, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
    head = weights["model.embed_tokens.weight" if model.tied else "lm_head.weight"]
    return np.array([head @ norm(x, weights["model.norm.weight"]) for x in stream])


def frequency(rope, place):
    """Of a pair at a place from 0 to 1, as the Llama 3 release describes it: by wave length."""
    plain = rope.theta ** -place
    length = 2 * pi / plain
    if rope.factor == 1 or length < rope.original / rope.high:
        return plain
    if length > rope.original / rope.low:
        return plain / rope.factor
    smooth = (rope.original / length - rope.low) / (rope.high - rope.low)
    return (1 - smooth) * plain / rope.factor + smooth * plain
