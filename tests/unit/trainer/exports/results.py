"""A run that has been trained, as its exports find it: a model on the volume, and the run's file around it."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext, read_context
from trainyard.trainer.exports import filled_target, module_of
from trainyard.trainer.exports.exported import Exported, digest_of, read_exported
from trainyard.trainer.frame.export import export, export_named, result_of
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import commit_folder

CREATED = "2026-11-28T18:05:00Z"


@dataclass(frozen=True)
class Trained:
    """One run with its volume."""

    context: RunContext
    environment: Mapping[str, str]

    def check(self, name: str) -> None:
        """As the prepare step asks, when there is no result yet."""
        one = export_named(self.context, name)
        module_of(one).check(self.context, one, filled_target(self.context, one))

    def send(self, name: str) -> Exported:
        """The whole step."""
        export(self.context, Reporter(f"export-{name}", 1), name=name)
        left = read_exported(self.context, name)
        assert left is not None
        return left

    def forget(self, name: str) -> None:
        """As if the process had been killed after the target had all and before that was noted."""
        (self.context.run_dir / "exports" / f"{name}.json").unlink()

    def point(self, name: str, *, back: bool = False) -> None:
        """Let what points at the newest result name this one, or the one before it again."""
        one, left = export_named(self.context, name), read_exported(self.context, name)
        assert left is not None
        digest = digest_of(result_of(self.context))
        before = read_exported(self.context, one.depends_on[0]) if one.depends_on else None
        target = filled_target(self.context, one, digest=digest, uri=before.uri if before else "")
        module = module_of(one)
        (module.back if back else module.promote)(self.context, one, target, left)


def trained(
    place: Path,
    exports: Sequence[Mapping[str, Any]],
    *,
    name: str = "tiny",
    version: str = "v1",
    secrets: Mapping[str, Mapping[str, str]] | None = None,
    sizes: Mapping[str, int] | None = None,
    adapter: bool = False,
    **spec: Any,
) -> Trained:
    """A run of this name whose result is of this version: weights and all else follow from it."""
    folder = place / name
    folder.mkdir(parents=True, exist_ok=True)
    for secret, values in (secrets or {}).items():
        (folder / "secrets" / secret).mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            (folder / "secrets" / secret / key).write_text(value)
    manifest = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": f"0a1b2c3d-0000-4000-8000-{zlib.crc32(name.encode()):012d}",
            "creationTimestamp": CREATED,
            "labels": {"trainyard.dev/git-commit": "f00dfeed" * 5},
        },
        "spec": {
            "model": {"storageUri": "hf://org/base@v1", **({"adapter": {"lora": {}}} if adapter else {})},
            "datasets": [{"name": "d", "inline": {"text": "a"}}],
            "training": {"method": "SFT", "maxSteps": 3},
            "owner": {"agent": "agent-sre"},
            "versioning": {"version": version},
            "exports": list(exports),
            **spec,
        },
    }
    (folder / "run.json").write_text(json.dumps(manifest))
    environment = {
        "TRAINYARD_RUN_FILE": str(folder / "run.json"),
        "TRAINYARD_WORK_DIR": str(folder / "volume" / "run"),
        "TRAINYARD_SECRETS_DIR": str(folder / "secrets"),
        "TRAINYARD_CACHE_DIR": str(folder / "cache"),
        "TRAINYARD_VOLUMES_DIR": str(folder / "volumes"),
        "TRAINYARD_TERMINATION_LOG": "",
    }
    context = read_context("export", environment)
    context.work_dir.mkdir(parents=True, exist_ok=True)

    def write(files: Path) -> None:
        made = random.Random(f"{name} {version}")
        for file, size in (sizes or {"config.json": 40, "model.safetensors": 3000, "tokenizer.json": 500}).items():
            (files / file).write_bytes(made.randbytes(size))

    commit_folder(context.model_dir, write, step=3, data="sha256:d1")
    if adapter:
        commit_folder(context.adapter_dir, write, step=3, data="sha256:d1")
    return Trained(context, environment)
