# SPDX-License-Identifier: Apache-2.0

import json
import shutil

import ml_dtypes
import numpy as np
import pytest

from golden.llama import Llama
from sw.compiler.checkpoint import CheckpointError, read
from tests.checkpoints import CASES, LONG, MODELS, SMALL, scaling, settings, weights, write

LLAMA, MODEL = "LlamaForCausalLM", MODELS["LlamaForCausalLM"]["plain"]
CONFIG = settings(LLAMA, MODEL)
Q = "model.layers.1.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
E4M3 = ml_dtypes.float8_e4m3fn


def tensors(dtype=ml_dtypes.bfloat16, model=MODEL):
    return {name: array.astype(dtype) for name, array in weights(model).items()}


def quantized(scale_shape, method):
    """All linear layers in FP8 with a scale; config.json, tensors, and the numbers they stand for."""
    found, values = tensors(), weights(MODEL)
    for place, name in enumerate(name for name in MODEL.shapes if "_proj" in name):
        outputs = MODEL.shapes[name][0]
        shape = (outputs, 1) if scale_shape == "channel" else (outputs,) if scale_shape == "flat" else scale_shape
        scale = np.float32(0.01 * (1 + place + np.arange(np.prod(shape, dtype=int)).reshape(shape)))
        found[name] = (values[name] / scale.reshape(-1, 1)).astype(E4M3)
        found[f"{name}_scale"] = scale
        values[name] = found[name].astype(np.float64) * scale.reshape(-1, 1)
    return CONFIG | {"quantization_config": method}, found, values


@pytest.mark.parametrize("family, name", CASES)
def test_what_was_written_is_read(tmp_path, family, name):
    model = MODELS[family][name]
    found = read(write(tmp_path, settings(family, model), tensors(model=model)))
    assert found.model == model and (found.bos, found.eos) == ((1,), (2, 3))
    values = found.values()
    assert list(values) == list(model.shapes)
    for key, array in weights(model).items():
        assert values[key].dtype == np.float64 and (values[key] == array).all()
    assert Llama(found.model, found.values(np.float32), np.float32)(np.array([1, 2])).dtype == np.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_data_types(tmp_path, dtype):
    """What is stored is kept as it is; types mix."""
    stored = tensors(dtype) | {Q: tensors(np.float32)[Q]}
    found = read(write(tmp_path, CONFIG, stored))
    assert found.weights[DOWN].array.dtype == dtype and found.weights[Q].array.dtype == np.float32
    assert (found.weights[DOWN].values() == stored[DOWN].astype(np.float64)).all()


@pytest.mark.parametrize("shards", [2, 5])
def test_shards(tmp_path, shards):
    found = read(write(tmp_path, CONFIG, tensors(), shards)).values()
    assert all((found[name] == array).all() for name, array in weights(MODEL).items())


@pytest.mark.parametrize("method", [
    {"quant_method": "compressed-tensors", "format": "float-quantized"}, {"quant_method": "fbgemm_fp8"},
    {"quant_method": "fp8", "activation_scheme": "dynamic"}], ids=lambda method: method["quant_method"])
@pytest.mark.parametrize("shape", ["channel", "flat", (1,), ()], ids=str)
def test_fp8(tmp_path, shape, method):
    config, stored, values = quantized(shape, method)
    stored["model.layers.0.self_attn.q_proj.input_scale"] = np.ones(1, np.float32)
    found = read(write(tmp_path, config, stored))
    assert found.weights[Q].array.dtype == E4M3 and found.weights[Q].scale.dtype == np.float32
    for name, array in found.values().items():
        np.testing.assert_allclose(array, values[name], rtol=1e-15)


def test_newer_and_older_names_of_rope(tmp_path):
    model = MODELS[LLAMA]["longer"]
    config = settings(LLAMA, model)
    newer = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    newer["rope_parameters"] = scaling(LONG) | {"rope_theta": LONG.theta}
    older = config | {"rope_scaling": {"type" if key == "rope_type" else key: value
                                       for key, value in config["rope_scaling"].items()}}
    for each in newer, older:
        assert read(write(tmp_path, each, tensors(model=model))).model == model
    plain = newer | {"rope_parameters": {"rope_type": "default", "rope_theta": 500}}
    assert read(write(tmp_path, plain, tensors(model=model))).model.rope.frequencies(4)[1] == 500 ** -0.5


def test_what_may_be_absent(tmp_path):
    """As in the first checkpoints of Llama; and an output layer that repeats the embedding."""
    config = {key: value for key, value in CONFIG.items() if key not in (
        "num_key_value_heads", "head_dim", "rope_theta", "bos_token_id", "eos_token_id", "tie_word_embeddings")}
    model = MODEL.__class__(**SMALL | {"kv_heads": 4, "epsilon": CONFIG["rms_norm_eps"]})
    stored = tensors(model=model) | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}
    found = read(write(tmp_path, config, stored))
    assert found.model == model and found.bos == found.eos == ()

    tied = stored | {"lm_head.weight": stored["model.embed_tokens.weight"]}
    assert read(write(tmp_path, config | {"tie_word_embeddings": True}, tied)).model.tied


@pytest.mark.parametrize("kinds, windows", [
    (["full_attention", "sliding_attention"], (None, 7)), (["sliding_attention"] * 2, (7, 7)), (None, (7, 7))])
def test_kinds_of_layers(tmp_path, kinds, windows):
    config = settings("MistralForCausalLM", MODEL) | {"sliding_window": 7, "layer_types": kinds}
    assert read(write(tmp_path, config, tensors())).model.windows == windows


@pytest.mark.parametrize("key, value, sentence", [
    ("architectures", ["GemmaForCausalLM"],
     'architectures = ["GemmaForCausalLM"]: must be ["LlamaForCausalLM"], ["MistralForCausalLM"], '
     '["Qwen2ForCausalLM"] or ["Qwen3ForCausalLM"]'),
    ("architectures", None, "architectures = null: must be "),
    ("hidden_act", "gelu", 'hidden_act = "gelu": must be "silu"'),
    ("attention_bias", True, "attention_bias = true: must be false"),
    ("mlp_bias", True, "mlp_bias = true: must be false"),
    ("hidden_size", None, "hidden_size is missing"),
    ("hidden_size", "24", 'hidden_size = "24": must be a valid integer'),
    ("hidden_size", 0, "hidden_size = 0: must be greater than or equal to 1"),
    ("num_hidden_layers", 1e9, "num_hidden_layers = 1000000000.0: must be a valid integer"),
    ("num_hidden_layers", 10 ** 9, "num_hidden_layers = 1000000000: must be less than or equal to 1024"),
    ("num_key_value_heads", 3, "num_key_value_heads = 3: must divide the number of query heads, 4"),
    ("num_attention_heads", 5, "num_key_value_heads = 2: must divide the number of query heads, 5"),
    ("head_dim", 0, "head_dim = 0: must be greater than or equal to 2"),
    ("head_dim", 7, "head_dim = 7: must be even, as elements turn in pairs"),
    ("rms_norm_eps", 0.0, "rms_norm_eps = 0.0: must be greater than 0"),
    ("tie_word_embeddings", 1, "tie_word_embeddings = 1: must be a valid boolean"),
    ("rope_theta", float("inf"), "rope_theta = Infinity: must be a finite number"),
    ("rope_scaling", {"rope_type": "yarn"}, 'rope_scaling.rope_type = "yarn": must be "default" or "llama3"'),
    ("rope_scaling", 8, "rope_scaling = 8: must be an object"),
    ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "rope_scaling.low_freq_factor is missing"),
    ("rope_scaling", scaling(LONG) | {"high_freq_factor": 1.0},
     "rope_scaling.high_freq_factor = 1.0: must be above that of low frequencies, 1.0"),
    ("rope_parameters", {"rope_type": "linear", "factor": 2.0},
     'rope_parameters.rope_type = "linear": must be "default" or "llama3"'),
    ("partial_rotary_factor", 0.5, "partial_rotary_factor = 0.5: must be 1"),
    ("sliding_window", 0, "sliding_window = 0: must be an integer, 1 or more"),
    ("layer_types", ["full_attention"],
     'layer_types: must be "full_attention" or "sliding_attention", for each of 2 layers'),
    ("eos_token_id", [2, 37], "eos_token_id = 37: must be a token, 0 to 36"),
    ("quantization_config", {"quant_method": "gptq"},
     'quantization_config.quant_method = "gptq": must be "compressed-tensors", "fbgemm_fp8" or "fp8"'),
    ("quantization_config", {"quant_method": "fp8", "weight_block_size": [128, 128]},
     "quantization_config.weight_block_size = [128, 128]: must be absent"),
    ("quantization_config", {"quant_method": "compressed-tensors", "format": "pack-quantized"},
     'quantization_config.format = "pack-quantized": must be "float-quantized"'),
    ("quantization_config", "fp8", 'quantization_config = "fp8": must be an object'),
])
def test_refused_config(tmp_path, key, value, sentence):
    family = "MistralForCausalLM" if key in ("sliding_window", "layer_types") else LLAMA
    refused(write(tmp_path, settings(family, MODEL) | {key: value}, tensors()), f"config.json: {sentence}")


ODD = [None, True, -1, 0, 2.5, 10 ** 30, float("nan"), "24", [], [None], {}, {"rope_type": []}, {"quant_method": {}}]


@pytest.mark.parametrize("family", ["Qwen2ForCausalLM", "MistralForCausalLM"])
def test_any_config(tmp_path, family):
    """Whatever a key has, it is read or refused in a line."""
    model = next(iter(MODELS[family].values()))
    config, stored = settings(family, model), tensors(model=model)
    keys = [*config, "rope_scaling", "rope_parameters", "layer_types", "quantization_config", "max_window_layers",
            "attention_bias", "mlp_bias", "partial_rotary_factor"]
    if family.startswith("Qwen"):
        config |= {"use_sliding_window": True, "sliding_window": 3}
    write(tmp_path, config, stored)
    for key in keys:
        for value in ODD:
            (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
            try:
                read(tmp_path)
            except CheckpointError as error:
                assert "\n" not in str(error)


def test_heads_that_do_not_divide(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key != "head_dim"} | {"num_attention_heads": 14}
    refused(write(tmp_path, config, tensors()),
            "config.json: num_attention_heads = 14: must divide hidden_size, 24, or head_dim be given")


@pytest.mark.parametrize("changes, sentence", [
    ({Q: None}, f"{Q}: missing"),
    ({"model.norm.weight": None}, "model.norm.weight: missing"),
    ({"model.layers.2.mlp.up_proj.weight": np.zeros((1, 1), np.float32)},
     "model.layers.2.mlp.up_proj.weight: not a tensor of this model"),
    ({"model.layers.0.self_attn.q_proj.bias": np.zeros(24, np.float32)},
     "model.layers.0.self_attn.q_proj.bias: not a tensor of this model"),
    ({Q: np.zeros((24, 23), np.float32)}, f"{Q}: has shape (24, 23), must have (24, 24)"),
    ({Q: np.zeros((576,), np.float32)}, f"{Q}: has shape (576,), must have (24, 24)"),
    ({Q: np.zeros((24, 24), np.int8)}, f"{Q}: is I8, must be BF16, F16 or F32"),
    ({Q: np.zeros((24, 24), E4M3)}, f"{Q}: is F8_E4M3, must be BF16, F16 or F32"),
    ({Q: np.zeros((24, 24), np.float64)}, f"{Q}: is F64, must be BF16, F16 or F32"),
])
def test_refused_tensors(tmp_path, changes, sentence):
    stored = {name: array for name, array in (tensors() | changes).items() if array is not None}
    refused(write(tmp_path, CONFIG, stored), sentence)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tmp_path, dtype, value):
    stored = tensors(dtype)
    stored[DOWN][3, 17] = value
    refused(write(tmp_path, CONFIG, stored), f"{DOWN}: is {value} at [3, 17]")


@pytest.mark.parametrize("change, sentence", [
    ({f"{Q}_scale": None}, f"{Q}_scale: missing"),
    ({f"{Q}_scale": np.ones((3, 1), np.float32)},
     f"{Q}_scale: has shape (3, 1), must have (), (1,), (24,) or (24, 1)"),
    ({f"{Q}_scale": np.zeros((24, 1), np.float32)}, f"{Q}_scale: must be above 0"),
    ({f"{Q}_scale": np.full((24, 1), np.nan, np.float32)}, f"{Q}_scale: is nan at [0, 0]"),
    ({Q: np.full((24, 24), np.nan, E4M3)}, f"{Q}: is nan at [0, 0]"),
    ({Q: np.zeros((24, 24), np.int8)}, f"{Q}: is I8, must be BF16, F16, F32 or F8_E4M3"),
    ({Q: np.zeros((24, 24), np.float32)}, f"{Q}_scale: not a tensor of this model"),
    ({"model.norm.weight": np.ones(24, E4M3)}, "model.norm.weight: is F8_E4M3, must be BF16, F16 or F32"),
])
def test_refused_fp8(tmp_path, change, sentence):
    config, stored, _ = quantized("channel", {"quant_method": "fbgemm_fp8"})
    stored = {name: array for name, array in (stored | change).items() if array is not None}
    refused(write(tmp_path, config, stored), sentence)


def test_tied_and_yet_another_output_layer(tmp_path):
    refused(write(tmp_path, CONFIG | {"tie_word_embeddings": True}, tensors()),
            "lm_head.weight: must be the embedding, as tie_word_embeddings is true")


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_truncated_file(tmp_path, size):
    path = write(tmp_path, CONFIG, tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(tmp_path, "model.safetensors: not safetensors: ")


def test_corrupt_files(tmp_path):
    """No byte of the header, changed, gets further than a line; unless it still says what it said."""
    path = write(tmp_path, CONFIG, tensors()) / "model.safetensors"
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    random = np.random.default_rng(0)
    for place in [*range(8), *random.integers(8, header, 60)]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << random.integers(8)]) + data[place + 1:])
        try:
            assert read(tmp_path).model == MODEL
        except CheckpointError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("text, sentence", [
    ("{", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ("[1]", "not a JSON object"), ("\udc80", "not JSON: "), ("[" * 100000, "not JSON: ")], ids=range(4))
def test_config_that_is_none(tmp_path, text, sentence):
    write(tmp_path, CONFIG, tensors())
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(tmp_path, f"config.json: {sentence}")


def test_absent_files(tmp_path):
    refused(tmp_path / "nowhere", "config.json: No such file or directory")
    write(tmp_path, CONFIG, tensors())
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, "model.safetensors: No such file or directory")


def test_index_that_is_wrong(tmp_path):
    good = write(tmp_path / "good", CONFIG, tensors(), shards=2)
    first, last = sorted(path.name for path in good.glob("*.safetensors"))
    index = json.loads((good / "model.safetensors.index.json").read_text())

    def changed(name, places, gone=None):
        folder = shutil.copytree(good, tmp_path / name)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index | {"weight_map": places}))
        if gone:
            (folder / gone).unlink()
        return folder

    places, elsewhere = index["weight_map"], "is where model.safetensors.index.json has it not, or the reverse"
    refused(changed("gone", places, gone=last), f"{last}: No such file or directory")
    refused(changed("moved", places | {"lm_head.weight": first}), f"{first}: lm_head.weight: {elsewhere}")
    refused(changed("more", places | {"a": last}), f"{last}: a: {elsewhere}")
    refused(changed("less", {name: file for name, file in places.items() if name != Q}), f"{last}: {Q}: {elsewhere}")
    for name, wrong in {"none": None, "up": {Q: "../model.safetensors"}, "number": {Q: 3}}.items():
        refused(changed(name, wrong), "json: weight_map: must have a file of this folder for each tensor")


def refused(folder, sentence):
    """In one line, which begins with the folder or a file of it."""
    with pytest.raises(CheckpointError) as found:
        read(folder)
    line = str(found.value)
    assert line.startswith(str(folder)) and sentence in line and "\n" not in line
