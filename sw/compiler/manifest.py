# SPDX-License-Identifier: Apache-2.0
"""A compiled model as files: what a host of its own needs to run it, without any of this."""

import hashlib
import json

from golden.isa import BYTES, Heads, Instruction, assemble
from golden.paging import Command, Opcode
from golden.registers import header
from sw.compiler.cycles import predict
from sw.compiler.layout import STEPS
from sw.compiler.program import Shape, program, rows_at_once
from sw.compiler.schedule import schedule

__all__ = ["write"]


def write(folder, layout, batch=1, steps=STEPS):
    """Write a compiled model.

    `memory.bin` is what memory holds at first, from address 0 on; `open.bin`, `prefill.bin` and `decode.bin` are
    programs to open sequences, to read as many tokens of a prompt as there is room for at once, and to decode some;
    `registers.h` are the host's registers; `manifest.json` says where everything lies, and how long programs take.

    Parameters
    ----------
    folder : path
        Made when missing.
    layout : sw.compiler.layout.Layout
    batch, steps : int
        Sequences and tokens of the program that decodes.

    Returns
    -------
    dict
        What the manifest says.

    Raises
    ------
    ModelError
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.bin").write_bytes(layout.image.tobytes())
    (folder / "registers.h").write_text(header())
    contexts = [each for each in (0, 128, 1024, 8192) if each + steps <= layout.context]
    programs = {"open": _program(folder, "open", _open(layout, batch))}
    for name, shape in ("prefill", Shape(tokens=rows_at_once(layout))), ("decode", Shape(sequences=batch, steps=steps)):
        programs[name] = _program(folder, name, program(layout, shape)[1]) | {
            "sequences": shape.sequences, "tokens": shape.tokens, "steps": shape.steps,
            "cycles": {context: predict(layout, shape, context).cycles for context in contexts
                       if context + shape.tokens * shape.steps <= layout.context}}
    manifest = {
        "model": layout.checkpoint.model.model_dump(mode="json"), "weights": layout.scheme.title,
        "chip": layout.chip.model_dump(mode="json"), "context": layout.context,
        "memory": {"bytes": layout.size, "at": layout.at, "sha256": hashlib.sha256(layout.image).hexdigest()},
        "tokens": {"pitch": layout.pick, "offset": 4}, "results": {"pitch": layout.result_pitch, "offset": 4},
        "registers": {"address": layout.at["programs"], "kv_base": layout.at["kv"] >> 12},
        "programs": programs,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _program(folder, name, image):
    (folder / f"{name}.bin").write_bytes(image)
    return {"file": f"{name}.bin", "instructions": len(image) // BYTES}


def _open(layout, batch):
    """Sequences 0 to `batch` - 1 are there, of no tokens."""
    words = (Command(Opcode.ALLOC_SEQ, {"sid": sid}).word for sid in range(batch))
    return assemble(schedule(layout.chip, [
        Instruction(Heads.COMMAND, {f"word{n}": word >> 32 * n & 0xFFFFFFFF for n in range(4)}) for word in words]),
        layout.chip.sequencer.instructions)
