# SPDX-License-Identifier: Apache-2.0
"""Train the models of our own, on the source of Python's standard library: `pip install -e .[train]` first.

    scripts/train.py tiny-100k --out configs/models/tiny-100k
    scripts/train.py base-1m --out configs/models/base-1m --state build/base-1m.npz

Interrupted, the same command goes on from the last state that was kept. The folder gets what a Hugging Face checkpoint
has, `config.json` and `model.safetensors` in BF16, with `training.json` beside them: how, on what, losses, hash.
"""

import argparse
import json
import os
import platform
import time
from hashlib import sha256
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

from golden.llama import Llama, perplexity
from golden.model import Model
from sw import text
from sw.compiler import checkpoint

MODELS = {
    "tiny-100k": (Model(vocabulary=text.VOCABULARY, hidden=64, intermediate=128, layers=2, heads=2, kv_heads=1,
                        head_dim=32, positions=512, tied=True), 2000),
    "base-1m": (Model(vocabulary=text.VOCABULARY, hidden=128, intermediate=384, layers=5, heads=4, kv_heads=2,
                      head_dim=32, positions=512, tied=True), 3000),
}
"""Descriptions, and for how many steps they are trained."""
BATCH, CONTEXT = 4096, 256                      # tokens of a step, and of a sequence
STRETCH = 1 / 6                                 # of the steps, at the end, with sequences of the model's whole context
RATE, WARMUP, FLOOR = 3e-3, 200, 0.05           # the rate goes up for some steps, then down to a share of itself
BETAS, DECAY, CLIP = (0.9, 0.98), 0.1, 1.0      # AdamW (Loshchilov and Hutter, 2019)
KEEP = 100                                      # steps between states that are kept
CHECK = 4                                       # one of so many sequences held out is looked at in the end
SEED = 0


def start(model):
    """Weights to begin with."""
    random = np.random.default_rng(SEED)
    depth = (2 * model.layers) ** -0.5
    weights = {}
    for name, shape in model.shapes.items():
        spread = shape[-1] ** -0.5 * (depth if "o_proj" in name or "down_proj" in name else 1)
        weights[name] = np.float32(np.ones(shape) if len(shape) == 1 else random.normal(0, spread, shape))
    return weights


@jax.custom_vjp
def attend(q, k, v):
    """Causal attention: q (heads, group * tokens, head_dim), the others (heads, tokens, head_dim)."""
    return _attend(q, k, v)[0]


def _attend(q, k, v):
    length = k.shape[1]
    unseen = np.float32(np.where(np.tri(length), 0, -1e30))
    scores = jnp.einsum("ntd,ncd->ntc", q, k) + np.tile(unseen, (q.shape[1] // length, 1))
    shares = jax.nn.softmax(scores)
    means = jnp.einsum("ntc,ncd->ntd", shares, v)
    return means, (q, k, v, shares, means)


def _attend_back(kept, slope):
    """By hand, as what JAX derives takes twice the time."""
    q, k, v, shares, means = kept
    inner = jnp.einsum("ntd,ncd->ntc", slope, v) - (slope * means).sum(-1, keepdims=True)
    scores = shares * inner
    return (jnp.einsum("ntc,ncd->ntd", scores, k), jnp.einsum("ntc,ntd->ncd", scores, q),
            jnp.einsum("ntc,ntd->ncd", shares, slope))


attend.defvjp(_attend, _attend_back)


def forward(model, weights, tokens):
    """Logits (batch * tokens, vocabulary): `golden.llama` once more, in JAX and in batches."""
    def norm(x, name):
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + model.epsilon) * weights[f"{name}.weight"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T

    def heads(x, name):
        return linear(x, name).reshape(batch, length, -1, model.head_dim).transpose(0, 2, 1, 3)

    def rope(x):
        a, b = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    batch, length = tokens.shape
    rows = batch * model.kv_heads
    angles = np.float32(np.arange(length)[:, None] * model.rope.frequencies(model.head_dim))
    cos, sin = np.cos(angles), np.sin(angles)
    x = weights["model.embed_tokens.weight"][tokens.reshape(-1)]
    for layer in range(model.layers):
        name = f"model.layers.{layer}"
        y = norm(x, f"{name}.input_layernorm")
        q = rope(heads(y, f"{name}.self_attn.q_proj")) * model.head_dim ** -0.5
        k, v = rope(heads(y, f"{name}.self_attn.k_proj")), heads(y, f"{name}.self_attn.v_proj")
        y = attend(q.reshape(rows, -1, model.head_dim), *(z.reshape(rows, length, model.head_dim) for z in (k, v)))
        y = y.reshape(batch, model.heads, length, model.head_dim).transpose(0, 2, 1, 3).reshape(len(x), -1)
        x = x + linear(y, f"{name}.self_attn.o_proj")
        y = norm(x, f"{name}.post_attention_layernorm")
        y = jax.nn.silu(linear(y, f"{name}.mlp.gate_proj")) * linear(y, f"{name}.mlp.up_proj")
        x = x + linear(y, f"{name}.mlp.down_proj")
    return norm(x, "model.norm") @ weights["model.embed_tokens.weight"].T


def updater(model, steps):
    """A step of training: of weights, means, squares, number and sequences, to the first three and the loss."""
    def loss(weights, sequences):
        logits = forward(model, weights, sequences[:, :-1])
        chosen = jnp.take_along_axis(logits, sequences[:, 1:].reshape(-1, 1), -1)[:, 0]
        return (jax.nn.logsumexp(logits, -1) - chosen).mean()

    @jax.jit
    def update(weights, means, squares, step, sequences):
        cost, slopes = jax.value_and_grad(loss)(weights, sequences)
        length = jnp.sqrt(sum((slope * slope).sum() for slope in slopes.values()))
        gone = jnp.minimum((step - WARMUP) / (steps - WARMUP), 1)
        cosine = FLOOR + (1 - FLOOR) * (1 + jnp.cos(np.pi * gone)) / 2
        rate = RATE * jnp.where(step < WARMUP, (step + 1) / WARMUP, cosine)
        for name, slope in slopes.items():
            slope = slope * jnp.minimum(1, CLIP / length)
            means[name] = BETAS[0] * means[name] + (1 - BETAS[0]) * slope
            squares[name] = BETAS[1] * squares[name] + (1 - BETAS[1]) * slope * slope
            mean, square = (kept[name] / (1 - beta ** (step + 1)) for kept, beta in zip((means, squares), BETAS,
                                                                                      strict=True))
            decay = DECAY if slope.ndim > 1 else 0
            weights[name] = weights[name] - rate * (mean / (jnp.sqrt(square) + 1e-8) + decay * weights[name])
        return weights, means, squares, cost

    return update


def train(model, steps, path):
    """Weights, the mean loss of each `KEEP` steps, and the seconds it took.

    What it has at such times goes to a file, from which it goes on.
    """
    update, tokens = updater(model, steps), text.training()
    begins = {length: text.lines(tokens, length) for length in (CONTEXT, model.positions)}
    weights = start(model)
    means, squares = ({name: np.zeros_like(array) for name, array in weights.items()} for _ in range(2))
    losses, seconds = [], 0.0
    if path.exists():
        weights, means, squares, losses, seconds = restore(path)
    begun = time.monotonic() - seconds
    while len(losses) * KEEP < steps:
        costs = []
        for step in range(len(losses) * KEEP, (len(losses) + 1) * KEEP):
            length = CONTEXT if step < (1 - STRETCH) * steps else model.positions
            chosen = np.random.default_rng((SEED, step)).choice(begins[length], BATCH // length)
            sequences = text.sequences(tokens, chosen, length)
            weights, means, squares, cost = update(weights, means, squares, step, sequences)
            costs.append(cost)
        losses.append(round(float(np.mean(costs)), 4))
        seconds = time.monotonic() - begun
        keep(path, weights, means, squares, losses, seconds)
        print(f"step {len(losses) * KEEP} of {steps}: {losses[-1]:.4f} nats a byte, {seconds:.0f} s", flush=True)
    return {name: np.asarray(array) for name, array in weights.items()}, losses, seconds


def keep(path, weights, means, squares, losses, seconds):
    """Write the state of a training to a file, at once or not at all."""
    parts = {"weights": weights, "means": means, "squares": squares}
    arrays = {f"{part} {name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, losses=losses, seconds=seconds, **arrays)
    os.replace(unfinished, path)


def restore(path):
    """What `keep` wrote."""
    found = np.load(path)
    parts = [{name.removeprefix(f"{part} "): found[name] for name in found.files if name.startswith(f"{part} ")}
             for part in ("weights", "means", "squares")]
    return *parts, found["losses"].tolist(), float(found["seconds"])


def write(folder, model, weights):
    """A checkpoint in BF16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": model.vocabulary,
        "hidden_size": model.hidden, "intermediate_size": model.intermediate, "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads, "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim,
        "max_position_embeddings": model.positions, "rms_norm_eps": model.epsilon, "rope_theta": model.rope.theta,
        "hidden_act": "silu", "tie_word_embeddings": model.tied, "bos_token_id": text.BOS, "eos_token_id": text.EOS,
        "torch_dtype": "bfloat16"}, indent=2) + "\n")
    save_file({name: array.astype(bfloat16) for name, array in weights.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})


def report(folder, name, losses, seconds):
    """How a checkpoint came about, and how good it is as it stands there."""
    found = checkpoint.read(folder)
    checks = text.held_out(found.model.positions)[::CHECK]
    measured = perplexity(Llama(found.model, found.values(np.float32), np.float32), checks)
    (folder / "training.json").write_text(json.dumps({
        "model": name,
        "parameters": found.model.parameters,
        "sha256": sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "text": f"standard library of Python {platform.python_version()}",
        "bytes": len(text.training()),
        "bytes_held_out": checks[:, 1:].size,
        "perplexity_held_out": round(measured, 4),
        "steps": len(losses) * KEEP,
        "tokens_a_step": BATCH,
        "context": [CONTEXT, found.model.positions],
        "seconds": round(seconds),
        "losses": losses}, indent=1) + "\n")
    print(f"{folder}: perplexity {measured:.3f} a byte on text held out")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--state", type=Path, metavar="FILE", help="default: build/MODEL.npz")
    parser.add_argument("--steps", type=int, help="other than the model's own")
    options = parser.parse_args(argv)
    model, steps = MODELS[options.model]
    state = options.state or Path("build") / f"{options.model}.npz"
    state.parent.mkdir(parents=True, exist_ok=True)
    weights, losses, seconds = train(model, options.steps or steps, state)
    write(options.out, model, weights)
    report(options.out, options.model, losses, seconds)


if __name__ == "__main__":
    main()
