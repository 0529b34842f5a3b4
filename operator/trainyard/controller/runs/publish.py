"""Exports that the operator does itself, because no pod has the rights: ConfigMap with Deployment, and InferenceService. Pure.

Only what the export names is changed, and only where it differs, so doing it again changes nothing: a ConfigMap's keys first,
and when they are there, the Deployment that reads them. A key that somebody applies again and again (Flux, Argo CD,
`kubectl apply`) would be taken back at once, so that is told instead of fought over.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trainyard.api import GROUP
from trainyard.api.names import FIELD_MANAGER
from trainyard.api.run.exports import Export
from trainyard.api.run.placeholders import fill
from trainyard.api.run.targets.config_map import ConfigMap
from trainyard.api.run.targets.kserve import KServe
from trainyard.controller.kube.resources import CONFIGMAPS, DEPLOYMENTS, INFERENCESERVICES, Resource
from trainyard.controller.runs.actions import Patch

CONFIG_DIGEST_ANNOTATION = f"{GROUP}/config-digest"
"""On the pods of a Deployment: what they have been started with. The same value starts nothing anew."""
PREVIOUS_ANNOTATION = f"{GROUP}/previous"
"""On what an export has changed: whose export it was, and what stood there before, for a rollback."""
_APPLIERS = ("kubectl-client-side-apply", "argocd-controller")

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The objects that an export names, by plural and as they are; None where there is none."""

    objects: Mapping[str, Raw | None] = field(default_factory=dict)
    refusal: str = ""
    """Why they could not be read, or not be written."""


@dataclass(frozen=True)
class Publication:
    """What is left to be done. Without fault and actions: nothing. `more`: another look is needed after these actions."""

    actions: tuple[Patch, ...] = ()
    fault: str = ""
    more: bool = False
    uri: str = ""
    digest: str = ""


def objects_of(export: Export) -> dict[Resource, str]:
    """What has to be read for it."""
    if isinstance(export.target, KServe):
        return {INFERENCESERVICES: export.target.inference_service}
    target: ConfigMap = export.target
    restarted = {DEPLOYMENTS: target.rollout_restart.deployment} if target.rollout_restart else {}
    return {CONFIGMAPS: target.name, **restarted}


def publish(export: Export, found: Found, *, values: Mapping[str, str], namespace: str, run: str) -> Publication:
    """What is to be done so that the objects say what the export wants."""
    if found.refusal:
        return Publication(fault=f"{export.field}: {found.refusal}")
    for resource, name in objects_of(export).items():
        if found.objects.get(resource.plural) is None:
            return Publication(
                fault=f"{export.field}: {resource.kind} {name} does not exist in namespace {namespace}; create it, or correct the name"
            )
    if isinstance(export.target, KServe):
        return _inference_service(export, export.target, found, values, namespace, run)
    return _config_map(export, export.target, found, values, namespace, run)


def _config_map(
    export: Export, target: ConfigMap, found: Found, values: Mapping[str, str], namespace: str, run: str
) -> Publication:
    there = found.objects[CONFIGMAPS.plural] or {}
    wanted = {key: fill(text, values) for key, text in target.data.items()}
    digest = _digest(wanted)
    done = Publication(uri=f"configmap://{namespace}/{target.name}", digest=f"sha256:{digest}")
    changed = {key: text for key, text in wanted.items() if (there.get("data") or {}).get(key) != text}
    if changed:
        name = f"{export.field}.name: ConfigMap {target.name}"
        if there.get("immutable"):
            return Publication(fault=f"{name} is immutable; make one that is not, or give another")
        for key in changed:
            if manager := _applier(there, key):
                return Publication(
                    fault=f"{name} gets its key {key} from {manager} too, which would take the new value back; take the key "
                    f"out of what {manager} applies"
                )
        metadata = _noted(there, run, {key: (there.get("data") or {}).get(key) for key in changed})
        patch = Patch(CONFIGMAPS, target.name, {"metadata": metadata, "data": changed}, export=export.name)
        return Publication((patch,), more=target.rollout_restart is not None, uri=done.uri, digest=done.digest)
    return _restarted(export, target, found, done)


def restore(export: Export, found: Found, *, values: Mapping[str, str], run: str) -> Publication:
    """What is to be done so that they say again what they said before this run's export.

    What another run, or anybody else, has written since stays.
    """
    if found.refusal:
        return Publication(fault=f"{export.field}: {found.refusal}")
    resource, name = next(iter(objects_of(export).items()))
    there = found.objects.get(resource.plural)
    note = json.loads(((there or {}).get("metadata", {}).get("annotations") or {}).get(PREVIOUS_ANNOTATION) or "{}")
    if there is None or note.get("run") != run:
        return Publication()
    before: Mapping[str, str | None] = note["values"]
    metadata = {"resourceVersion": there["metadata"]["resourceVersion"]}
    if isinstance(export.target, KServe):
        if there["spec"]["predictor"]["model"].get("storageUri") != fill(export.target.storage_uri, values):
            return Publication()
        body = {"metadata": metadata, "spec": {"predictor": {"model": dict(before)}}}
        return Publication((Patch(resource, name, body, export=export.name),))
    target: ConfigMap = export.target
    data = there.get("data") or {}
    ours = {key: fill(text, values) for key, text in target.data.items()}
    changed = {key: old for key, old in before.items() if data.get(key) == ours.get(key) != old}
    if changed:
        patch = Patch(resource, name, {"metadata": metadata, "data": changed}, export=export.name)
        return Publication((patch,), more=target.rollout_restart is not None)
    if any(data.get(key) != old for key, old in before.items()):
        return Publication()
    return _restarted(export, target, found, Publication(digest=f"sha256:{_digest(before)}"))


def _restarted(export: Export, target: ConfigMap, found: Found, done: Publication) -> Publication:
    """With the pods of the Deployment that reads the ConfigMap started anew, unless they have been with this content."""
    deployment = found.objects.get(DEPLOYMENTS.plural)
    if target.rollout_restart is None or deployment is None:
        return done
    digest = done.digest.removeprefix("sha256:")
    template = deployment["spec"]["template"].get("metadata", {})
    if (template.get("annotations") or {}).get(CONFIG_DIGEST_ANNOTATION) == digest:
        return done
    body = {
        "metadata": {"resourceVersion": deployment["metadata"]["resourceVersion"]},
        "spec": {"template": {"metadata": {"annotations": {CONFIG_DIGEST_ANNOTATION: digest}}}},
    }
    patch = Patch(DEPLOYMENTS, target.rollout_restart.deployment, body, export=export.name)
    return replace(done, actions=(patch,))


def _noted(there: Raw, run: str, before: Mapping[str, str | None]) -> dict[str, Any]:
    """Metadata of a patch: whose it is, and what stood there before."""
    note = json.dumps({"run": run, "values": before}, sort_keys=True)
    return {
        "resourceVersion": there["metadata"]["resourceVersion"],
        "annotations": {PREVIOUS_ANNOTATION: note},
    }


def _inference_service(
    export: Export, target: KServe, found: Found, values: Mapping[str, str], namespace: str, run: str
) -> Publication:
    there = found.objects[INFERENCESERVICES.plural] or {}
    uri = fill(target.storage_uri, values)
    done = Publication(uri=f"kserve://{namespace}/{target.inference_service}", digest=f"sha256:{_digest({'uri': uri})}")
    model = there.get("spec", {}).get("predictor", {}).get("model")
    if not isinstance(model, Mapping):
        return Publication(
            fault=f"{export.field}.inferenceService: {target.inference_service} has no spec.predictor.model; give it one with its "
            "modelFormat"
        )
    if model.get("storageUri") == uri:
        return done
    metadata = _noted(there, run, {"storageUri": model.get("storageUri")})
    body = {"metadata": metadata, "spec": {"predictor": {"model": {"storageUri": uri}}}}
    patch = Patch(INFERENCESERVICES, target.inference_service, body, export=export.name)
    return Publication((patch,), uri=done.uri, digest=done.digest)


def _applier(raw: Raw, key: str) -> str | None:
    """Who applies this key of the ConfigMap again and again, according to the API server's notes."""
    for entry in raw["metadata"].get("managedFields") or ():
        manager = entry.get("manager", "")
        applies = entry.get("operation") == "Apply" or manager in _APPLIERS
        if applies and manager != FIELD_MANAGER and f"f:{key}" in entry.get("fieldsV1", {}).get("f:data", {}):
            return str(manager)
    return None


def _digest(values: Mapping[str, str | None]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
