"""What the harness is about to read, looked at before it does: its YAML files may run code and fetch data, and ours may not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainyard.api.run.evaluation import is_of_task
from trainyard.api.run.harness import HARNESS_METRICS, Harness
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.volume.claims import Bounds, bounds_of, folder_of

FIELD = "spec.evaluation.harness"
FORMATS = ("json", "csv", "parquet", "text")
"""Of files that lie there; any other dataset_path is a name on a hub, or a script."""
AGGREGATIONS = (
    "mean",
    "nanmean",
    "median",
    "perplexity",
    "weighted_perplexity",
    "bits_per_byte",
    "bleu",
    "chrf",
    "ter",
)
CODE = ("custom_dataset", "use_prompt", "unsafe_code", "class")
"""Fields that run something."""
FUNCTION = "!function"
PLAIN = "none"
"""The harness's name for the filter that filters nothing."""


@dataclass(frozen=True)
class Function:
    """A function of Python that a YAML file names."""

    name: str


@dataclass
class Folder:
    """The folder of spec.evaluation.harness.includeFrom."""

    path: Path
    bounds: Bounds | None
    _files: dict[Path, Mapping[str, Any]] = field(default_factory=dict)

    def task(self, name: str) -> tuple[Path, Mapping[str, Any]]:
        """The file of a task, with what it includes.

        Raises:
            UserError: there is none, or it is no YAML.
        """
        known = []
        for file in sorted((*self.path.rglob("*.yaml"), *self.path.rglob("*.yml"))):
            own = self.read(file)
            if own.get("task") == name or own.get("group") == name:
                return file, self._whole(file, ())
            known.append(own.get("task"))
        names = ", ".join(sorted({one for one in known if isinstance(one, str)})[:20]) or "none"
        raise invalid_config(
            f"{FIELD}.tasks: no YAML file in {FIELD}.includeFrom has the task {name}",
            hint=f"tasks that are there: {names}",
        )

    def digest(self) -> str:
        """Of all that lies there."""
        whole = hashlib.sha256()
        for file in sorted(f for f in self.path.rglob("*") if f.is_file()):
            self._check(file)
            with open(file, "rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(f"{file.relative_to(self.path)} {content}\n".encode())
        return whole.hexdigest()

    def read(self, file: Path) -> Mapping[str, Any]:
        """One file as it stands."""
        if file not in self._files:
            self._check(file)
            try:
                found = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise invalid_config(f"{self.told(file)}: {first_line(error)}", hint="it has to be YAML") from error
            self._files[file] = found if isinstance(found, dict) else {}
        return self._files[file]

    def told(self, file: Path) -> str:
        """For messages."""
        return f"{FIELD}: {file.relative_to(self.path) if file.is_relative_to(self.path) else file}"

    def inside(self, name: str, beside: Path, *, told: str) -> Path:
        """A file that is named in a YAML file.

        Raises:
            UserError: it is not there, or not in the folder.
        """
        place = beside / name
        if "://" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise invalid_config(
                f"{told} {name} is not in the folder of includeFrom", hint="put the file there, and name it from there"
            )
        if not place.is_file():
            raise invalid_config(
                f"{told} {name} is not there",
                hint=f"there are {', '.join(sorted(p.name for p in beside.iterdir())[:20]) or 'no files'}",
            )
        self._check(place)
        return place

    def _check(self, file: Path) -> None:
        if self.bounds is not None:
            self.bounds.check([file], told=self.told(file), invalid=invalid_config)

    def _whole(self, file: Path, above: tuple[Path, ...]) -> Mapping[str, Any]:
        own = self.read(file)
        if "include" not in own:
            return own
        told = f"{self.told(file)}: include"
        other = self.inside(str(own["include"]), file.parent, told=told)
        if other in (*above, file):
            raise invalid_config(f"{told} {own['include']} goes round in a circle", hint="remove one of the includes")
        return {**self._whole(other, (*above, file)), **{key: one for key, one in own.items() if key != "include"}}


class _Loader(yaml.SafeLoader):
    """Functions become a name, and nothing is imported."""


_Loader.add_constructor(FUNCTION, lambda loader, node: Function(str(node.value)))


def folder(context: RunContext, spec: Harness) -> Folder:
    """The folder behind includeFrom.

    Raises:
        UserError: it is not there.
    """
    path = folder_of(spec.include_from, context.volumes_dir, told=f"{FIELD}.includeFrom", invalid=invalid_config)
    return Folder(path, bounds_of(spec.include_from, context.volumes_dir))


def check_harness(context: RunContext) -> None:
    """In the prepare step: what can be known of the tasks, before a GPU is asked for.

    Raises:
        UserError: one of them cannot be asked, or there will be no whole model to ask.
    """
    spec = context.run.spec.evaluation.harness
    if spec is None or not context.run.spec.evaluation.enabled:
        return
    adapter = context.model.adapter
    if adapter is not None and not adapter.merge:
        raise invalid_config(
            f"{FIELD} needs a whole model, and spec.model.adapter.merge is false",
            hint="set spec.model.adapter.merge: true; the adapter is kept beside the model",
        )
    there = folder(context, spec)
    gated = [gate.metric for gate in context.run.spec.evaluation.gates or () if is_of_task(gate.metric)]
    for name in spec.tasks:
        file, task = there.task(name)
        check_task(there, file, task)
        for metric in gated:
            if metric.startswith(f"{name}/"):
                check_gated(metric, task, told=there.told(file))


def check_gated(metric: str, task: Mapping[str, Any], *, told: str) -> None:
    """A gate's metric, as far as the task says what it measures.

    Raises:
        UserError: it is not measured.
    """
    listed = [one.get("metric") if isinstance(one, dict) else one for one in task.get("metric_list") or ()]
    filters = [one.get("name") for one in task.get("filter_list") or () if isinstance(one, dict)] or [PLAIN]
    known = [
        f"{task['task']}/{one}" if kind == PLAIN else f"{task['task']}/{one}.{kind}"
        for one in listed
        for kind in filters
    ]
    if known and metric not in known:
        raise invalid_config(
            f"spec.evaluation.gates: {metric} is not measured by {told.removeprefix(f'{FIELD}: ')}",
            hint=f"it measures {', '.join(known)}",
        )


def check_task(there: Folder, file: Path, task: Mapping[str, Any]) -> None:
    """One task.

    Raises:
        UserError: it runs code, fetches something, or has a metric that is not computed by the harness itself.
    """
    told = there.told(file)
    if "group" in task or not isinstance(task.get("task"), str):
        raise invalid_config(f"{told}: is a group of tasks", hint=f"name its tasks in {FIELD}.tasks instead")
    for place, name in _functions(task, ""):
        raise invalid_config(
            f"{told}: {place} is code ({FUNCTION} {name})",
            hint="write templates instead (doc_to_text and the like), and prepare the data beforehand; code of tasks is not run",
        )
    for key in CODE:
        if task.get(key):
            raise invalid_config(f"{told}: {key} runs code", hint="remove it; templates and data files do without")
    _check_data(there, task, told)
    for entry in task.get("metric_list") or ():
        metric = entry.get("metric") if isinstance(entry, dict) else entry
        if metric not in HARNESS_METRICS or (isinstance(entry, dict) and entry.get("hf_evaluate")):
            raise invalid_config(
                f"{told}: metric {metric} is none that the harness computes by itself",
                hint=f"take one of {', '.join(HARNESS_METRICS)}; others would be fetched",
            )
        how = entry.get("aggregation", "mean") if isinstance(entry, dict) else "mean"
        if how not in AGGREGATIONS:
            raise invalid_config(
                f"{told}: aggregation {how} of metric {metric} is not known",
                hint=f"take one of {', '.join(AGGREGATIONS)}",
            )


def _check_data(there: Folder, task: Mapping[str, Any], told: str) -> None:
    kind = task.get("dataset_path")
    if kind not in FORMATS:
        raise invalid_config(
            f"{told}: dataset_path {kind} is not a file's format; it would be fetched from a hub",
            hint=f"put the data into the folder, set dataset_path to one of {', '.join(FORMATS)} and name the files in "
            "dataset_kwargs.data_files",
        )
    files = (task.get("dataset_kwargs") or {}).get("data_files")
    named = list(_texts(files))
    if not named:
        raise invalid_config(
            f"{told}: dataset_kwargs.data_files names no file",
            hint="for example dataset_kwargs: {data_files: {test: questions.jsonl}}",
        )
    for name in named:
        there.inside(name, there.path, told=f"{told}: dataset_kwargs.data_files")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)


def _functions(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Function):
        yield place, value.name
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _functions(part, f"{place}.{key}".lstrip("."))
