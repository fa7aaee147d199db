# SPDX-License-Identifier: Apache-2.0
"""Programs of whole models on the reference of a tile, against the model in float64."""

import re

import ml_dtypes
import numpy as np
import pytest

from golden.config import Chip, KvCache, Matmul, Memory, Vector
from golden.llama import Llama
from golden.tile import TileError
from scripts import run
from sim.tile import Rtl
from sw.compiler.checkpoint import read
from sw.compiler.layout import Layout, ModelError, fit
from sw.compiler.program import Shape, program
from sw.compiler.weights import FORMATS_OF_WEIGHTS
from sw.runtime.device import DeviceError, Golden
from sw.runtime.runtime import Runtime, Sampling
from tests.checkpoints import CASES, MODELS, settings, weights, write

TOKENS = np.random.default_rng(1).integers(0, 37, 23)
PROMPTS = [TOKENS[:1], TOKENS[3:20], TOKENS[5:12]]


def chip(form="bf16", kv="bf16", **changes):
    """One of few multipliers, for models of few elements."""
    scheme = FORMATS_OF_WEIGHTS[form]
    return Chip(name="test", **{
        "matmul": matmul(scheme.family, scheme.scales == "block"),
        "vector": Vector(lanes=4, row_max=256), "memory": Memory(scratchpad=1 << 15),
        "kvcache": KvCache(blocks=64, sequences=4, table=16, block_tokens=4, format=kv, lanes=4)} | changes)


def matmul(family, mx=False):
    """An engine of few multipliers."""
    return Matmul(family=family, lanes=16, rows=2, cols=8, acc_rows=8, mx=mx)


def checkpoint(folder, family, name, sizes=None):
    """The folder of a random checkpoint."""
    model = MODELS[family][name].model_copy(update=sizes or {})
    tensors = {key: value.astype(ml_dtypes.bfloat16) for key, value in weights(model).items()}
    return write(folder / "model", settings(family, model), tensors)


def runtime(folder, family, name, form="bf16", sizes=None, **changes):
    """A random checkpoint, and what runs it."""
    found = read(checkpoint(folder, family, name, sizes))
    layout = Layout(found, fit(chip(form, **changes), found.model, form), form)
    return Runtime(layout, Golden(layout)), Llama(found.model, found.values())


@pytest.mark.parametrize(("family", "name"), CASES)
def test_logits_are_those_of_the_model(tmp_path, family, name):
    """BF16 throughout: what is left is its rounding."""
    tile, llama = runtime(tmp_path, family, name)
    found, wanted = tile.logits(TOKENS), llama(TOKENS)
    assert np.sqrt(((found - wanted) ** 2).mean() / (wanted ** 2).mean()) < 0.02


@pytest.mark.parametrize("form", FORMATS_OF_WEIGHTS)
def test_decoding_continues_what_was_read(tmp_path, form):
    """A token at a time, after prompts of any length, each sequence alone or with others: the same logits, bit by bit,
    as those of all tokens at once."""
    tile, _ = runtime(tmp_path, "Qwen3ForCausalLM", "norms", form, kv="fp8")
    alone = [list(tile.generate([prompt], 6, keep_logits=True)) for prompt in PROMPTS]
    together = list(tile.generate(PROMPTS, 6, keep_logits=True))
    for number, (prompt, single) in enumerate(zip(PROMPTS, alone, strict=True)):
        tokens = [token for _, token, _ in single]
        at_once = tile.logits(np.append(prompt, tokens[:-1]))[len(prompt) - 1:]
        assert tokens == at_once.argmax(-1).tolist()
        for steps in single, [step for step in together if step[0] == number]:
            np.testing.assert_array_equal([logits for _, _, logits in steps], at_once)


def test_more_sequences_than_there_is_room_for(tmp_path):
    """They take turns, and each ends by itself."""
    tile, _ = runtime(tmp_path, "LlamaForCausalLM", "plain", kv="fp8")
    prompts = [TOKENS[n:n + 1 + n % 5] for n in range(9)]
    alone = [[token for _, token, _ in tile.generate([prompt], 12)] for prompt in prompts]
    stop = {alone[0][3], alone[4][5]}
    wanted = [tokens[:next((n + 1 for n, token in enumerate(tokens) if token in stop), 12)] for tokens in alone]
    found = [[] for _ in prompts]
    for number, token, _ in tile.generate(prompts, 12, stop=stop):
        found[number].append(token)
    assert found == wanted
    assert len({len(tokens) for tokens in found}) > 1


def test_no_more_steps_than_there_is_room_for(tmp_path):
    """A program writes what there is room for the results of, and the next one goes on."""
    tile, _ = runtime(tmp_path, "LlamaForCausalLM", "plain", kv="fp8")
    layout, wanted = tile.layout, list(tile.generate(PROMPTS, 20))
    many = Runtime(layout, Golden(layout), steps=1000)
    assert sorted(many.generate(PROMPTS, 20), key=str) == sorted(wanted, key=str)
    decoding = [run for run in many.runs if run.kind == "decode"]
    assert len(decoding) == -(-19 // (layout.results // len(PROMPTS))) == 2


def test_sampling_is_repeatable(tmp_path):
    tile, _ = runtime(tmp_path, "LlamaForCausalLM", "plain", kv="fp8")

    def sample(**how):
        return [token for _, token, _ in tile.generate(PROMPTS[:1], 8, sampling=Sampling(**how))]

    assert sample(temperature=1.0, seed=1) == sample(temperature=1.0, seed=1) != sample(temperature=1.0, seed=2)
    assert sample(temperature=1.0, top_k=1) == sample() == sample(temperature=1.0, top_p=1e-9)


def test_choices_follow_probabilities():
    logits, random = np.log([0.5, 0.25, 0.125, 0.125]), np.random.default_rng(0)

    def shares(**how):
        chosen = [Sampling(temperature=1.0, **how).choose(logits, random) for _ in range(4000)]
        return np.bincount(chosen, minlength=4) / 4000

    np.testing.assert_allclose(shares(), [0.5, 0.25, 0.125, 0.125], atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.8), [4 / 7, 2 / 7, 1 / 7, 0], atol=0.03)


def test_size_of_programs(tmp_path):
    """The same for any batch, context, and number of layers."""
    sizes = set()
    for name in "plain", "longer":
        layout = runtime(tmp_path, "LlamaForCausalLM", name)[0].layout
        sizes |= {len(program(layout, shape)[0]) for shape in (
            Shape(), Shape(sequences=4), Shape(steps=9), Shape(tokens=7))}
    assert max(sizes) - min(sizes) <= 2 and max(sizes) < 64


def test_too_little_room(tmp_path):
    tile, _ = runtime(tmp_path, "LlamaForCausalLM", "plain", sizes={"hidden": 200},
                      memory=Memory(scratchpad=4096))
    with pytest.raises(ModelError, match=r"memory.scratchpad = 4096: must be 5\d\d\d or more for 1 tokens at once"):
        list(tile.generate(PROMPTS[:1], 1))


@pytest.mark.parametrize(("prompts", "count", "sentence"), [
    ([[]], 1, "prompt 0 has 0 tokens: must be 1 to 64 with 1 to come, as context = 64"),
    ([[1], [2] * 60], 6, "prompt 1 has 60 tokens: must be 1 to 59 with 6 to come"),
    ([[1, 37]], 1, "prompt 0: token 37 must be 0 to 36"),
    ([[1]], 0, "0 tokens to come: must be 1 to 64, as context says"),
    ([[1]], 65, "65 tokens to come: must be 1 to 64, as context says"),
])
def test_prompts_that_cannot_be(tmp_path, prompts, count, sentence):
    tile, _ = runtime(tmp_path, "LlamaForCausalLM", "plain")
    with pytest.raises(ModelError, match=re.escape(sentence)):
        list(tile.generate(prompts, count))


@pytest.mark.parametrize(("form", "change", "sentence"), [
    ("int8", {}, "test: weights in INT8: need matmul.family = int8, not uni"),
    ("mxfp4", {"matmul": {"mx": True, "acc_rows": 16}},
     "MXFP4 weights, MXFP8 activations: need matmul.cols and acc_rows in multiples of 32, not 8 and 16"),
    ("bf16", {"kvcache": {"kv_heads": 3}}, "test: kvcache.kv_heads = 3: must be that of the model, 2"),
    ("bf16", {"kvcache": {"head_dim": 16}}, "test: kvcache.head_dim = 16: must be 8, that of the model in whole words"),
    ("bf16", {"kvcache": {"layers": 1}}, "test: kvcache.layers = 1: must be 2 or more"),
    ("bf16", {"memory": {"channel": 64}}, "test: memory.channel = 64: must be matmul.lanes x rows = 32 or less"),
    ("bf16", {"kvcache": {"beat": 32}}, "test: kvcache.beat = 32: must be memory.channel = 16"),
    ("bf16", {"attention": {"group": 1}}, "test: attention.group = 1: must be 2 or more"),
    ("bf16", {"matmul": {"k_max": 20}}, "test: matmul.k_max = 20: must be 32 or more"),
    ("q4", {}, "weights = q4: must be fp8, mxfp4, int8 or bf16"),
])
def test_chips_that_do_not_fit(tmp_path, form, change, sentence):
    tile, _ = runtime(tmp_path, "LlamaForCausalLM", "plain")
    sections = {name: getattr(tile.layout.chip, name).model_copy(update=values) for name, values in change.items()}
    with pytest.raises(ModelError, match=re.escape(sentence)):
        Layout(tile.layout.checkpoint, tile.layout.chip.model_copy(update=sections), form)


def test_run_writes(tmp_path, capsys):
    """From the command line: several prompts of a checkpoint, and how near the model in float32 is."""
    folder = checkpoint(tmp_path, "Qwen2ForCausalLM", "biases")
    run.main(["--checkpoint", str(folder), "--config", "configs/nano.toml", "--ids", "1", "2", "3", "--ids", "7",
              "--tokens", "3"])
    printed = capsys.readouterr().out
    assert "1 2 3" in printed and "6 tokens in" in printed and "error of logits" in printed


@pytest.mark.parametrize(("options", "sentence"), [
    (["--prompt", "x"], "run: --prompt: needs a vocabulary of 258, bytes and two more, not of 37; give --ids"),
    (["--ids", "99"], "run: prompt 0: token 99 must be 0 to 36"),
    (["--ids", "1", "--tokens", "65"], "run: 65 tokens to come: must be 1 to 64, as context says"),
    (["--ids", "1", "--temperature", "-1"], "run: temperature = -1.0: must be 0 or more"),
    (["--checkpoint", "nowhere"], "run: nowhere/config.json: No such file or directory"),
])
def test_run_refuses(tmp_path, options, sentence):
    folder = checkpoint(tmp_path, "Qwen2ForCausalLM", "biases")
    with pytest.raises(SystemExit, match=f"^{re.escape(sentence)}$"):
        run.main(["--checkpoint", str(folder), "--config", "configs/nano.toml", *options])


@pytest.mark.parametrize(("engine", "forms"), [(matmul("uni", mx=True), ("fp8", "mxfp4", "bf16")),
                                               (matmul("int8"), ("int8",))], ids=("uni", "int8"))
def test_the_hardware_does_the_same(tmp_path, engine, forms):
    """Prompts of several lengths, read in pieces and decoded together, on the RTL: the same tokens, and every byte of
    memory, the KV cache and all logits in it."""
    for form in forms:
        reference, _ = runtime(tmp_path, "Qwen3ForCausalLM", "norms", form, kv="fp8", matmul=engine)
        device = Rtl(reference.layout)
        found, wanted = (list(each.generate(PROMPTS, 9, keep_logits=True))
                         for each in (Runtime(reference.layout, device), reference))
        assert [token for _, token, _ in found] == [token for _, token, _ in wanted], form
        np.testing.assert_array_equal(device.read(0, reference.layout.size),
                                      reference.device.read(0, reference.layout.size), form)
        device.close()


def test_a_tile_says_what_it_refuses(tmp_path):
    tile, _ = runtime(tmp_path, "LlamaForCausalLM", "plain")
    with pytest.raises(DeviceError, match="instruction 11, HEADS: APPEND of sequence 0: BAD_SEQ"):
        tile.decode([1], 1)
    with pytest.raises(DeviceError, match="ALLOC_SEQ of .*: SEQ_IN_USE"):
        list(tile.prefill(0, [1, 2]) for _ in range(2))
    assert issubclass(TileError, RuntimeError)
