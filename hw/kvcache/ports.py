# SPDX-License-Identifier: Apache-2.0
"""What crosses the KV-cache controller's ports, besides the words of `golden.paging`."""

from amaranth.lib import data

__all__ = ["COMMAND", "OPERAND", "completion", "event", "move", "range_"]

COMMAND = 128       # bits of a command
OPERAND = 64        # bits of a hash or a block that follows


def completion():
    """One for each command, in order."""
    return data.StructLayout({"tag": 8, "status": 8, "payload": 48})


def event(config):
    """A block was cached, or is no longer; `kind` is a `golden.paging.Event`."""
    return data.StructLayout({"kind": 2, "block": range(config.blocks), "tenant": config.tenant_bits,
                              "hash": config.hash_bits})


def move(config):
    """The first `slots` of a block are to be copied; `kind`, a `golden.paging.Move`, says which end is a host's."""
    return data.StructLayout({"kind": 2, "source": 32, "target": 32, "slots": range(config.block_tokens + 1)})


def range_(config):
    """Slots to read or, with `write`, to write, of one block.

    A read is of one head; it `opens` or `closes` what is read of that. A write is of all heads. `end` is the
    last of its command.
    """
    return data.StructLayout({
        "block": range(config.blocks), "first": range(config.block_tokens), "slots": range(config.block_tokens + 1),
        "write": 1, "end": 1, "opens": 1, "closes": 1, "sid": range(max(config.sequences, 2)),
        "layer": range(config.layers), "head": range(config.kv_heads)})
