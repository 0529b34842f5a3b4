"""`spec.datasets`: what it is trained on."""

import json
from typing import Any, ClassVar, Literal

from pydantic import Field

from trainyard.api.addresses import BucketUri, DatasetUri
from trainyard.api.base import ApiModel, DnsLabel, Rule, SecretRef, exactly_one, opaque_items
from trainyard.api.run.collectors import (
    CodeSource,
    LokiSource,
    ManifestSource,
    PrometheusSource,
    RunbookSource,
    TempoSource,
    TracesSource,
)
from trainyard.api.run.selection import FieldPath, Filter, Generate, RecordFormat
from trainyard.api.run.trm import Puzzle

INLINE_LIMIT = 524288
"""Bytes of inline data in all datasets of a run. Whoever watches runs holds them in memory, many at once."""


class Inline(ApiModel):
    """Data that stands in the manifest itself. Meant for examples and tests."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("records", "text", message="inline data needs exactly one of records and text"),
    )

    records: list[dict[str, Any]] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="Records of the dataset's format.",
        json_schema_extra=opaque_items,
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=262144,
        description="Plain text; paragraphs (separated by an empty line) become the records.",
    )

    @property
    def size(self) -> int:
        """Bytes of the text, or of the records as JSON."""
        text = self.text if self.text is not None else json.dumps(self.records, ensure_ascii=False)
        return len(text.encode("utf-8", "surrogatepass"))


class Split(ApiModel):
    """Shares of the records that are held out. Which record goes where depends on its content and the seed alone."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.eval + self.test < 1.0",
            "split.eval and split.test together must stay below 1, or nothing is left to train on",
            lambda s: s.eval + s.test < 1.0,
        ),
    )

    eval: float = Field(0.0, ge=0, lt=1, description="Share held out for evaluation during and after training.")
    test: float = Field(0.0, ge=0, lt=1, description="Share held out for a final test.")
    seed: int = Field(42, ge=0, le=2147483647, description="Seed of the split.")
    group_by: list[FieldPath] = Field(
        default_factory=list,
        max_length=8,
        description="Fields of the record as it was read. Records that agree in all of them go to the same side, for example "
        "all of one repository.",
    )


class Dataset(ApiModel):
    """One source of records."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "storage_uri",
            "inline",
            "code",
            "prometheus",
            "loki",
            "tempo",
            "runbook",
            "traces",
            "manifest",
            "puzzle",
            message="a dataset needs exactly one source: storageUri, inline, code, prometheus, loki, tempo, runbook, traces, "
            "manifest or puzzle; write a second entry for a second source",
        ),
        Rule(
            "self.format == 'Text' || has(self.generate) || (has(self.columns) && size(self.columns) > 0) || "
            "!(has(self.code) || has(self.prometheus) || has(self.loki) || has(self.tempo) || has(self.runbook))",
            "what code, prometheus, loki, tempo and runbook collect is no record of another format than Text: set generate, which "
            "makes problems with solutions of it, name the fields in columns, or remove format",
            lambda d: (
                d.format == "Text"
                or d.generate is not None
                or bool(d.columns)
                or all(s is None for s in (d.code, d.prometheus, d.loki, d.tempo, d.runbook))
            ),
        ),
        Rule(
            "!has(self.split) || self.role == 'Train'",
            "split holds out a share of training data; a dataset with role Eval or Test is held out as a whole, so remove "
            "split",
            lambda d: d.role == "Train" or d.split is None,
        ),
        Rule(
            "self.selectionStrategy == 'Random' || has(self.limit)",
            "selectionStrategy says which records limit takes: set limit too, or remove selectionStrategy",
            lambda d: d.selection_strategy == "Random" or d.limit is not None,
        ),
        Rule(
            "!has(self.expectedCount) || !has(self.puzzle)",
            "expectedCount counts records, and puzzle makes or reads grids: remove expectedCount",
            lambda d: d.expected_count is None or d.puzzle is None,
        ),
        Rule(
            "!has(self.traces) || !has(self.traces.database) || has(self.secretRef)",
            "traces.database has its address in a Secret: set secretRef to one with the key database-url",
            lambda d: d.traces is None or d.traces.database is None or d.secret_ref is not None,
        ),
        Rule(
            "!has(self.timeField) || self.selectionStrategy == 'Latest'",
            "timeField is read by selectionStrategy Latest alone: set that, or remove timeField",
            lambda d: d.time_field is None or d.selection_strategy == "Latest",
        ),
    )

    name: DnsLabel = Field(description="Name of the dataset, unique in the run.")
    role: Literal["Train", "Eval", "Test"] = Field("Train", description="What the records are used for.")
    weight: float = Field(
        1.0,
        gt=0,
        le=100,
        description="How often its records are seen relative to the other datasets: 2 doubles them, 0.5 takes half of them.",
    )
    storage_uri: DatasetUri | None = Field(
        None,
        description="Where the data lies: s3://bucket/key, https://host/path, http://host/path, pvc://claim/path, "
        "file:///path in the image or in a mounted volume, or hf://owner/name@revision/path of a dataset on a hub. pvc, file and "
        "hf may name a file, a folder or a pattern (*.py).",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with the source's credentials. s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally "
        "AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION, ca.crt. https and all other sources: username and password, or token, "
        "optionally ca.crt and tenant (sent as X-Scope-OrgID); of traces also tunix-api-key as the token, of traces.database "
        "database-url (postgresql://user:password@host:5432/database). hf: token. https with "
        "a signed address: url, which is asked instead of storageUri and told nowhere.",
    )
    inline: Inline | None = Field(None, description="The data itself.")
    code: CodeSource | None = Field(None, description="Files of a git repository or folder.")
    prometheus: PrometheusSource | None = Field(None, description="Metrics of the last days.")
    loki: LokiSource | None = Field(None, description="Log lines of the last days.")
    tempo: TempoSource | None = Field(None, description="Traces of the last days.")
    runbook: RunbookSource | None = Field(None, description="Entries of runbooks in Markdown.")
    traces: TracesSource | None = Field(None, description="Reasoning traces from a trace store.")
    manifest: ManifestSource | None = Field(None, description="A ready-built dataset with its manifest.json.")
    puzzle: Puzzle | None = Field(None, description="Grids for method TRM: Sudoku, mazes, ARC, or ready-made arrays.")
    file_format: Literal["Auto", "JSONL", "JSON", "CSV", "Parquet", "Text"] = Field(
        "Auto", description="How the file is read. Auto goes by the file name."
    )
    format: RecordFormat = Field(
        "Text",
        description="What a record holds. Text: text. PromptCompletion: prompt and completion. Messages: messages, a list of "
        "role and content. Preference: chosen and rejected, usually prompt. UnpairedPreference: prompt, completion and "
        "label (true or false). Prompt: prompt, optionally answer. TRM: problem, initial_answer, "
        "solution, reasoning_steps, metadata. TrainingExample: prompt, response. TunixSFT: prompts, final_answer.",
    )
    convert_to: RecordFormat | None = Field(
        None,
        description="Format that the records are turned into before training. Without it TRM and TrainingExample become "
        "PromptCompletion and TunixSFT becomes Messages where the method learns from these.",
    )
    columns: dict[str, FieldPath] = Field(
        default_factory=dict,
        max_length=32,
        description="Field of the format: field of the record that holds it. A dot goes into a field: prompt: input.question.",
    )
    filters: list[Filter] = Field(
        default_factory=list, max_length=16, description="Conditions on the record as it was read; all have to hold."
    )
    generate: Generate | None = Field(
        None, description="Make problems with computed solutions (format TRM) out of what was collected."
    )
    deduplicate: Literal["None", "Exact", "Near"] = Field(
        "None",
        description="Exact: of equal records only the first is used. Near: also of records that share nine tenths of their "
        "wording. Training records that stand in held-out datasets of the run are dropped too.",
    )
    split: Split | None = Field(None, description="Shares that are held out of this dataset.")
    limit: int | None = Field(None, ge=1, description="At most this many records, taken as selectionStrategy says.")
    selection_strategy: Literal["Random", "First", "Latest"] = Field(
        "Random",
        description="Random: by content and seed, not by order. First: in the order of the source. Latest: the newest by "
        "timeField.",
    )
    time_field: FieldPath | None = Field(
        None,
        description="Field with the record's time (RFC 3339 or seconds since 1970). Default: the first present of timestamp, "
        "created_at, time, date and metadata.timestamp.",
    )

    expected_count: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="How many records the source must have, before filters and limit: the trace_count of a dataset that was "
        "built, for example. With another number the run ends before it trains (InvalidData).",
    )

    @property
    def record_format(self) -> RecordFormat:
        """What the records hold before any conversion."""
        return "TRM" if self.generate is not None else self.format

    def addresses(self) -> dict[str, str]:
        """Every storageUri of the dataset with the field that holds it."""
        places = {"storageUri": self.storage_uri}
        for name in ("code", "runbook", "manifest", "puzzle"):
            source = getattr(self, name)
            places[f"{name}.storageUri"] = source.storage_uri if source is not None else None
        return {field: uri for field, uri in places.items() if uri is not None}


class DatasetUpload(ApiModel):
    """A built dataset as a folder of objects. manifest.json comes last, so who sees it sees a whole dataset."""

    storage_uri: BucketUri = Field(
        description="s3://bucket/folder. The dataset lies below it in a folder named after its digest.",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, "
        "AWS_REGION, ca.crt.",
    )
