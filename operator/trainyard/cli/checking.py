"""Checking manifests without a cluster: from file names to reports, and from reports to text.

All faults of all files are collected before anything is printed, because who fixes a manifest wants to fix it once. The
checks themselves are the models of `trainyard.api`, the same that the operator reads its objects with.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trainyard.api import GROUP
from trainyard.api.manifest import (
    Document,
    Fault,
    InvalidManifest,
    parse_run,
    parse_schedule,
    parse_sweep,
    read_documents,
)
from trainyard.api.run.trainingrun import TrainingRun, TrainingRunSpec
from trainyard.cli.exits import Misused

if TYPE_CHECKING:
    from trainyard.api.schedule.trainingschedule import TrainingSchedule
    from trainyard.api.sweep.trainingsweep import TrainingSweep

KINDS = ("TrainingRun", "TrainingSchedule", "TrainingSweep")
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Source:
    """A text and the name that messages call it by."""

    name: str
    text: str


@dataclass(frozen=True)
class ObjectReport:
    """One object of a file. `model` is there only if it has no faults; `document` is its own YAML."""

    kind: str
    name: str
    namespace: str
    faults: tuple[Fault, ...]
    document: Document
    model: "TrainingRun | TrainingSchedule | TrainingSweep | None" = None
    remarks: tuple[str, ...] = ()
    """What was found in its data, apart from faults."""

    @property
    def valid(self) -> bool:
        return not self.faults

    @property
    def run_spec(self) -> TrainingRunSpec | None:
        """The spec of the run, or of the runs that a schedule or a sweep makes."""
        if self.model is None:
            return None
        return self.model.spec if isinstance(self.model, TrainingRun) else self.model.spec.template.spec


@dataclass(frozen=True)
class FileReport:
    """One file: faults of the file itself (broken YAML, nothing in it), its objects, and what else was passed over."""

    name: str
    faults: tuple[Fault, ...] = ()
    objects: tuple[ObjectReport, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.faults and all(one.valid for one in self.objects)


def read_sources(names: Iterable[str], *, stdin: TextIO) -> list[Source]:
    """The texts of files, of folders' manifests, and of `-`. Raises Misused for what cannot be read."""
    try:
        return [source for name in names for source in _sources(name, stdin)]
    except OSError as error:
        raise Misused(f"cannot read {error.filename}: {error.strerror}") from error


def _sources(name: str, stdin: TextIO) -> Iterator[Source]:
    path = Path(name)
    if name == "-":
        yield Source("standard input", stdin.read())
    elif path.is_dir():
        yield from (Source(str(p), _read(p)) for p in sorted(path.iterdir()) if p.suffix in SUFFIXES)
    else:
        yield Source(name, _read(path))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


DEPRECATED = (
    "spec.pushToHub is deprecated and gone in the next version: write spec.exports: [{name: hub, hub: {...}}] instead"
)


def check(source: Source) -> FileReport:
    """Everything that is wrong with one file."""
    try:
        documents = read_documents(source.text)
    except InvalidManifest as error:
        return FileReport(source.name, error.faults)
    ours = [d for d in documents if _is_ours(d.value)]
    if not ours:
        found = ", ".join(_title(d.value) for d in documents) or "nothing"
        return FileReport(
            source.name,
            (
                Fault(
                    "manifest", f"expected a TrainingRun, TrainingSchedule or TrainingSweep in this file, found {found}"
                ),
            ),
        )
    others = tuple(_title(d.value) for d in documents if not _is_ours(d.value))
    return FileReport(source.name, (), tuple(_without_twins([_check_object(d) for d in ours])), others)


def _is_ours(value: Any) -> bool:
    """By kind or by group, so that a slip in one of the two is reported and not passed over."""
    if not isinstance(value, Mapping):
        return False
    return value.get("kind") in KINDS or str(value.get("apiVersion", "")).startswith(f"{GROUP}/")


def _title(value: Any) -> str:
    if not isinstance(value, Mapping) or "kind" not in value:
        return "something without a kind"
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f"{value['kind']} {name}" if name else str(value["kind"])


def _check_object(document: Document) -> ObjectReport:
    metadata = document.value.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    kind = str(document.value.get("kind"))
    name = metadata.get("name") or metadata.get("generateName") or ""
    report = ObjectReport(kind, str(name), str(metadata.get("namespace", "")), (), document)
    try:
        if kind == "TrainingSweep":
            sweep = parse_sweep(document.value, document=document)
            if found := tuple(_sweep_faults(sweep, document)):
                raise InvalidManifest(found)
            return replace(report, model=sweep)
        if kind != "TrainingSchedule":
            run = parse_run(document.value, document=document)
            return replace(report, model=run, remarks=(DEPRECATED,) if run.spec.push_to_hub is not None else ())
        schedule = parse_schedule(document.value, document=document)
        if found := tuple(_schedule_faults(schedule, document)):
            raise InvalidManifest(found)
        return replace(report, model=schedule)
    except InvalidManifest as error:
        return replace(report, faults=tuple(sorted(error.faults, key=lambda f: f.line or 0)))


def _schedule_faults(schedule: "TrainingSchedule", document: Document) -> Iterator[Fault]:
    """What no schema can say: cron fields, time zones, and the runs that variants make."""
    from trainyard.api.schedule.children import ScheduleRef
    from trainyard.api.schedule.validity import faults

    reference = ScheduleRef(
        name=schedule.metadata.name,
        namespace=schedule.metadata.namespace,
        uid="",
        created=datetime.now(UTC),
        spec=schedule.spec,
        raw_spec=document.value["spec"],
    )
    yield from _located(faults(reference), document)


def _sweep_faults(sweep: "TrainingSweep", document: Document) -> Iterator[Fault]:
    """The same of a sweep: where its parameters lead, and the runs that their values make."""
    from trainyard.api.sweep.children import SweepRef
    from trainyard.api.sweep.validity import faults

    yield from _located(faults(SweepRef.of(document.value, sweep)), document)


def _located(sentences: Iterable[str], document: Document) -> Iterator[Fault]:
    """Sentences that begin with a field, each with its line."""
    for sentence in sentences:
        field, _, message = sentence.partition(": ")
        words = field.split(" ", 1)[0].replace("[", ".").replace("]", "").split(".")
        path = tuple(int(word) if word.isdecimal() else word for word in words)
        yield Fault(field, message, document.line(path))


def _without_twins(reports: Sequence[ObjectReport]) -> Iterable[ObjectReport]:
    seen: set[tuple[str, str, str]] = set()
    for report in reports:
        key = (report.kind, report.namespace, report.name)
        if report.name and key in seen:
            fault = Fault(
                "metadata.name",
                f"{report.name!r} stands in this file twice; the second would overwrite the first: rename one of them",
                report.document.line(("metadata", "name")),
            )
            yield replace(report, faults=(*report.faults, fault), model=None)
        else:
            yield report
        seen.add(key)


def render_table(reports: Sequence[FileReport]) -> str:
    """For people: faults with their lines, then one line an object."""
    lines: list[str] = []
    for report in reports:
        lines += _fault_lines(report.name, report.faults)
        for one in report.objects:
            lines += _fault_lines(report.name, one.faults)
            lines += [f"{report.name}: {remark}" for remark in one.remarks]
            title = f"{report.name}: {one.kind} {one.name or '(without a name)'}"
            if one.run_spec is not None:
                lines.append(f"{title} is valid: {' -> '.join(one.run_spec.all_steps())}")
            else:
                lines.append(f"{title} has {_count(len(one.faults))}")
        if report.passed_over:
            lines.append(f"{report.name}: passed over {', '.join(report.passed_over)}")
    return "\n".join(lines)


def _count(faults: int) -> str:
    return "1 fault" if faults == 1 else f"{faults} faults"


def _fault_lines(name: str, faults: Sequence[Fault]) -> list[str]:
    return [f"{name}:{f.line}: {f.field}: {f.message}" if f.line else f"{name}: {f.field}: {f.message}" for f in faults]


def render_json(reports: Sequence[FileReport]) -> str:
    """For programs: one object a file."""
    return json.dumps({"valid": all(r.valid for r in reports), "files": [_file_json(r) for r in reports]}, indent=2)


def _file_json(report: FileReport) -> dict[str, Any]:
    return {
        "file": report.name,
        "valid": report.valid,
        "faults": _faults_json(report.faults),
        "objects": [
            {
                "kind": one.kind,
                "name": one.name,
                "namespace": one.namespace or None,
                "valid": one.valid,
                "steps": list(one.run_spec.all_steps()) if one.run_spec else None,
                "faults": _faults_json(one.faults),
                "remarks": list(one.remarks),
            }
            for one in report.objects
        ],
    }


def _faults_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    return [{"field": f.field, "line": f.line, "message": f.message} for f in faults]
