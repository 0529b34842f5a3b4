"""Low-rank adapters over a frozen model."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.alias_generators import to_camel

from trainyard.api.run.model import Lora
from trainyard.trainer.errors import first_line, invalid_config

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

FIELD = "spec.model.adapter.lora"
FROM = "spec.model.adapter.from"
OF_PEFT = {"rank": "r", "alpha": "lora_alpha", "dora": "use_dora", "rs_lora": "use_rslora"}
"""What the spec says of an adapter, by the names in its own configuration."""
OUTPUT_HEADS = frozenset({"lm_head", "embed_out", "score"})


def add_adapter(model: PreTrainedModel, lora: Lora, *, tokenizer: Any = None, scores: bool = False) -> PeftModel:
    """Freeze `model` and put a fresh adapter on it. The update is zero at first, so the model still answers as before. With
    `scores` the head that gives the score is trained as a whole, beside the adapter.

    Raises:
        UserError: a target module or a token does not exist.
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
        use_dora=lora.dora,
        use_rslora=lora.rs_lora,
        init_lora_weights="pissa" if lora.initialisation == "PiSSA" else True,
        trainable_token_indices=token_ids(tokenizer, lora.trainable_tokens) or None,
        bias="none",
        task_type="SEQ_CLS" if scores else "CAUSAL_LM",
    )
    return get_peft_model(model, config)


def token_ids(tokenizer: Any, tokens: list[str]) -> list[int]:
    """Numbers of tokens in the vocabulary.

    Raises:
        UserError: one is not there.
    """
    vocabulary = tokenizer.get_vocab() if tokens else {}
    for token in tokens:
        if token not in vocabulary:
            parts = ", ".join(map(repr, tokenizer.tokenize(token)))
            raise invalid_config(
                f"{FIELD}.trainableTokens: {token!r} is no token of the tokenizer",
                hint=f"it is written as {parts}; name one of these, or add the token to the base's tokenizer first",
            )
    return sorted({int(vocabulary[token]) for token in tokens})


def continued(model: PreTrainedModel, folder: Path, lora: Lora, *, uri: str) -> PeftModel:
    """Put an adapter that was trained before on its base, to be trained on.

    Raises:
        UserError: it is none, does not fit the base, or the spec says something else of it.
    """
    from peft import PeftConfig, PeftModel

    check_continued(folder, lora, uri=uri)
    config = PeftConfig.from_pretrained(str(folder))
    if "dropout" in lora.model_fields_set:
        config.lora_dropout = lora.dropout
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True, local_files_only=True, config=config)
    except (RuntimeError, ValueError, KeyError) as error:
        raise invalid_config(
            f"{FROM} {uri} does not fit the base: {first_line(error)}",
            hint="name the base that it was trained over in spec.model.storageUri",
        ) from error


def check_continued(folder: Path, lora: Lora, *, uri: str) -> None:
    """Whether a folder holds an adapter that can be gone on with, as far as its files tell.

    Raises:
        UserError: it does not.
    """
    try:
        said = json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError) as error:
        raise invalid_config(
            f"{FROM} {uri} has no adapter_config.json that can be read",
            hint="name the folder of an adapter: adapter/ of a run",
        ) from error
    if said.get("peft_type") != "LORA":
        raise invalid_config(
            f"{FROM} {uri} is an adapter of kind {said.get('peft_type')}", hint="only LoRA adapters are trained here"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise invalid_config(
            f"{FROM} {uri} has no adapter_model.safetensors", hint="save it anew as safetensors; pickles are not loaded"
        )
    for name in sorted(lora.model_fields_set - {"dropout", "lora_plus_ratio"}):
        theirs = said.get(OF_PEFT[name]) if name in OF_PEFT else None
        if name not in OF_PEFT or theirs != getattr(lora, name):
            field = f"{FIELD}.{to_camel(name)}"
            raise invalid_config(
                f"{field} {getattr(lora, name)} is not what the adapter of {FROM} has"
                + (f", which is {theirs}" if theirs is not None else ""),
                hint=f"remove {field}: an adapter that is gone on with keeps its shape",
            )


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
