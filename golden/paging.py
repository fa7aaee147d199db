# SPDX-License-Identifier: Apache-2.0
"""What a host and the KV-cache controller say to each other: the one description both are made from.

A command is a word of 128 bits: a header, then the arguments of its opcode, each from the lowest free
bit up. `LOOKUP` and `ATTACH` are followed by `count` operand words, one hash or block each. Every command
has one completion of 64 bits, in order: its tag, its status, and the payload that belongs to it.
"""

from dataclasses import dataclass, field
from enum import IntEnum

__all__ = ["ARGUMENTS", "COUNTERS", "CRC", "Command", "Completion", "Event", "HEADER", "LENGTH", "Move", "Opcode",
           "PAYLOADS", "Part", "SHORTFALL", "STAT", "State", "Status", "Table", "pack", "unpack"]

LENGTH = 20     # bits of a count of tokens
CRC = 0x2F      # of a row of FP8: CRC-8/AUTOSAR, x^8 + x^5 + x^3 + x^2 + x + 1; begins with 0xFF, ends inverted


class Opcode(IntEnum):
    """What the host asks for."""

    ALLOC_SEQ = 1       # open a sequence
    LOOKUP = 2          # the longest run of cached blocks for a chain of hashes
    ATTACH = 3          # map cached blocks at the end of a sequence, and append tokens in the same step
    APPEND = 4          # reserve slots for tokens
    COMMIT = 5          # cache a full block under a hash
    FORK = 6            # a second sequence on the same blocks
    STREAM = 7          # read slots in the order of attention
    WRITE = 8           # write slots of one layer that were reserved
    TRUNCATE = 9        # drop tokens from the end
    WINDOW = 10         # drop blocks that a sliding window has left behind
    FREE = 11           # close a sequence
    PREEMPT = 12        # drop all of its tokens and keep it open
    PIN = 13            # hold a cached block
    UNPIN = 14
    EVICT = 15          # forget the hash of a cached block
    SWAP_OUT = 16       # move a sequence's blocks to host memory
    SWAP_IN = 17
    RESET_PREFIX = 18   # forget all hashes
    STAT = 19           # read a counter or a table


class Status(IntEnum):
    """How it went. Whatever is not `OK` has changed nothing."""

    OK = 0
    BAD_SEQ = 1             # no such sequence, or not open
    SEQ_IN_USE = 2          # open already
    OUT_OF_BLOCKS = 3
    OUT_OF_SEQ_TABLE = 4    # more blocks than a sequence's table has entries
    OUT_OF_RANGE = 5        # beyond the length, the table, the layers, the heads, the blocks or the counters
    DOUBLE_FREE = 6         # a reference is dropped that nobody holds
    NULL_DEREF = 7          # the null block, or an entry that a window has emptied
    XSEQ = 8                # another tenant's
    STALE_GEN = 9           # the sequence was closed and opened since, or the block is no longer cached
    REF_OVERFLOW = 10       # more references than a block can count
    WRITE_SHARED = 11       # a block that others read: with a second reference, or cached
    BUSY = 12               # a stream in flight, a sequence in host memory, blocks in use
    ECC_CE = 13
    ECC_UE = 14
    BUS_ERR = 15
    BAD_CFG = 16            # no such opcode, tenant or window


class State(IntEnum):
    """What a sequence does."""

    CLOSED = 0
    RUNNING = 1
    PREEMPTED = 2
    SWAPPED = 3


class Table(IntEnum):
    """What `STAT` reads."""

    COUNTER = 0         # `index` of `COUNTERS`
    SEQUENCE = 1        # sequence `index`
    ENTRY = 2           # entry `entry` of the block table of sequence `index`
    BLOCK = 3           # block `index`
    HASH = 4            # the hash of block `index`


class Event(IntEnum):
    """What happens to cached blocks."""

    STORED = 0
    REMOVED = 1
    CLEARED = 2         # all of them


class Move(IntEnum):
    """Transfers of whole blocks or of their first slots."""

    COPY = 0            # from block to block
    OUT = 1             # from a block to a host slot
    IN = 2


class Part(IntEnum):
    """What a segment of a block consists of, in the order of addresses."""

    SCALES = 0          # of each token: K's scale and checksum, V's scale and checksum
    K = 1
    V = 2


HEADER = {"opcode": 8, "tag": 8, "tenant": 8, "gen": 8}
"""`gen` is the generation that `ALLOC_SEQ` or `FORK` gave; 0 stands for any."""

_SPAN = {"first": LENGTH, "count": LENGTH}
_NAMED = {"block": 16, "by_hash": 16, "hash": 64}

ARGUMENTS = {
    Opcode.ALLOC_SEQ: {"sid": 16},
    Opcode.LOOKUP: {"count": 16},
    Opcode.ATTACH: {"sid": 16, "count": 16, "tokens": LENGTH, "by_hash": 1},
    Opcode.APPEND: {"sid": 16, "tokens": LENGTH},
    Opcode.COMMIT: {"sid": 16, "index": 16, "hash": 64},
    Opcode.FORK: {"sid": 16, "target": 16},
    Opcode.STREAM: {"sid": 16, "layer": 8, "heads": 16, **_SPAN, "sinks": 15, "window": 1},
    Opcode.WRITE: {"sid": 16, "layer": 8, **_SPAN},
    Opcode.TRUNCATE: {"sid": 16, "length": LENGTH},
    Opcode.WINDOW: {"sid": 16, "computed": LENGTH, "window": LENGTH, "sinks": LENGTH},
    Opcode.FREE: {"sid": 16},
    Opcode.PREEMPT: {"sid": 16},
    Opcode.PIN: _NAMED,
    Opcode.UNPIN: _NAMED,
    Opcode.EVICT: _NAMED,
    Opcode.SWAP_OUT: {"sid": 16, "slot": 32},
    Opcode.SWAP_IN: {"sid": 16, "slot": 32},
    Opcode.RESET_PREFIX: {},
    Opcode.STAT: {"table": 8, "index": 16, "entry": 16, "high": 1},
}
"""Arguments of each opcode and their bits.

A `STREAM` reads tokens `first` to `first + count`, to the end if `count` is 0; with `window` it reads the
last `count` ones, whatever `first` is. The first `sinks` tokens come ahead of them.
"""

_FREED = {"freed": 16}

PAYLOADS = {
    Opcode.ALLOC_SEQ: {"gen": 8},
    Opcode.LOOKUP: {"hits": 16, "idle": 16},                # of which as many have no reference
    Opcode.ATTACH: {"blocks": 16},                          # new ones
    Opcode.APPEND: {"blocks": 16, "copied": 1},             # new ones; the first of them is a copy
    Opcode.COMMIT: {"block": 16},
    Opcode.FORK: {"gen": 8},
    Opcode.STREAM: {"beats": 48},
    Opcode.WRITE: {"beats": 48},
    Opcode.TRUNCATE: _FREED,
    Opcode.WINDOW: _FREED,
    Opcode.FREE: _FREED,
    Opcode.PREEMPT: _FREED,
    Opcode.PIN: {"block": 16},
    Opcode.UNPIN: {"block": 16},
    Opcode.EVICT: {"block": 16},
    Opcode.SWAP_OUT: _FREED,
    Opcode.SWAP_IN: {"blocks": 16},
    Opcode.RESET_PREFIX: {},
    Opcode.STAT: {"value": 48},
}
"""What a completion says when all went well."""

SHORTFALL = {"shortfall": LENGTH}
"""What it says when it is `OUT_OF_BLOCKS`; with any other error, nothing."""

STAT = {
    Table.SEQUENCE: {"state": 3, "gen": 8, "length": LENGTH, "inflight": 4},
    Table.ENTRY: {"block": 16},
    Table.BLOCK: {"ref": 11, "hashed": 1, "pinned": 1, "tenant": 8, "next": 16},
}
"""How `STAT` packs a table's entry into its value. `next` is the free list's, 0 behind its last block."""

COUNTERS = (
    "commands", "allocs", "frees", "cow", "cow_bytes", "evictions", "lookups", "hit_tokens", "query_tokens",
    "oom", "preempts", "stream_beats", "free", "free_min", "head", "tail", "wasted_slots",
    *(f"error_{status.name.lower()}" for status in Status if status),
)
"""By index. `free` to `wasted_slots` are gauges: free blocks and their fewest, the first and the last of the
free list, slots at the ends of sequences that hold nothing."""


def pack(fields, values):
    """Values by name as one number, the first field lowest.

    Raises
    ------
    ValueError
        When a value is missing, unknown or too large for its field.
    """
    if unknown := set(values) - set(fields):
        raise ValueError(f"no such field: {', '.join(sorted(unknown))}; there are {', '.join(fields) or 'none'}")
    word = shift = 0
    for name, bits in fields.items():
        value = values.get(name, 0)
        if value < 0 or value >> bits:
            raise ValueError(f"{name} must be 0 to {(1 << bits) - 1}, not {value}")
        word |= value << shift
        shift += bits
    return word


def unpack(fields, word):
    """The values of `pack`."""
    values = {}
    for name, bits in fields.items():
        values[name] = word & (1 << bits) - 1
        word >>= bits
    return values


@dataclass(frozen=True)
class Command:
    """A command and the operands that follow it.

    Attributes
    ----------
    opcode : Opcode
    arguments : dict of int
        Those of its opcode, and the header's; what is absent is 0.
    operands : tuple of int
        Hashes or blocks.
    """

    opcode: Opcode
    arguments: dict = field(default_factory=dict)
    operands: tuple = ()

    @property
    def word(self):
        """Its 128 bits."""
        return pack(HEADER | ARGUMENTS.get(self.opcode, {}), {"opcode": self.opcode, **self.arguments})


@dataclass(frozen=True)
class Completion:
    """How a command went.

    Attributes
    ----------
    tag : int
    status : Status
    payload : int
        48 bits.
    """

    tag: int
    status: Status
    payload: int = 0

    @property
    def word(self):
        """Its 64 bits."""
        return self.tag | self.status << 8 | self.payload << 16
