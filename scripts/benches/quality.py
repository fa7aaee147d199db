# SPDX-License-Identifier: Apache-2.0
"""What formats cost: perplexity of our model of a million weights on text held out, on the reference of a tile, whose
every bit is the RTL's."""

import numpy as np

from golden.config import load
from golden.llama import Llama, perplexity
from hw.flow.figures import figure
from sim.run import ROOT
from sw import text
from sw.compiler.checkpoint import read
from sw.compiler.layout import Layout, fit
from sw.compiler.weights import FORMATS_OF_WEIGHTS
from sw.runtime.device import Golden
from sw.runtime.runtime import Runtime

__all__ = ["measure"]

CHIP, MODEL = ROOT / "configs" / "small.toml", ROOT / "configs" / "models" / "base-1m"
LENGTH = 256            # tokens of a sequence
GOALS = {"fp8": 1.0}    # % beyond float32


def measure(quick, library):
    """All figures, one by one; `quick` looks at a few sequences."""
    checkpoint = read(MODEL)
    sequences = text.held_out(LENGTH)
    sequences = sequences[::max(len(sequences) // (4 if quick else 32), 1)][:4 if quick else 32].astype(int)
    how = f"{len(sequences)} sequences of {LENGTH} bytes held out, 1M model on configs/small.toml"
    exact = perplexity(Llama(checkpoint.model, checkpoint.values(np.float32), np.float32), sequences)
    yield figure("quality.float32", exact, "perplexity", f"of a byte; {how}")
    for weights, scheme in FORMATS_OF_WEIGHTS.items():
        layout = Layout(checkpoint, fit(load(CHIP), checkpoint.model, weights), weights)
        found = perplexity(Runtime(layout, Golden(layout)).logits, sequences)
        yield figure(f"quality.{weights}", 100 * (found / exact - 1), "%",
                     f"more perplexity than float32's, weights in {scheme.title}, KV cache in FP8; {how}",
                     GOALS.get(weights), "<=")
