"""`mlflow`: a version in MLflow's registry that says where the files are, and an alias that says which version is in use.

    prepare: is the server there, may this account write?  ->  send: the version, tagged  ->  promote: the alias

The files lie where an s3 export has put them: the registry keeps an address, no copy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.mlflow import MlflowModel
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.sources import PAUSES, TRIES, secret_values
from trainyard.trainer.errors import invalid_config, source_unavailable
from trainyard.trainer.exports.exported import Exported
from trainyard.trainer.exports.facts import facts_of, metrics_of
from trainyard.trainer.exports.registered import RegisteredModel
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.tracking.rest import Away, Refused, Rest

GROUP = "trainyard.dev"
T = TypeVar("T")


def check(context: RunContext, export: Export, target: MlflowModel) -> None:
    """Make the registered model if need be. Raises UserError: it cannot be, or the files will be nowhere."""
    _source_export(context, export)
    model = _model(context, export, target)
    _guarded(export, target, lambda: model.make(description="Made by Trainyard"))
    _guarded(export, target, model.aliases)
    say(f"{export.field}: versions of {target.model} can be registered")


def send(
    context: RunContext, export: Export, target: MlflowModel, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Raises UserError: the server refuses, or does not answer."""
    model, source = _model(context, export, target), inputs[_source_export(context, export)]
    facts = facts_of(context)
    tags = {f"{GROUP}/{name}": value for name, value in facts.items()}
    tags |= {f"metric.{name}": value for name, value in metrics_of(context).items()}

    def register() -> str:
        model.make(description="Made by Trainyard")
        return model.add(
            digest=source.digest,
            source=source.uri.rstrip("/"),
            run=_tracked(context, target),
            description=f"{facts['model']} {facts['version']}",
            tags=tags,
        )

    version = _guarded(export, target, register)
    say(f"{export.field}: {target.model} version {version} is {source.uri}")
    return Exported(f"models:/{target.model}/{version}", source.digest, version=version)


def promote(context: RunContext, export: Export, target: MlflowModel, exported: Exported) -> None:
    """Let the alias name this version. Raises UserError."""
    model, alias = _model(context, export, target), target.pointer or ""
    if _guarded(export, target, lambda: model.promote(exported.version, alias=alias)):
        say(f"{export.field}: {target.model}@{alias} is version {exported.version}")


def back(context: RunContext, export: Export, target: MlflowModel, exported: Exported) -> None:
    """Let the alias name the version before this one. Raises UserError."""
    model, alias = _model(context, export, target), target.pointer or ""
    if _guarded(export, target, lambda: model.back(exported.version, alias=alias)):
        say(f"{export.field}: {target.model}@{alias} is again the version before {exported.version}")


def _source_export(context: RunContext, export: Export) -> str:
    for one in context.run.spec.all_exports():
        if one.name in export.depends_on and one.kind == "s3":
            return one.name
    raise invalid_config(
        f"{export.field}: the registry keeps an address and no files, and no export of dependsOn puts them anywhere",
        hint="add an export with target s3, and name it in dependsOn",
    )


def _tracked(context: RunContext, target: MlflowModel) -> str:
    """Id of the run that this training is on the same server; empty where it is not tracked there."""
    try:
        known = json.loads((context.run_dir / "tracking" / "run.json").read_text())
    except (OSError, ValueError):
        return ""
    same = str(known.get("uri", "")).rstrip("/") == target.tracking_uri.rstrip("/")
    return str(known.get("run", "")) if same else ""


def _model(context: RunContext, export: Export, target: MlflowModel) -> RegisteredModel:
    secret = secret_values(target.secret_ref, context.secrets_dir, told=export.field)
    return RegisteredModel(Rest.at(target.tracking_uri, secret=secret, field=export.field), target.model)


def _guarded(export: Export, target: MlflowModel, call: Callable[[], T]) -> T:
    last = ""
    for number in range(TRIES):
        try:
            return call()
        except Refused as error:
            raise invalid_config(
                f"{export.field} {target.tracking_uri}: MLflow does not take it: {error}",
                hint="check model and alias; the registry needs a database behind it, and an address that it may use",
            ) from error
        except Away as error:
            if error.denied:
                raise invalid_config(
                    f"{export.field} {target.tracking_uri}: access is refused",
                    hint=f"check {export.field}.secretRef: username and password, or token, of an account that may edit the model",
                ) from error
            last = str(error)
            if number < len(PAUSES):
                time.sleep(PAUSES[number])
    raise source_unavailable(
        f"{export.field} {target.tracking_uri} did not answer in {TRIES} tries: {last}",
        hint="check that MLflow is up and reachable from the cluster",
    )
