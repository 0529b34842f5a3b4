"""Sources of a dataset that are systems and not files: what is asked of them, and how much of it.

A dataset has exactly one source. These are read in the prepare step, piece by piece, and a piece that was fetched once is
not fetched again. Sources with a past (metrics, logs, traces) are read over a window that ends at the run's own time: the
slot of its schedule, or the moment it was created. The same run therefore sees the same data whenever it is repeated.

Credentials stand in the dataset's `secretRef`, never here.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from trainyard.api.addresses import HttpUrl, ManifestUri, VolumeUri
from trainyard.api.base import ApiModel, Rule, exactly_one, opaque

POINT_LIMIT = 11_000
"""Points of one series that Prometheus puts into one answer."""

Glob = Annotated[str, Field(min_length=1, max_length=256)]
Query = Annotated[str, Field(min_length=1, max_length=4096)]
Ref = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s~^:?*\[\\-][^\s~^:?*\[\\]*$")]

_WHERE = exactly_one(
    "url", "storage_uri", message="give exactly one of url (a git repository) and storageUri (a folder on a volume)"
)
_REF = Rule(
    "!has(self.ref) || has(self.url)",
    "ref names a branch, tag or commit of a git repository: give url, or remove ref",
    lambda s: s.ref is None or s.url is not None,
)


def _is_time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise PydanticCustomError(
            "time", "{text} is no time: {reason}", {"text": text, "reason": str(error)}
        ) from error
    return text


Time = Annotated[
    str,
    Field(max_length=40, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
    AfterValidator(_is_time),
]


class Lookback(ApiModel):
    """A stretch of the past."""

    days: int = Field(30, ge=1, le=400, description="How many days back.")
    until: Time | None = Field(
        None,
        description="Where it ends, as RFC 3339 with a zone. Default: the slot of the run's schedule, or else the time the run "
        "was created.",
    )


class CodeSource(ApiModel):
    """Text files of a git repository, or of a folder on a volume."""

    rules: ClassVar[tuple[Rule, ...]] = (_WHERE, _REF)

    url: HttpUrl | None = Field(
        None,
        description="https:// or http:// address of a git repository. One commit is fetched, without history.",
    )
    storage_uri: VolumeUri | None = Field(
        None,
        description="pvc://claim/path or file:///path of a folder. Files that a .gitignore in it names are left out.",
    )
    ref: Ref | None = Field(None, description="Branch, tag or commit. Default: the repository's default branch.")
    path: str = Field(
        "", max_length=1024, pattern=r"^([^/\s][^\s]*)?$", description="Folder inside the repository; empty: all of it."
    )
    include: list[Glob] = Field(
        default_factory=list,
        max_length=64,
        description="Patterns of paths that are taken, for example src/**/*.cs. Default: files of known languages, "
        "configuration and templates.",
    )
    exclude: list[Glob] = Field(
        default_factory=list,
        max_length=64,
        description="Patterns of paths that are left out, on top of what is always left out: lock files, generated and vendored "
        "code, and files that hold credentials by their name.",
    )
    max_file_bytes: int = Field(262144, ge=1, le=16777216, description="A larger file is left out.")
    max_total_bytes: int = Field(
        1073741824,
        ge=1,
        le=107374182400,
        description="When the files taken are larger than this together, the run fails.",
    )
    secrets: Literal["Redact", "DropFile"] = Field(
        "Redact",
        description="What happens to keys, tokens and passwords in a file. Redact: a word that names the kind stands in their "
        "place. DropFile: the whole file is left out.",
    )


class PrometheusSource(ApiModel):
    """Series from Prometheus, or a system with its HTTP API (Mimir, Thanos, VictoriaMetrics)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.spanHours * 3600 <= {POINT_LIMIT} * self.stepSeconds",
            f"spanHours and stepSeconds make more than {POINT_LIMIT} points, which Prometheus refuses: lower spanHours or raise "
            "stepSeconds",
            lambda s: s.span_hours * 3600 <= POINT_LIMIT * s.step_seconds,
        ),
    )

    url: HttpUrl = Field(description="Address of Prometheus, without /api/v1.")
    queries: list[Query] = Field(min_length=1, max_length=64, description="PromQL; each is asked for the whole window.")
    window: Lookback = Field(default_factory=Lookback, description="Which stretch of the past.")
    step_seconds: int = Field(60, ge=1, le=86400, description="Distance of two points.")
    span_hours: int = Field(
        24,
        ge=1,
        le=744,
        description="Hours of one record: a series is cut into spans of this length, counted from the end.",
    )
    metadata: bool = Field(
        True, description="Add type, help and unit of a metric to its series, where the server knows."
    )


class LokiSource(ApiModel):
    """Log lines from Loki."""

    url: HttpUrl = Field(description="Address of Loki, without /loki/api/v1.")
    queries: list[Query] = Field(
        min_length=1, max_length=64, description='LogQL that selects lines, for example {namespace="ml"} |= "error".'
    )
    window: Lookback = Field(default_factory=Lookback, description="Which stretch of the past.")
    span_minutes: int = Field(60, ge=1, le=1440, description="Minutes that are fetched as one piece.")
    page_size: int = Field(
        5000,
        ge=100,
        le=100000,
        description="Lines of one answer. Loki refuses more than its max_entries_limit_per_query (5000).",
    )


class TempoSource(ApiModel):
    """Traces from Tempo."""

    url: HttpUrl = Field(description="Address of Tempo, without /api.")
    query: Query = Field("{}", description='TraceQL, for example {resource.service.name="api" && duration > 1s}.')
    window: Lookback = Field(default_factory=Lookback, description="Which stretch of the past.")
    max_traces: int = Field(
        10000, ge=1, le=1000000, description="Most traces; if more are found, these are chosen evenly, by their ids."
    )


class RunbookSource(ApiModel):
    """Runbooks in Markdown: each heading with what it says about symptom, diagnosis and commands."""

    rules: ClassVar[tuple[Rule, ...]] = (_WHERE, _REF)

    url: HttpUrl | None = Field(None, description="https:// or http:// address of a git repository.")
    storage_uri: VolumeUri | None = Field(None, description="pvc://claim/path or file:///path of a folder.")
    ref: Ref | None = Field(None, description="Branch, tag or commit. Default: the repository's default branch.")
    include: list[Glob] = Field(
        default_factory=lambda: ["**/RUNBOOK.md", "**/runbooks/**/*.md"],
        min_length=1,
        max_length=64,
        description="Patterns of the files.",
    )


Identifier = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""A name in a database. It is always quoted, so its case counts."""


class TracesDatabase(ApiModel):
    """The table of a PostgreSQL database in which a trace store keeps its traces. Its address stands in the Secret."""

    table: Annotated[
        str, Field(min_length=1, max_length=127, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$")
    ] = Field("traces", description="Table or view with a row for each trace; of another schema as schema.table.")
    id_column: Identifier = Field("id", description="Column that tells traces apart.")
    time_column: Identifier = Field(
        "created_at", description="Column with the time of the trace: a timestamp, by which the newest are chosen."
    )
    payload_column: Identifier = Field(
        "payload",
        description="Column with the trace as json or jsonb: trace_version, prompt, final_answer, steps (each with content), meta.",
    )


class TracesSource(ApiModel):
    """Reasoning traces from a trace store: over the HTTP API of tunix-rt, or straight from its PostgreSQL database.

    Over HTTP, with datasetName the server builds a dataset and it is exported; without, its list of traces is read page by
    page. From the database one statement reads the rows in one snapshot, and filters and selection are the database's.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "url",
            "database",
            message="give exactly one of url (the store's HTTP API) and database (its PostgreSQL table)",
        ),
        Rule(
            "has(self.datasetName) == has(self.datasetVersion)",
            "datasetName and datasetVersion belong together: give both, or neither",
            lambda s: (s.dataset_name is None) == (s.dataset_version is None),
        ),
        Rule(
            "self.exportFormat == 'Trace' || has(self.datasetName) || has(self.database)",
            "exportFormat needs a dataset that the server builds: give datasetName and datasetVersion",
            lambda s: s.export_format == "Trace" or s.dataset_name is not None or s.database is not None,
        ),
        Rule(
            "self.exportFormat != 'TRM' || has(self.database)",
            "a store exports no TRM: set exportFormat to TrainingExample, or read its database",
            lambda s: s.export_format != "TRM" or s.database is not None,
        ),
    )

    url: HttpUrl | None = Field(None, description="Address of the store, without /api.")
    database: TracesDatabase | None = Field(
        None,
        description="The store's table in PostgreSQL. The dataset's secretRef has the database's address as database-url.",
    )
    dataset_name: str | None = Field(
        None,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the dataset to build. Read from a database, it is told in the status with the version.",
    )
    dataset_version: str | None = Field(
        None, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Its version, for example v1."
    )
    filters: dict[str, Any] = Field(
        default_factory=dict,
        description="Values that a trace must have in its meta, for example source: ungar.",
        json_schema_extra=opaque,
    )
    limit: int = Field(
        10000, ge=1, le=1000000, description="Most traces. A dataset that a server builds has at most 10000."
    )
    selection_strategy: Literal["Latest", "Random"] = Field(
        "Latest", description="Which ones, if there are more: the newest, or a random choice by seed."
    )
    seed: int = Field(42, ge=0, le=2147483647, description="Seed of the random choice.")
    export_format: Literal["Trace", "TrainingExample", "TunixSFT", "TRM"] = Field(
        "Trace",
        description="In which form records are written. TRM, of a database alone: the trace as a problem with its steps and its "
        "solution, of which every other form can be made.",
    )


class ManifestSource(ApiModel):
    """A ready-built dataset: a manifest.json with the name, size and SHA-256 of each file beside it, or one of tunix-rt."""

    storage_uri: ManifestUri = Field(
        description="Address of the manifest.json: s3://, https://, http://, pvc:// or file://. Its files are checked against it. "
        "One of tunix-rt (dataset_key, trace_count) names no files: export.jsonl or KEY.jsonl beside it is read, and its records "
        "are counted.",
    )
    include: list[Glob] = Field(
        default_factory=list,
        max_length=64,
        description="Patterns of the files to read. Default: all that can be read. Beside a manifest of tunix-rt: names of "
        "files.",
    )
