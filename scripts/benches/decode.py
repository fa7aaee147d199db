# SPDX-License-Identifier: Apache-2.0
"""Figures of a tile that reads prompts and decodes, on the simulated RTL: how busy memory and array are, how many
tokens come, and whether the compiler has said so before."""

import contextlib
import sys

import numpy as np

from golden.config import load
from golden.isa import Engine
from hw.flow.figures import figure
from sim.dram import sequential
from sim.run import ROOT
from sim.tile import Rtl
from sim.timeline import programs
from sw import text
from sw.compiler.checkpoint import read
from sw.compiler.cycles import busy
from sw.compiler.layout import Layout, fit
from sw.compiler.program import Shape
from sw.runtime.runtime import Runtime

__all__ = ["measure", "useful"]

CHIP, MODEL = ROOT / "configs" / "small.toml", ROOT / "configs" / "models" / "base-1m"
CONTEXT = 128           # tokens
STEPS = 4               # of which the last two are looked at
PROMPT = 256            # tokens
TRACE = ROOT / "build" / "decode.events"


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
    yield from _prefill()


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
        device.trace(TRACE)
        runtime._run(Shape(sequences=batch, steps=STEPS), tokens, "decode")
        device.trace()
        results = [layout.at["results"] + n * batch * layout.result_pitch for n in range(STEPS)]
        when = {each.address: each for each in device.written()}
        before, after = (when[results[n]] for n in (STEPS - 2, STEPS - 1))
        device.close()
    ran = runtime.runs[-1]
    cycles, case = after.cycle - before.cycle, f"{memory}.{'' if weights == 'fp8' else weights + '.'}b{batch}"
    yield figure(f"decode.cycles.{case}", cycles, "cycles", f"a {_how()}")
    beats = sum(after.read) - sum(before.read)
    yield figure(f"decode.beats.{case}", 100 * beats / cycles, "%", f"of cycles bring a beat; a {_how()}")
    if not dram:
        yield _predicted(f"decode.{case}", [ran])
        yield from _bubbles(programs(TRACE, device.programs)[-1], case)
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


def _prefill():
    """A prompt as long as a page."""
    with contextlib.redirect_stdout(sys.stderr):
        checkpoint = read(MODEL)
        layout = Layout(checkpoint, fit(load(CHIP), checkpoint.model))
        device = Rtl(layout)
        runtime = Runtime(layout, device)
        device.trace(TRACE)
        runtime.prefill(0, next(iter(text.held_out(PROMPT)))[:PROMPT].astype(int))
        device.trace()
        device.close()
    ran = [each for each in programs(TRACE, device.programs) if each.macs]
    how = f"{PROMPT} tokens, 1M model on configs/small.toml, RTL"
    least = sum(each.macs for each in ran) / layout.chip.matmul.macs
    gemms = sum(busy(each.spans, Engine.MATMUL) for each in ran)
    whole = sum(run.cycles for run in runtime.runs)
    yield figure("prefill.cycles", whole, "cycles", how)
    yield figure("prefill.gemm", 100 * least / gemms, "%", f"of peak products while there are GEMMs; {how}", 95, ">=")
    yield figure("prefill.roofline", 100 * least / whole, "%", f"of peak products in all; {how}")
    for engine in Engine.VECTOR, Engine.HEADS:
        share = 100 * sum(busy(each.spans, engine) for each in ran) / whole
        yield figure(f"prefill.{engine.name.lower()}", share, "%", f"of cycles the engine is busy; {how}")
    yield _predicted("prefill", runtime.runs)


def _predicted(case, runs):
    """By how much the compiler was wrong."""
    cycles, predicted = (sum(getattr(run, what) for run in runs) for what in ("cycles", "predicted"))
    return figure(f"{case}.predicted", 100 * abs(predicted / cycles - 1), "%",
                  "that the manifest's cycles differ from the RTL's, programs as a whole", 2, "<=")


def _bubbles(program, case):
    """Share of a program in which an engine has nothing to do."""
    for engine in Engine.MATMUL, Engine.VECTOR, Engine.HEADS:
        share = 100 * (1 - busy(program.spans, engine) / program.cycles)
        yield figure(f"decode.idle.{engine.name.lower()}.{case}", share, "%", f"of cycles; a {_how()}")
