# SPDX-License-Identifier: Apache-2.0
"""A checkpoint becomes files for a host of a tile: image of memory, programs, registers, and a manifest.

    scripts/compile.py --out build/model
    scripts/compile.py --checkpoint FOLDER --config configs/large.toml --weights mxfp4 --batch 8 --out build/model
"""

import argparse
import sys
from pathlib import Path

from golden import config
from golden.config import ConfigError
from sw.compiler import manifest
from sw.compiler.checkpoint import CheckpointError, read
from sw.compiler.layout import Layout, ModelError, fit
from sw.compiler.weights import FORMATS_OF_WEIGHTS


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=Path, default=Path("configs/models/base-1m"), metavar="FOLDER",
        help="config.json and safetensors (default: our own model of a million weights)")
    add("--config", type=Path, default=Path("configs/small.toml"), metavar="FILE",
        help="chip (default: configs/small.toml); its KV cache and formats are made to fit the model")
    add("--weights", default="fp8", choices=FORMATS_OF_WEIGHTS, help="format of weights (default: fp8)")
    add("--batch", type=int, default=1, metavar="N", help="sequences that are decoded together (default: 1)")
    add("--out", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    try:
        checkpoint = read(arguments.checkpoint)
        layout = Layout(checkpoint, fit(config.load(arguments.config), checkpoint.model, arguments.weights),
                        arguments.weights)
        found = manifest.write(arguments.out, layout, arguments.batch)
    except (CheckpointError, ConfigError, ModelError, OSError) as error:
        sys.exit(f"compile: {error}")
    print(f"{arguments.out}: {found['memory']['bytes']:,} bytes of memory, weights in {found['weights']}")
    for name, program in found["programs"].items():
        cycles = ", ".join(f"{cycles:,} at context {context}" for context, cycles in program.get("cycles", {}).items())
        print(f"  {name}.bin: {program['instructions']} instructions" + (f"; cycles: {cycles}" if cycles else ""))


if __name__ == "__main__":
    main()
