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
from sim.tile import Rtl
from sw import text
from sw.compiler.checkpoint import CheckpointError, read
from sw.compiler.layout import Layout, ModelError, fit
from sw.compiler.weights import FORMATS_OF_WEIGHTS
from sw.runtime.device import DeviceError, Golden
from sw.runtime.runtime import Runtime, Sampling, check

PROMPT = "def read(self, path):\n    "


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
        write(console, layout, prompts, arguments.tokens, sampling, arguments.backend == "rtl", arguments.dram)
    except (CheckpointError, ConfigError, ModelError, DeviceError, ValueError, OSError) as error:
        sys.exit(f"run: {error}")


def write(console, layout, prompts, count, sampling, simulated, dram):
    """Write what follows some prompts, and say what it took."""
    check(layout, prompts, count)
    checkpoint, model, device = layout.checkpoint, layout.model, Golden(layout)
    if simulated:
        console.print("Verilog and a model of it: minutes, the first time")
        device = Rtl(layout, dram=dram)
    console.print(f"[bold]{model.parameters:,} weights[/], {model.layers} layers, in {layout.scheme.title}; "
                  f"{layout.image.nbytes:,} bytes of memory")
    shows = model.vocabulary == text.VOCABULARY
    runtime, began = Runtime(layout, device), time.monotonic()
    found, logits = [[] for _ in prompts], [[] for _ in prompts]
    for number, token, row in runtime.generate(prompts, count, sampling=sampling, stop=checkpoint.eos,
                                               keep_logits=True):
        found[number].append(token)
        logits[number].append(row)
        if len(prompts) == 1:
            if len(found[0]) == 1 and shows:
                console.print(Text(text.decode(prompts[0]), style="dim"), end="")
            console.print(text.decode([token]) if shows else f"{token} ", end="", markup=False)
    console.print()
    if len(prompts) > 1:
        for prompt, tokens in zip(prompts, found, strict=True):
            console.print(Text(text.decode(prompt) if shows else str(prompt), style="dim"), end="")
            console.print(text.decode(tokens) if shows else tokens, markup=False)
    console.print(f"{sum(map(len, found))} tokens in {time.monotonic() - began:.1f} s")
    console.print(agreement(checkpoint, prompts, found, logits))
    if not simulated:
        console.print(events(device.tile.events, sum(map(len, found)), "what took place"))
        return
    console.print(events(device.counters, sum(map(len, found)), "cycles and beats"))
    device.close()
    wanted = Runtime(layout, Golden(layout)).generate(prompts, count, sampling=sampling, stop=checkpoint.eos,
                                                      keep_logits=True)
    equal(wanted, found, logits)
    console.print("Every bit of every logit is that of the reference.")


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
    """How far the tile's logits are from those of the model in float32, given the same tokens."""
    llama, table = Llama(checkpoint.model, checkpoint.values(np.float32), np.float32), Table(box=None)
    for name in "prompt", "tokens", "the model in float32 would say the same", "error of logits, rms":
        table.add_column(name, justify="right")
    for number, (prompt, tokens, rows) in enumerate(zip(prompts, found, logits, strict=True)):
        wanted = llama(np.append(prompt, tokens[:-1]).astype(int))[len(prompt) - 1:]
        same, rows = wanted.argmax(-1) == tokens, np.stack(rows)
        error = np.sqrt(((rows - wanted) ** 2).mean() / (wanted ** 2).mean())
        table.add_row(str(number), str(len(tokens)), f"{same.mean():.0%}", f"{error:.2%}")
    return table


def events(counted, tokens, title):
    """What was counted, for each token."""
    table = Table(box=None)
    table.add_column(title)
    table.add_column("a token", justify="right")
    for name, count in sorted(counted.items()):
        if count:
            table.add_row(name.replace("_", " "), f"{count / tokens:,.0f}")
    return table


if __name__ == "__main__":
    main()
