# SPDX-License-Identifier: Apache-2.0
"""HEADS of a tile on the RTL against golden: every byte of the scratchpad and of memory, every completion."""

import os
import re

import pytest

from golden.config import KvCache
from golden.isa import Heads as Instruction
from golden.paging import Opcode, Status
from hw.tile.heads.heads import Heads
from hw.tile.heads.ports import Error
from sim.axi import SLVERR
from sim.heads_unit import PAGE, Script, run, traffic

DEEP = "DEEP" in os.environ
SMALL = {"blocks": 24, "sequences": 4, "table": 8, "layers": 2, "head_dim": 16, "beat": 16, "lanes": 4,
         "buffer": 64, "transfers": 8, "host_blocks": 16}
UNITS = {       # bytes of a write, queries at a time, cache
    "fp8": (16, 4, KvCache(**SMALL, format="fp8", kv_heads=2, block_tokens=8)),
    "bf16": (8, 2, KvCache(**SMALL, format="bf16", kv_heads=1, block_tokens=4)),
}
ALONE = 110         # cycles of an instruction for one token that are not beats


def opened(name, *lengths, seed=0):
    """A script, with sequences of some tokens, and the size of its writes."""
    size, group, kv = UNITS[name]
    script = Script(kv, group, seed)
    for sid, length in enumerate(lengths):
        script.ask(Opcode.ALLOC_SEQ, sid=sid)
        script.extend(sid, length)
    return script, size


def wrong(script, error, detail, **options):
    """The last instruction ends with an error that golden does not know."""
    opcode, words, *_ = script.job.log[-1]
    script.job.log[-1] = opcode, words, (error.value, detail.value), True
    return script.done(faulty=True, **options)


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("stall", [0, 0.1, 0.6])
def test_random_instructions(name, stall):
    """Of several sequences, overlapping; a part of them refused."""
    size, group, kv = UNITS[name]
    for seed in range(20 if DEEP else 1):
        job = traffic(kv, group, seed + int(100 * stall), 150, stall=stall, size=size)
        found = run(job)
        assert {error for error, _ in found.answers} == {Error.NONE.value, Error.ARGUMENT.value, Error.REFUSED.value}
        for port in ("write", "done", "queries_request", "rows_request", "queries", "rows", "i") if stall else ():
            assert found.seen[port, "held back"] and found.seen[port, "starved"], port


@pytest.mark.parametrize("name", UNITS)
def test_reading_and_writing_a_text(name):
    """Prompts of several sequences, then token after token, with and without windows; results over queries."""
    script, size = opened(name, 7, 1, 12)
    _, group, kv = UNITS[name]
    for layer in range(kv.layers):
        for sid, rows in enumerate((7, 1, 12)):
            script.attend(sid, layer, rows, 1 + sid % group, over=True, window=5 * layer)
    for step in range(4):
        for sid in range(3):
            script.extend(sid, 1)
        for layer in range(kv.layers):
            for sid in range(3):
                script.attend(sid, layer, 1, group, over=bool(step % 2), window=(0, 1, 40)[sid])
    found = run(script.done(size=size, stall=0.1))
    assert not any(error for error, _ in found.answers)


def test_rows_that_are_late():
    """The rest of an instruction, its only pass and its end, is told before all of its rows are asked for: these are
    its own nevertheless, whatever comes next."""
    script = Script(KvCache(**SMALL, format="fp8", kv_heads=1, block_tokens=16), 8)
    script.ask(Opcode.ALLOC_SEQ, sid=0)
    script.extend(0, 8)
    script.attend(0, 0, 8)
    script.extend(0, 1)
    run(script.done(size=16))


def test_streams_follow_each_other():
    """A token at a time: attention is given a beat whenever it takes one, from the first on; little comes besides."""
    script, size = opened("fp8", 60, 50)
    for layer in range(2):
        script.attend(0, layer, 1, 4, wait=True)
    for step in range(4):
        for sid in range(2):
            script.attend(sid, 0, 1, 4, wait=not step + sid)
    job = script.done(size=size)
    found = run(job)
    for first, last in ((4, 4), (5, 5), (6, len(job.log) - 1)):
        begin, end = found.accepted[first], found.done[last]
        beats = [cycle for cycle in found.beats if begin <= cycle <= end]
        full = sum(beats[0] <= cycle <= beats[-1] for cycle in found.full)
        assert beats[-1] - beats[0] + 1 == len(beats) + full
        assert end - begin + 1 - len(beats) - full <= ALONE


def test_what_is_refused():
    """It says why, leaves everything as it was, and what follows is not disturbed."""
    script, size = opened("fp8", 20, 20)
    ok = Error.NONE.value, 0
    refused = {
        Status.BAD_SEQ: lambda: script.attend(3, 0), Status.OUT_OF_RANGE: lambda: script.attend(0, 2),
        Status.OUT_OF_SEQ_TABLE: lambda: script.extend(0, 60), Status.WRITE_SHARED: lambda: script.attend(0, 0, 9),
        Status.NULL_DEREF: lambda: script.attend(1, 0, 3, 2, over=True)}
    script.ask(Opcode.FORK, sid=0, target=2)
    script.ask(Opcode.WINDOW, sid=1, computed=20, window=6)
    for status, instruction in refused.items():
        assert instruction() == (Error.REFUSED.value, status.value)
        assert script.attend(1, 1, 2, 2, window=3) == ok
        assert script.ask(Opcode.STAT, table=0, index=0) == ok      # how many commands there were
    for _ in range(2):
        for rows, group in (0, 1), (1, 0), (1, 5), (21, 1):
            assert script.attend(1, 0, rows, group) == (Error.ARGUMENT.value, 0)
        assert script.ask(Opcode.WRITE, sid=1, count=1) == (Error.ARGUMENT.value, 0)
        assert script.ask(Opcode.APPEND, sid=3, tokens=1) == ok     # its completion says that it is refused
    run(script.done(size=size))


def test_without_host_memory():
    """Nothing is swapped, and no byte is written anywhere."""
    script = Script(UNITS["fp8"][2], 4, hosted=False)
    script.ask(Opcode.ALLOC_SEQ, sid=0)
    script.extend(0, 20)
    script.attend(0, 0)
    for opcode in Opcode.SWAP_OUT, Opcode.SWAP_IN:
        assert script.ask(opcode, sid=0) == (Error.ARGUMENT.value, 0)
    script.attend(0, 1)
    run(script.done(size=16))


@pytest.mark.parametrize("stall", [0, 0.3])
def test_memory_that_fails(stall):
    """A beat that comes with an error, one that does not fit its checksum, and a write that is refused."""
    kv = UNITS["fp8"][2]
    script, size = opened("fp8", 20)
    block, first = script.tile.controller.sequences[0].entries[0], script.tile.store
    script.attend(0, 0)
    at = PAGE + first.address(block, 0, 1) + (kv.scale_beats + 3) * kv.beat
    job = wrong(script, Error.FAULT, Status.BUS_ERR, size=size, stall=stall,
                errors={("r", range(at, at + 1)): SLVERR})
    assert run(job).fault & 0xFF == Status.BUS_ERR
    job.errors = {}
    job.memory = bytes(byte ^ (n == at) for n, byte in enumerate(job.memory[0])), job.memory[1]
    job = wrong(script, Error.FAULT, Status.ECC_UE, size=size, memory=job.memory)
    assert run(job).fault & 0xFF == Status.ECC_UE
    job = wrong(script, Error.FAULT, Status.BUS_ERR, size=size, errors={("b", range(1 << 20)): SLVERR})
    assert run(job).fault & 0xFF == Status.BUS_ERR


def test_reset_in_the_midst():
    size, group, kv = UNITS["fp8"]
    run(traffic(kv, group, 5, 30, size=size, stall=0.2, interrupted=(150, 333, 1000)))


def test_numbers_that_are_too_large():
    """A register may have made them so."""
    script, size = opened("fp8", 20)
    for opcode, word in (Instruction.ATTEND, 0), (Instruction.ATTEND, 1), (Instruction.EXTEND, 1):
        words = [0] * 10
        words[word] = 1 << 20
        script.job.log.append((opcode, words, (Error.ARGUMENT.value, 0), False))
    script.job.log.append((31, [0] * 10, (Error.ARGUMENT.value, 0), False))
    run(script.done(size=size))


@pytest.mark.parametrize(("group", "size", "sentence"), [
    (0, 8, "Heads: group must be 1 to 8, not 0"),
    (9, 8, "Heads: group must be 1 to 8, not 9"),
    (4, 4, "Heads: size must be a power of two from 8 on that divides the 64 bytes of a head's row, not 4"),
    (4, 128, "Heads: size must be a power of two from 8 on that divides the 64 bytes of a head's row, not 128"),
])
def test_units_that_cannot_be(group, size, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Heads(UNITS["fp8"][2], group, size)
