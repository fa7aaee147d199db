# SPDX-License-Identifier: Apache-2.0
"""Generate Verilog with its ports, file list and FuseSoC core.

    scripts/generate.py --config configs/small.toml --out build/small
    scripts/generate.py --block pe --config configs/small.toml --out build/pe --one-file
    scripts/generate.py --block hw.stream:Queue --with shape=8 depth=4 --out build/queue
"""

import argparse
import json
import sys
import time
from pathlib import Path

from hw.emit import Verilog
from scripts import blocks


def main(argv=None):
    parser = argparse.ArgumentParser(description=f"{__doc__}\n{blocks.HELP}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    blocks.add_arguments(parser, default="engine")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made when missing")
    parser.add_argument("--name", help="name of the file list and core (default: the top module)")
    parser.add_argument("--one-file", action="store_true", help="one .sv in place of one a module")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    arguments = parser.parse_args(argv)
    try:
        made = generate(arguments)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"generate: {error}")
    if arguments.json:
        print(json.dumps(made, indent=1))
    else:
        print(f"{made['top']}: {len(made['modules'])} modules in {made['cpu_s']:.1f} s of CPU")
        print("\n".join(made["files"]))


def generate(arguments):
    start = time.process_time()

    def progress(module):
        print(f"  {time.process_time() - start:6.1f} s  {module}", file=sys.stderr, flush=True)

    verilog = Verilog(blocks.block_from(arguments), progress=progress)
    files = verilog.write(arguments.out, arguments.name, split=not arguments.one_file)
    return {
        "top": verilog.tops[0],
        "modules": list(verilog.modules),
        "files": [str(file) for file in files],
        "cpu_s": round(time.process_time() - start, 3),
    }


if __name__ == "__main__":
    main()
