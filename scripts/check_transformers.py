# SPDX-License-Identifier: Apache-2.0
"""Our reading of checkpoints against Hugging Face transformers: `pip install -e .[hf]` first.

    scripts/check_transformers.py
    scripts/check_transformers.py --rtl             # each on a simulated tile as well: half an hour

Transformers writes random checkpoints of every family, in odd shapes, and computes logits of a prompt in float64. Read
by our compiler, golden gives the same. On the tile, with weights and KV cache in FP8, each writes some tokens, whose
logits are those of the reference bit by bit.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from golden.config import load
from golden.llama import Llama
from scripts.run import equal
from sim.run import ROOT
from sim.tile import Rtl
from sw.compiler import checkpoint
from sw.compiler.layout import Layout, fit
from sw.runtime.device import Golden
from sw.runtime.runtime import Runtime

CHIP = ROOT / "configs" / "nano.toml"
TOKENS = 4                                  # on the tile
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
    """The largest difference of a logit, the spread of logits, and the checkpoint as we read it."""
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
    return np.abs(Llama(found.model, found.values())(tokens) - wanted).max(), wanted.std(), found


def on_rtl(found):
    """Error of logits, rms, of some tokens on the simulated tile, whose every bit is the reference's."""
    layout = Layout(found, fit(load(CHIP), found.model))
    prompt, device = np.random.default_rng(SEED).integers(0, found.model.vocabulary, PROMPT), Rtl(layout)
    steps = list(Runtime(layout, device).generate([prompt], TOKENS, keep_logits=True))
    device.close()
    tokens, logits = [token for _, token, _ in steps], [row for _, _, row in steps]
    equal(Runtime(layout, Golden(layout)).generate([prompt], TOKENS, keep_logits=True), [tokens], [logits])
    wanted = Llama(found.model, found.values())(np.append(prompt, tokens[:-1]))[PROMPT - 1:]
    return np.sqrt(((np.stack(logits) - wanted) ** 2).mean() / (wanted ** 2).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtl", action="store_true", help="write some tokens on a simulated tile as well")
    simulated = parser.parse_args().rtl
    disable_progress_bar()
    torch.manual_seed(SEED)
    worst = 0.0
    for family, several in CASES.items():
        for changes in several:
            with TemporaryDirectory() as folder:
                error, spread, found = difference(family, changes, Path(folder))
                tile = f", on the tile in FP8 {on_rtl(found):.1%} rms" if simulated else ""
            worst = max(worst, error)
            print(f"{family:8}  largest difference {error:.1e}, logits' spread {spread:.2f}{tile}  {changes}",
                  flush=True)
    if not worst <= ALLOWED:
        sys.exit(f"check_transformers: {worst:.1e} is more than {ALLOWED:.0e}")


if __name__ == "__main__":
    main()
