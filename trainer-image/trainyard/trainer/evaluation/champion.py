"""What a result is compared with: where its weights lie, and its scores, which are kept for the next run.

    compareWith  ->  a model (or none yet)  ->  its digest  ->  scores from the cache, or measured now

The key of the cache is made of the weights, the records, the settings of the evaluation and this evaluator's version, so what is
found under it is what would be measured. Times are never kept: those of another machine say nothing about this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.api.base import SecretRef
from trainyard.api.conditions import Reason
from trainyard.api.run.evaluation import RegisteredModel
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, invalid_config, source_unavailable
from trainyard.trainer.evaluation.gates import NoChampion
from trainyard.trainer.evaluation.scores import VERSION, Scores
from trainyard.trainer.log import say, warn
from trainyard.trainer.tracking.mlflow import Mlflow
from trainyard.trainer.tracking.rest import Away, Refused
from trainyard.trainer.volume.bases import Address, look, model_folder
from trainyard.trainer.volume.claims import Bounds
from trainyard.trainer.volume.commit import TEMPORARY, commit_folder, find_damage, read_committed

FIELD = "spec.evaluation.compareWith"
FOLDER = "evaluations"
FILE = "records.jsonl"
REMOTE = ("s3://", "http://", "https://")
KEPT = 20
"""Champions in a cache; of more, those that were not used for longest go."""


@dataclass(frozen=True)
class Champion:
    """A model to compare with. Without a folder it is the one before training."""

    told: str
    folder: Path | None


def find_champion(context: RunContext) -> Champion | NoChampion | None:
    """What spec.evaluation.compareWith names; None where it is absent.

    Raises:
        UserError: it is not there, or nobody answers.
    """
    spec = context.run.spec.evaluation.compare_with
    if spec is None:
        return None
    if spec.base_model is not None:
        return Champion("the model before training", None)
    if spec.run is not None:
        return Champion(f"run {spec.run}", _result_of(spec.run, context))
    if spec.storage_uri is not None:
        return Champion(spec.storage_uri, _folder(spec.storage_uri, context, spec.secret_ref))
    assert spec.mlflow is not None
    source = registered(context, spec.mlflow)
    if isinstance(source, NoChampion):
        return source
    uri, version = source
    return Champion(
        f"models:/{spec.mlflow.model}@{spec.mlflow.alias} (version {version})", _folder(uri, context, spec.secret_ref)
    )


def check_champion(context: RunContext) -> None:
    """In the prepare step: what is on a volume, and what a registry says, is looked at before a GPU is asked for. A registry
    that is away holds up no training; it is asked again after it.

    Raises:
        UserError: what is there is no model, or nothing is.
    """
    spec = context.run.spec.evaluation.compare_with
    if spec is None or spec.base_model is not None:
        return
    if spec.mlflow is not None:
        try:
            source = registered(context, spec.mlflow)
            if not isinstance(source, NoChampion) and source[0].startswith(REMOTE):
                look(Address(source[0], spec.secret_ref, FIELD), context)
        except UserError as error:
            if error.reason is not Reason.SOURCE_UNAVAILABLE:
                raise
            warn(f"{error.message}; it is asked again after the training")
        return
    if spec.storage_uri is not None and spec.storage_uri.startswith(REMOTE):
        look(Address(spec.storage_uri, spec.secret_ref, FIELD), context)
        return
    if spec.storage_uri is not None and not spec.storage_uri.startswith(("pvc://", "file://")):
        return
    found = find_champion(context)
    assert isinstance(found, Champion)
    assert found.folder is not None
    if not any(found.folder.glob("*.safetensors")) or not (found.folder / "config.json").is_file():
        raise invalid_config(
            f"spec.evaluation.compareWith: {found.told} has no whole model (config.json and weights as safetensors)",
            hint="name a folder that was saved with save_pretrained; an adapter has to be merged first",
        )


def registered(context: RunContext, wanted: RegisteredModel) -> tuple[str, str] | NoChampion:
    """Address and version that an alias points to."""
    from trainyard.trainer.tracking.follow import secret_of

    tracking = context.run.spec.tracking
    assert tracking is not None
    assert tracking.mlflow is not None
    place = tracking.mlflow
    server = Mlflow.at(place.tracking_uri, experiment=place.experiment, secret=secret_of(context, place))
    told = f"{wanted.model}@{wanted.alias}"
    try:
        found = server.version_of(wanted.model, wanted.alias)
    except Away as error:
        raise source_unavailable(
            f"spec.evaluation.compareWith.mlflow {told}: {error}", hint="check spec.tracking.mlflow.trackingUri"
        ) from error
    except Refused as error:
        raise invalid_config(
            f"spec.evaluation.compareWith.mlflow {told}: {error}",
            hint="check the names of the model and the alias, and the rights of spec.tracking.mlflow.secretRef",
        ) from error
    if found is None:
        return NoChampion(wanted.no_champion, f"no version of {told}")
    source, version = found
    if not re.match(r"(hf|pvc|file|s3|https?|run)://", source):
        raise invalid_config(
            f"spec.evaluation.compareWith.mlflow {told}: version {version} has its source at {source}, which is not read here",
            hint="register models with a source that is hf://, pvc://, file:// or another address that spec.model.storageUri "
            "takes, or give compareWith.storageUri",
        )
    return source, version


def _folder(uri: str, context: RunContext, secret_ref: SecretRef | None) -> Path:
    return model_folder(Address(uri, secret_ref, FIELD), context)


def _result_of(run: str, context: RunContext) -> Path:
    """The newest committed result of a run of this name on the checkpoint volume."""
    told = f"spec.evaluation.compareWith.run {run}"
    pattern = re.compile(re.escape(run) + r"-([0-9a-f]{1,8}|local)$")
    folders = [f for f in context.volume.iterdir() if pattern.fullmatch(f.name) and f != context.run_dir]
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True):
        model = folder / "model"
        Bounds(context.volume, "the checkpoint volume").check([folder, model], told=told, invalid=invalid_config)
        if read_committed(model) is not None:
            return model
    raise invalid_config(
        f"{told}: no result of such a run on this volume",
        hint="both runs need the same spec.storage.checkpoints.claimName, and that one a whole model (adapter.merge: true); or "
        "give compareWith.storageUri",
    )


def digest_of(folder: Path) -> str:
    """sha256 over the files that make a model what it is; taken from its manifest where it is one of ours."""
    committed = read_committed(folder)
    if committed is not None and find_damage(committed, hashes=False) is None:
        files = {name: entry["sha256"] for name, entry in committed.manifest["files"].items()}
    else:
        paths = [p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", ".json", ".jinja") and p.is_file()]
        files = {path.name: _sha256(path) for path in paths}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def kept_or(context: RunContext, basis: Mapping[str, Any], measure: Callable[[], Scores]) -> Scores:
    """The scores that are kept under this basis (model, data, settings), or else those of `measure`, which are kept then.

    Without `spec.storage.cache` they lie on the checkpoint volume. A place that is full or read-only costs the next run its
    time, and this one nothing.
    """
    root = context.volume if context.run.spec.storage.cache is None else context.cache_dir
    key = hashlib.sha256(json.dumps({"evaluator": VERSION, **basis}, sort_keys=True).encode()).hexdigest()
    place = root / FOLDER / key
    kept = read_committed(place)
    if kept is not None and find_damage(kept) is None:
        say("the champion was measured on these records before: its scores are taken from the cache")
        os.utime(place)
        return Scores.read((place / FILE).read_text())
    scores = measure()
    try:
        _keep(place, scores)
    except OSError as error:
        say(f"the champion's scores were not kept: {error.strerror or error}")
    return scores


def _keep(place: Path, scores: Scores) -> None:
    """Two runs may do so at once: each writes beside, under a name of its own, and the first rename wins."""
    beside = place.parent / f"{TEMPORARY}{os.urandom(6).hex()}"
    try:
        commit_folder(beside, lambda folder: _written(folder, scores))
        if place.exists():
            shutil.rmtree(place)  # damaged, or it would have been read
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    others = sorted((f for f in place.parent.iterdir() if not f.name.startswith(TEMPORARY)), key=_used, reverse=True)
    for old in others[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _written(folder: Path, scores: Scores) -> None:
    (folder / FILE).write_text(scores.jsonl())


def _used(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
