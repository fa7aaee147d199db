# SPDX-License-Identifier: Apache-2.0
"""Chip configurations: validated models read from TOML, with the sizes that follow from them.

A configuration that loads can be built. One that cannot is refused with a line for each problem:
the key's path, its value and what is allowed.
"""

import tomllib
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from golden.families import FAMILIES
from golden.noc import check
from golden.packet import LENGTH
from golden.paging import LENGTH as TOKENS

__all__ = ["KV_FORMATS", "KV_POLICIES", "Attention", "Chip", "ConfigError", "Dram", "KvCache", "Matmul", "Memory",
           "Noc", "NocClass", "Sequencer", "Vector", "check_tile", "load", "words"]


KV_FORMATS = {"bf16": (2, 0), "fp8": (1, 2)}
"""Formats of the KV cache: bytes of an element; bytes of a row's scale and its checksum."""
KV_POLICIES = ("unhashed_head", "lru_tail")
NOC_ORDERS = ("xy", "yx", "auto")
NOC_MEMORIES = ("none", "north", "east", "south", "west")
AHEAD = 65536           # words of weights that are read ahead, at most
CALM = 4                # times the patience of the memory's ports is the sequencer's, so that they are heard


class ConfigError(ValueError):
    """A configuration that cannot be built; one line a problem."""


def _power_of_two(value):
    if value & (value - 1):
        raise ValueError("must be a power of two")
    return value


class Section(BaseModel):
    """A table of the TOML file: immutable, hashable, printed in full."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Matmul(Section):
    """The matmul engine: a systolic array of `rows` x `cols` elements of `lanes` multipliers each.

    Attributes
    ----------
    family : str
        Datapath, `golden.families`.
    lanes : int
        Products that one element sums in a cycle.
    rows, cols : int
        Elements along K and along N.
    acc_rows : int
        Rows of M that accumulate at a time.
    drain : int
        Results that leave in a cycle; by default a quarter of `cols`.
    m_max, n_max, k_max : int
        Largest command. `k_max` also sets the width of the exact accumulators.
    mx : bool
        Blocks of 32 with a shared scale; by default in family fp4 alone.
    """

    family: str = "fp8"
    lanes: int = Field(16, ge=1, le=64)
    rows: int = Field(2, ge=1, le=256)
    cols: int = Field(32, ge=2, le=1024)
    acc_rows: int = Field(128, ge=2, le=4096)
    drain: int = Field(ge=1, le=1024, default_factory=lambda known: _quarter(known["cols"]))
    m_max: int = Field(65535, ge=1, le=65535)
    n_max: int = Field(65535, ge=1, le=65535)
    k_max: int = Field(4096, ge=1, le=65535)
    mx: bool = Field(validate_default=True, default_factory=lambda known: known["family"] == "fp4")

    @field_validator("family")
    @classmethod
    def _family_exists(cls, family):
        if family not in FAMILIES:
            raise ValueError(f"must be {words(map(_toml, FAMILIES))}")
        return family

    @field_validator("lanes")
    @classmethod
    def _lanes_fit(cls, lanes, info):
        if info.data.get("family") == "uni" and (lanes < 4 or lanes & (lanes - 1)):
            raise ValueError("must be 4, 8, 16, 32 or 64 in family uni, where four lanes make a BF16 product")
        return lanes

    @field_validator("rows")
    @classmethod
    def _beats_are_bytes(cls, rows, info):
        lanes = info.data.get("lanes", 2)
        if info.data.get("family") == "fp4" and lanes * rows % 2:
            raise ValueError(f"must be even with lanes = {lanes} in family fp4, as beats are whole bytes")
        return rows

    @field_validator("cols")
    @classmethod
    def _cols_pair(cls, cols):
        if cols % 2:
            raise ValueError("must be even, as a beat of 4-bit weights fills two columns")
        return cols

    @field_validator("acc_rows")
    @classmethod
    def _acc_rows_wrap(cls, acc_rows):
        if acc_rows & (acc_rows - 1):
            raise ValueError("must be a power of two, 2 to 4096")
        return acc_rows

    @field_validator("drain")
    @classmethod
    def _drain_divides(cls, drain, info):
        cols = info.data.get("cols", drain)
        if cols % drain or drain & (drain - 1):
            raise ValueError(f"must be a power of two that divides cols = {cols}: {words(_drains(cols))}")
        return drain

    @field_validator("mx")
    @classmethod
    def _mx_block_is_a_column(cls, mx, info):
        family, lanes, rows = (info.data.get(key) for key in ("family", "lanes", "rows"))
        if mx and family == "int8":
            raise ValueError("must be false in family int8, which has no block scales")
        if mx and lanes and rows and lanes * rows != 32:
            raise ValueError(f"needs lanes x rows = 32, one block of a shared scale, not {lanes} x {rows}")
        return mx

    @property
    def depth(self):
        """Elements of K that the array reduces in a cycle; also bytes of a weight beat."""
        return self.lanes * self.rows

    @property
    def row_bits(self):
        """Bits of an activation beat."""
        return self.depth * FAMILIES[self.family].bits

    @property
    def group(self):
        """Columns that start together: those whose results leave together, and the two of a beat of 4-bit weights."""
        return max(self.drain, 2)

    @property
    def groups(self):
        """Groups of columns, which start one after the other."""
        return self.cols // self.group

    @property
    def turns(self):
        """Turns in which a row's results leave, those of `drain` columns each."""
        return self.cols // self.drain

    @property
    def macs(self):
        """Multiply-accumulates in a cycle."""
        return self.depth * self.cols


class Vector(Section):
    """The vector engine: rows of elements, `lanes` of them a cycle.

    Attributes
    ----------
    lanes : int
        Elements that it takes in a cycle; in a chip that says nothing, as many as leave the matmul engine.
    row_max : int
        Elements of a row at most in operations that see the whole of it before they give any of it.
    """

    lanes: int = Field(16, ge=2, le=32)
    row_max: int = Field(4096, ge=32, le=65536)

    _powers_of_two = field_validator("lanes", "row_max")(_power_of_two)

    @property
    def depth(self):
        """Beats that are kept: two rows, and no fewer than it takes to come by a row's sum."""
        beats = self.row_max // self.lanes
        return beats + max(beats, 64)

    @property
    def units(self):
        """Rows and blocks of 32 under way, each with a scale of its own: those of a row, and some more."""
        return self.row_max // 32 + 32


class KvCache(Section):
    """The paged KV cache: blocks of keys and values, and a controller that deals them out to sequences.

    A block holds `block_tokens` tokens of all layers and heads. What it holds of one layer and head is a
    segment: scales, rows of K, rows of V, each in whole beats.

    Attributes
    ----------
    blocks : int
        Blocks in the pool, the null block among them.
    sequences : int
        Sequences that are open at a time.
    table : int
        Blocks of a sequence at most.
    block_tokens : int
        Tokens of a block.
    layers, kv_heads, head_dim : int
        Of the model.
    format : str
        Of keys and values: `bf16`, or `fp8` with a scale for each token and head.
    beat : int
        Bytes that the memory's port moves in a cycle.
    hash_bits, tenant_bits, counter_bits : int
        Bits of a block's hash, of a tenant's number, and of what is counted, which begins again at 0 after that many.
    policy : str
        Where blocks join the free list: `unhashed_head` or `lru_tail`, see `golden.kvcache`.
    lanes : int
        Elements of new keys and values that are quantized in a cycle.
    buffer : int
        Beats that may be asked for ahead of their use: the memory's latency, and more.
    transfers : int
        Transfers, of at most a block each, that are under way at a time.
    host_blocks : int
        Slots of host memory, each for a block.
    patience : int
        Cycles after which a memory that owes an answer is given up, in a tile by all who wait for it.
    address_bits : int
        Of a byte in memory.
    """

    blocks: int = Field(64, ge=2, le=65536)
    sequences: int = Field(8, ge=1, le=1024)
    table: int = Field(16, ge=1, le=32768)
    block_tokens: int = Field(16, ge=1, le=256)
    layers: int = Field(2, ge=1, le=256)
    kv_heads: int = Field(2, ge=1, le=16)
    head_dim: int = Field(64, ge=8, le=256)
    format: str = "fp8"
    beat: int = Field(64, ge=8, le=128)
    hash_bits: int = Field(64, ge=8, le=64)
    tenant_bits: int = Field(4, ge=1, le=8)
    counter_bits: int = Field(64, ge=8, le=64)
    policy: str = "unhashed_head"
    lanes: int = Field(8, ge=1, le=64)
    buffer: int = Field(256, ge=16, le=4096)
    transfers: int = Field(16, ge=4, le=32)
    host_blocks: int = Field(1024, ge=2, le=1 << 24)
    patience: int = Field(4096, ge=100, le=1 << 22)
    address_bits: int = Field(40, ge=32, le=64)

    _powers_of_two = field_validator("block_tokens", "beat", "lanes", "buffer")(_power_of_two)

    @field_validator("block_tokens")
    @classmethod
    def _length_fits(cls, tokens, info):
        table = info.data.get("table", 1)
        if table * tokens >= 1 << TOKENS:
            raise ValueError(f"makes sequences of table x block_tokens = {table * tokens} tokens; "
                             f"there may be {(1 << TOKENS) - 1}")
        return tokens

    @field_validator("head_dim")
    @classmethod
    def _rows_are_bytes(cls, head_dim):
        if head_dim % 8:
            raise ValueError("must be a multiple of 8")
        return head_dim

    @field_validator("lanes")
    @classmethod
    def _lanes_fit(cls, lanes, info):
        head_dim, beat = (info.data.get(key, lanes) for key in ("head_dim", "beat"))
        if head_dim % lanes:
            raise ValueError(f"must divide head_dim = {head_dim}")
        if lanes * KV_FORMATS[info.data.get("format", "fp8")][0] > beat:
            raise ValueError(f"must not fill more than a beat of {beat} bytes")
        return lanes

    @field_validator("address_bits")
    @classmethod
    def _blocks_fit(cls, bits, info):
        if {"blocks", "layers", "kv_heads", "head_dim", "format"} <= set(info.data):
            most = max(info.data["blocks"], info.data["host_blocks"])
            needed = most * cls.model_construct(**info.data).block_bytes
            if needed >> bits:
                raise ValueError(f"must reach {needed} bytes of blocks")
        return bits

    @field_validator("format", "policy")
    @classmethod
    def _names_exist(cls, name, info):
        known = {"format": KV_FORMATS, "policy": KV_POLICIES}[info.field_name]
        if name not in known:
            raise ValueError(f"must be {words(map(_toml, known))}")
        return name

    @property
    def ref_bits(self):
        """Bits of a block's references: one for each sequence, and one for its pin."""
        return (self.sequences + 1).bit_length()

    @property
    def slots(self):
        """Numbers of a block's slots, a bit at least."""
        return range(max(self.block_tokens, 2))

    @property
    def row_beats(self):
        """Beats of a token's K or V of one layer and head."""
        return -(-self.head_dim * KV_FORMATS[self.format][0] // self.beat)

    @property
    def scale_beats(self):
        """Beats of a segment's scales: each row's, with its checksum."""
        return -(-2 * self.block_tokens * KV_FORMATS[self.format][1] // self.beat)

    @property
    def burst(self):
        """Beats of a burst at most: as AXI4 has it, and so that the buffer holds four."""
        return min(256, 4096 // self.beat, self.buffer // 4)

    @property
    def segments(self):
        """Segments of a block."""
        return self.layers * self.kv_heads

    def segment_beats(self, slots):
        """Beats of `slots` tokens of a block, of one layer and head: all scales, then as many rows of K and V."""
        return self.scale_beats + 2 * slots * self.row_beats

    def copy_bytes(self, slots):
        """Bytes of `slots` tokens of a block, of all layers and heads."""
        return self.segments * self.segment_beats(slots) * self.beat

    @property
    def block_bytes(self):
        """Bytes of a block."""
        return self.copy_bytes(self.block_tokens)


class Attention(Section):
    """Attention to one head of the KV cache at a time, whose format and sizes it has.

    Attributes
    ----------
    group : int
        Queries that a stream of keys and values serves: those of a head's group, or of several tokens.
    """

    group: int = Field(4, ge=1, le=8)


class Memory(Section):
    """What a tile keeps where: the channel to the memory outside, and the scratchpad.

    Attributes
    ----------
    channel : int
        Bytes that the channel moves in a cycle.
    prefetch : int
        Bytes of weights that are read ahead of their use.
    burst : int
        Beats of a burst of weights at most: so long may others wait for the channel.
    scratchpad, banks : int
        Bytes of the scratchpad; banks of it, each of which reads a word and writes a word in a cycle.
    """

    channel: int = Field(16, ge=8, le=128)
    prefetch: int = Field(8192, ge=512, le=1 << 20)
    burst: int = Field(32, ge=1, le=256)
    scratchpad: int = Field(1 << 16, ge=4096, le=1 << 24)
    banks: int = Field(4, ge=1, le=16)

    _powers_of_two = field_validator("channel", "prefetch", "burst", "scratchpad", "banks")(_power_of_two)

    @field_validator("burst")
    @classmethod
    def _bursts_stay_in_their_page(cls, burst, info):
        if burst * info.data.get("channel", 1) > 4096:
            raise ValueError(f"must be {4096 // info.data['channel']} or less, as a burst has at most 4096 bytes")
        return burst


class Sequencer(Section):
    """What runs a tile's programs.

    Attributes
    ----------
    instructions : int
        Of a program at most.
    queue : int
        Instructions that wait for their turn, of each engine.
    patience : int
        Cycles in which nothing moves after which an engine is given up.
    """

    instructions: int = Field(128, ge=8, le=1024)
    queue: int = Field(4, ge=2, le=8)
    patience: int = Field(16384, ge=100, le=1 << 24)

    _powers_of_two = field_validator("instructions", "queue")(_power_of_two)


class NocClass(Section):
    """A class of messages on the network: they have virtual channels of their own.

    Attributes
    ----------
    name : str
    vcs : int
        Virtual channels. A packet takes any of them, but packets to the same node stay in order.
    order : str
        Dimension that packets travel first: `xy`, `yx`, or `auto`, which keeps the traffic to and from the
        memories off their edge.
    multicast : bool
        Packets may go to a rectangle of nodes; they fit the buffer of a router.
    reduce : bool
        All packets are reductions.
    replies_to : str
        Class of the requests that these are the replies to, if they are.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    vcs: int = Field(1, ge=1, le=4)
    order: str = "auto"
    multicast: bool = False
    reduce: bool = False
    replies_to: str = ""

    @field_validator("order")
    @classmethod
    def _order_exists(cls, order):
        if order not in NOC_ORDERS:
            raise ValueError(f"must be {words(map(_toml, NOC_ORDERS))}")
        return order

    @field_validator("multicast")
    @classmethod
    def _multicasts_stay_in_order(cls, multicast, info):
        if multicast and info.data.get("vcs", 1) > 1:
            raise ValueError("needs vcs = 1, as a multicast has no other way to stay in order")
        return multicast

    @field_validator("reduce")
    @classmethod
    def _reductions_are_alone(cls, reduce, info):
        if reduce and info.data.get("vcs", 1) > 1:
            raise ValueError("needs vcs = 1, as operands meet in order")
        if reduce and info.data.get("multicast"):
            raise ValueError("needs multicast = false, as there are nothing but reductions in the class")
        return reduce

    @field_validator("replies_to")
    @classmethod
    def _reductions_are_no_replies(cls, request, info):
        if request and info.data.get("reduce"):
            raise ValueError("must be empty in a class of reductions")
        return request


class Noc(Section):
    """The network: a mesh of routers, one for each tile.

    Attributes
    ----------
    width, height : int
        Columns and rows of routers.
    data : int
        Bits of a flit's data.
    depth : int
        Flits that each virtual channel of each input buffers.
    output_register : bool
        A register behind each output: two cycles a hop, and a faster clock.
    groups : int
        Reductions that a router knows at a time.
    patience : int
        Cycles after which a reduction gives up waiting for its other inputs.
    memory : str
        Edge of the mesh whose tiles have memories: `none`, `north`, `east`, `south` or `west`.
    reply_buffer : int
        Flits of reply that an interface holds free for its requests.
    classes : tuple of NocClass
        In the order of their virtual channels.
    """

    width: int = Field(4, ge=1, le=16)
    height: int = Field(4, ge=1, le=16)
    data: int = Field(64, ge=64, le=512)
    depth: int = Field(4, ge=2, le=8)
    output_register: bool = False
    groups: int = Field(4, ge=1, le=16)
    patience: int = Field(10000, ge=100, le=1 << 24)
    memory: str = "none"
    reply_buffer: int = Field(64, ge=1, le=(1 << LENGTH) - 1)
    classes: tuple[NocClass, ...] = Field((NocClass(name="data", vcs=2),), strict=False)

    @field_validator("height")
    @classmethod
    def _nodes_talk(cls, height, info):
        if height * info.data.get("width", 2) == 1:
            raise ValueError("must be at least 2 with width = 1, as a node does not talk to itself")
        return height

    @field_validator("data")
    @classmethod
    def _data_is_a_power_of_two(cls, data):
        if data & (data - 1):
            raise ValueError("must be 64, 128, 256 or 512")
        return data

    @field_validator("memory")
    @classmethod
    def _edge_exists(cls, memory):
        if memory not in NOC_MEMORIES:
            raise ValueError(f"must be {words(map(_toml, NOC_MEMORIES))}")
        return memory

    @field_validator("classes")
    @classmethod
    def _classes_fit(cls, classes):
        names = [each.name for each in classes]
        if not 1 <= (vcs := sum(each.vcs for each in classes)) <= 4:
            raise ValueError(f"must have 1 to 4 virtual channels together, not {vcs}")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"must have a name each: {_toml(twice[0])} is there twice")
        if len(sums := [each.name for each in classes if each.reduce]) > 1:
            raise ValueError(f"must have one class with reduce = true at most, not {len(sums)}")
        for each in classes:
            if each.replies_to and each.replies_to not in names:
                raise ValueError(f"must have a class {_toml(each.replies_to)}, as {_toml(each.name)} replies to it")
        return classes

    @model_validator(mode="after")
    def _no_deadlock(self):
        check(self)
        return self

    def __getitem__(self, name):
        """The class of that name."""
        return {each.name: each for each in self.classes}[name]

    @property
    def vcs(self):
        """Virtual channels of a link."""
        return sum(each.vcs for each in self.classes)

    def channels(self, name):
        """The virtual channels of a class, as a range."""
        index = self.classes.index(self[name])
        first = sum(each.vcs for each in self.classes[:index])
        return range(first, first + self[name].vcs)

    def order(self, name):
        """`xy` or `yx`: the dimension that packets of a class travel first.

        With `auto` requests turn towards the edge of the memories last and replies turn away from it first, so
        that none of them runs along it; all else goes `xy`.
        """
        found = self[name]
        if found.order != "auto":
            return found.order
        requests = name in {each.replies_to for each in self.classes}
        if self.memory in ("west", "east"):
            return "yx" if requests else "xy"
        if self.memory in ("north", "south"):
            return "yx" if found.replies_to else "xy"
        return "xy"

    def segment(self, name):
        """Flits of payload that a packet of a class has at most.

        A multicast waits for room for all of it, and a slot takes two cycles to come back. So that they follow each
        other without a pause, they leave a slot of the buffer to the next.
        """
        return max(self.depth - 2, 1) if self[name].multicast else (1 << LENGTH) - 1


class Dram(Section):
    """A channel of DRAM behind the memory port, for simulations; times in nanoseconds.

    By default LPDDR4-3200 as in JEDEC JESD209-4: two x16 channels of an 8 Gb die side by side, whose
    bursts of 16 make a beat of 64 bytes in 5 ns; latencies of set A.

    Attributes
    ----------
    part : str
    cycle : float
        Of the port: the time that a beat takes on the data bus.
    banks, page : int
        Banks, a power of two, and bytes of a row.
    rl, wl : float
        From a command to its data.
    trcd, trp, trpab, tras, trtp, twr, trrd, tfaw : float
        Activation to command; precharge, of all banks; activation to precharge; read to precharge; end of a
        write's data to precharge; between activations, of two banks and of five.
    twtr, trtw : float
        End of a write's data to a read; a read to a write.
    trfc, trefi : float
        A refresh of all banks, and between two.
    queue : int
        Beats among which the controller chooses: the oldest whose row is open, rows being opened ahead. Each
        bank keeps the order of its beats.
    """

    part: str = "LPDDR4-3200, JESD209-4, 2 x16 channels, 8 Gb"
    cycle: float = Field(5.0, gt=0)
    banks: int = Field(8, ge=1, le=64)
    page: int = Field(4096, ge=256, le=65536)
    rl: float = Field(20.0, ge=0)
    wl: float = Field(8.75, ge=0)
    trcd: float = Field(18.0, ge=0)
    trp: float = Field(18.0, ge=0)
    trpab: float = Field(21.0, ge=0)
    tras: float = Field(42.0, ge=0)
    trtp: float = Field(7.5, ge=0)
    twr: float = Field(18.0, ge=0)
    trrd: float = Field(10.0, ge=0)
    tfaw: float = Field(40.0, ge=0)
    twtr: float = Field(10.0, ge=0)
    trtw: float = Field(18.125, ge=0)
    trfc: float = Field(180.0, ge=0)
    trefi: float = Field(3904.0, gt=0)
    queue: int = Field(64, ge=1, le=1024)

    _powers_of_two = field_validator("banks")(_power_of_two)


class Chip(Section):
    """A whole chip.

    Attributes
    ----------
    name : str
        By default that of the file.
    matmul : Matmul
    vector : Vector
    kvcache : KvCache
    attention : Attention
    memory : Memory
    sequencer : Sequencer
    noc : Noc
    dram : Dram
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    matmul: Matmul = Field(default_factory=lambda: Matmul())
    vector: Vector = Field(default_factory=lambda known: Vector(lanes=min(known["matmul"].group, 32)))
    kvcache: KvCache = Field(default_factory=lambda: KvCache())
    attention: Attention = Field(default_factory=lambda: Attention())
    memory: Memory = Field(default_factory=lambda: Memory())
    sequencer: Sequencer = Field(default_factory=lambda: Sequencer())
    noc: Noc = Field(default_factory=lambda: Noc())
    dram: Dram = Field(default_factory=lambda: Dram())

    @property
    def word(self):
        """Bytes of a word of the scratchpad: as wide as the widest of its ports. Rows begin with a word."""
        widest = max(self.memory.channel, self.matmul.row_bits // 8,
                     4 * max(self.matmul.drain, self.vector.lanes, self.kvcache.lanes))
        return 1 << (widest - 1).bit_length()


def check_tile(chip):
    """Refuse a chip whose blocks can be built, each by itself, but are no tile together.

    Raises
    ------
    ConfigError
        A line for each problem.
    """
    matmul, kv, memory, patience = chip.matmul, chip.kvcache, chip.memory, chip.sequencer.patience
    beat, least = max(memory.channel, matmul.depth), 2 * chip.word * memory.banks
    ahead = max(2 * memory.burst * memory.channel, 2 * beat)
    problems = [f"{chip.name}: {name} = {value}: must be {what}" for name, value, wrong, what in (
        ("matmul.rows", matmul.rows, matmul.depth & matmul.depth - 1,
         f"such that lanes x rows is a power of two, with lanes = {matmul.lanes}"),
        ("kvcache.beat", kv.beat, kv.beat != memory.channel, f"memory.channel = {memory.channel}"),
        ("kvcache.patience", kv.patience, CALM * kv.patience > patience,
         f"{patience // CALM} or less, a quarter of sequencer.patience = {patience}"),
        ("memory.prefetch", memory.prefetch, memory.prefetch < ahead,
         f"{ahead} or more: two bursts, and two beats of weights"),
        ("memory.prefetch", memory.prefetch, memory.prefetch > AHEAD * beat, f"{AHEAD * beat} or less"),
        ("memory.scratchpad", memory.scratchpad, memory.scratchpad < least,
         f"{least} or more: two words of {chip.word} bytes in each of {memory.banks} banks"),
    ) if wrong]
    if problems:
        raise ConfigError("\n".join(problems))


def load(path):
    """Read and check the configuration in a TOML file.

    Raises
    ------
    ConfigError
        Not TOML, or not a chip that can be built.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    try:
        return Chip(**{"name": path.stem, **values})
    except ValidationError as error:
        problems = [_sentence(problem) for problem in error.errors()
                    if problem["type"] != "default_factory_not_called"]
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems)) from None


def _sentence(problem):
    """One of pydantic's errors in our words: path, value, what is allowed."""
    *tables, key = (key for key in problem["loc"] if isinstance(key, str))
    section = Chip
    for table in tables:
        annotation = section.model_fields[table].annotation
        section = next(iter(get_args(annotation)), annotation)
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key; known here: {', '.join(section.model_fields)}"
    if problem["type"] == "value_error":
        allowed = str(problem["ctx"]["error"])
    else:
        allowed = f"must be {_allowed(section.model_fields[key])}"
    if isinstance(problem["input"], list | dict):
        return f"{path}: {allowed}"
    return f"{path} = {_toml(problem['input'])}: {allowed}"


def _allowed(field):
    """What a field may hold, in words."""
    if field.annotation is int:
        low, high = (astuple(limit)[0] for limit in field.metadata)
        return f"an integer, {low} to {high}"
    if field.annotation is float:
        return "a number, not negative, and with a point"
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return "a name of small letters, digits and _, in quotes"
    return "tables" if get_args(field.annotation) else "a table"


def _toml(value):
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def words(choices):
    """Choices as a sentence has them: a, b or c."""
    *some, last = map(str, choices)
    return f"{', '.join(some)} or {last}" if some else last


def _drains(cols):
    """The powers of two that divide `cols`."""
    return [1 << n for n in range(cols.bit_length()) if cols % (1 << n) == 0]


def _quarter(cols):
    """The largest of them up to a quarter of `cols`, 2 at least."""
    return max(n for n in _drains(cols) if n <= max(cols // 4, 2))
