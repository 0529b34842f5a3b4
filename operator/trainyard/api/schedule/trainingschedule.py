"""The TrainingSchedule: a template of a TrainingRun, and what makes runs of it.

Three things start a run: the clock (`schedule` or `intervalSeconds`), something that changed (`triggers`), and a person
(the annotation `trainyard.dev/run-now`). Each of them is one start, of which every variant makes one run. Names of runs
follow from the start, so that the same start can never make the same run twice.
"""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainyard.api.base import ApiModel, DnsLabel, Rule, at_most_one, opaque
from trainyard.api.generated_names import named_by_prefix
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.schedule.triggers import Trigger

SCHEDULE_NAME_LIMIT = 39
"""Characters: a run is called `<schedule>-<variant>-<unix time>`, and a run's name has at most 50."""
CRON_PATTERN = (
    r"^\s*(([0-9A-Za-z*,/-]+\s+){4}[0-9A-Za-z*,/-]+|@(yearly|annually|monthly|weekly|daily|midnight|hourly))\s*$"
)

SCHEDULE_LABEL = "trainyard.dev/schedule"
SCHEDULE_UID_LABEL = "trainyard.dev/schedule-uid"
VARIANT_LABEL = "trainyard.dev/variant"
CAUSE_ANNOTATION = "trainyard.dev/started-by"
"""On a run: Schedule, RunNow, or the trigger's name."""
SCHEDULED_TIME_ANNOTATION = "trainyard.dev/scheduled-time"
TEMPLATE_DIGEST_ANNOTATION = "trainyard.dev/template-digest"
"""On a run: what its spec was made from, so that skipIfUnchanged can compare."""
RUN_NOW_ANNOTATION = "trainyard.dev/run-now"
"""On a schedule: each new value makes one start. A value that begins with `force` also ignores skipIfUnchanged."""
OVERRIDES_ANNOTATION = "trainyard.dev/run-now-overrides"
"""On a schedule: a JSON merge patch over template.spec for the start that run-now makes."""
VARIANTS_ANNOTATION = "trainyard.dev/run-now-variants"
"""On a schedule: names of variants with commas between them. The start that run-now makes has the runs of these alone."""

ENV_SCHEDULED_TIME = "SCHEDULED_TIME"
ENV_TRIGGER_TIME = "TRIGGER_TIME"
ENV_WINDOW_START = "WINDOW_START"
ENV_WINDOW_END = "WINDOW_END"


class TemplateMetadata(ApiModel):
    """What every run gets on its metadata."""

    labels: dict[str, str] = Field(
        default_factory=dict, max_length=32, description="Labels of the runs, for example kueue.x-k8s.io/queue-name."
    )
    annotations: dict[str, str] = Field(default_factory=dict, max_length=32, description="Annotations of the runs.")


class RunTemplate(ApiModel):
    """The run that is made at each start."""

    metadata: TemplateMetadata = Field(default_factory=TemplateMetadata, description="Labels and annotations.")
    spec: TrainingRunSpec = Field(description="As in a TrainingRun.")


class Variant(ApiModel):
    """One run of each start, made from the template with a patch over it."""

    name: DnsLabel = Field(description="Part of the run's name and its label trainyard.dev/variant.")
    labels: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="Further labels of this variant's runs."
    )
    patch: dict[str, Any] = Field(
        default_factory=dict,
        description="JSON merge patch over template.spec: mappings are merged, lists and values replaced, null removes.",
        json_schema_extra=opaque,
    )


class TrainingScheduleSpec(ApiModel):
    """When runs are made, and of what."""

    rules: ClassVar[tuple[Rule, ...]] = (
        at_most_one(
            "schedule",
            "interval_seconds",
            message="schedule and intervalSeconds exclude each other: keep the cron expression or the interval",
        ),
        Rule(
            "has(self.schedule) || has(self.intervalSeconds) || (has(self.triggers) && size(self.triggers) > 0)",
            "nothing would ever start a run: give schedule (cron), intervalSeconds or triggers",
            lambda s: s.schedule is not None or s.interval_seconds is not None or bool(s.triggers),
        ),
        Rule(
            "!has(self.timeZone) || has(self.schedule)",
            "timeZone belongs to schedule: set schedule too, or remove timeZone",
            lambda s: s.time_zone is None or s.schedule is not None,
        ),
        Rule(
            "!has(self.template.spec.suspend) || !self.template.spec.suspend",
            "template.spec.suspend would make runs that never start: set spec.suspend to stop the schedule instead",
            lambda s: not s.template.spec.suspend,
        ),
    )

    schedule: str | None = Field(
        None,
        min_length=6,
        max_length=200,
        pattern=CRON_PATTERN,
        description="Cron expression with five fields: minute, hour, day of month, month, day of week. Names (MON, JAN), "
        "ranges, lists and steps as in Kubernetes' CronJob; Sunday is 0 or 7. Or one of @hourly, @daily, @weekly, @monthly and "
        "@yearly.",
    )
    interval_seconds: int | None = Field(
        None,
        ge=60,
        le=366 * 86400,
        description="A start every so many seconds, counted from the creation or the last edit.",
    )
    time_zone: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$",
        description="IANA time zone of the cron expression, for example Europe/Berlin. Default: Etc/UTC.",
    )
    suspend: bool = Field(
        False,
        description="true: neither clock nor triggers start anything. Runs that are under way go on, and run-now still works. "
        "Starts that fall into the time are not made up for.",
    )
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = Field(
        "Forbid",
        description="While a run of this schedule is under way. Forbid: the next start waits for its end, at most "
        "startingDeadlineSeconds, and is skipped then. Allow: it does not wait. Replace: the old run writes a checkpoint and "
        "ends as Cancelled, then the new one starts.",
    )
    starting_deadline_seconds: int = Field(
        300,
        ge=10,
        le=31 * 86400,
        description="How late a start may come. What cannot start until then, because the operator was away or another run "
        "was under way, is left to catchUp.",
    )
    catch_up: Literal["Skip", "RunOnce"] = Field(
        "Skip",
        description="Starts of the clock that are later than startingDeadlineSeconds. Skip: they are counted as missed or "
        "skipped. RunOnce: all of them together are made up for by one start, however late.",
    )
    min_interval_seconds: int | None = Field(
        None,
        ge=60,
        le=366 * 86400,
        description="Least time between two starts by clock or trigger. A start that comes too early waits, within its deadline.",
    )
    skip_if_unchanged: bool = Field(
        False,
        description="true: a run ends right after its prepare step, as Cancelled, when its spec and its data are those of the "
        "last successful run.",
    )
    successful_runs_history_limit: int = Field(
        3,
        ge=0,
        le=1000,
        description="How many succeeded runs are kept of each variant. A run's claims outlive it only with retain: true.",
    )
    failed_runs_history_limit: int = Field(
        3, ge=0, le=1000, description="How many failed or cancelled runs are kept of each variant."
    )
    triggers: list[Trigger] = Field(
        default_factory=list,
        max_length=16,
        description="Things outside that start a run when they change.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    variants: list[Variant] = Field(
        default_factory=list,
        max_length=32,
        description="One run for each of these at every start. Absent: one run, of the template as it is.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    variant_policy: Literal["Sequential", "Parallel"] = Field(
        "Sequential",
        description="Sequential: a variant starts when the one before it has ended, however it ended. Parallel: all at once.",
    )
    template: RunTemplate = Field(description="The run that is made.")


class ScheduleMetadata(BaseModel):
    """The part of the metadata that is read here."""

    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _will_be_named(cls, given: Any) -> Any:
        return named_by_prefix(given, limit=SCHEDULE_NAME_LIMIT)

    name: str = Field(min_length=1, max_length=SCHEDULE_NAME_LIMIT, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class TrainingSchedule(ApiModel):
    """A whole object, as read from a file or from the API server. The status stays a plain mapping here."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "",
            "the schedule's and each variant's name together must be at most 38 characters, because runs are called "
            "<schedule>-<variant>-<unix time>: shorten one of them",
            lambda s: all(len(s.metadata.name) + len(v.name) < SCHEDULE_NAME_LIMIT for v in s.spec.variants),
        ),
    )

    api_version: Literal["trainyard.dev/v1alpha1"]
    kind: Literal["TrainingSchedule"]
    metadata: ScheduleMetadata
    spec: TrainingScheduleSpec
    status: dict[str, Any] = Field(default_factory=dict)


SCHEDULE_ROOT_RULES: tuple[Rule, ...] = (
    Rule(
        f"self.metadata.name.size() <= {SCHEDULE_NAME_LIMIT} && "
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name must be at most {SCHEDULE_NAME_LIMIT} characters of a-z, 0-9 and -, because runs are named after it",
    ),
    Rule(
        "!has(self.spec.variants) || "
        f"self.spec.variants.all(v, self.metadata.name.size() + v.name.size() < {SCHEDULE_NAME_LIMIT})",
        TrainingSchedule.rules[0].message,
    ),
)
"""Rules over the whole object: only at its root the API server lets them read the name."""
