"""A model with random weights from `spec.model.scratch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainyard.api.run.model import Scratch
from trainyard.trainer.errors import UserError, invalid_config
from trainyard.trainer.models.known_names import unknown_architecture, unknown_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

FIELD = "spec.model.scratch"


def build_config(
    scratch: Scratch, *, vocab_size: int, max_length: int, tokenizer: PreTrainedTokenizerFast | None = None
) -> PreTrainedConfig:
    """The configuration of the new model: the user's fields, the tokenizer's vocabulary, positions for `max_length`.

    Raises:
        UserError: unknown architecture or field, with the nearest known one; a value that the class refuses.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    architecture = scratch.architecture
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise unknown_architecture(architecture, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, CONFIG_MAPPING_NAMES)
    config_class = CONFIG_MAPPING[architecture]
    values = dict(scratch.config)
    _check_names(values, config_class)

    given = values.pop("vocab_size", vocab_size)
    if not isinstance(given, int) or given < vocab_size:
        raise invalid_config(
            f"{FIELD}.config.vocab_size {given!r} is below the tokenizer's {vocab_size} entries",
            hint="leave it out; it is taken from the tokenizer",
        )
    if tokenizer is not None:
        values.setdefault("eos_token_id", tokenizer.eos_token_id)
        values.setdefault("bos_token_id", tokenizer.bos_token_id)
        values.setdefault("pad_token_id", tokenizer.pad_token_id)
    config = _construct(config_class, architecture, {**values, "vocab_size": given})
    positions = _get(config, "max_position_embeddings")
    if isinstance(positions, int) and positions < max_length:
        name = config_class.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        if "max_position_embeddings" in values or name in values:
            raise invalid_config(
                f"{FIELD}.config.{name} {positions} is below spec.training.maxLength {max_length}",
                hint="raise the one or lower the other",
            )
        config = _construct(config_class, architecture, {**values, "vocab_size": given, name: max_length})
    return config


def _check_names(values: dict[str, Any], config_class: type) -> None:
    import dataclasses
    import inspect

    if dataclasses.is_dataclass(config_class):
        known = {f.name for f in dataclasses.fields(config_class)}
    else:
        known = set(inspect.signature(config_class).parameters) - {"self", "kwargs"}
    known |= set(getattr(config_class, "attribute_map", {}))
    for name in values:
        if name not in known:
            raise unknown_name(f"{FIELD}.config.{name}", "a field", config_class.__name__, known)


def _construct(config_class: Any, architecture: str, values: dict[str, Any]) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = config_class(**values)
    except (TypeError, ValueError, KeyError, ZeroDivisionError, AttributeError) as error:
        raise _refused(architecture, error) from error
    except Exception as error:
        # The configuration classes validate with their own exception types, which derive from nothing narrower.
        if type(error).__module__.startswith("huggingface_hub"):
            raise _refused(architecture, error) from error
        raise
    return config


def _refused(architecture: str, error: BaseException) -> UserError:
    text = " ".join(line.strip() for line in str(error).splitlines())
    return invalid_config(f"{FIELD}.config is refused by {architecture}: {text}", hint="correct the value")


def _get(config: PreTrainedConfig, name: str) -> Any:
    return getattr(config, name, None)
