"""Checking manifests without a cluster: from file names to reports, and from reports to text.

All faults of all files are collected before anything is printed, because who fixes a manifest wants to fix it once. The
checks themselves are the models of `trainyard.api`, the same that the operator reads a run with.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from trainyard.api import GROUP
from trainyard.api.manifest import Document, Fault, InvalidManifest, parse_run, read_documents
from trainyard.api.trainingrun import TrainingRun

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Source:
    """A text and the name that messages call it by."""

    name: str
    text: str


@dataclass(frozen=True)
class RunReport:
    """One TrainingRun of a file. `run` is there only if it has no faults; `document` is its own YAML."""

    name: str
    namespace: str
    faults: tuple[Fault, ...]
    document: Document
    run: TrainingRun | None = None

    @property
    def valid(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class FileReport:
    """One file: faults of the file itself (broken YAML, nothing in it), its runs, and how much else was passed over."""

    name: str
    faults: tuple[Fault, ...] = ()
    runs: tuple[RunReport, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.faults and all(run.valid for run in self.runs)


def read_sources(names: Iterable[str], *, stdin: TextIO) -> list[Source]:
    """The texts of files, of folders' manifests, and of `-`. Raises OSError for what cannot be read."""
    sources: list[Source] = []
    for name in names:
        path = Path(name)
        if name == "-":
            sources.append(Source("standard input", stdin.read()))
        elif path.is_dir():
            sources += [Source(str(p), _read(p)) for p in sorted(path.iterdir()) if p.suffix in SUFFIXES]
        else:
            sources.append(Source(name, _read(path)))
    return sources


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def check(source: Source) -> FileReport:
    """Everything that is wrong with one file."""
    try:
        documents = read_documents(source.text)
    except InvalidManifest as error:
        return FileReport(source.name, error.faults)
    ours = [d for d in documents if _is_ours(d.value)]
    if not ours:
        found = ", ".join(_title(d.value) for d in documents) or "nothing"
        return FileReport(source.name, (Fault("manifest", f"expected a TrainingRun in this file, found {found}"),))
    others = tuple(_title(d.value) for d in documents if not _is_ours(d.value))
    return FileReport(source.name, (), tuple(_without_twins([_check_run(d) for d in ours])), others)


def _is_ours(value: Any) -> bool:
    """By kind or by group, so that a slip in one of the two is reported and not passed over."""
    if not isinstance(value, Mapping):
        return False
    return value.get("kind") == "TrainingRun" or str(value.get("apiVersion", "")).startswith(f"{GROUP}/")


def _title(value: Any) -> str:
    if not isinstance(value, Mapping) or "kind" not in value:
        return "something without a kind"
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f"{value['kind']} {name}" if name else str(value["kind"])


def _check_run(document: Document) -> RunReport:
    metadata = document.value.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    report = RunReport(str(metadata.get("name", "")), str(metadata.get("namespace", "")), (), document)
    try:
        return replace(report, run=parse_run(document.value, document=document))
    except InvalidManifest as error:
        return replace(report, faults=tuple(sorted(error.faults, key=lambda f: f.line or 0)))


def _without_twins(reports: Sequence[RunReport]) -> Iterable[RunReport]:
    seen: set[tuple[str, str]] = set()
    for report in reports:
        key = (report.namespace, report.name)
        if report.name and key in seen:
            fault = Fault(
                "metadata.name",
                f"{report.name!r} stands in this file twice; the second would overwrite the first: rename one of them",
                report.document.line(("metadata", "name")),
            )
            yield replace(report, faults=(*report.faults, fault), run=None)
        else:
            yield report
        seen.add(key)


def render_table(reports: Sequence[FileReport]) -> str:
    """For people: faults with their lines, then one line a run."""
    lines: list[str] = []
    for report in reports:
        lines += _fault_lines(report.name, report.faults)
        for run in report.runs:
            lines += _fault_lines(report.name, run.faults)
            title = f"{report.name}: TrainingRun {run.name or '(without a name)'}"
            if run.run is not None:
                lines.append(f"{title} is valid: {' -> '.join(run.run.spec.steps())}")
            else:
                lines.append(f"{title} has {_count(len(run.faults))}")
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
        "runs": [
            {
                "name": run.name,
                "namespace": run.namespace or None,
                "valid": run.valid,
                "steps": list(run.run.spec.steps()) if run.run else None,
                "faults": _faults_json(run.faults),
            }
            for run in report.runs
        ],
    }


def _faults_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    return [{"field": f.field, "line": f.line, "message": f.message} for f in faults]
