# SPDX-License-Identifier: Apache-2.0
"""Our reading of checkpoints against Hugging Face transformers: `pip install -e .[hf]` first.

    scripts/check_transformers.py

Transformers writes random checkpoints of every family, in odd shapes, and computes logits of a prompt in float64. Read
by our compiler, golden gives the same.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from golden.llama import Llama
from sw.compiler import checkpoint

PROMPT, ALLOWED, SEED = 40, 1e-4, 0         # tokens, largest difference of a logit
PLAIN = {"vocab_size": 101, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
LLAMA_3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 64}
CASES = {
    "llama": [
        {}, {"tie_word_embeddings": True, "num_key_value_heads": 1}, {"head_dim": 20, "intermediate_size": 171},
        {"rope_parameters": LLAMA_3, "dtype": "bfloat16"},
        {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 5, "rms_norm_eps": 1e-2}],
    "qwen2": [
        {}, {"tie_word_embeddings": True, "intermediate_size": 77, "num_attention_heads": 6, "num_key_value_heads": 3},
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
        {"rope_parameters": LLAMA_3 | {"factor": 32.0}, "dtype": "bfloat16"}],
    "qwen3": [
        {"head_dim": 12}, {"head_dim": 32, "tie_word_embeddings": True, "num_key_value_heads": 4},
        {"head_dim": 6, "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 2},
        {"head_dim": 16, "intermediate_size": 33, "hidden_size": 20, "rope_parameters": LLAMA_3, "dtype": "bfloat16"}],
    "mistral": [
        {"sliding_window": 5}, {"sliding_window": None, "head_dim": 10, "intermediate_size": 99},
        {"sliding_window": 39, "tie_word_embeddings": True}, {"sliding_window": 1, "num_key_value_heads": 1}],
}
"""By `model_type`, what differs from `PLAIN`."""


def difference(family, changes, folder):
    """The largest difference of a logit, and the spread of logits."""
    config = AutoConfig.for_model(family, **PLAIN | changes, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():       # as they begin, norms and biases do nothing
            weight += torch.randn_like(weight) * (0.3 if weight.ndim == 1 else weight.shape[-1] ** -0.5)
    model.save_pretrained(folder, max_shard_size="60KB")
    tokens = np.random.default_rng(SEED).integers(0, config.vocab_size, PROMPT)
    with torch.no_grad():
        wanted = model.double()(torch.tensor(tokens[None])).logits[0].numpy()
    found = checkpoint.read(folder)
    return np.abs(Llama(found.model, found.values())(tokens) - wanted).max(), wanted.std()


def main():
    disable_progress_bar()
    torch.manual_seed(SEED)
    worst = 0.0
    for family, several in CASES.items():
        for changes in several:
            with TemporaryDirectory() as folder:
                error, spread = difference(family, changes, Path(folder))
            worst = max(worst, error)
            print(f"{family:8}  largest difference {error:.1e}, logits' spread {spread:.2f}  {changes}", flush=True)
    if not worst <= ALLOWED:
        sys.exit(f"check_transformers: {worst:.1e} is more than {ALLOWED:.0e}")


if __name__ == "__main__":
    main()
