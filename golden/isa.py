# SPDX-License-Identifier: Apache-2.0
"""Instructions of a tile: opcodes, fields, and the assembler; `golden.tile` says what they do.

An instruction is `WORDS` words of 32 bits, little-endian:

    word 0   engine 3 | opcode 5 | waits, 3 for each engine but the last | zeros
    word 1   registers of body words 0 to 9, 3 each
    word 2   registers of body words 10 to 12, 3 each
    body     `FORMS` of the opcode; words that it lacks are zeros

**Registers.** Before an instruction leaves, the register that a body word names is added to it. Register 0 is 0.

**Order.** Instructions go to their engines' queues in order, and each engine takes its own in order. Whatever else must
be is said by `waits`: how far back an engine's instruction is that must have completed, 1 for the last that was
dispatched to it. So an instruction can only wait for earlier ones, and none for ever. Those of `CONTROL` have no waits.

**Loops.** Instructions from a `LOOP` to its `NEXT` are repeated; loops nest `LOOPS` deep. A program ends with `END`,
whose body is the CRC-32 (that of zlib) of all before, so that a broken image is never run.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from zlib import crc32

__all__ = ["BODY", "BYTES", "FORMS", "HEAD", "K_MAX", "LENGTH", "LOOPS", "PARTIALS", "REGISTERS", "ROWS", "SELECT",
           "SELECTED", "WAITS", "WORDS", "Control", "Engine", "Error", "Gemm", "Heads", "Instruction", "IsaError",
           "Load", "Operation", "Quantize", "Second", "Store", "Weights", "assemble", "disassemble"]

ROWS, LENGTH = 16, 20   # bits of the number of rows and of a row's length, in the vector engine
K_MAX = 8               # of `TOP_K`
PARTIALS = 4            # sums of a row that grow in turn: as many as an addition takes cycles, and one

WORDS, BODY, HEAD = 16, 13, 3
LINE = struct.Struct(f"<{WORDS}I")
BYTES = LINE.size       # of an instruction
REGISTERS = 8
LOOPS = 4
WAITS = 3               # bits of a wait
SELECT = 3              # bits of a register's number
SELECTED = 10           # body words whose registers are in word 1


class Engine(IntEnum):
    """Who carries an instruction out."""

    LOAD = 0        # from memory to the scratchpad
    WEIGHTS = 1     # from memory to where the matmul engine takes its weights from
    MATMUL = 2
    VECTOR = 3
    HEADS = 4       # KV cache and attention
    STORE = 5       # from the scratchpad to memory
    NETWORK = 6     # to other tiles; has no instructions yet
    CONTROL = 7     # the sequencer itself


class Load(IntEnum):
    COPY = 0        # rows of bytes
    GATHER = 1      # for each index in the scratchpad, rows of a table


class Weights(IntEnum):
    STREAM = 0      # consecutive bytes, which GEMMs take in order


class Gemm(IntEnum):
    GEMM = 0        # `golden.matmul`


class Operation(IntEnum):
    """What the vector engine makes of x and y. An absent y is 1."""

    MUL = 0         # x * y; without y: a copy
    ADD = 1         # alpha * x + beta * y
    ROPE = 2        # x * y, neighbours taken as complex numbers
    SILU = 3        # x * y / (1 + 2**(alpha * x)); alpha = -1 / ln 2
    RMS_NORM = 4    # x * y / sqrt(alpha * sum(x**2) + beta); alpha = 1 / length
    SOFTMAX = 5     # 2**(alpha * x) over its sum
    TOP_K = 6       # the k largest of x * y, and where they are


class Heads(IntEnum):
    ATTEND = 0      # a layer's new keys and values into the KV cache, and attention of their queries
    EXTEND = 1      # slots for new tokens of a sequence; where the first of them is goes to the scratchpad
    COMMAND = 2     # any other command of `golden.paging` that has no operands; its completion goes to the scratchpad


class Store(IntEnum):
    COPY = 0


class Control(IntEnum):
    END = 0
    LOOP = 1        # repeat what follows, up to its `NEXT`, `count` times
    NEXT = 2
    SET = 3         # a register becomes a value
    ADD = 4         # and is increased by it
    SWAP = 5        # two registers change places


class Second(IntEnum):
    """What y is."""

    ABSENT = 0
    ELEMENT = 1     # a number for each element
    ROW = 2         # one for each row
    BLOCK = 3       # an E8M0 scale for each block of 32: MX elements become numbers; of `MUL` and `TOP_K`


class Quantize(IntEnum):
    """What results share a scale, which is written beside them."""

    NONE = 0
    ROW = 1         # a row, in FP32
    MX = 2          # a block of 32, in E8M0, by the rule of OCP
    MX_CEIL = 3     # the same; the smallest scale under which none saturates


def _words(*names):
    """Body words of a field each."""
    return tuple({name: 32} for name in names)


_COPY = _words("source", "source_pitch", "target", "target_pitch", "bytes", "rows")
_VECTOR = ({"second": 2, "quantize": 2, "x_format": 3, "y_format": 3, "result_format": 3, "k": 4},
           {"rows": ROWS}, {"length": LENGTH},
           *_words("alpha", "beta", "x", "x_pitch", "y", "y_pitch", "result", "result_pitch",
                   "scalars", "scalars_pitch"))
_REGISTER = {"register": SELECT}

FORMS = {
    Engine.LOAD: {
        Load.COPY: _COPY,
        Load.GATHER: (*_COPY, *_words("step", "index", "index_pitch", "count")),
    },
    Engine.WEIGHTS: {Weights.STREAM: _words("source", "bytes")},
    Engine.MATMUL: {Gemm.GEMM: (
        {"m": 16, "a_format": 3, "w_format": 3, "y_format": 3,
         "row_scaled": 1, "column_scaled": 1, "biased": 1, "accumulate": 1, "mx": 1},
        {"n": 16, "k": 16},
        *_words("a", "a_pitch", "w", "scales", "scales_pitch", "column_scales", "bias", "c", "c_pitch", "y", "y_pitch"),
    )},
    Engine.VECTOR: dict.fromkeys(Operation, _VECTOR),
    Engine.HEADS: {
        Heads.ATTEND: ({"sid": 16}, {"layer": 8}, {"rows": 16, "group": 4},
                       *_words("q", "k", "v", "pitch", "result", "result_pitch"), {"window": 20}),
        Heads.EXTEND: ({"sid": 16}, {"tokens": 20}, *_words("result")),
        Heads.COMMAND: _words("word0", "word1", "word2", "word3", "result"),
    },
    Engine.STORE: {Store.COPY: _COPY},
    Engine.NETWORK: {},
    Engine.CONTROL: {
        Control.END: _words("crc"),
        Control.LOOP: _words("count"),
        Control.NEXT: (),
        Control.SET: (_REGISTER, *_words("value")),
        Control.ADD: (_REGISTER, *_words("value")),
        Control.SWAP: ({"register": SELECT, "other": SELECT},),
    },
}
"""Body words by engine and opcode: fields and their bits, the first lowest.

Addresses and pitches are in bytes; what is in memory and what in the scratchpad follows from the engine. `LOAD` and
`STORE` move `rows` runs of `bytes`, from `source` on to `target` on. `GATHER` does so for each of `count` indices,
which lie `index_pitch` apart from `index` on: it reads from `source` + index x `step` on, and its target goes on from
row to row. GEMMs have `scales` a row of A in FP32, or with `mx` a block in E8M0. `ATTEND` takes `rows` rows of queries,
keys and values, `pitch` apart, of the last tokens of sequence `sid`; `group` queries share a head, and see `window`
tokens, or all if that is 0.
"""


class Error(IntEnum):
    """Why a program was refused or given up."""

    NONE = 0
    CHECKSUM = 1        # the image is broken
    ILLEGAL = 2         # an instruction that there is not, or whose registers make too much of a field
    LOOP = 3            # loops and `END` that do not fit together, or a loop of no iterations
    INSTRUCTION = 4     # an engine has refused one, or failed
    WATCHDOG = 5        # an engine, or the memory with the image, was silent for too long
    STOPPED = 6         # the host has asked for it
    BUS = 7             # the image could not be read
    SIZE = 8            # of the image: none or without room; or it begins where none can
    ADDRESS = 9         # an engine has used an address beyond the scratchpad, or a write crosses a word


class IsaError(ValueError):
    """An instruction or a program that there cannot be.

    Attributes
    ----------
    error : Error
        What hardware says, if it comes that far.
    pc : int or None
        Which instruction is concerned.
    """

    def __init__(self, message, error=Error.ILLEGAL, pc=None):
        super().__init__(message if pc is None else f"instruction {pc}: {message}")
        self.error, self.pc = error, pc


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    opcode : Load, Weights, Gemm, Operation, Heads, Store or Control
    fields : dict of int
        Those that are absent are 0.
    registers : dict of str to int
        By the field that a register is added to: one that has a word for itself.
    waits : dict of Engine to int
        How far back an engine's instruction is that must have completed.
    """

    opcode: IntEnum
    fields: dict = field(default_factory=dict)
    registers: dict = field(default_factory=dict)
    waits: dict = field(default_factory=dict)

    @property
    def engine(self):
        return _ENGINES[type(self.opcode)]

    @property
    def names(self):
        """Of all fields that its opcode has."""
        return [name for word in FORMS[self.engine][self.opcode] for name in word]

    @property
    def words(self):
        """Its `WORDS` words.

        Raises
        ------
        IsaError
            Naming a field, register or wait that does not fit.
        """
        form, name = FORMS[self.engine][self.opcode], self.opcode.name
        places = {key: (n, list(word)) for n, word in enumerate(form) for key in word}
        body, selectors = [0] * BODY, 0
        for n, word in enumerate(form):
            shift = 0
            for key, bits in word.items():
                body[n] |= _fit(f"{name}: {key}", self.fields.get(key, 0), bits) << shift
                shift += bits
        for key, register in self.registers.items():
            if len(places.get(key, (0, ()))[1]) != 1:
                raise IsaError(f"{name}: {key} takes no register")
            selectors |= _fit(f"{name}: register of {key}", register, SELECT) << _select(places[key][0])
        if unknown := set(self.fields) - set(places):
            raise IsaError(f"{name}: no field {min(unknown)}; there are {', '.join(places) or 'none'}")
        if Engine.CONTROL in self.waits:
            raise IsaError(f"{name}: {Engine.CONTROL.name} is not waited for")
        if self.waits and self.engine is Engine.CONTROL:
            raise IsaError(f"{name}: {Engine.CONTROL.name} does not wait")
        head = self.engine | self.opcode << 3
        for engine, distance in self.waits.items():
            head |= _fit(f"{name}: wait for {engine.name}", distance, WAITS) << 8 + WAITS * engine
        return [head, selectors & 0xFFFFFFFF, selectors >> 32, *body]

    @classmethod
    def read(cls, words):
        """The instruction that words are.

        Raises
        ------
        IsaError
            When there is none: an engine or opcode that there is not, or bits that should be zero.
        """
        head, low, high, *body = words
        engine, number, waits = Engine(head & 7), head >> 3 & 31, head >> 8
        opcode = next((opcode for opcode in FORMS[engine] if opcode == number), None)
        if opcode is None:
            raise IsaError(f"{engine.name} has no opcode {number}")
        fields, registers, selectors = {}, {}, low | high << 32
        for n, value in enumerate(body):
            word = FORMS[engine][opcode][n] if n < len(FORMS[engine][opcode]) else {}
            for key, bits in word.items():
                fields[key] = value & (1 << bits) - 1
                value >>= bits
            if value:
                raise IsaError(f"{opcode.name}: bits of body word {n} that should be zero")
            register = selectors >> _select(n) & REGISTERS - 1
            selectors &= ~(REGISTERS - 1 << _select(n))
            if register and len(word) != 1:
                raise IsaError(f"{opcode.name}: body word {n} takes no register")
            if register:
                registers[next(iter(word))] = register
        if selectors or waits >> WAITS * Engine.CONTROL or waits and engine is Engine.CONTROL:
            raise IsaError(f"{opcode.name}: bits of its head that should be zero")
        distances = {each: waits >> WAITS * each & (1 << WAITS) - 1 for each in Engine if each != Engine.CONTROL}
        return cls(opcode, fields, registers, {each: distance for each, distance in distances.items() if distance})

    def __str__(self):
        def told(key, value):
            register = f"+r{self.registers[key]}" if key in self.registers else ""
            return f"{key}={value:#x}{register}" if value > 9 else f"{key}={value}{register}"

        waits = "".join(f" after {engine.name.lower()}-{distance}" for engine, distance in self.waits.items())
        fields = {key: self.fields.get(key, 0) for key in self.names}
        shown = [told(key, value) for key, value in fields.items() if value or key in self.registers]
        return " ".join([f"{self.engine.name}.{self.opcode.name}".lower(), *shown]) + waits


_ENGINES = {Load: Engine.LOAD, Weights: Engine.WEIGHTS, Gemm: Engine.MATMUL, Operation: Engine.VECTOR,
            Heads: Engine.HEADS, Store: Engine.STORE, Control: Engine.CONTROL}


def assemble(instructions, most):
    """The image of a program: `END` is added.

    Parameters
    ----------
    instructions : list of Instruction
    most : int
        Instructions that the sequencer has room for.

    Returns
    -------
    bytes
        `BYTES` each.

    Raises
    ------
    IsaError
        Loops that do not fit together, or no room.
    """
    for n, each in enumerate(_nested([*instructions, Instruction(Control.END)], len(instructions))):
        if each.opcode is Control.LOOP and not each.fields.get("count") and "count" not in each.registers:
            raise IsaError("LOOP must have a count of 1 or more", Error.LOOP, n)
    if len(instructions) >= most:
        raise IsaError(f"{len(instructions) + 1} instructions: the sequencer has room for {most}", Error.SIZE)
    image = b"".join(LINE.pack(*each.words) for each in instructions)
    return image + LINE.pack(*Instruction(Control.END, {"crc": crc32(image)}).words)


def disassemble(image):
    """The instructions of an image, `END` the last of them.

    Raises
    ------
    IsaError
        Naming what is wrong with it.
    """
    if not image or len(image) % BYTES:
        raise IsaError(f"{len(image)} bytes: must be instructions of {BYTES}", Error.SIZE)
    words = [*LINE.iter_unpack(image)]
    if words[-1][0] != Engine.CONTROL | Control.END << 3:
        raise IsaError("the last instruction is not END", Error.CHECKSUM)
    if words[-1][HEAD] != crc32(image[:-BYTES]):
        raise IsaError("its checksum does not fit", Error.CHECKSUM)
    return [*_nested(_read(words), len(words) - 1)]


def _read(lines):
    for n, words in enumerate(lines):
        try:
            yield Instruction.read(words)
        except IsaError as refused:
            raise IsaError(str(refused), Error.ILLEGAL, n) from None


def _nested(instructions, last):
    """The same, as far as loops fit together and `END` is the last."""
    depth = 0
    for n, each in enumerate(instructions):
        depth += (each.opcode is Control.LOOP) - (each.opcode is Control.NEXT)
        if not 0 <= depth <= LOOPS:
            raise IsaError("NEXT without LOOP" if depth < 0 else f"more than {LOOPS} loops", Error.LOOP, n)
        if each.opcode is Control.END and n != last:
            raise IsaError("END comes at the end, by itself", Error.LOOP, n)
        if each.opcode is Control.END and depth:
            raise IsaError(f"{depth} LOOP without NEXT", Error.LOOP, n)
        yield each


def _select(n):
    """Where the register of body word `n` is named."""
    return SELECT * n if n < SELECTED else 32 + SELECT * (n - SELECTED)


def _fit(name, value, bits):
    if not isinstance(value, int) or value < 0 or value >> bits:
        raise IsaError(f"{name} must be 0 to {(1 << bits) - 1}, not {value!r}")
    return int(value)
