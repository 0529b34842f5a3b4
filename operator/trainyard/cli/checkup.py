"""The checks of an installation, each a function from the cluster to what was found."""

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from trainyard.api import GROUP, VERSION
from trainyard.cli.printing import age, seconds_since
from trainyard.client import NotFound, Run, Runs

OLDEST_MINOR = 30
UNSEEN_SECONDS = 60
OPERATOR = "app.kubernetes.io/name=trainyard"
WANTED_RIGHTS = (
    ("create", GROUP, "trainingruns", ""),
    ("patch", GROUP, "trainingruns", ""),
    ("list", "", "pods", ""),
    ("get", "", "pods", "log"),
    ("create", "", "pods", "exec"),
    ("create", "", "pods", ""),
    ("list", "", "events", ""),
)
FOR_WHAT = {"log": "logs", "exec": "shell, download, checkpoints, gpu", "events": "explain, status"}


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    FAULT = "FAULT"


class Finding(NamedTuple):
    """One thing that was looked at."""

    grade: Grade
    about: str
    message: str
    do: str = ""


def server(runs: Runs) -> Iterator[Finding]:
    """API server."""
    found = runs.api.get("/version")
    text = f"{runs.api.access.server}, {found.get('gitVersion')}, context {runs.api.access.context}, namespace {runs.namespace}"
    minor = int("".join(c for c in str(found.get("minor", "0")) if c.isdecimal()) or 0)
    if int(found.get("major", 1)) == 1 and minor < OLDEST_MINOR:
        yield Finding(Grade.FAULT, "API server", text, f"Trainyard needs Kubernetes 1.{OLDEST_MINOR} or newer")
    else:
        yield Finding(Grade.OK, "API server", text)


def definitions(runs: Runs) -> Iterator[Finding]:
    """CRDs."""
    # Making our own definitions takes half a second of pydantic; only this check needs them.
    from trainyard.api.compatibility import SCHEMA_ANNOTATION, fields_lacking, schema_of
    from trainyard.api.crd import training_run_crd, training_schedule_crd, training_sweep_crd

    install = "install the CRDs of this version: kubectl apply --server-side -f crds/, or the Helm chart"
    for ours in (training_run_crd(), training_schedule_crd(), training_sweep_crd()):
        name = ours["metadata"]["name"]
        try:
            there = runs.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        except NotFound:
            yield Finding(Grade.FAULT, "CRD", f"{name} is not installed", install)
            continue
        served = [v["name"] for v in there["spec"]["versions"] if v.get("served")]
        noted = (there["metadata"].get("annotations") or {}).get(SCHEMA_ANNOTATION)
        if VERSION not in served:
            yield Finding(Grade.FAULT, "CRD", f"{name} does not serve {VERSION}", install)
        elif noted == ours["metadata"]["annotations"][SCHEMA_ANNOTATION]:
            yield Finding(Grade.OK, "CRD", f"{name}, the schema of this program")
        elif lacking := list(fields_lacking(schema_of(ours), schema_of(there))):
            text = f"{name} is older than this program and lacks {', '.join(lacking[:5])}"
            yield Finding(Grade.FAULT, "CRD", text, install)
        else:
            yield Finding(
                Grade.NOTE, "CRD", f"{name} is of another version than this program; all its fields are there"
            )


def operator(runs: Runs) -> Iterator[Finding]:
    """Operator."""
    found = list(runs.api.items("/apis/apps/v1/deployments", labelSelector=OPERATOR))
    if not found:
        yield Finding(
            Grade.FAULT,
            "operator",
            "there is no Deployment of Trainyard",
            "helm upgrade --install trainyard charts/trainyard",
        )
    for deployment in found:
        metadata = deployment["metadata"]
        where = f"{metadata['namespace']}/{metadata['name']}"
        ready, image = (deployment.get("status") or {}).get("readyReplicas") or 0, _image(deployment)
        if ready:
            yield Finding(Grade.OK, "operator", f"{where} is ready, image {image}")
        else:
            do = f"kubectl -n {metadata['namespace']} describe pods, and logs deployment/{metadata['name']}"
            yield Finding(Grade.FAULT, "operator", f"{where} is not ready, image {image}", do)
        if (watched := _watched(deployment)) and runs.namespace not in watched:
            text = f"{where} serves {', '.join(watched)} and not {runs.namespace}"
            yield Finding(Grade.FAULT, "operator", text, f"add {runs.namespace} to the chart's watchNamespaces")
    if len(found) > 1:
        text = f"{len(found)} installations; two of them must not watch the same namespace"
        yield Finding(Grade.NOTE, "operator", text)


def rights(runs: Runs) -> Iterator[Finding]:
    """Your rights."""
    missing = []
    for verb, group, resource, subresource in WANTED_RIGHTS:
        asked = {
            "namespace": runs.namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = runs.api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        if not answer["status"].get("allowed"):
            whole = f"{resource}/{subresource}" if subresource else resource
            use = FOR_WHAT.get(subresource or resource, "")
            missing.append(f"{verb} {whole}" + (f" (for {use})" if use else ""))
    if missing:
        text = f"in namespace {runs.namespace} you may not {', '.join(missing)}"
        yield Finding(Grade.NOTE, "your rights", text, "ask for the role edit in the namespace, where you need them")
    else:
        yield Finding(Grade.OK, "your rights", f"all that the verbs need in namespace {runs.namespace}")


def policies(runs: Runs) -> Iterator[Finding]:
    """Admission policies."""
    root = "/apis/admissionregistration.k8s.io/v1"
    found = runs.api.items(f"{root}/validatingadmissionpolicies", labelSelector=OPERATOR)
    names = [policy["metadata"]["name"] for policy in found]
    bound = {b["spec"].get("policyName") for b in runs.api.items(f"{root}/validatingadmissionpolicybindings")}
    if not names:
        text = "off: whoever may write a TrainingRun may use any Secret and ServiceAccount of the namespace"
        yield Finding(Grade.NOTE, "admission policies", text, "set admissionPolicy.enabled in the chart")
    elif loose := [name for name in names if name not in bound]:
        text = f"{', '.join(loose)} have no binding, so nobody asks them"
        yield Finding(Grade.FAULT, "admission policies", text, "apply the Helm chart again")
    else:
        yield Finding(Grade.OK, "admission policies", ", ".join(names))


def storage(runs: Runs) -> Iterator[Finding]:
    """Storage classes."""
    classes = list(runs.api.items("/apis/storage.k8s.io/v1/storageclasses"))
    default = [c["metadata"]["name"] for c in classes if _is_default(c)]
    names = ", ".join(c["metadata"]["name"] for c in classes) or "none"
    if default:
        yield Finding(Grade.OK, "storage", f"default class {', '.join(default)}, of {names}")
    else:
        do = "mark one as the default, or name one in each run's spec.storage.checkpoints.storageClassName"
        yield Finding(Grade.FAULT if not classes else Grade.NOTE, "storage", f"no default class, of {names}", do)


def devices(runs: Runs) -> Iterator[Finding]:
    """GPU nodes."""
    from trainyard.cli.verbs.gpu import node_table

    lines = node_table(runs)
    if lines:
        for line in lines[1:]:
            node, device, taken, total, *_ = line.split()
            yield Finding(Grade.OK, "GPU nodes", f"{node}: {device}, {taken} of {total} taken")
    else:
        yield Finding(
            Grade.NOTE, "GPU nodes", "none: runs train on CPUs", "install the device plugin, if there are GPUs"
        )


def queue(runs: Runs) -> Iterator[Finding]:
    """Queue."""
    try:
        found = list(runs.api.items(f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{runs.namespace}/localqueues"))
    except NotFound:
        yield Finding(Grade.OK, "queue", "no Kueue here: the scheduler alone decides who comes first")
        return
    names = ", ".join(q["metadata"]["name"] for q in found) or "none"
    yield Finding(Grade.OK, "queue", f"Kueue, LocalQueues in namespace {runs.namespace}: {names}")


def unseen(runs: Runs) -> Iterator[Finding]:
    """Runs."""
    found = runs.list()
    waiting = [run for run in found if not run.state and (_old(run) or 0) > UNSEEN_SECONDS]
    if waiting:
        run = waiting[0]
        text = f"{len(waiting)} without a status, such as {run.name}, {age(run.metadata.get('creationTimestamp'))} old"
        yield Finding(
            Grade.FAULT, "runs", text, "no operator looks at this namespace: see the operator's findings above"
        )
    else:
        yield Finding(Grade.OK, "runs", f"{len(found)} in namespace {runs.namespace}, all seen by the operator")


CHECKS: tuple[Callable[[Runs], Iterator[Finding]], ...] = (
    server,
    definitions,
    operator,
    rights,
    policies,
    storage,
    devices,
    queue,
    unseen,
)


def _old(run: Run) -> float | None:
    return seconds_since(run.metadata.get("creationTimestamp"))


def _is_default(storage_class: Mapping[str, Any]) -> bool:
    annotations = storage_class["metadata"].get("annotations") or {}
    return str(annotations.get("storageclass.kubernetes.io/is-default-class")) == "true"


def _containers(deployment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(deployment["spec"]["template"]["spec"]["containers"])


def _image(deployment: Mapping[str, Any]) -> str:
    return str(_containers(deployment)[0].get("image"))


def _watched(deployment: Mapping[str, Any]) -> list[str]:
    """The namespaces that it is told to serve; empty means all."""
    for variable in _containers(deployment)[0].get("env") or ():
        if variable.get("name") == "TRAINYARD_NAMESPACES":
            return [name for name in str(variable.get("value") or "").split(",") if name]
    return []
