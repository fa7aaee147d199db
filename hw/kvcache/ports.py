# SPDX-License-Identifier: Apache-2.0
"""What crosses the ports of the KV cache and of its parts, besides the words of `golden.paging`."""

from amaranth.lib import data

__all__ = ["COMMAND", "OPERAND", "beat", "completion", "copy", "done", "event", "fault", "move", "range_", "read",
           "segment", "write"]

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
        "block": range(config.blocks), "first": config.slots, "slots": range(config.block_tokens + 1),
        "write": 1, "end": 1, "opens": 1, "closes": 1, "sid": range(max(config.sequences, 2)),
        "layer": range(config.layers), "head": range(config.kv_heads)})


def segment(config):
    """Numbers of segments, in the pool or in host memory."""
    return range(max(config.blocks, config.host_blocks) * config.segments)


def read(config):
    """Slots of a segment that are to be read, with the tags of `range_`."""
    return data.StructLayout({
        "segment": segment(config), "first": config.slots, "slots": range(config.block_tokens + 1),
        "end": 1, "opens": 1, "closes": 1, "sid": range(max(config.sequences, 2)), "head": range(config.kv_heads),
        "entry": range(config.transfers)})


def write(config):
    """Slots that are to be written, of all heads of a layer; `segment` is that of the first head."""
    return data.StructLayout({
        "segment": segment(config), "first": config.slots, "slots": range(config.block_tokens + 1),
        "entry": range(config.transfers)})


def copy(config):
    """A `move`, its blocks named by their first segments."""
    return data.StructLayout({
        "kind": 2, "source": segment(config), "target": segment(config), "slots": range(config.block_tokens + 1),
        "source_entry": range(config.transfers), "target_entry": range(config.transfers)})


def done(config):
    """An entry of the dispatcher, `tag`, is done; `status`, a `golden.paging.Status`, says how it went."""
    return data.StructLayout({"valid": 1, "tag": range(config.transfers), "status": 8})


def fault():
    """A transfer that failed: of which sequence, reading or writing which block or slot of host memory."""
    return data.StructLayout({"status": 8, "sid": 16, "place": 32, "host": 1, "write": 1})


def beat(config):
    """A beat of a stream; `part` is a `golden.paging.Part`, `first` and `last` are of a head, `end` of all."""
    return data.StructLayout({
        "data": 8 * config.beat, "part": 2, "slot": config.slots, "head": range(config.kv_heads),
        "sid": range(max(config.sequences, 2)), "first": 1, "last": 1, "end": 1, "error": 1})
