"""What happens to a dataset's records between their source and the training: renamed, chosen, turned into examples.

All of it is data, none of it is code: a filter compares one field with given values, a column map gives fields their
names, and `generate` names tasks whose answers the trainer computes.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainyard.api.base import ApiModel, Rule

RecordFormat = Literal[
    "Text",
    "PromptCompletion",
    "Messages",
    "Preference",
    "UnpairedPreference",
    "Prompt",
    "TRM",
    "TrainingExample",
    "TunixSFT",
]
FieldPath = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s.]+(\.[^\s.]+)*$")]
"""A field of a record, or a field within one: `metadata.source`."""

SERIES_TASKS = ("SeriesTrend", "SeriesLevelShift", "SeriesSaturation", "SeriesGap", "SeriesAnomaly", "SeriesComparison")
LOG_TASKS = ("LogTemplates", "LogErrorBurst", "LogFirstCause")
TRACE_TASKS = ("TraceCriticalPath", "TraceSlowestSpan", "TraceErrorSpan")
CODE_TASKS = ("CodePurpose", "CodeSignature", "CodeConfigKey", "CodeDependency")
RUNBOOK_TASKS = ("RunbookQuestion", "RunbookCommand", "RunbookShell")
TASKS = (*SERIES_TASKS, *LOG_TASKS, *TRACE_TASKS, *CODE_TASKS, *RUNBOOK_TASKS)
Task = Literal[TASKS]  # type: ignore[valid-type]


class Filter(ApiModel):
    """A condition on one field. A record is used if all conditions hold."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['Exists', 'DoesNotExist']) == (!has(self.values) || size(self.values) == 0)",
            "a filter with operator Exists or DoesNotExist has no values; every other operator needs at least one",
            lambda f: (f.operator in ("Exists", "DoesNotExist")) == (not f.values),
        ),
    )

    field: FieldPath = Field(description="Name of the field; a dot goes into it: metadata.source.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Contains", "GreaterThan", "LessThan"] = Field(
        "In",
        description="In: equal to one of values. NotIn: to none. Contains: the text has one of values in it. GreaterThan, "
        "LessThan: than all of values, as numbers where both sides are numbers, else as text.",
    )
    values: list[Annotated[str, Field(max_length=256)]] = Field(
        default_factory=list, max_length=32, description="What it is compared with, as text."
    )


class Generate(ApiModel):
    """Problems with computed solutions, made from what was collected."""

    tasks: list[Task] = Field(
        default_factory=list,
        max_length=len(TASKS),
        description="Which kinds of examples; empty means all that fit the records. See docs/data/formats.md.",
    )
    max_per_task: int = Field(1000, ge=1, le=1_000_000, description="At most this many examples of each task.")
