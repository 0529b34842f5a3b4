"""`spec.phases`: several trainings in a row, each from the result of the one before.

A phase says only what differs: which of the run's datasets it sees, and which hyperparameters are others. `resolve` in
`trainingrun.py` turns the run and the name of a phase into a spec without phases, and everything that reads a spec (rules,
trainer, estimate) works on that. So every rule holds for each phase, and nothing but the order of steps and folders knows
that there are more.
"""

from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field, create_model

from trainyard.api.base import ApiModel, DnsLabel
from trainyard.api.run.reward import Reward
from trainyard.api.run.teacher import Teacher
from trainyard.api.run.training import Training

PHASES_LIMIT = 16
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
        teacher: Teacher | None = None

else:
    TrainingOverrides = partial(Training, "TrainingOverrides", but=frozenset({"trm"}))  # which has no phases


class Phase(ApiModel):
    """One training of several in a row."""

    name: Annotated[DnsLabel, Field(max_length=40)] = Field(description="Name of the phase, unique in the run.")
    datasets: list[DnsLabel] | None = Field(
        None, min_length=1, max_length=32, description="Names of the datasets it sees. Absent: all of spec.datasets."
    )
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        description="The run fails when pods of this phase have trained for so long in total. Waiting for a node does not count.",
    )
    expected_duration_seconds: int | None = Field(
        None,
        ge=1,
        description="How long its training should take. status.message tells when it takes longer; where every phase has one, progress "
        "of the whole and the estimated cost are reckoned with it.",
    )
    training: TrainingOverrides | None = Field(
        None,
        description="What is other than in spec.training. Its maxSteps or numTrainEpochs replaces either of the run's.",
    )


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
