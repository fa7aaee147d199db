# SPDX-License-Identifier: Apache-2.0
"""The sequencer: its reference, and the RTL against it. With `DEEP` in the environment: more programs."""

import os
import re

import pytest

from golden.config import Sequencer as Config
from golden.isa import Control, Engine, Error, Gemm, Heads, Instruction, IsaError, Load, Store, Weights
from golden.sequencer import run
from hw.sequencer.program import Program
from hw.sequencer.queues import Queues
from hw.sequencer.sequencer import Sequencer
from sim.run import simulate

DEEP = "DEEP" in os.environ
NEXT, END = Instruction(Control.NEXT), Instruction(Control.END)


def loop(count, *body, register=None):
    registers = {} if register is None else {"count": register}
    return [Instruction(Control.LOOP, {"count": count}, registers), *body, NEXT]


def setting(opcode, register, value, registers=None):
    return Instruction(opcode, {"register": register, "value": value}, registers or {})


def sources(program, registers=(0,) * 8):
    return [each.instruction.fields["source"] for each in run([*program, END], registers)]


STREAM = Instruction(Weights.STREAM, {"source": 100, "bytes": 32}, {"source": 1})


def test_loops_and_registers():
    """Inner loops begin anew; registers wrap; what is set last counts."""
    step = setting(Control.ADD, 1, 10)
    assert sources([STREAM]) == [100]
    assert sources([STREAM], range(8)) == [101]
    assert sources(loop(2, *loop(2, STREAM, step), setting(Control.SET, 1, 1))) == [100, 110, 101, 111]
    assert sources([setting(Control.SET, 1, 0xFFFFFFFF), STREAM]) == [99]
    assert sources([setting(Control.SET, 2, 5), setting(Control.ADD, 1, 1, {"value": 2}), STREAM]) == [106]
    assert sources([Instruction(Control.SWAP, {"register": 1, "other": 2}), STREAM], range(8)) == [102]
    assert sources(loop(1, STREAM, step, register=2), range(8)) == [101, 111, 121]


def test_register_0_is_0():
    zero = [setting(Control.SET, 0, 7), setting(Control.ADD, 0, 7), Instruction(Control.SWAP, {"other": 1})]
    assert sources([*zero, STREAM, Instruction(Control.SWAP), STREAM], [9] * 8) == [100, 100]


def test_waits_are_counts_from_the_start():
    """And none for what was not dispatched, nor for oneself."""
    load = Instruction(Load.COPY)
    gemm = Instruction(Gemm.GEMM, {}, {}, {Engine.LOAD: 1, Engine.MATMUL: 2, Engine.STORE: 1})
    store = Instruction(Store.COPY, {}, {}, {Engine.STORE: 1, Engine.LOAD: 7})
    found = [*run([*loop(3, load, gemm), store, END])]
    assert [each.pc for each in found] == [1, 2, 1, 2, 1, 2, 4]
    assert [each.after for each in found if each.engine is Engine.MATMUL] == [
        {Engine.LOAD: 1}, {Engine.LOAD: 2}, {Engine.LOAD: 3, Engine.MATMUL: 1}]
    assert found[-1].after == {}


def test_words():
    """Those of its form, registers added."""
    (found,) = run([Instruction(Heads.EXTEND, {"sid": 3, "tokens": 4, "result": 5}, {"result": 1}), END], range(8))
    assert found.words == [3, 4, 6] and found.engine is Engine.HEADS and found.instruction.registers == {}


@pytest.mark.parametrize(("program", "error", "sentence"), [
    (loop(0, STREAM, register=2), Error.LOOP, "instruction 0: LOOP: a count of 0"),
    ([STREAM, Instruction(Heads.EXTEND, {"sid": 0xFFFF}, {"sid": 1})], Error.ILLEGAL,
     "instruction 1: EXTEND: sid of 16 bits cannot be 0x10000"),
    ([Instruction(Control.SET, {"register": 7}, {"register": 1})], Error.ILLEGAL,
     "instruction 0: SET: register of 3 bits cannot be 0x8"),
])
def test_what_registers_cannot_be(program, error, sentence):
    with pytest.raises(IsaError, match=f"^{re.escape(sentence)}$") as raised:
        list(run([*program, END], [0, 1, *[0] * 6]))
    assert raised.value.error == error and raised.value.pc == int(sentence.split()[1][:-1])


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: Sequencer(Config(), 24), "Program: beat must be a power of two from 8 to 128 bytes, not 24"),
    (lambda: Program(8, 4), "Program: beat must be a power of two from 8 to 128 bytes, not 4"),
    (lambda: Program(12, 8), "Program: instructions must be a power of two from 4 on, not 12"),
    (lambda: Queues((((8,),),) * 7, 4, 8), "Queues: forms must be of 1 to 6 engines, not 7"),
    (lambda: Queues((((8,) * 14,),), 4, 8), "Queues: forms must have 1 to 13 words, not 14"),
    (lambda: Queues((((8,),),), 3, 8), "Queues: queue must be 2, 4 or 8 instructions, not 3"),
    (lambda: Queues((((8,),),), 4, 8, 14), "Queues: count must be 5 to 13 bits, not 14"),
    (lambda: Queues((((8,),),), 4, 8, 12, 14), "Queues: limit must be one less than a power of two, not 14"),
])
def test_sequencers_that_cannot_be(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()


@pytest.mark.parametrize(("sizes", "beat"), [
    ({}, 16), ({"instructions": 32, "queue": 2}, 128), *[({"instructions": 64, "queue": 8}, 8)] * DEEP])
def test_rtl(sizes, beat):
    config = Config(patience=300, **sizes)
    env = {"CONFIG": config.model_dump_json(), "PROGRAMS": 50 if DEEP else 5}
    assert simulate(Sequencer(config, beat), "sim.benches.sequencer", env=env) > 10
