"""`spec.evaluation.harness`: tasks of lm-evaluation-harness, from a folder of the user's, asked of the result offline."""

from typing import Annotated

from pydantic import Field

from trainyard.api.addresses import VolumeUri
from trainyard.api.base import ApiModel

HARNESS_METRICS = (
    "acc",
    "acc_norm",
    "acc_bytes",
    "exact_match",
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
    "bleu",
    "chrf",
    "ter",
)
"""Computed by the harness itself. Any other name it would look up on the internet, and leave out without a word where it cannot."""
OF_WHOLE_TASKS = ("bleu", "chrf", "ter")
"""Of these no record has a score of its own."""
TASKS_LIMIT = 16

TaskName = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Harness(ApiModel):
    """Tasks of lm-evaluation-harness."""

    tasks: list[TaskName] = Field(
        min_length=1,
        max_length=TASKS_LIMIT,
        description="Names of tasks, as they stand in the YAML files of includeFrom.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    include_from: VolumeUri = Field(
        description="Folder with a YAML file for each task and its data as JSON lines, CSV, Parquet or text: pvc://claim/path or "
        f"file:///path. Nothing is fetched from a hub. Metrics: {', '.join(HARNESS_METRICS)}."
    )
    limit: int | None = Field(None, ge=1, le=1_000_000, description="At most so many records of each task.")
