# SPDX-License-Identifier: Apache-2.0
"""How command lines name a block: a part of a configured chip, or any class with its parameters."""

import ast
import importlib
from pathlib import Path

from golden import config
from hw.emit import Block

__all__ = ["APART", "HELP", "add_arguments", "block_from", "parts"]

MATMUL = ("engine", "array", "pe")
TILE = ("tile", "scratchpad", "channel", "sequencer", "load", "weights", "heads", "store")
NOC = {"network": "hw.noc.network:Network", "mesh": "hw.noc.mesh:Mesh", "router": "hw.noc.mesh:router",
       "interface": "hw.noc.interface:Interface"}
INSIDE = ("array_*", "drain_*", "kv_cache_*", "controller_*", "attention_*")     # of a tile's blocks, worth a line
APART = ("functions_*",)        # pipelines that mapping makes slow in the middle of a large unit
PARTS = (*MATMUL, "vector", "kvcache", *TILE, *NOC)
HELP = f"""\
--block is {', '.join((*MATMUL, "vector", "kvcache"))}, {', '.join(TILE)},
{', '.join(NOC)} of a configuration, or module:Class with the class's parameters after --with: Python
literals, plain words, or module:name for a named object."""


def add_arguments(parser, **block):
    """Add --block, --with and --config to an `argparse` parser; `block` goes to --block."""
    parser.add_argument("--block", metavar="NAME", help=f"{', '.join(PARTS)} or module:Class", **block)
    parser.add_argument("--with", dest="parameters", nargs="+", default=[], metavar="NAME=VALUE",
                        help="parameters of the class")
    parser.add_argument("--config", type=Path, metavar="FILE", help="chip configuration in TOML")


def block_from(arguments):
    """The block that the arguments name.

    Raises
    ------
    ValueError
        When they name none.
    """
    if arguments.block in PARTS:
        if not arguments.config:
            raise ValueError(f"--block {arguments.block} needs --config FILE")
        chip = config.load(arguments.config)
        if arguments.block == "vector":
            return _named("hw.vector.engine:Engine")(chip.vector)
        if arguments.block == "kvcache":
            return _named("hw.kvcache.controller:Controller")(chip.kvcache)
        if arguments.block in TILE:
            own = chip.kvcache.model_copy(update={"beat": chip.memory.channel})     # its way to memory is the tile's
            tile = _named("hw.tile.tile:Tile")(chip.model_copy(update={"kvcache": own}))
            return tile if arguments.block == "tile" else tile.parts[arguments.block]
        if arguments.block in NOC:
            return _named(NOC[arguments.block])(chip.noc)
        return _part(arguments.block, chip.matmul)
    if ":" not in arguments.block:
        raise ValueError(f"--block must be {', '.join(PARTS)} or module:Class, not {arguments.block!r}")
    parameters = {}
    for word in arguments.parameters:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"--with must be NAME=VALUE, not {word!r}")
        parameters[name] = _value(text)
    kind = _named(arguments.block)
    if not (isinstance(kind, type) and issubclass(kind, Block)):
        raise ValueError(f"--block {arguments.block}: not a Block")
    try:
        return kind(**parameters)
    except TypeError as error:
        raise ValueError(f"--block {arguments.block}: {error}") from None


def parts(block):
    """Patterns of the modules that are worth a line each: of a board or a tile its blocks, and some in them."""
    found = getattr(block, "parts", {}).values()
    return list(dict.fromkeys(name for part in found for name in (part.name, *parts(part), *INSIDE)))


def _part(name, of):
    """A part of the matmul engine of a configuration."""
    if name == "engine":
        return _named("hw.matmul.engine:Engine")(of)
    array = _named("hw.matmul.array:Array")(of.family, of.lanes, of.rows, of.cols, of.groups)
    return array if name == "array" else _named("hw.matmul.pe:PE")(of.family, of.lanes, array.width)


def _named(path):
    """The object that `module:name` or `module:name(literals)` means."""
    module, _, name = path.partition(":")
    name, _, arguments = name.partition("(")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return found(*ast.literal_eval(f"({arguments[:-1]},)")) if arguments else found


def _value(text):
    """A parameter as it stands on the command line."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return _named(text) if ":" in text else text
