# SPDX-License-Identifier: Apache-2.0
"""Models of odd shapes, random weights, and checkpoints of them as Hugging Face writes them."""

import json

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from golden.model import Model, Rope

SMALL = {"vocabulary": 37, "hidden": 24, "intermediate": 19, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 6,
         "positions": 64}
LONG = Rope(theta=500.0, factor=8.0, low=1.0, high=4.0, original=64)
MODELS = {
    "LlamaForCausalLM": {
        "plain": Model(**SMALL),
        "tied": Model(**SMALL | {"tied": True, "kv_heads": 1}),
        "every head its own": Model(**SMALL | {"hidden": 10, "heads": 5, "kv_heads": 5, "head_dim": 2}),
        "longer": Model(**SMALL | {"rope": LONG, "intermediate": 172, "layers": 1}),
    },
    "Qwen2ForCausalLM": {
        "biases": Model(**SMALL | {"bias": True}),
        "window of some": Model(**SMALL | {"bias": True, "layers": 3, "windows": (None, None, 5), "tied": True}),
    },
    "Qwen3ForCausalLM": {
        "norms": Model(**SMALL | {"head_norms": True, "head_dim": 14, "epsilon": 1e-3}),
    },
    "MistralForCausalLM": {
        "window": Model(**SMALL | {"windows": (3, 3), "heads": 6, "kv_heads": 3, "hidden": 17}),
        "no window": Model(**SMALL),
    },
}
"""By family and what is special."""
CASES = [(family, name) for family, models in MODELS.items() for name in models]


def weights(model, seed=0):
    """Random weights with which no part of a model counts for nothing: float64, exact in BF16."""
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in model.shapes.items():
        values = random.normal(1 if "norm" in name else 0, 0.5 if len(shape) == 1 else 1.5 * shape[-1] ** -0.5, shape)
        found[name] = values.astype(ml_dtypes.bfloat16).astype(np.float64)
    return found


def settings(family, model):
    """What config.json has."""
    qwen, windows = family.startswith("Qwen"), set(model.windows) - {None}
    found = {
        "architectures": [family], "model_type": family.removesuffix("ForCausalLM").lower(), "hidden_act": "silu",
        "vocab_size": model.vocabulary, "hidden_size": model.hidden, "intermediate_size": model.intermediate,
        "num_hidden_layers": model.layers, "num_attention_heads": model.heads, "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim, "max_position_embeddings": model.positions, "rms_norm_eps": model.epsilon,
        "rope_theta": model.rope.theta, "tie_word_embeddings": model.tied, "bos_token_id": 1, "eos_token_id": [2, 3],
        "torch_dtype": "bfloat16", "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
        "sliding_window": max(windows, default=None)}
    if qwen:
        found |= {"use_sliding_window": bool(windows), "max_window_layers": model.windows.count(None)}
    if model.rope.factor != 1:
        found["rope_scaling"] = scaling(model.rope)
    return found


def scaling(rope):
    """Of Llama 3."""
    return {"rope_type": "llama3", "factor": rope.factor, "low_freq_factor": rope.low, "high_freq_factor": rope.high,
            "original_max_position_embeddings": rope.original}


def write(folder, config, tensors, shards=1):
    """A checkpoint: arrays as they are, in one file or several with an index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    if shards == 1:
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    files = [f"model-{shard + 1:05}-of-{shards:05}.safetensors" for shard in range(shards)]
    places = {name: files[place * shards // len(arrays)] for place, name in enumerate(arrays)}
    for file in files:
        save_file({name: arrays[name] for name, place in places.items() if place == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder
