# SPDX-License-Identifier: Apache-2.0
"""Programs in which something has been changed, on the RTL of a tile. With `DEEP` in the environment: hundreds.

`SEED` in the environment begins with another case; each names its own when it fails.
"""

import os
import random

import numpy as np
import pytest

from golden.isa import BYTES, Engine, Error, Gemm, Heads, Instruction, Weights, assemble, disassemble
from golden.paging import Command, Opcode
from golden.tile import Tile
from sim.faults import KINDS, Bed, change
from sim.tile import Rtl
from sw.compiler.layout import PAGE, align
from sw.runtime.device import DeviceError, Golden
from sw.runtime.runtime import Runtime
from tests.test_tile import PROMPTS, runtime

DEEP = "DEEP" in os.environ
FIRST = int(os.environ.get("SEED", "0"))
COUNT = 500 if DEEP else 30


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    """The chip, the model, and so the simulation of `test_the_hardware_does_the_same`."""
    reference, _ = runtime(tmp_path_factory.mktemp("faults"), "Qwen3ForCausalLM", "norms", "fp8", kv="fp8")
    device = Rtl(reference.layout)
    yield Bed(reference.layout, device, [PROMPTS[0].tolist(), PROMPTS[2][:4].tolist()])
    device.close()


def test_broken_programs_end(bed):
    """A bit or a field of any kind of instruction is changed, and the checksum fits nevertheless."""
    for seed in range(FIRST, FIRST + COUNT):
        rng = random.Random(seed)
        image, what = change(rng.choice(bed.programs), rng, KINDS[seed % len(KINDS)])
        try:
            bed.case(image)
        except Exception as error:
            error.add_note(f"SEED={seed}: {what}")
            raise
    assert {error for error, _ in bed.ends} >= {Error.NONE, Error.ILLEGAL, Error.INSTRUCTION, Error.ADDRESS}, bed.ends


def test_flipped_bits_are_found(bed):
    """No bit of an image, turned over, gets past the checksum; those behind it are zeros."""
    for seed in range(FIRST, FIRST + COUNT // 4):
        rng = random.Random(seed)
        image = bytearray(rng.choice(bed.programs))
        bit = rng.randrange(8 * len(image))
        image[bit // 8] ^= 1 << bit % 8
        wanted, (*found, _) = bed.verdict(bytes(image)), bed.attempt(bytes(image))
        assert wanted.refused and wanted.allows(*found), f"SEED={seed}: bit {bit}: {found}, not {wanted}"
    bed.device.reset()
    assert bed.good(bed.device) == bed.wanted[0]


@pytest.mark.parametrize("beats", [1, 16, 1000])
def test_weights_nobody_takes(bed, beats):
    """They end with the program: few, as many as there is room for, or more. The next program does not find them."""
    layout = bed.layout
    stream = Instruction(Weights.STREAM, {"source": layout.at["layers"], "bytes": 32 * beats})
    assert bed.attempt(assemble([stream], layout.chip.sequencer.instructions))[0] is Error.NONE
    assert [step[0][0] for step in Runtime(layout, bed.device).decode([1, 2], 2)] == [
        step[0][0] for step in decoded(bed)]


def test_keys_that_nobody_wrote(bed):
    """A sequence grows by a token more than are written: the place in between fits no checksum."""
    program = disassemble(bed.programs[1])
    next(each for each in program if each.opcode is Heads.EXTEND).fields["tokens"] += 1
    at = next(pc for pc, each in enumerate(program) if each.opcode is Heads.ATTEND)
    image = assemble(program[:-1], bed.layout.chip.sequencer.instructions)
    assert bed.attempt(image)[:3] == (Error.INSTRUCTION, Engine.HEADS, at)
    assert bed.verdict(image).allows(Error.INSTRUCTION, Engine.HEADS, at)


def test_scales_that_the_engine_cannot_take(bed):
    """Blocks with scales, of which it does not know, are refused."""
    program = disassemble(bed.programs[0])
    at, gemm = next((pc, each) for pc, each in enumerate(program) if each.opcode is Gemm.GEMM)
    gemm.fields["mx"] = 1
    image = assemble(program[:-1], bed.layout.chip.sequencer.instructions)
    assert bed.attempt(image)[:3] == (Error.INSTRUCTION, Engine.MATMUL, at)
    assert bed.verdict(image).allows(Error.INSTRUCTION, Engine.MATMUL, at)


def test_host_memory(bed):
    """Sequences leave for it and come back, to go on as if nothing had been; without it, that is refused."""
    layout, kv = bed.layout, bed.layout.chip.kvcache
    swaps = [assemble([Instruction(Heads.COMMAND, {
        **{f"word{n}": Command(opcode, {"sid": 0}).word >> 32 * n & 0xFFFFFFFF for n in range(4)}})],
        layout.chip.sequencer.instructions) for opcode in (Opcode.SWAP_OUT, Opcode.SWAP_IN)]
    assert bed.attempt(swaps[0])[:3] == (Error.INSTRUCTION, Engine.HEADS, 0)
    assert bed.verdict(swaps[0]).allows(Error.INSTRUCTION, Engine.HEADS, 0)

    golden, end = Golden(layout), align(layout.size, PAGE)
    golden.tile = Tile(layout.chip, end + kv.host_blocks * kv.block_bytes, layout.at["kv"], end)
    room = layout.at["results"]         # of the simulated board, where there are none yet
    size = -(-len(bed.prompts[0]) // kv.block_tokens) * kv.block_bytes
    assert size <= layout.results * layout.result_pitch
    bed.device.set("kv_host_base", value=room // PAGE)
    for device in bed.device, golden:
        bed.prepare(device)
        device.write(room, bytes(size))
        for image in swaps:
            device.write(layout.at["programs"], image)
            device.run(layout.at["programs"], len(image) // BYTES)
    assert golden.read(end, size).any()
    np.testing.assert_array_equal(bed.device.read(room, size), golden.read(end, size))
    assert [step[0][0] for step in Runtime(layout, bed.device).decode([1, 2], 2)] == [
        step[0][0] for step in decoded(bed)]
    bed.device.set("kv_host_base", value=0)


@pytest.mark.parametrize("how", ["stop", "reset"])
def test_given_up_at_any_time(bed, how):
    """By the host, in the midst of traffic; the next program runs."""
    image, rng = bed.programs[0], random.Random(how)
    for _ in range(20 if DEEP else 4):
        bed.prepare(bed.device)
        bed.device.write(bed.layout.at["programs"], image)
        with pytest.raises(DeviceError, match="STOPPED") as error:
            bed.device.run(bed.layout.at["programs"], len(image) // BYTES, rng.randrange(4000), how)
        assert error.value.error is Error.STOPPED
        bed.device.reset()
        assert bed.good(bed.device) == bed.wanted[0]
        bed.same(bed.wanted[1], f"after {how}")


def decoded(bed):
    """What golden makes of the two sequences of `prepare`."""
    bed.prepare(bed.golden)
    return Runtime(bed.layout, bed.golden).decode([1, 2], 2)
