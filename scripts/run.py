# SPDX-License-Identifier: Apache-2.0
"""A language model writes: a checkpoint's tokens, on a generated tile or on its reference.

The checkpoint is one of Hugging Face's, as it is: Llama, Qwen2, Qwen3 or Mistral. It is quantized, laid out in the
tile's memory, and compiled to programs that the tile runs, token after token, with no host in between.

    scripts/run.py --prompt "def read(self, path):"
    scripts/run.py --checkpoint configs/models/tiny-100k --weights mxfp4 --prompt "class " --prompt "import "
    scripts/run.py --checkpoint FOLDER --ids 1 42 7
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from golden import config
from golden.config import ConfigError
from golden.llama import Llama
from scripts.energy import activity
from scripts.report import language
from sim.tile import Rtl
from sim.timeline import perfetto, programs
from sw import text
from sw.compiler.checkpoint import CheckpointError, read
from sw.compiler.layout import Layout, ModelError, fit
from sw.compiler.weights import FORMATS_OF_WEIGHTS
from sw.runtime.device import DeviceError, Golden
from sw.runtime.runtime import Runtime, Sampling, check

PROMPT = "def read(self, path):\n    "
STREAMED = 4            # tokens of a program: so many are shown at a time
HEADER = "prompt", "tokens", "the model in float32 would say the same", "error of logits, rms"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=Path, default=Path("configs/models/base-1m"), metavar="FOLDER",
        help="config.json and safetensors (default: our own model of a million weights)")
    add("--config", type=Path, default=Path("configs/small.toml"), metavar="FILE",
        help="chip (default: configs/small.toml); its KV cache and formats are made to fit the model")
    add("--prompt", action="append", metavar="TEXT", help="of models whose tokens are bytes; several are a batch")
    add("--ids", action="append", nargs="+", type=int, metavar="TOKEN", help="a prompt in tokens")
    add("--tokens", type=int, default=32, metavar="N", help="to write, of each prompt (default: 32)")
    add("--backend", default="golden", choices=("golden", "rtl"),
        help="the reference, or the simulated tile, whose every logit is compared with the reference's")
    add("--out", type=Path, default=Path("build/run"), metavar="FOLDER",
        help="where report and trace of a simulated run go (default: build/run)")
    add("--dram", action="store_true", help="the simulated memory takes its time as a DRAM does")
    add("--weights", default="fp8", choices=FORMATS_OF_WEIGHTS, help="format of weights (default: fp8)")
    add("--temperature", type=float, default=0.0, help="0: the likeliest token (default)")
    add("--top-k", type=int, default=0, help="choose among so many")
    add("--top-p", type=float, default=1.0, help="choose among the likeliest that make up so much")
    add("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    console = Console(highlight=False)
    try:
        checkpoint, prompts = read(arguments.checkpoint), arguments.ids or []
        if arguments.prompt or not prompts:
            if checkpoint.model.vocabulary != text.VOCABULARY:
                raise ModelError(f"--prompt: needs a vocabulary of {text.VOCABULARY}, bytes and two more, not of "
                                 f"{checkpoint.model.vocabulary}; give --ids")
            prompts = [*prompts, *map(text.encode, arguments.prompt or [PROMPT])]
        sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
        layout = Layout(checkpoint, fit(config.load(arguments.config), checkpoint.model, arguments.weights),
                        arguments.weights)
        given = console, layout, prompts, arguments.tokens, sampling
        if arguments.backend == "rtl":
            simulate(*given, arguments.dram, arguments.out)
        else:
            write(*given)
    except (CheckpointError, ConfigError, ModelError, DeviceError, ValueError, OSError) as error:
        sys.exit(f"run: {error}")


def write(console, layout, prompts, count, sampling):
    """Write what follows some prompts on the reference, and say what it took."""
    check(layout, prompts, count)
    device = Golden(layout)
    runtime, began = Runtime(layout, device), time.monotonic()
    found, logits = stream(console, runtime, prompts, count, sampling)
    tokens = sum(map(len, found))
    console.print(f"{tokens} tokens in {time.monotonic() - began:.1f} s; on the tile "
                  f"{sum(run.predicted for run in runtime.runs) / tokens:,.0f} cycles each, as the compiler predicts")
    console.print(table(HEADER, agreement(layout.checkpoint, prompts, found, logits)))
    console.print(table(("what took place", "a token"), per_token(device.tile.events, tokens)))


def simulate(console, layout, prompts, count, sampling, dram, folder):
    """The same on the simulated tile, every logit compared with the reference's, with a report and a trace."""
    check(layout, prompts, count)
    console.print("Verilog and a model of it: minutes, the first time")
    device, trace, began = Rtl(layout, dram=dram), folder / "events", time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    device.trace(trace)
    runtime = Runtime(layout, device, steps=STREAMED)
    found, logits = stream(console, runtime, prompts, count, sampling)
    device.trace()
    tokens, counters = sum(map(len, found)), device.counters
    device.close()
    console.print(f"{tokens} tokens in {time.monotonic() - began:.0f} s")

    reference = Golden(layout)
    equal(Runtime(layout, reference, steps=STREAMED).generate(
        prompts, count, sampling=sampling, stop=layout.checkpoint.eos, keep_logits=True), found, logits)
    console.print("[bold]Every bit of every logit is that of the reference.[/]")

    images = device.programs
    ran = [program for program in programs(trace, images) if program.macs]
    compared, shows = [*agreement(layout.checkpoint, prompts, found, logits)], speaks(layout)
    written = language.Written(
        layout, [(show(prompt, shows), show(answer, shows)) for prompt, answer in zip(prompts, found, strict=True)],
        tokens, runtime.runs, ran, counters,
        activity(layout.chip, counters, reference.tile.events,
                 (span.instruction for program in ran for span in program.spans)), compared)
    console.print(table(("", "programs", "cycles", "predicted", "off by", "memory beats", "array's products"), (
        (kind, str(len(written.of(kind))), f"{written.cycles(kind):,}", f"{written.predicted(kind):,}",
         f"{written.error(kind):+.2%}", f"{written.beats(kind):.1%}", f"{written.use(kind):.1%}")
        for kind in written.kinds)))
    console.print(table(HEADER, compared))
    console.print(table(("cycles and beats", "a token"), per_token(counters, tokens)))
    console.print(table(("energy, an estimate", "µJ a token"), (
        (engine, f"{pj / tokens / 1e6:,.3f}") for engine, pj in written.energy.most_common())))
    perfetto(folder / "trace.json", trace, ran)
    console.print(f"Report: {language.write(folder / 'report.html', written)}; "
                  f"trace for ui.perfetto.dev: {folder / 'trace.json'}")


def stream(console, runtime, prompts, count, sampling):
    """Write, and show a single prompt's tokens as they come, several prompts' at the end.

    Returns
    -------
    tokens : list of list of int
    logits : list of list of array
    """
    layout = runtime.layout
    model, shows, single = layout.model, speaks(layout), len(prompts) == 1
    console.print(f"[bold]{model.parameters:,} weights[/], {model.layers} layers, in {layout.scheme.title}; "
                  f"{layout.image.nbytes:,} bytes of memory")
    found, logits = [[] for _ in prompts], [[] for _ in prompts]
    if single:
        console.print(Text(show(prompts[0], shows), style="dim"), end="")
    for number, token, row in runtime.generate(prompts, count, sampling=sampling, stop=layout.checkpoint.eos,
                                               keep_logits=True):
        found[number].append(token)
        logits[number].append(row)
        if single:
            console.print(show([token], shows), end="", markup=False)
    console.print()
    for prompt, tokens in () if single else zip(prompts, found, strict=True):
        console.print(Text(show(prompt, shows), style="dim"), end="")
        console.print(show(tokens, shows), markup=False)
    return found, logits


def speaks(layout):
    """Whether tokens are bytes."""
    return layout.model.vocabulary == text.VOCABULARY


def show(tokens, shows):
    return text.decode(tokens) if shows else " ".join(map(str, tokens)) + " "


def equal(wanted, found, logits):
    """Compare tokens and logits with those of the reference.

    Raises
    ------
    DeviceError
    """
    places = [0] * len(found)
    for number, token, row in wanted:
        at = places[number]
        places[number] += 1
        if found[number][at] != token or (logits[number][at].view(np.uint32) != row.view(np.uint32)).any():
            raise DeviceError(f"token {at} of prompt {number} differs from the reference's")


def agreement(checkpoint, prompts, found, logits):
    """How far the logits are from those of the model in float32, given the same tokens: a line each, as `HEADER`."""
    llama = Llama(checkpoint.model, checkpoint.values(np.float32), np.float32)
    for number, (prompt, tokens, rows) in enumerate(zip(prompts, found, logits, strict=True)):
        wanted = llama(np.append(prompt, tokens[:-1]).astype(int))[len(prompt) - 1:]
        same, rows = wanted.argmax(-1) == tokens, np.stack(rows)
        error = np.sqrt(((rows - wanted) ** 2).mean() / (wanted ** 2).mean())
        yield str(number), str(len(tokens)), f"{same.mean():.0%}", f"{error:.2%}"


def per_token(counted, tokens):
    """What was counted, for each token."""
    return ((name.replace("_", " "), f"{count / tokens:,.0f}") for name, count in sorted(counted.items()) if count)


def table(header, lines):
    """A table of words."""
    found = Table(box=None)
    for name, side in zip(header, ("left", *["right"] * len(header)), strict=False):
        found.add_column(name, justify=side)
    for line in lines:
        found.add_row(*line)
    return found


if __name__ == "__main__":
    main()
