"""Low-rank adapters over a frozen model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.api.run.model import Lora
from trainyard.trainer.errors import invalid_config

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

FIELD = "spec.model.adapter.lora"
OUTPUT_HEADS = frozenset({"lm_head", "embed_out", "score"})


def add_adapter(model: PreTrainedModel, lora: Lora, *, scores: bool = False) -> PeftModel:
    """Freeze `model` and put a fresh adapter on it. The update is zero at first, so the model still answers as before. With
    `scores` the head that gives the score is trained as a whole, beside the adapter.

    Raises:
        UserError: a target module does not exist.
    """
    from peft import LoraConfig, get_peft_model

    every = lora.target_modules == ["all-linear"]
    if not every:
        check_targets(model, lora.target_modules)
    layers = last_layers(model, lora.layers)
    targets: str | list[str] = "all-linear" if every else lora.target_modules
    if every and layers is not None:  # peft takes layer numbers beside names only
        targets = sorted(set(kinds_of(linear_layers(model))) - OUTPUT_HEADS)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        layers_to_transform=layers,
        bias="none",
        task_type="SEQ_CLS" if scores else "CAUSAL_LM",
    )
    return get_peft_model(model, config)


def last_layers(model: PreTrainedModel, count: int | None) -> list[int] | None:
    """Numbers of the last `count` layers; None for all of them.

    Raises:
        UserError: the model has fewer.
    """
    if count is None:
        return None
    total = int(model.config.get_text_config().num_hidden_layers)
    if count > total:
        raise invalid_config(f"{FIELD}.layers {count}: the model has {total} layers", hint="lower it, or leave it out")
    return list(range(total - count, total))


def load_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool) -> PeftModel:
    """Put a saved adapter on its base model."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter's files. The same adapter is the same bytes: peft keeps the names of its layers as a set, which each
    process has in another order."""
    for config in model.peft_config.values():
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)
    model.save_pretrained(str(folder))


def linear_layers(model: PreTrainedModel) -> dict[str, Any]:
    """The linear layers by their paths."""
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's

    return {path: m for path, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}


def kinds_of(paths: Iterable[str]) -> list[str]:
    """The last parts of the paths, each once."""
    return list(dict.fromkeys(path.rpartition(".")[2] for path in paths))


def check_targets(model: PreTrainedModel, targets: list[str]) -> None:
    """Every name must be the last part of some linear layer's path, or a path's end."""
    paths = linear_layers(model)
    kinds = kinds_of(paths)
    for target in targets:
        if target in OUTPUT_HEADS.intersection(kinds):
            raise invalid_config(
                f"{FIELD}.targetModules: {target} is the output head, which cannot carry an adapter here",
                hint="remove it from the list",
            )
        if target not in kinds and not any(path == target or path.endswith(f".{target}") for path in paths):
            close = difflib.get_close_matches(target, kinds, n=1, cutoff=0.5)
            raise invalid_config(
                f"{FIELD}.targetModules: the model has no linear layer {target!r}",
                hint=(f"did you mean {close[0]}? " if close else "")
                + f"it has {', '.join(k for k in kinds if k not in OUTPUT_HEADS)}; all-linear takes them all",
            )
