"""The names that transformers and TRL know, read from their source files without running them.

Whether `lama` is an architecture, `hiden_size` a field of its configuration and `weight_decey` an argument of the trainer
can be said in milliseconds, in the first step, before data is fetched and long before a GPU is asked for. Importing the
libraries to find out would take seconds, and is what the train step does anyway, with types and values. So this errs on
the side of silence: where a file does not look as expected (another version, inherited fields), nothing is refused here.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainyard.api.run.methods import METHODS
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, invalid_config

SCRATCH = "spec.model.scratch"
EXTRA_ARGS = "spec.training.extraArgs"


_TRANSFORMERS = ("transformers", "training_args.py", "TrainingArguments")
_TRL = ("trl", "trainer/base_config.py", "_BaseConfig")
CONFIGURATIONS = {
    "SFTConfig": (_TRANSFORMERS, _TRL, ("trl", "trainer/sft_config.py", "SFTConfig")),
    "DPOConfig": (_TRANSFORMERS, _TRL, ("trl", "trainer/dpo_config.py", "DPOConfig")),
    "ORPOConfig": (_TRANSFORMERS, _TRL, ("trl", "experimental/orpo/orpo_config.py", "ORPOConfig")),
    "RewardConfig": (_TRANSFORMERS, _TRL, ("trl", "trainer/reward_config.py", "RewardConfig")),
    "KTOConfig": (_TRANSFORMERS, _TRL, ("trl", "trainer/kto_config.py", "KTOConfig")),
    "GRPOConfig": (_TRANSFORMERS, ("trainyard.trainer", "methods/grpo_config.py", "GRPOConfig")),
    "RLOOConfig": (_TRANSFORMERS, ("trainyard.trainer", "methods/grpo_config.py", "RLOOConfig")),
    "DistillationConfig": (
        _TRANSFORMERS,
        ("trainyard.trainer", "methods/distillation_config.py", "DistillationConfig"),
    ),
    "PPOConfig": (_TRANSFORMERS, ("trainyard.trainer", "methods/ppo_config.py", "PPOConfig")),
}
"""By the name of a method's configuration class: package, file and class that its arguments come from, base classes first."""


def check_names(context: RunContext) -> None:
    """Refuse misspelt names.

    Raises:
        UserError: with the nearest known name.
    """
    scratch = context.model.scratch
    if scratch is not None:
        architectures = causal_language_models()
        if architectures and scratch.architecture not in architectures:
            raise unknown_architecture(scratch.architecture, architectures, configuration_classes())
        fields = configuration_fields(scratch.architecture)
        for name in scratch.config:
            if fields and name not in fields:
                class_name = configuration_classes().get(scratch.architecture, "its configuration")
                raise unknown_name(f"{SCRATCH}.config.{name}", "a field", class_name, fields)
    class_name = str(METHODS[context.training.method].configuration)
    arguments = arguments_of(class_name)
    for name in context.training.extra_args:
        if arguments and name not in arguments:
            raise unknown_name(f"{EXTRA_ARGS}.{name}", "an argument", class_name, arguments)


def unknown_architecture(name: str, known: Iterable[str], others: Mapping[str, str]) -> UserError:
    """It is misspelt, or a model of another kind."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    if name in others:
        return invalid_config(
            f"{SCRATCH}.architecture {name!r} is no causal language model",
            hint=f"use one that generates text, for example {close[0] if close else 'llama'}",
        )
    return invalid_config(
        f"{SCRATCH}.architecture {name!r} is unknown",
        hint=f"did you mean {close[0]}?" if close else "common ones are llama, qwen3, gemma3_text, gpt2, mistral",
    )


def unknown_name(field: str, what: str, class_name: str, known: Iterable[str]) -> UserError:
    """`field` ends with the name in question."""
    name = field.rpartition(".")[2]
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    ordered = sorted(known)
    close = [snake] if snake in ordered else difflib.get_close_matches(snake, ordered, n=1, cutoff=0.6)
    return invalid_config(
        f"{field} is not {what} of {class_name}",
        hint=f"did you mean {close[0]}?" if close else f"known are {', '.join(ordered[:30])}, ...",
    )


@functools.cache
def configuration_classes() -> dict[str, str]:
    """Model type to the name of its configuration class."""
    return _table("transformers", "models/auto/auto_mappings.py", "CONFIG_MAPPING_NAMES")


@functools.cache
def causal_language_models() -> dict[str, str]:
    """Model type to the name of its class for causal language modelling."""
    return _table("transformers", "models/auto/modeling_auto.py", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


@functools.cache
def scoring_models() -> dict[str, str]:
    """Model type to the name of its class for sequence classification."""
    return _table("transformers", "models/auto/modeling_auto.py", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES")


@functools.cache
def configuration_fields(model_type: str) -> frozenset[str]:
    """What the configuration class of a model type takes; empty if that cannot be told from its file alone."""
    folder = model_type.replace("-", "_")
    special = _table("transformers", "models/auto/auto_mappings.py", "SPECIAL_MODEL_TYPE_TO_MODULE_NAME")
    folder = special.get(model_type, folder)
    wanted = configuration_classes().get(model_type)
    for statement in _statements("transformers", f"models/{folder}/configuration_{folder}.py"):
        if isinstance(statement, ast.ClassDef) and statement.name == wanted:
            if [base.id for base in statement.bases if isinstance(base, ast.Name)] != ["PreTrainedConfig"]:
                return frozenset()
            own, base = _fields(statement), _class_fields("transformers", "configuration_utils.py", "PreTrainedConfig")
            return frozenset(own | base) if own and base else frozenset()
    return frozenset()


@functools.cache
def arguments_of(configuration: str) -> frozenset[str]:
    """The arguments of a configuration class, which a method's `extraArgs` may name; empty if they cannot be told."""
    parts = [_class_fields(*place) for place in CONFIGURATIONS.get(configuration, ())]
    return frozenset().union(*parts) if all(parts) else frozenset()


@functools.cache
def optimizer_names() -> tuple[str, ...]:
    """The optimizers that transformers knows; empty if they cannot be told."""
    for statement in _statements("transformers", "training_args.py"):
        if isinstance(statement, ast.ClassDef) and statement.name == "OptimizerNames":
            values = [s.value for s in statement.body if isinstance(s, ast.Assign)]
            return tuple(str(v.value) for v in values if isinstance(v, ast.Constant))
    return ()


@functools.cache
def configuration_defaults(model_type: str) -> dict[str, Any]:
    """Defaults of a configuration class that are plain numbers, truth values or None."""
    folder = model_type.replace("-", "_")
    wanted = configuration_classes().get(model_type)
    found = {}
    for statement in _statements("transformers", f"models/{folder}/configuration_{folder}.py"):
        if isinstance(statement, ast.ClassDef) and statement.name == wanted:
            for line in statement.body:
                match line:
                    case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                        if value is None or isinstance(value, bool | int | float):
                            found[name] = value
    return found


def _class_fields(package: str, file: str, name: str) -> set[str]:
    for statement in _statements(package, file):
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return _fields(statement)
    return set()


def _fields(definition: ast.ClassDef) -> set[str]:
    """Annotated names of the body, and the other names that `attribute_map` gives them."""
    names = set()
    for statement in definition.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                if "ClassVar" not in ast.unparse(annotation):
                    names.add(name)
            case ast.Assign(targets=[ast.Name(id="attribute_map")], value=ast.Dict(keys=keys)):
                names |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return names


def _table(package: str, file: str, name: str) -> dict[str, str]:
    """`NAME = OrderedDict([("a", "b"), ...])` as a mapping; entries of other shapes are kept by their key."""
    for statement in _statements(package, file):
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Call(args=[ast.List(elts=entries)])) if (
                found == name
            ):
                pairs = [entry.elts for entry in entries if isinstance(entry, ast.Tuple) and len(entry.elts) == 2]
                return {
                    str(key.value): str(value.value) if isinstance(value, ast.Constant) else ""
                    for key, value in pairs
                    if isinstance(key, ast.Constant)
                }
    return {}


def _statements(package: str, file: str) -> list[ast.stmt]:
    """The top level of a file of an installed package, which is not imported by this."""
    found = importlib.util.find_spec(package)
    for root in (found.submodule_search_locations or []) if found else []:
        try:
            return ast.parse((Path(root) / file).read_text()).body
        except (OSError, SyntaxError):
            return []
    return []
