# SPDX-License-Identifier: Apache-2.0
"""What cannot be run is refused on the command line, in one line that names it, before anything is built."""


import ml_dtypes
import numpy as np
import pytest

from scripts import run
from tests.checkpoints import MODELS, settings, weights, write

FAMILY, MODEL = "LlamaForCausalLM", MODELS["LlamaForCausalLM"]["plain"]
Q = "model.layers.1.self_attn.q_proj.weight"
CHIP = "[matmul]\nlanes = 8\ncols = 8\nacc_rows = 8\n"


def tensors():
    return {name: array.astype(ml_dtypes.bfloat16) for name, array in weights(MODEL).items()}


def stored(**changes):
    """A checkpoint in which some tensors are others, or, if they are None, none."""
    def make(folder):
        found = tensors() | {name.replace("__", "."): array for name, array in changes.items()}
        return write(folder, settings(FAMILY, MODEL), {k: v for k, v in found.items() if v is not None})
    return make


def configured(**changes):
    return lambda folder: write(folder, settings(FAMILY, MODEL) | changes, tensors())


def cut(size, flip=None):
    """A checkpoint whose file ends too early, or in which a byte has been turned over."""
    def make(folder):
        path = stored()(folder) / "model.safetensors"
        data = bytearray(path.read_bytes())
        if flip is not None:
            data[flip] ^= 0x80
        path.write_bytes(data[:size])
        return folder
    return make


def without(name):
    def make(folder):
        (stored()(folder) / name).unlink()
        return folder
    return make


def spoilt(name, value):
    array = tensors()[name]
    array[1, 2] = value
    return stored(**{name.replace(".", "__"): array})


def shaped(**sizes):
    """A model of other sizes."""
    model = MODEL.model_copy(update=sizes)
    found = {name: array.astype(ml_dtypes.bfloat16) for name, array in weights(model).items()}
    return lambda folder: write(folder, settings(FAMILY, model), found)


AS_IT_IS, IDS = stored(), ("--ids", "1", "2")
Q_ = Q.replace(".", "__")
MANY = "[kvcache]\nblocks = 65536\nsequences = 64\ntable = 2048\nblock_tokens = 256\n"

MISTAKES = {
    "truncated": (cut(-100), "", IDS, "model.safetensors: not safetensors: "),
    "empty": (cut(0), "", IDS, "model.safetensors: not safetensors: "),
    "corrupt": (cut(None, flip=3), "", IDS, "model.safetensors: not safetensors: "),
    "no weights": (without("model.safetensors"), "", IDS, "model.safetensors"),
    "no settings": (without("config.json"), "", IDS, "config.json: No such file or directory"),
    "missing tensor": (stored(**{Q_: None}), "", IDS, f"{Q}: missing"),
    "extra tensor": (stored(model__extra=np.zeros(3, np.float32)), "", IDS,
                     "model.extra: not a tensor of this model"),
    "type": (stored(**{Q_: np.zeros((24, 24), np.int8)}), "", IDS, f"{Q}: is I8, must be BF16, F16 or F32"),
    "shape": (stored(**{Q_: np.zeros((24, 23), np.float32)}), "", IDS,
              f"{Q}: has shape (24, 23), must have (24, 24)"),
    "nan": (spoilt(Q, np.nan), "", IDS, f"{Q}: is nan at [1, 2]"),
    "infinite": (spoilt(Q, -np.inf), "", IDS, f"{Q}: is -inf at [1, 2]"),
    "architecture": (configured(architectures=["GemmaForCausalLM"]), "", IDS,
                     'config.json: architectures = ["GemmaForCausalLM"]: must be '),
    "activation": (configured(hidden_act="gelu"), "", IDS, 'config.json: hidden_act = "gelu": must be "silu"'),
    "scratchpad": (shaped(hidden=200), "[memory]\nscratchpad = 4096\n", IDS, "memory.scratchpad = 4096: must be "),
    "memory": (shaped(layers=8, positions=1 << 19), MANY, IDS, "bytes; a tile reaches 4294967296"),
    "longest row": (shaped(intermediate=300), "[vector]\nrow_max = 256\n", IDS,
                    "chip: vector.row_max = 256: must be 300 or more"),
    "prefetch": (AS_IT_IS, "[memory]\nprefetch = 512\n", IDS, "chip: memory.prefetch = 512: must be 1024 or more"),
    "long prompt": (AS_IT_IS, "", ("--ids", *["1"] * 64, "--tokens", "2"),
                    "prompt 0 has 64 tokens: must be 1 to 63 with 2 to come, as context = 64"),
    "token": (AS_IT_IS, "", ("--ids", "37"), "prompt 0: token 37 must be 0 to 36"),
    "text": (AS_IT_IS, "", ("--prompt", "x"), "--prompt: needs a vocabulary of 258"),
    "key": (AS_IT_IS, "[memory]\nbanks = 3\n", IDS, "chip.toml: memory.banks = 3: must be a power of two"),
}


@pytest.mark.parametrize("backend", ["golden", "rtl"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(tmp_path, monkeypatch, capsys, mistake, backend):
    def never(*_, **__):
        raise AssertionError("something was built")

    make, chip, options, sentence = MISTAKES[mistake]
    monkeypatch.setattr(run, "Rtl", never)
    (tmp_path / "chip.toml").write_text(CHIP + chip)
    with pytest.raises(SystemExit) as ended:
        run.main(["--checkpoint", str(make(tmp_path / "model")), "--config", str(tmp_path / "chip.toml"),
                  "--backend", backend, *options])
    line = ended.value.code
    assert line.startswith("run: ") and sentence in line and "\n" not in line
