# SPDX-License-Identifier: Apache-2.0
"""Many tokens on the simulated tile, in all formats of weights: every bit of every logit is that of the reference.

The reference is given each prompt alone; on the tile some are in batches, whose sequences differ in length.

    scripts/tokens.py                                       # three hours of processor time
    scripts/tokens.py --tokens 8 --weights mxfp4 --prompts 17 1,17,200

Prompts are what our models have not learned from, so many bytes of it.
"""

import argparse
import sys
import time
from functools import cache
from pathlib import Path

from golden import config
from golden.config import ConfigError
from scripts.run import equal
from sim.tile import Rtl
from sw import text
from sw.compiler.checkpoint import CheckpointError, read
from sw.compiler.layout import Layout, ModelError, fit
from sw.compiler.weights import FORMATS_OF_WEIGHTS
from sw.runtime.device import DeviceError, Golden
from sw.runtime.runtime import Runtime

PROMPTS = "1", "17", "200", "1,17,200", "1,17,200,5,64,2,33,120"
SHORT = "int8", "bf16"      # of these a quarter of the tokens will do
MANY = 32                   # tokens of a prompt from which on a simulation pays that takes twice as long to make
HEADER = f"{'weights':8} {'bytes of prompts':24} {'tokens':>7} {'prefill':>10} {'a step':>10} {'seconds':>8}  logits"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=Path, default=Path("configs/models/base-1m"), metavar="FOLDER",
        help="one of our models (default: that of a million weights)")
    add("--config", type=Path, default=Path("configs/small.toml"), metavar="FILE",
        help="chip, made to fit the model (default: configs/small.toml)")
    add("--weights", nargs="+", default=list(FORMATS_OF_WEIGHTS), choices=FORMATS_OF_WEIGHTS, metavar="FORMAT",
        help=f"some of {config.words(FORMATS_OF_WEIGHTS)} (default: all)")
    add("--tokens", type=int, default=64, metavar="N",
        help=f"to write, of each prompt; a quarter of them with {' and '.join(SHORT)} (default: 64)")
    add("--prompts", nargs="+", default=PROMPTS, metavar="BYTES",
        help=f"lengths; those of a batch with commas (default: {' '.join(PROMPTS)})")
    arguments = parser.parse_args(argv)
    try:
        batches = [tuple(map(int, batch.split(","))) for batch in arguments.prompts]
        checkpoint, chip = read(arguments.checkpoint), config.load(arguments.config)
        print(HEADER)
        for form in arguments.weights:
            layout = Layout(checkpoint, fit(chip, checkpoint.model, form), form)
            count = max(arguments.tokens // 4, 1) if form in SHORT else arguments.tokens
            for line in write(layout, batches, count):
                print(f"{form:8} {line}", flush=True)
    except (CheckpointError, ConfigError, ModelError, DeviceError, ValueError, OSError) as error:
        sys.exit(f"tokens: {error}")


def write(layout, batches, count):
    """Write what follows batches of prompts of so many bytes; yield lines of what it took."""
    device, given = Rtl(layout, thorough=count >= MANY), text.held_out(layout.context)

    def prompt(length):
        return given[length % len(given)][:1 + length].astype(int)

    @cache
    def alone(length):
        """What the reference has to say."""
        return list(Runtime(layout, Golden(layout)).generate([prompt(length)], count, keep_logits=True))

    for lengths in batches:
        runtime, began = Runtime(layout, device), time.monotonic()
        found, logits = [[] for _ in lengths], [[] for _ in lengths]
        for number, token, row in runtime.generate([prompt(each) for each in lengths], count, keep_logits=True):
            found[number].append(token)
            logits[number].append(row)
        took = time.monotonic() - began
        equal(((number, *step) for number, each in enumerate(lengths) for _, *step in alone(each)), found, logits)
        prefill, decode = (sum(run.cycles for run in runtime.runs if run.kind == kind)
                           for kind in ("prefill", "decode"))
        yield (f"{','.join(map(str, lengths)):24} {len(lengths) * count:7} {prefill:10,} "
               f"{decode / max(count - 1, 1):10,.0f} {took:8.0f}  equal")
    device.close()


if __name__ == "__main__":
    main()
