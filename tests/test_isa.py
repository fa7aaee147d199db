# SPDX-License-Identifier: Apache-2.0
"""Instructions: what is assembled reads back, and what cannot be is refused by name."""

import random
import re
from zlib import crc32

import pytest

from golden.isa import (
    BODY,
    BYTES,
    FORMS,
    LINE,
    WORDS,
    Control,
    Engine,
    Instruction,
    IsaError,
    Load,
    Operation,
    Weights,
    assemble,
    disassemble,
)

OPCODES = [opcode for forms in FORMS.values() for opcode in forms]


def anything(opcode, rng):
    """An instruction with all fields, registers and waits."""
    form = FORMS[Instruction(opcode).engine][opcode]
    fields = {key: rng.getrandbits(bits) for word in form for key, bits in word.items()}
    registers = {key: rng.randrange(1, 8) for word in form if len(word) == 1 for key in word}
    return Instruction(opcode, fields, registers, {engine: rng.randrange(1, 8) for engine in list(Engine)[:-1]})


@pytest.mark.parametrize("opcode", OPCODES, ids=lambda opcode: f"{type(opcode).__name__}.{opcode.name}")
def test_words_read_back(opcode):
    rng = random.Random(opcode.name)
    for _ in range(100):
        given = anything(opcode, rng)
        assert Instruction.read(given.words) == given


def test_every_form_fits():
    for opcode in OPCODES:
        form = FORMS[Instruction(opcode).engine][opcode]
        assert len(form) <= BODY and all(sum(word.values()) <= 32 for word in form)


def test_layout():
    """Word by word, as documented."""
    words = Instruction(Load.COPY, {"source": 0x1000, "bytes": 24, "rows": 3}, {"source": 2, "rows": 5},
                        {Engine.LOAD: 1, Engine.STORE: 7}).words
    assert words == [0 | 0 << 3 | 1 << 8 | 7 << 8 + 3 * 5, 2 | 5 << 15, 0, 0x1000, 0, 0, 0, 24, 3] + [0] * 7
    vector = Instruction(Operation.TOP_K, {"k": 8, "length": 258, "scalars_pitch": 64}, {"scalars_pitch": 3}).words
    assert vector[:3] == [3 | 6 << 3, 0, 3 << 6] and vector[3] == 8 << 13 and vector[15] == 64


def test_programs_read_back():
    program = [Instruction(Control.LOOP, {"count": 3}), Instruction(Weights.STREAM, {"source": 64, "bytes": 32}),
               Instruction(Control.NEXT)]
    image = assemble(program, 4)
    assert len(image) == 4 * BYTES
    assert [each.opcode for each in disassemble(image)] == [Control.LOOP, Weights.STREAM, Control.NEXT, Control.END]
    assert disassemble(image)[3].fields == {"crc": crc32(image[:-BYTES])}


def test_a_flipped_bit_is_found():
    """In any instruction, in END's opcode, and in the checksum."""
    image = assemble([Instruction(Weights.STREAM, {"source": 64, "bytes": 32}, {"source": 1})], 8)
    for bit in (*range(8 * BYTES + 32), *range(8 * BYTES + 96, 8 * BYTES + 128)):
        broken = bytearray(image)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IsaError):
            disassemble(broken)


LOOP, NEXT = Instruction(Control.LOOP, {"count": 1}), Instruction(Control.NEXT)


@pytest.mark.parametrize(("program", "sentence"), [
    ([NEXT], "instruction 0: NEXT without LOOP"),
    ([LOOP], "1 LOOP without NEXT"),
    ([LOOP] * 5 + [NEXT] * 5, "instruction 4: more than 4 loops"),
    ([Instruction(Control.END)], "instruction 0: END comes at the end, by itself"),
    ([Instruction(Control.LOOP), NEXT], "instruction 0: LOOP must have a count of 1 or more"),
    ([NEXT] * 8, "instruction 0: NEXT without LOOP"),
    ([LOOP, NEXT] * 4, "9 instructions: the sequencer has room for 8"),
    ([Instruction(Load.COPY, {"rows": 1 << 32})], "COPY: rows must be 0 to 4294967295, not 4294967296"),
    ([Instruction(Load.COPY, {"row": 1})],
     "COPY: no field row; there are source, source_pitch, target, target_pitch, bytes, rows"),
    ([Instruction(Operation.MUL, {}, {"k": 1})], "MUL: k takes no register"),
    ([Instruction(Operation.MUL, {}, {"x": 8})], "MUL: register of x must be 0 to 7, not 8"),
    ([Instruction(Operation.MUL, {}, {}, {Engine.LOAD: 8})], "MUL: wait for LOAD must be 0 to 7, not 8"),
    ([Instruction(Operation.MUL, {}, {}, {Engine.CONTROL: 1})], "MUL: CONTROL is not waited for"),
])
def test_programs_that_cannot_be(program, sentence):
    with pytest.raises(IsaError, match=re.escape(sentence)):
        assemble(program, 8)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({0: 6}, "NETWORK has no opcode 0"),
    ({0: 3 | 7 << 3}, "VECTOR has no opcode 7"),
    ({0: 1 | 1 << 29}, "STREAM: bits of its head that should be zero"),
    ({0: 1, 2: 1}, "STREAM: body word 10 takes no register"),
    ({0: 1, 1: 1 << 31}, "STREAM: bits of its head that should be zero"),
    ({0: 1, 5: 1}, "STREAM: bits of body word 2 that should be zero"),
    ({0: 4, 3: 1 << 16}, "ATTEND: bits of body word 0 that should be zero"),
])
def test_instructions_that_cannot_be(changes, sentence):
    body = LINE.pack(*(changes.get(n, 0) for n in range(WORDS)))
    image = body + LINE.pack(*Instruction(Control.END, {"crc": crc32(body)}).words)
    with pytest.raises(IsaError, match=re.escape(sentence)):
        disassemble(image)


@pytest.mark.parametrize(("image", "sentence"), [
    (b"", "the last instruction is not END"), (bytes(63), "63 bytes: must be instructions of 64"),
    (bytes(64), "the last instruction is not END"), (LINE.pack(7, *[0] * 15)[:-1] + b"\0", None),
    (LINE.pack(7, 0, 0, 1, *[0] * 12), "its checksum does not fit"),
])
def test_images_that_cannot_be(image, sentence):
    if sentence is None:
        assert len(disassemble(image)) == 1
    else:
        with pytest.raises(IsaError, match=re.escape(sentence)):
            disassemble(image)
