"""README.md of a result: what a hub's search reads at its head, and for people what the model was made from.

No address of data stands in it, and no file of this machine: they may be nobody's business. Of the base, its name on a hub is
told where it comes from one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from trainyard.api.names import GIT_COMMIT_LABEL
from trainyard.api.run.methods import METHODS
from trainyard.trainer import __version__
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.version import dataset_folder
from trainyard.trainer.volume.commit import read_committed

CARD = "README.md"
LIBRARIES = ("torch", "transformers", "trl", "peft")
TRAINING_LOSS, HELD_OUT_LOSS = "training loss", "held-out loss"
_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.S)


def model_card(
    context: RunContext,
    *,
    title: str,
    step: int | None,
    digest: str | None,
    whole: bool = True,
    metrics: Mapping[str, float] | None = None,
    base: Path | None = None,
) -> str:
    """The card. `whole` is whether it is a model by itself rather than an adapter; `digest` that of the data; `base` the folder that
    the training started from, whose licence goes on."""
    training, spec = context.training, context.model
    measured = {**(metrics or {}), **_evaluation(context, "metrics")}
    before = _evaluation(context, "baseline")
    head: dict[str, Any] = {"tags": ["trainyard", training.method.lower()]}
    if spec.trm is None:
        head |= {"library_name": "transformers" if whole else "peft", "pipeline_tag": _task(context)}
    repository, revision = base_of(context)
    if repository is not None:
        head["base_model"] = repository
    licence = licence_of(base) if base is not None else None
    if licence is not None:
        head["license"] = licence
    held_out = {name: value for name, value in measured.items() if name != TRAINING_LOSS}
    if held_out and spec.trm is None:
        head["model-index"] = [_index(title, held_out, task=_task(context))]
    facts = {
        "run": context.run.metadata.name,
        "method": training.method,
        "steps": step,
        "base model": f"{repository} at {revision}" if repository and revision else repository,
        "licence of the base": licence,
        "datasets": ", ".join(dataset.name for dataset in context.datasets),
        "dataset digest": digest,
        "seed": training.seed,
        "learning rate": training.learning_rate,
        "length": f"{training.max_length} tokens",
        "git commit": context.run.metadata.labels.get(GIT_COMMIT_LABEL),
        "made with": ", ".join((f"trainyard {__version__}", *_versions())),
    }
    parts = [f"---\n{yaml.safe_dump(head, allow_unicode=True)}---\n\n# {title}\n", _table(facts)]
    if sources := _datasets(context):
        parts.append("## Data\n\n| dataset | records | digest |\n|---|---|---|\n" + "\n".join(sources))
    if measured:
        parts.append("## Measured\n\n" + _measured(measured, before))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def base_of(context: RunContext) -> tuple[str | None, str | None]:
    """The base's name on a hub, and its revision, where it comes from one."""
    uri = context.model.storage_uri or ""
    if not uri.startswith("hf://"):
        return None, None
    owner, name, *_ = uri.removeprefix("hf://").split("/")
    name, _, revision = name.partition("@")
    return f"{owner}/{name}", revision or None


def licence_of(base: Path) -> str | None:
    """As the base's own card, or the file it was unpacked from, names it."""
    committed = read_committed(base)
    told = committed.manifest.get("license") if committed is not None else None
    if told is None:
        try:
            found = _HEAD.search((base / CARD).read_text(errors="replace")[:100_000])
            values = yaml.safe_load(found[1]) if found else None
        except (OSError, yaml.YAMLError):
            values = None
        told = values.get("license") if isinstance(values, dict) else None
    return told if isinstance(told, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,60}", told) else None


def _measured(measured: Mapping[str, float], before: Mapping[str, float]) -> str:
    """With a column for the model before training where that was measured as well."""
    if not before:
        return _table({name: f"{value:.6g}" for name, value in measured.items()})
    rows = [f"| {_cell(name)} | {value:.6g} | {_shown(before.get(name))} |" for name, value in measured.items()]
    return "| | after | before training |\n|---|---|---|\n" + "\n".join(rows)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _evaluation(context: RunContext, part: str) -> dict[str, float]:
    """What the evaluation step has measured of the result (metrics), or of the model before (baseline), if it has run."""
    try:
        values = json.loads((context.evaluation_dir / "metrics.json").read_text())
    except (OSError, ValueError):
        return {}
    found = values.get(part) if isinstance(values, dict) else None
    return _numbers(found) if isinstance(found, dict) else {}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _task(context: RunContext) -> str:
    return "text-classification" if METHODS[context.training.method].makes_scores else "text-generation"


def _index(title: str, measured: Mapping[str, float], *, task: str) -> dict[str, Any]:
    return {
        "name": title,
        "results": [
            {
                "task": {"type": task},
                "dataset": {"name": "held-out records of the run", "type": "held-out"},
                "metrics": [
                    {"type": name.rpartition(" ")[2], "name": name, "value": v} for name, v in measured.items()
                ],
            }
        ],
    }


def _datasets(context: RunContext) -> list[str]:
    built = read_committed(dataset_folder(context))
    if built is None:
        return []
    files = built.manifest["files"]
    rows = []
    for one in built.manifest.get("datasets", ()):
        sums = [files[name]["sha256"] for name in sorted(files) if name.rpartition("/")[2] == f"{one['name']}.jsonl"]
        digest = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
        rows.append(f"| {one['name']} | {one['records']} | sha256:{digest} |")
    return rows


def _table(facts: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None)
    return f"| | |\n|---|---|\n{rows}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _versions() -> list[str]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
