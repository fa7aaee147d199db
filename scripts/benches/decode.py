# SPDX-License-Identifier: Apache-2.0
"""Figures of a tile that decodes: how busy the memory is, and how many tokens come, on the simulated RTL."""

import contextlib
import sys

import numpy as np

from golden.config import load
from hw.flow.figures import figure
from sim.dram import sequential
from sim.run import ROOT
from sim.tile import Rtl
from sw import text
from sw.compiler.checkpoint import read
from sw.compiler.layout import Layout, fit
from sw.compiler.program import Shape
from sw.runtime.runtime import Runtime

__all__ = ["measure", "useful"]

CHIP, MODEL = ROOT / "configs" / "small.toml", ROOT / "configs" / "models" / "base-1m"
CONTEXT = 128           # tokens
STEPS = 4               # of which the last two are looked at


def measure(quick, library):
    """All figures, one by one; `quick` leaves out batches, other formats and DRAM."""
    ideal, _ = yield from _decode("ideal", "fp8", 1)
    if quick:
        return
    yield from _decode("dram", "fp8", 1, dram=True)
    four, _ = yield from _decode("ideal", "mxfp4", 1)
    yield figure("decode.mxfp4", ideal / four, "x", f"tokens a cycle of MXFP4 weights over FP8, {_how()}", 1.6, ">=")
    many, _ = yield from _decode("ideal", "fp8", 8, context=16)
    yield figure("decode.batch8", 8 * ideal / many, "x", f"tokens a cycle of 8 sequences over 1, {_how()}", 6, ">=")


def useful(layout, context):
    """Bytes that a token needs, each once: weights, scales, norms, its embedding, and keys and values of its context,
    the new ones included."""
    model, checkpoint, scheme = layout.model, layout.checkpoint, layout.scheme
    kv = layout.chip.kvcache
    width = {"e4m3": 8, "int8": 8, "bf16": 16, "e2m1": 4}[scheme.w_format]
    total = 2 * model.hidden                                                    # embedding, in BF16
    for name, shape in model.shapes.items():
        count = int(np.prod(shape))
        if len(shape) == 1:
            total += 4 * count                                                  # norms and biases, in FP32
        elif name != "model.embed_tokens.weight" or model.tied:
            total += count * width // 8 + (4 * shape[0] if scheme.scales == "vector" else 0)
            total += -(-shape[1] // 32) * shape[0] if scheme.scales == "block" else 0
    assert checkpoint.model is model
    row = model.head_dim * (1 if kv.format == "fp8" else 2) + (2 if kv.format == "fp8" else 0)
    return total + 2 * model.layers * model.kv_heads * row * (context + 1)


def _how():
    return "steady token at context 128, 1M model on configs/small.toml, RTL"


def _decode(memory, weights, batch, dram=False, context=CONTEXT):
    """Cycles of a token, and its figures."""
    with contextlib.redirect_stdout(sys.stderr):
        checkpoint = read(MODEL)
        layout = Layout(checkpoint, fit(load(CHIP), checkpoint.model, weights), weights)
        device = Rtl(layout, dram=dram)
        runtime = Runtime(layout, device)
        prompt = next(iter(text.held_out(context)))[:context - STEPS + 1].astype(int)
        tokens = [runtime.prefill(sid, prompt)[0] for sid in range(batch)]
        device.written()
        runtime._run(Shape(sequences=batch, steps=STEPS), tokens, "decode")
        results = [layout.at["results"] + n * batch * layout.result_pitch for n in range(STEPS)]
        when = {each.address: each for each in device.written()}
        before, after = (when[results[n]] for n in (STEPS - 2, STEPS - 1))
        device.close()
    cycles, case = after.cycle - before.cycle, f"{memory}.{'' if weights == 'fp8' else weights + '.'}b{batch}"
    yield figure(f"decode.cycles.{case}", cycles, "cycles", f"a {_how()}")
    beats = sum(after.read) - sum(before.read)
    yield figure(f"decode.beats.{case}", 100 * beats / cycles, "%", f"of cycles bring a beat; a {_how()}")
    if batch == 1:
        channel, needed = layout.chip.memory.channel, useful(layout, context)
        share = 100 * needed / (cycles * channel)
        if dram:
            count = needed // channel
            linear = sequential(layout.chip.dram, channel, count, layout.chip.memory.burst, 64)
            share, goal = 100 * linear / cycles, 97
            how = f"of what a plain linear read of the bytes needed takes; a {_how()}"
        else:
            goal, how = 95, f"of cycles x channel bytes are bytes that the model needs, once; a {_how()}"
        yield figure(f"decode.bytes.{case}", share, "%", how, goal if weights == "fp8" else None, ">=")
    return cycles, device
