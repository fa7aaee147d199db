# SPDX-License-Identifier: Apache-2.0
"""Which language models there are: sizes, what sets one family apart from another, and all weights by name.

Families differ in few things, and a description has these instead of a family's name: Qwen2 adds a bias to queries,
keys and values; Qwen3 normalizes every head's query and key; Mistral looks back through a window; Llama 3 slows down
rotary embedding.
"""

from math import pi

import numpy as np
from pydantic import Field, field_validator, model_validator

from golden.config import Section

__all__ = ["MOST_LAYERS", "Model", "Rope"]

MOST_LAYERS = 1024


class Rope(Section):
    """Rotary embedding: elements i and i + head_dim / 2 of a head turn by their frequency times the position.

    Attributes
    ----------
    theta : float
        Frequencies go down from 1 to nearly 1 / theta.
    factor : float
        By which Llama 3 divides low frequencies; 1 leaves all as they are.
    low, high : float
        Turns within `original` positions: whatever makes fewer than `low` is low, more than `high` is not.
    original : int
        Positions before the context was made longer.
    """

    theta: float = Field(10000.0, gt=0, allow_inf_nan=False)
    factor: float = Field(1.0, ge=1, allow_inf_nan=False)
    low: float = Field(1.0, gt=0, allow_inf_nan=False)
    high: float = Field(4.0, gt=0, allow_inf_nan=False)
    original: int = Field(8192, ge=1, le=1 << 24)

    @field_validator("high")
    @classmethod
    def _high_is_above_low(cls, high, info):
        if high <= info.data.get("low", 0):
            raise ValueError(f"must be above that of low frequencies, {info.data['low']}")
        return high

    def frequencies(self, head_dim):
        """Of the pairs, in radians a position: float64, shape (head_dim / 2,)."""
        plain = self.theta ** -(np.arange(0, head_dim, 2) / head_dim)
        turns = plain * self.original / (2 * pi)
        high = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return plain * (high + (1 - high) / self.factor)


class Model(Section):
    """A decoder of the Llama kind.

    Attributes
    ----------
    vocabulary : int
        Tokens that there are.
    hidden, intermediate : int
        Elements of the residual stream and of the MLP.
    layers, heads, kv_heads, head_dim : int
    positions : int
        The longest context.
    epsilon : float
        Of the norms.
    rope : Rope
    windows : tuple of int or None
        Of each layer, how many tokens back attention sees, itself among them; None sees all.
    tied : bool
        Embedding and output layer are one.
    bias : bool
        Queries, keys and values have a bias.
    head_norms : bool
        Each head's query and key is normalized before it turns.
    """

    vocabulary: int = Field(ge=1, le=1 << 20)
    hidden: int = Field(ge=1, le=1 << 16)
    intermediate: int = Field(ge=1, le=1 << 18)
    layers: int = Field(ge=1, le=MOST_LAYERS)
    heads: int = Field(ge=1, le=1024)
    kv_heads: int = Field(ge=1, le=1024)
    head_dim: int = Field(ge=2, le=1024)
    positions: int = Field(ge=1, le=1 << 24)
    epsilon: float = Field(1e-5, gt=0, allow_inf_nan=False)
    rope: Rope = Rope()
    windows: tuple[int | None, ...] = Field(validate_default=True, default_factory=lambda known: _all_see_all(known))
    tied: bool = False
    bias: bool = False
    head_norms: bool = False

    @field_validator("kv_heads")
    @classmethod
    def _heads_share(cls, kv_heads, info):
        heads = info.data.get("heads", kv_heads)
        if heads % kv_heads:
            raise ValueError(f"must divide the number of query heads, {heads}")
        return kv_heads

    @field_validator("head_dim")
    @classmethod
    def _elements_pair(cls, head_dim):
        if head_dim % 2:
            raise ValueError("must be even, as elements turn in pairs")
        return head_dim

    @model_validator(mode="after")
    def _every_layer_has_a_window(self):
        if len(self.windows) != self.layers or any(window is not None and window < 1 for window in self.windows):
            raise ValueError(f"windows must be those of {self.layers} layers, a token or more each")
        return self

    @property
    def shapes(self):
        """The shape of every tensor, by the name that it has in a checkpoint. Linear layers are (outputs, inputs)."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = {
            "input_layernorm.weight": (self.hidden,),
            "self_attn.q_proj.weight": (queries, self.hidden),
            "self_attn.k_proj.weight": (keys, self.hidden),
            "self_attn.v_proj.weight": (keys, self.hidden),
            "self_attn.o_proj.weight": (self.hidden, queries),
            "post_attention_layernorm.weight": (self.hidden,),
            "mlp.gate_proj.weight": (self.intermediate, self.hidden),
            "mlp.up_proj.weight": (self.intermediate, self.hidden),
            "mlp.down_proj.weight": (self.hidden, self.intermediate),
        }
        if self.bias:
            layer |= {"self_attn.q_proj.bias": (queries,), "self_attn.k_proj.bias": (keys,),
                      "self_attn.v_proj.bias": (keys,)}
        if self.head_norms:
            layer |= {"self_attn.q_norm.weight": (self.head_dim,), "self_attn.k_norm.weight": (self.head_dim,)}
        shapes = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for index in range(self.layers):
            shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
        shapes["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, self.hidden)
        return shapes

    @property
    def parameters(self):
        """Numbers in all tensors."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())


def _all_see_all(known):
    return (None,) * known["layers"]
