"""`spec.phases`: several trainings in a row, each from the result of the one before.

A phase says only what differs: which of the run's datasets it sees, and which hyperparameters are others. `resolve` turns
the run and the name of a phase into a spec without phases, and everything that reads a spec (rules, trainer, estimate)
works on that. So every rule holds for each phase, and nothing but the order of steps and folders knows that there are more.
"""

from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field, ValidationError, create_model

from trainyard.api.base import ApiModel, DnsLabel
from trainyard.api.run.reward import Reward
from trainyard.api.run.training import Training

if TYPE_CHECKING:
    from trainyard.api.run.trainingrun import TrainingRunSpec

PHASES_LIMIT = 16
HANDED_ON = "file:///previous-phase"
"""Stands for the folder of the phase before, which only the trainer knows."""
_LENGTHS = {"maxSteps", "numTrainEpochs"}
"""Two ways to say how long to train: a phase's own replaces the run's, whichever of them that is."""


def partial(model: type[ApiModel], name: str, *, but: frozenset[str] = frozenset()) -> type[ApiModel]:
    """The same fields (without some) with the same bounds, but none required and none with a default: what is absent stays as it was."""
    fields: dict[str, Any] = {}
    for field_name, field in model.model_fields.items():
        if field_name in but:
            continue
        kind: Any = field.annotation
        inner = next((a for a in (kind, *get_args(kind)) if isinstance(a, type) and issubclass(a, ApiModel)), None)
        kind = partial(inner, f"{inner.__name__}Overrides") if inner else kind
        told = Field(description=field.description, json_schema_extra=deepcopy(field.json_schema_extra))
        fields[field_name] = (Annotated[(kind | None, *field.metadata, told)], None)
    return create_model(name, __base__=ApiModel, __doc__=model.__doc__, **fields)


if TYPE_CHECKING:

    class TrainingOverrides(ApiModel):
        """Any fields of `Training`."""

        rewards: list[Reward] | None = None

else:
    TrainingOverrides = partial(Training, "TrainingOverrides", but=frozenset({"trm"}))  # which has no phases


class Phase(ApiModel):
    """One training of several in a row."""

    name: Annotated[DnsLabel, Field(max_length=40)] = Field(description="Name of the phase, unique in the run.")
    datasets: list[DnsLabel] | None = Field(
        None, min_length=1, max_length=32, description="Names of the datasets it sees. Absent: all of spec.datasets."
    )
    training: TrainingOverrides | None = Field(
        None,
        description="What is other than in spec.training. Its maxSteps or numTrainEpochs replaces either of the run's.",
    )


def phases_to_run(spec: "TrainingRunSpec") -> tuple[str, ...]:
    """Names of the phases in order, without those that runPhases leaves out; empty for a run without phases."""
    return tuple(p.name for p in spec.phases or () if not spec.run_phases or p.name in spec.run_phases)


def predecessor(spec: "TrainingRunSpec", name: str) -> str | None:
    """The phase from whose result this one starts; None for the first of all, which starts from spec.model.

    For the first of runPhases it is the phase before it in the list, whose result lies on the volume if it has run.
    """
    order = phases_to_run(spec)
    if name in order[1:]:
        return order[order.index(name) - 1]
    all_names = [p.name for p in spec.phases or ()]
    index = all_names.index(name)
    return all_names[index - 1] if index else None


def resolve(spec: "TrainingRunSpec", name: str, *, handed_on: bool = True) -> "TrainingRunSpec":
    """The spec of one phase, as if it were a run of its own.

    Args:
        name: one of spec.phases.
        handed_on: whether the phase before has left a result. Then the model comes from HANDED_ON, else from spec.model.

    Raises:
        ValidationError: the phase breaks a rule.
        KeyError: there is no such phase.
    """
    phase = next((p for p in spec.phases or () if p.name == name), None)
    if phase is None:
        raise KeyError(name)
    model = spec.model
    if model is not None and handed_on and predecessor(spec, name) is not None:
        model = model.model_copy(update={"storage_uri": HANDED_ON, "scratch": None, "secret_ref": None})
    checkpoints = spec.checkpoints
    if name in phases_to_run(spec)[1:]:
        checkpoints = checkpoints.model_copy(update={"resume_from": ""})
    wanted = phase.datasets
    changes = {
        "phases": None,
        "run_phases": [],
        "model": model,
        "datasets": [d for d in spec.datasets or () if wanted is None or d.name in wanted],
        "training": overridden(spec.training, phase.training),
        "checkpoints": checkpoints,
    }
    return type(spec).model_validate({**dict(spec), **changes})


def overridden(training: Training | None, overrides: TrainingOverrides | None) -> Training:
    """Field by field; of nested objects again field by field."""
    base = training.model_dump(by_alias=True, exclude_none=True) if training else {}
    given = overrides.model_dump(by_alias=True, exclude_none=True, exclude_unset=True) if overrides else {}
    if _LENGTHS & given.keys():
        base = {k: v for k, v in base.items() if k not in _LENGTHS}
    return Training.model_validate(_merged(base, given))


def _merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) for k, v in given.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **given, **both}


def phase_faults(spec: "TrainingRunSpec") -> list[str]:
    """What is wrong with phases by themselves, each as a sentence that names the phase."""
    found = []
    for phase in spec.phases or ():
        try:
            resolve(spec, phase.name)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                messages = detail["ctx"]["messages"] if detail["type"] == "rule" else [detail["msg"]]
                found += [f"phase {phase.name}: {message}" for message in messages]
    return found
