"""Whether weights and configuration are of one model.

transformers fills a weight that is missing with random numbers, and passes over one that nothing asks for, with a line in the
log. A training over that runs to its end and is worth nothing. So what the library noticed while it loaded is read here; and
the first step loads the model without its numbers, where all of it is known in seconds and without a GPU: a configuration that
makes no model, sizes that differ, layers that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainyard.api.run.methods import METHODS
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.log import warn
from trainyard.trainer.machine.imports import quick_imports
from trainyard.trainer.models.base import check_model, is_handed_on, other_models, read_configuration
from trainyard.trainer.volume.bases import Address, base_folder, is_made, model_folder

SHOWN = 3
"""Names of weights in a message."""
TELL = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""What `from_pretrained` is told, so that it says what it noticed: it returns (model, what it noticed) then."""
SCORES = ("score.", "classifier.", "classification_head.")
"""Heads of models that score; where one is made for the training, it has no weights yet."""


def check_base_model(context: RunContext) -> None:
    """Refuse a model that cannot be trained: by its files, then by loading what is at hand without its numbers.

    Raises:
        UserError: what is wrong, and what to do.
    """
    check_model(context)
    uri = context.model.storage_uri
    scores = METHODS[context.training.method].makes_scores
    if uri is not None and _at_hand(uri, context):
        _try(base_folder(context), uri, scores=scores, new_head=scores)
    for path, other, secret_ref, scores in other_models(context.run.spec):
        if _at_hand(other, context):
            folder = model_folder(Address(other, secret_ref, field=path), context)
            _try(folder, f"{path}.storageUri {other}", scores=scores, new_head=False)


def _at_hand(uri: str, context: RunContext) -> bool:
    """A hub's weights are fetched by the step that trains, and those of an earlier phase are not there yet."""
    return not is_handed_on(uri, context) and (is_made(uri) or not uri.startswith("hf://"))


def _try(folder: Path, uri: str, *, scores: bool, new_head: bool) -> None:
    if "quantization_config" in read_configuration(folder, uri):
        return  # packed weights have other names and shapes until they are unpacked
    with quick_imports():
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
        from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    kind: Any = AutoModelForSequenceClassification if scores else AutoModelForCausalLM

    def load() -> Any:
        return kind.from_pretrained(
            folder, device_map="meta", local_files_only=True, trust_remote_code=False, use_safetensors=True,
            **({"num_labels": 1} if new_head else {}), **TELL,
        )  # fmt: skip

    _, noticed = loaded(load, uri, what="reward" if scores else "causal language")
    refuse_misfit(noticed, uri, new_head=new_head)


def loaded(load: Callable[[], Any], uri: str, *, what: str) -> Any:
    """What `load` returns; whatever the library raises over a user's files is the user's to mend.

    Raises:
        UserError: with the library's words.
    """
    try:
        return load()
    except (UserError, MemoryError):
        raise
    except Exception as error:
        # The library says in an OSError too what it does not find; one of the system has a number.
        if type(error).__name__ == "OutOfMemoryError" or getattr(error, "errno", None) is not None:
            raise
        told = first_line(error)
        if isinstance(error, KeyError):
            told = f"{told} is not known"
        elif cause := error.__cause__:  # huggingface_hub's own validation keeps the reason one level down
            told = f"{told} {first_line(cause)}"
        raise invalid_config(
            f"{uri} cannot be loaded as a {what} model: {told}",
            hint="correct its config.json or generation_config.json, or copy the model again as a whole; models that bring their "
            "own code are not run",
        ) from error


def refuse_misfit(noticed: Mapping[str, Any], uri: str, *, new_head: bool = False) -> None:
    """Refuse a model of which a part would be random; remark what of its weights nothing uses.

    Args:
        noticed: what `from_pretrained` says of its load.
        new_head: whether it gets a head that scores, which has no weights yet.

    Raises:
        UserError: weights are missing, or have other sizes than config.json says.
    """
    if differing := sorted(noticed["mismatched_keys"]):
        name, there, wanted = differing[0]
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise invalid_config(
            f"{uri}: weights and config.json are of different models: {name} is {_size(there)}, config.json makes it "
            f"{_size(wanted)}{more}",
            hint="copy config.json and the weights again, together",
        )
    missing = [name for name in sorted(noticed["missing_keys"]) if not (new_head and name.startswith(SCORES))]
    if missing:
        raise invalid_config(
            f"{uri}: {len(missing)} weights that config.json asks for are not there, and would be random: {_some(missing)}",
            hint="copy the model again as a whole, or correct config.json (for example num_hidden_layers)",
        )
    unused = sorted(noticed["unexpected_keys"])
    if unused and not (new_head and all(name.startswith("lm_head.") for name in unused)):
        warn(f"{uri}: {len(unused)} weights are not used, because config.json does not ask for them: {_some(unused)}")


def _size(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
