"""How many parameters a model has, from the numbers of its configuration and without importing torch.

Only for architectures that are plain and common; their formulas are compared in the tests with models that torch builds.
For all others the caller takes the slow way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.trainer.errors import invalid_config
from trainyard.trainer.models.known_names import configuration_defaults

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model."""

    parameters: int
    hidden: int
    layers: int
    linears: tuple[tuple[str, int, int], ...]
    """Name, inputs and outputs of each linear part of one layer."""

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers."""
        return self.layers * sum(inputs * outputs for _, inputs, outputs in self.linears)

    def adapter(self, rank: int, targets: Sequence[str]) -> int:
        """Parameters of a LoRA adapter: rank x (inputs + outputs) of every adapted part."""
        chosen = [one for one in self.linears if list(targets) == ["all-linear"] or one[0] in targets]
        return self.layers * sum(rank * (inputs + outputs) for _, inputs, outputs in chosen)


def shapes_of(model_type: str, given: Mapping[str, Any]) -> Shapes | None:
    """The shapes, or None for an architecture that is not known here.

    Raises:
        UserError: the numbers do not make a model.
    """
    defaults = configuration_defaults(model_type)
    if not defaults:
        return None
    values = {**defaults, **given}
    if model_type == "gpt2":
        return _gpt2(values)
    return _llama_like(model_type, values) if model_type in LLAMA_LIKE else None


def _llama_like(model_type: str, values: Mapping[str, Any]) -> Shapes | None:
    try:
        vocabulary, hidden, inner, layers, heads = (
            int(values[name])
            for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        )
        key_heads = int(values.get("num_key_value_heads") or heads)
        size = values.get("head_dim")
        if size is None and (heads < 1 or hidden % heads):
            raise _does_not_fit(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
        size = int(size or hidden // heads)
    except (KeyError, TypeError, ValueError):
        return None
    if key_heads < 1 or heads % key_heads:
        raise _does_not_fit(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {key_heads}")
    if values.get("layer_types") or values.get("use_sliding_window") or values.get("mlp_bias"):
        return None
    linears = (
        ("q_proj", hidden, heads * size),
        ("k_proj", hidden, key_heads * size),
        ("v_proj", hidden, key_heads * size),
        ("o_proj", heads * size, hidden),
        ("gate_proj", hidden, inner),
        ("up_proj", hidden, inner),
        ("down_proj", inner, hidden),
    )
    layer = sum(inputs * outputs for _, inputs, outputs in linears) + 2 * hidden
    if model_type == "qwen2" or values.get("attention_bias"):
        layer += (heads + 2 * key_heads) * size
        layer += hidden if values.get("attention_bias") else 0
    if model_type == "qwen3":
        layer += 2 * size  # norms of queries and keys
    tables = 1 if values.get("tie_word_embeddings") else 2
    return Shapes(vocabulary * hidden * tables + layers * layer + hidden, hidden, layers, linears)


def _gpt2(values: Mapping[str, Any]) -> Shapes | None:
    try:
        named = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
        hidden, layers, heads = (int(values.get(new, values[old])) for new, old in named.items())
        vocabulary = int(values["vocab_size"])
        positions = int(values.get("max_position_embeddings", values["n_positions"]))
        inner = int(values.get("n_inner") or 4 * hidden)
    except (KeyError, TypeError, ValueError):
        return None
    if heads < 1 or hidden % heads:
        raise _does_not_fit(f"n_embd {hidden} is not a multiple of n_head {heads}")
    linears = (
        ("c_attn", hidden, 3 * hidden),
        ("c_proj", hidden, hidden),
        ("c_fc", hidden, inner),
        ("c_proj", inner, hidden),
    )
    layer = sum((inputs + 1) * outputs for _, inputs, outputs in linears) + 4 * hidden
    tables = 1 if values.get("tie_word_embeddings", True) else 2
    parameters = vocabulary * hidden * tables + positions * hidden + layers * layer + 2 * hidden
    return Shapes(parameters, hidden, layers, linears)


def _does_not_fit(what: str) -> Exception:
    return invalid_config(
        f"the configuration does not make a model: {what}",
        hint="check the sizes against each other (heads have to divide hidden_size)",
    )
