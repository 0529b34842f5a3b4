"""Whether a model that is on a volume or in the image can be trained, as far as its files tell without loading it.

What the train step would find out with a GPU in its hands is found out here, in the first step: damaged weights, a
configuration that nobody can read, a kind of model that writes no text, code of its own, weights in a packed form that
the image cannot read. A model on a hub is looked at when it has been downloaded.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.models.known_names import causal_language_models, check_names, configuration_classes
from trainyard.trainer.volume.origin import local_folder
from trainyard.trainer.volume.weights import check_weights

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


def check_model(context: RunContext) -> None:
    """Refuse misspelt names, and a model that cannot be trained.

    Raises:
        UserError: what is wrong, and what to do.
    """
    check_names(context)
    spec = context.model
    if spec.storage_uri is not None and _is_here(spec.storage_uri, context):
        folder = local_folder(spec.storage_uri, context=context, secret_ref=spec.secret_ref, weights=True)
        values = read_configuration(folder, spec.storage_uri)
        check_configuration(values, spec.storage_uri)
        _check_length(values, context)
        check_weights(folder, spec.storage_uri)
    for _, reward in context.run.spec.reward_models():
        if _is_here(reward.storage_uri, context):
            folder = local_folder(reward.storage_uri, context=context, secret_ref=reward.secret_ref, weights=True)
            check_weights(folder, reward.storage_uri)


def _is_here(uri: str, context: RunContext) -> bool:
    """Whether a folder is there to be looked at. What a phase hands on to the next is on the run's own volume, later."""
    scheme, _, rest = uri.partition("://")
    return scheme == "pvc" or (scheme == "file" and not Path(rest).is_relative_to(context.volume))


def check_configuration(values: dict[str, Any], uri: str) -> None:
    """Raises UserError for a kind of model that is not trained here."""
    kind, known = values.get("model_type"), causal_language_models()
    if "auto_map" in values and kind not in configuration_classes():
        raise invalid_config(
            f"{uri} is of kind {kind!r} and brings its own code, which is not run",
            hint="use a model of a kind that transformers knows by itself",
        )
    if known and kind in configuration_classes() and kind not in known:
        raise invalid_config(
            f"{uri} is of kind {kind!r}, which is no causal language model", hint="use one that generates text"
        )
    packed = values.get("quantization_config")
    method = str(packed.get("quant_method")) if isinstance(packed, dict) else None
    package = READERS.get(method or "")
    if package is not None and importlib.util.find_spec(package) is None:
        raise invalid_config(
            f"{uri} has weights packed with {method}, and the image has no {package} to read them",
            hint="use the model as it was before it was packed; spec.model.adapter.quantization: NF4 packs it for the training",
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
