# SPDX-License-Identifier: Apache-2.0
"""Hugging Face checkpoints as they are: `config.json` and safetensors, to a description and weights.

Families are Llama, Qwen2, Qwen3 and Mistral; weights are FP32, FP16, BF16, or FP8 (E4M3) with a scale for each output
or tensor. Whatever would make another model than ours is refused in a line that names it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, deserialize

from golden.config import words
from golden.model import MOST_LAYERS, Model, Rope

__all__ = ["Checkpoint", "CheckpointError", "Weight", "read"]

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
KEYS = {"vocabulary": "vocab_size", "hidden": "hidden_size", "intermediate": "intermediate_size",
        "layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim", "positions": "max_position_embeddings", "epsilon": "rms_norm_eps",
        "tied": "tie_word_embeddings"}
"""What a field of `Model` is called in config.json."""
ROPE_KEYS = {"theta": "rope_theta", "factor": "factor", "low": "low_freq_factor", "high": "high_freq_factor",
             "original": "original_max_position_embeddings"}
DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32, "F8_E4M3": ml_dtypes.float8_e4m3fn}
FLOATS, FP8 = ("BF16", "F16", "F32"), ("F8_E4M3",)
NEEDLESS = (".input_scale", ".k_scale", ".v_scale", ".rotary_emb.inv_freq")
"""Ends of names of tensors that are not read: the chip finds the scales of activations itself."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, and why, in a line."""


@dataclass(frozen=True)
class Weight:
    """A tensor as it was found.

    Attributes
    ----------
    array : array of float32, float16, bfloat16 or float8_e4m3fn
    scale : array of float32, shape (outputs, 1) or (1, 1), or None
        By which FP8 is to be multiplied.
    """

    array: np.ndarray
    scale: np.ndarray | None = None

    def values(self, dtype=np.float64):
        """The numbers that it stands for."""
        values = self.array.astype(dtype)
        return values if self.scale is None else values * self.scale.astype(dtype)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was read.

    Attributes
    ----------
    model : golden.model.Model
    weights : dict
        A `Weight` for each of `model.shapes`.
    bos, eos : tuple of int
        Tokens that begin a sequence and end one.
    """

    model: Model
    weights: dict
    bos: tuple[int, ...]
    eos: tuple[int, ...]

    def values(self, dtype=np.float64):
        """Weights for `golden.llama.Llama`."""
        return {name: weight.values(dtype) for name, weight in self.weights.items()}


def read(folder):
    """The checkpoint in a folder.

    Raises
    ------
    CheckpointError
    """
    folder = Path(folder)
    path = folder / "config.json"
    config = _json(path)
    try:
        model, quantized = _describe(config), _is_quantized(config)
        bos, eos = (_tokens(config, key, model) for key in ("bos_token_id", "eos_token_id"))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Checkpoint(model, _weights(folder, model, quantized), bos, eos)


def _describe(config):
    """The `Model` that config.json tells of."""
    _check(config, "architectures", *([name] for name in FAMILIES))
    family = config["architectures"][0]
    _check(config, "hidden_act", "silu", None)
    for key in "attention_bias", "mlp_bias":
        _check(config, key, False, None)
    found = {field: config[key] for field, key in KEYS.items() if config.get(key) is not None}
    for field in "hidden", "intermediate", "layers", "heads", "vocabulary", "positions":
        if field not in found:
            raise CheckpointError(f"{KEYS[field]} is missing")
    found = {"kv_heads": found["heads"], "head_dim": _head_dim(config), "epsilon": 1e-6} | found
    return _build(Model, KEYS, **found, rope=_rope(config), windows=_windows(config, family, found["layers"]),
                  bias=family == "Qwen2ForCausalLM", head_norms=family == "Qwen3ForCausalLM")


def _head_dim(config):
    """As it is, or else as it follows; of what is no number too, which is for `Model` to refuse."""
    given, hidden, heads = (config.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads"))
    if given is not None or not isinstance(hidden, int) or not isinstance(heads, int) or heads < 1:
        return 2 if given is None else given
    if hidden % heads:
        raise CheckpointError(f"num_attention_heads = {heads}: must divide hidden_size, {hidden}, or head_dim be given")
    return hidden // heads


def _rope(config):
    """Of `rope_theta` and `rope_scaling`, or of the newer `rope_parameters`."""
    key = "rope_parameters" if config.get("rope_parameters") is not None else "rope_scaling"
    settings = config.get(key) or {}
    if not isinstance(settings, dict):
        raise CheckpointError(f"{key} = {json.dumps(settings)}: must be an object")
    kind = {"rope_type": settings.get("rope_type", settings.get("type"))}
    _check(kind, "rope_type", "default", "llama3", None, under=f"{key}.")
    _check(config, "partial_rotary_factor", 1, None)
    _check(settings, "partial_rotary_factor", 1, None, under=f"{key}.")
    if kind["rope_type"] != "llama3":
        theta = settings.get("rope_theta", config.get("rope_theta", 10000.0))
        return _build(Rope, {"theta": "rope_theta"}, theta=theta)
    settings = {"rope_theta": config.get("rope_theta", 10000.0)} | settings
    for name in ROPE_KEYS.values():
        if name not in settings:
            raise CheckpointError(f"{key}.{name} is missing")
    return _build(Rope, {field: f"{key}.{name}" for field, name in ROPE_KEYS.items()},
                  **{field: settings[name] for field, name in ROPE_KEYS.items()})


def _windows(config, family, layers):
    """Of each layer; none, if their number is nothing for `Model`."""
    qwen = family.startswith("Qwen")
    window, full = config.get("sliding_window", 4096), config.get("max_window_layers", 28)
    kinds = config.get("layer_types")
    if family.startswith("Llama") or qwen and not config.get("use_sliding_window"):
        window = None
    for key, value, least in ("sliding_window", window, 1), ("max_window_layers", full, 0):
        if value is not None and (type(value) is not int or value < least):
            raise CheckpointError(f"{key} = {json.dumps(value)}: must be an integer, {least} or more")
    if not isinstance(layers, int) or layers > MOST_LAYERS:
        return ()
    if kinds is None:
        kinds = ["full_attention" if qwen and layer < (full or 0) else "sliding_attention" for layer in range(layers)]
    known = "full_attention", "sliding_attention"
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in known for kind in kinds):
        raise CheckpointError(f"layer_types: must be {words(map(json.dumps, known))}, for each of {layers} layers")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _is_quantized(config):
    """Whether linear layers may be FP8; whatever else they may be is refused."""
    settings = config.get("quantization_config")
    if settings is None:
        return False
    if not isinstance(settings, dict):
        raise CheckpointError(f"quantization_config = {json.dumps(settings)}: must be an object")
    under = "quantization_config."
    _check(settings, "quant_method", "compressed-tensors", "fbgemm_fp8", "fp8", under=under)
    _check(settings, "weight_block_size", None, under=under)
    if settings["quant_method"] == "compressed-tensors":
        _check(settings, "format", "float-quantized", under=under)
    return True


def _tokens(config, key, model):
    """One token, some, or none."""
    found = config.get(key)
    found = [] if found is None else found if isinstance(found, list) else [found]
    for token in found:
        if not isinstance(token, int) or not 0 <= token < model.vocabulary:
            raise CheckpointError(f"{key} = {json.dumps(token)}: must be a token, 0 to {model.vocabulary - 1}")
    return tuple(found)


def _check(settings, key, *choices, under=""):
    """A setting is one of some; the choice None stands for no setting."""
    if settings.get(key) not in choices:
        known = [json.dumps(choice) for choice in choices if choice is not None] or ["absent"]
        raise CheckpointError(f"{under}{key} = {json.dumps(settings.get(key))}: must be {words(known)}")


def _build(section, keys, **values):
    """A section of a description, whose errors have the keys of config.json."""
    try:
        return section(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        reason = problem.get("ctx", {}).get("error") or problem["msg"].replace("Input should be", "must be")
        key = keys[problem["loc"][0]]
        raise CheckpointError(f"{key} = {json.dumps(problem['input'])}: {reason}") from None


def _json(path):
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return found


def _weights(folder, model, quantized):
    """A `Weight` for each of the model's tensors."""
    found = _tensors(folder)
    weights = {}
    for name, shape in model.shapes.items():
        linear = name.endswith("_proj.weight") or name == "lm_head.weight"
        array, scale = _take(folder, found, name, FLOATS + FP8 if linear and quantized else FLOATS, shape), None
        if array.dtype == DTYPES["F8_E4M3"]:
            scale = _take(folder, found, f"{name}_scale", FLOATS, (), (1,), shape[:1], (shape[0], 1))
            scale = scale.astype(np.float32).reshape(-1, 1)
            if (scale <= 0).any():
                raise CheckpointError(f"{folder}: {name}_scale: must be above 0")
        weights[name] = Weight(array, scale)
    if "lm_head.weight" in found:
        embedding = weights["model.embed_tokens.weight"].array
        head = _take(folder, found, "lm_head.weight", FLOATS, embedding.shape)
        if not np.array_equal(head, embedding):
            raise CheckpointError(f"{folder}: lm_head.weight: must be the embedding, as tie_word_embeddings is true")
    extra = [name for name in found if not name.endswith(NEEDLESS)]
    if extra:
        raise CheckpointError(f"{folder}: {extra[0]}: not a tensor of this model")
    return weights


def _take(folder, found, name, dtypes, *shapes):
    """A tensor, taken out of those found: an array that is as it should be, every number finite."""
    if name not in found:
        raise CheckpointError(f"{folder}: {name}: missing")
    tensor = found.pop(name)
    if tensor["dtype"] not in dtypes:
        raise CheckpointError(f"{folder}: {name}: is {tensor['dtype']}, must be {words(dtypes)}")
    if tuple(tensor["shape"]) not in shapes:
        raise CheckpointError(f"{folder}: {name}: has shape {tuple(tensor['shape'])}, must have {words(shapes)}")
    array = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    bad = np.argwhere(~np.isfinite(array.astype(np.float32)))
    if len(bad):
        raise CheckpointError(f"{folder}: {name}: is {array[tuple(bad[0])]} at {bad[0].tolist()}")
    return array


def _tensors(folder):
    """Data type, shape and data of all tensors, by name, of one file or as an index has it."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return _file(folder / "model.safetensors")
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) and Path(file).name == file
                                               for file in places.values()):
        raise CheckpointError(f"{index}: weight_map: must have a file of this folder for each tensor")
    found = {}
    for file in sorted(set(places.values())):
        tensors = _file(folder / file)
        strays = {name for name in tensors if places.get(name) != file} | {
            name for name, place in places.items() if place == file and name not in tensors}
        if strays:
            raise CheckpointError(f"{folder / file}: {min(strays)}: is where {index.name} has it not, or the reverse")
        found |= tensors
    return found


def _file(path):
    """Of one file."""
    try:
        return dict(deserialize(path.read_bytes()))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not safetensors: {error}") from None
