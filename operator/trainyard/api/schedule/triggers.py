"""`spec.triggers` of a TrainingSchedule: things outside that start a run.

Two of them speak of a change (a path in git, a dataset): what is there when the trigger is first looked at is the point
of comparison and starts nothing. Two speak of a state (a Prometheus query, a metric in MLflow): they start a run when
the state is reached, and once only for as long as it lasts. A source that cannot be reached never starts anything.
"""

from typing import ClassVar, Literal

from pydantic import Field

from trainyard.api.addresses import HttpUrl, WatchedUrl
from trainyard.api.base import ApiModel, DnsLabel, Rule, SecretRef, exactly_one

Comparison = Literal["LessThan", "LessThanOrEqual", "GreaterThan", "GreaterThanOrEqual", "Equal", "NotEqual"]


class GitPath(ApiModel):
    """A file or folder of a branch in a git repository, read over smart HTTP without a clone of it."""

    url: HttpUrl = Field(description="https:// or http:// address of the repository.")
    ref: str = Field("main", min_length=1, max_length=255, pattern=r"^[^\s~^:?*\[\\]+$", description="Branch or tag.")
    path: str = Field(
        "",
        max_length=1024,
        pattern=r"^([^/\s][^\s]*)?$",
        description="File or folder that is watched. Empty: the whole tree. Commits that leave it as it is start nothing.",
    )
    secret_ref: SecretRef | None = Field(
        None, description="Secret with username and password, or token; optionally ca.crt."
    )


class PrometheusQuery(ApiModel):
    """A query whose result is compared with a threshold."""

    url: HttpUrl = Field(description="Address of Prometheus, without /api/v1.")
    query: str = Field(
        min_length=1, max_length=4096, description="PromQL. Of several series, one that meets the comparison is enough."
    )
    comparison: Comparison = Field(description="How the value is compared with the threshold.")
    threshold: float = Field(description="What the value is compared with.")
    for_seconds: int = Field(0, ge=0, le=31 * 86400, description="For how long it has to hold before a run is started.")
    secret_ref: SecretRef | None = Field(
        None, description="Secret with username and password, or token; optionally ca.crt."
    )


class MlflowMetric(ApiModel):
    """A metric of the run behind a registered model's version."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "alias", "stage", message="mlflowMetric needs exactly one of alias and stage, to say which version is meant"
        ),
    )

    tracking_uri: HttpUrl = Field(description="Address of the MLflow server.")
    model: str = Field(min_length=1, max_length=253, description="Name of the registered model.")
    alias: str | None = Field(
        None, min_length=1, max_length=253, description="Alias of the version, for example champion."
    )
    stage: str | None = Field(
        None, min_length=1, max_length=63, description="Stage of the version, for example Production."
    )
    metric: str = Field(min_length=1, max_length=250, description="Name of the metric.")
    comparison: Comparison = Field(description="How the metric is compared with the threshold.")
    threshold: float = Field(description="What the metric is compared with.")
    missing: Literal["Ignore", "Fire"] = Field(
        "Ignore",
        description="What follows when there is no such model, version or metric. Fire: a run is started, once.",
    )
    secret_ref: SecretRef | None = Field(
        None, description="Secret with username and password, or token; optionally ca.crt."
    )


class DatasetDrift(ApiModel):
    """The content of a source. It is downloaded only when the server says that it has changed."""

    url: WatchedUrl = Field(
        description="Address of a file of lines (JSONL, CSV, text): https://, http:// or s3://bucket/key.",
    )
    minimum_change: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of lines that must be new or gone. 0: any change of the content. Estimated from a sample of 256 "
        "lines, so good to about 0.06.",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with username and password, or token; for s3:// with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "and where needed AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION; optionally ca.crt.",
    )


class Trigger(ApiModel):
    """One thing that is watched."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "git_path",
            "prometheus",
            "mlflow_metric",
            "dataset",
            message="a trigger needs exactly one of gitPath, prometheus, mlflowMetric and dataset; write a second entry for a "
            "second source",
        ),
    )

    name: DnsLabel = Field(description="Name of the trigger, unique in the schedule.")
    poll_seconds: int = Field(300, ge=10, le=7 * 86400, description="Seconds between two looks at the source.")
    cooldown_seconds: int = Field(
        0,
        ge=0,
        le=366 * 86400,
        description="Least time between two starts by this trigger. What changes meanwhile waits.",
    )
    git_path: GitPath | None = Field(None, description="A path in a git repository has changed.")
    prometheus: PrometheusQuery | None = Field(None, description="A query's result meets a threshold.")
    mlflow_metric: MlflowMetric | None = Field(None, description="A model's metric meets a threshold.")
    dataset: DatasetDrift | None = Field(None, description="A source's content has changed.")
