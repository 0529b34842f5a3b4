"""Whether a model can be trained, as far as its files tell without loading it.

What the train step would find out with a GPU in its hands is found out here, in the first step: damaged weights, a
configuration that nobody can read, a kind of model that writes no text, code of its own, an adapter instead of a model,
weights in a packed form that the image cannot read or nobody can train. What has to be fetched or unpacked for that is. Of a model
on a hub the small files are fetched, and the list of the others is asked for; its weights are looked at when they have come.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from trainyard.api.base import SecretRef
from trainyard.api.run.methods import METHODS
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.machine.sandbox import check_sandbox
from trainyard.trainer.models.attention import check_attention
from trainyard.trainer.models.fp8 import is_fp8
from trainyard.trainer.models.known_names import (
    causal_language_models,
    check_names,
    configuration_classes,
    scoring_models,
)
from trainyard.trainer.models.lora import check_continued
from trainyard.trainer.models.quantize import FIELD, is_quantized
from trainyard.trainer.volume.bases import Address, base_folder, is_made, model_folder
from trainyard.trainer.volume.origin import hub_listing, local_folder
from trainyard.trainer.volume.weights import INDEX, SINGLE, check_weights, no_safetensors, shards_missing, shards_named

READERS = {
    "gptq": "optimum",
    "awq": "awq",
    "aqlm": "aqlm",
    "hqq": "hqq",
    "eetq": "eetq",
    "vptq": "vptq",
    "spqr": "spqr_quant",
    "quanto": "optimum",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed_tensors",
}
"""By how weights are packed, the Python package that transformers reads them with."""
UNTRAINABLE = frozenset(("auto-round", "fbgemm_fp8", "quark", "nvfp4", "metal"))
"""Packed forms that transformers trains nothing over, not even an adapter."""
ADAPTER = "adapter_config.json"
EMBEDDINGS = frozenset(("embed_tokens", "wte", "wpe", "word_embeddings", "embed_in"))


def check_model(context: RunContext) -> None:
    """Refuse misspelt names, and a model that cannot be trained.

    Raises:
        UserError: what is wrong, and what to do.
    """
    check_names(context)
    check_attention(context.training)
    uri = context.model.storage_uri
    if uri is not None and not is_handed_on(uri, context):
        on_hub = uri.startswith("hf://") and not is_made(uri)
        folder = base_folder(context, weights=not on_hub)
        if (folder / ADAPTER).exists():
            raise _is_adapter(folder, uri)
        if on_hub:
            _check_listing(folder, context)
        values = read_configuration(folder, uri)
        check_configuration(values, uri, packed_base_trains=context.model.adapter is not None)
        if METHODS[context.training.method].makes_scores and values.get("model_type") not in (
            scoring_models() or {values.get("model_type")}
        ):
            raise invalid_config(
                f"{uri} is of kind {values.get('model_type')!r}, of which there are no models that score texts",
                hint="use another base for method RewardModel, for example of kind llama or qwen3",
            )
        if is_fp8(values) and is_quantized(context):
            raise invalid_config(
                f"{FIELD} NF4: the weights of {uri} are packed already, in FP8",
                hint="remove the field: the adapter then trains on the base in its full width",
            )
        _check_length(values, context)
        _check_adapter(context)
        if not on_hub:
            check_weights(folder, uri)
    spec = context.run.spec
    if fields := spec.code_runs():
        check_sandbox(fields[0])
    for path, uri, secret_ref, _ in other_models(spec):
        if not uri.startswith("hf://") and not is_handed_on(uri, context):
            folder = model_folder(Address(uri, secret_ref, field=path), context)
            check_weights(folder, uri)


def other_models(spec: TrainingRunSpec) -> list[tuple[str, str, SecretRef | None, bool]]:
    """Models beside the one that is trained: field, storageUri, its Secret, and whether it scores texts."""
    found = [(path, reward.storage_uri, reward.secret_ref, True) for path, reward in spec.reward_models()]
    for path, teacher in spec.teachers():
        if teacher.storage_uri is not None:
            found.append((path, teacher.storage_uri, teacher.secret_ref, False))
    return found


def is_handed_on(uri: str, context: RunContext) -> bool:
    """Whether it is what a phase hands on to the next: on the run's own volume, later."""
    scheme, _, rest = uri.partition("://")
    return scheme == "file" and Path(rest).is_relative_to(context.volume)


def _is_adapter(folder: Path, uri: str) -> UserError:
    """transformers would load its base, put the adapter over it, and the training would drop or double that."""
    try:
        base = json.loads((folder / ADAPTER).read_text()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    return invalid_config(
        f"{uri} is an adapter ({ADAPTER}) and not a model",
        hint=f"name its base{f' ({base})' if base else ''} to train a new adapter, or a model with the adapter merged into it "
        "(spec.model.adapter.merge: true)",
    )


def _check_listing(folder: Path, context: RunContext) -> None:
    """The names of the files on a hub, where it tells them."""
    uri = str(context.model.storage_uri)
    names = hub_listing(uri, folder, context=context, secret_ref=context.model.secret_ref)
    if names is None:
        return
    if not any(name.endswith(".safetensors") for name in names):
        raise no_safetensors(uri, sorted(names))
    if SINGLE not in names and INDEX in names:
        shards = shards_named(folder / INDEX, uri)
        if missing := [name for name in shards if name not in names]:
            raise shards_missing(uri, missing, len(shards))


def _check_adapter(context: RunContext) -> None:
    adapter = context.model.adapter
    if adapter is not None and adapter.from_ is not None and not is_handed_on(adapter.from_, context):
        folder = local_folder(adapter.from_, context=context, secret_ref=context.model.secret_ref, weights=True)
        check_continued(folder, adapter.lora, uri=adapter.from_)
    for target in adapter.lora.target_modules if adapter is not None else ():
        if target.rpartition(".")[2] in EMBEDDINGS:
            raise invalid_config(
                f"spec.model.adapter.lora.targetModules: {target} holds embeddings, which cannot carry an adapter here",
                hint="remove it from the list",
            )


def check_configuration(values: dict[str, Any], uri: str, *, packed_base_trains: bool = True) -> None:
    """Raises UserError for a kind of model that is not trained here; `packed_base_trains` is whether an adapter does."""
    kind, known = values.get("model_type"), causal_language_models()
    if known and not isinstance(kind, str):
        raise no_configuration(uri, "config.json has no model_type")
    if "auto_map" in values and kind not in configuration_classes():
        raise invalid_config(
            f"{uri} is of kind {kind!r} and brings its own code, which is not run",
            hint="use a model of a kind that transformers knows by itself",
        )
    if known and kind in configuration_classes() and kind not in known:
        raise invalid_config(
            f"{uri} is of kind {kind!r}, which is no causal language model", hint="use one that generates text"
        )
    if known and kind not in configuration_classes():
        raise invalid_config(
            f"{uri} is of kind {kind!r}, which the transformers of this image does not know",
            hint="correct model_type in its config.json, or take an image with a newer transformers (spec.image)",
        )
    packed = values.get("quantization_config")
    method = str(packed.get("quant_method")) if isinstance(packed, dict) else None
    package = READERS.get(method or "")
    if package is not None and importlib.util.find_spec(package) is None:
        raise invalid_config(
            f"{uri} has weights packed with {method}, and the image has no {package} to read them",
            hint="use the model as it was before it was packed; spec.model.adapter.quantization: NF4 packs it for the training",
        )
    if isinstance(packed, dict) and (
        method in UNTRAINABLE or not (packed_base_trains or packed.get("dequantize") or is_fp8(values))
    ):
        raise invalid_config(
            f"{uri} has weights packed with {method}, which cannot be trained"
            + ("" if method in UNTRAINABLE else " as a whole"),
            hint="use the model as it was before it was packed"
            + ("" if method in UNTRAINABLE else ", or train an adapter over it (spec.model.adapter)"),
        )


def _check_length(values: dict[str, Any], context: RunContext) -> None:
    inner = values.get("text_config")
    text = inner if isinstance(inner, dict) else values
    positions = text.get("max_position_embeddings", text.get("n_positions"))
    if isinstance(positions, int) and positions < context.positions:
        raise invalid_config(
            f"spec.training.maxLength {context.positions} is more than the {positions} positions of the model",
            hint=f"lower maxLength to {positions} or less",
        )


def read_configuration(folder: Path, uri: str) -> dict[str, Any]:
    """config.json of a model. Raises UserError if it is not there or no configuration."""
    try:
        values = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise no_configuration(uri, str(error)) from error
    if not isinstance(values, dict):
        raise no_configuration(uri, "config.json is no object")
    return values


def no_configuration(uri: str, why: str) -> UserError:
    """It has none that can be read."""
    return invalid_config(
        f"{uri} has no configuration that can be read: {first_line(why)}",
        hint="the folder needs a config.json of a known architecture",
    )
