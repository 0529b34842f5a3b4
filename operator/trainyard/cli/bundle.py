"""The content of a support bundle: name and text of each file, with nothing in it that opens a door.

Secrets are never asked for. Of what is asked for, values of environment variables are dropped as a whole, and every text
goes through the detectors that also keep keys and passwords out of datasets.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version as installed
from typing import Any

from trainyard.api import API_VERSION, GROUP
from trainyard.api.addresses import told
from trainyard.cli.checkup import CHECKS, OPERATOR
from trainyard.cli.printing import dump
from trainyard.client import ClientError, Run, Runs
from trainyard.trainer.data.collect.secrets import redact

LEFT_OUT = "(left out)"
NOT_SHOWN = ("managedFields", "kubectl.kubernetes.io/last-applied-configuration")


def collect(runs: Runs, name: str, *, log_lines: int) -> Iterator[tuple[str, str]]:
    """What cannot be read is a file that says why."""
    found = [runs.get(name)] if name else runs.list()
    yield "version.txt", f"trainyard {installed('trainyard')} (API {API_VERSION})\n"
    yield from _file("server.yaml", lambda: runs.api.get("/version"))
    yield "doctor.txt", _cleaned("\n".join(_doctor(runs)) + "\n")
    for run in found:
        yield from _of_run(runs, run, log_lines=log_lines)
    yield from _file("schedules.yaml", lambda: list(runs.api.items(runs.path(plural="trainingschedules"))))
    yield from _file("sweeps.yaml", lambda: list(runs.api.items(runs.path(plural="trainingsweeps"))))
    yield from _file("nodes.yaml", lambda: [_node(n) for n in runs.api.items("/api/v1/nodes")])
    yield from _file("storageclasses.yaml", lambda: list(runs.api.items("/apis/storage.k8s.io/v1/storageclasses")))
    yield from _of_operator(runs, log_lines=log_lines)


def _of_run(runs: Runs, run: Run, *, log_lines: int) -> Iterator[tuple[str, str]]:
    folder, selector = f"runs/{run.name}", f"{GROUP}/run={run.name}"
    core, batch = f"/api/v1/namespaces/{run.namespace}", f"/apis/batch/v1/namespaces/{run.namespace}"
    yield f"{folder}/run.yaml", _yaml(run.raw)
    yield from _file(f"{folder}/jobs.yaml", lambda: list(runs.api.items(f"{batch}/jobs", labelSelector=selector)))
    claim = run.checkpoints_claim
    yield from _file(f"{folder}/claim.yaml", lambda: runs.api.get(f"{core}/persistentvolumeclaims/{claim}"))
    yield from _file(
        f"{folder}/events.yaml", lambda: [e for e in runs.api.items(f"{core}/events") if _is_about(e, run)]
    )
    yield from _pods(runs, f"{folder}/pods.yaml", f"{core}/pods", selector, log_lines=log_lines)


def _of_operator(runs: Runs, *, log_lines: int) -> Iterator[tuple[str, str]]:
    try:
        deployments = list(runs.api.items("/apis/apps/v1/deployments", labelSelector=OPERATOR))
    except ClientError as error:
        yield "operator/deployments.yaml", f"cannot be read: {error}\n"
        return
    yield "operator/deployments.yaml", _yaml(deployments)
    for space in sorted({deployment["metadata"]["namespace"] for deployment in deployments}):
        path = f"/api/v1/namespaces/{space}/pods"
        yield from _pods(runs, f"operator/{space}/pods.yaml", path, OPERATOR, log_lines=log_lines)


def _pods(runs: Runs, name: str, path: str, selector: str, *, log_lines: int) -> Iterator[tuple[str, str]]:
    """The pods, and the log of each beside them."""
    try:
        pods = list(runs.api.items(path, labelSelector=selector))
    except ClientError as error:
        yield name, f"cannot be read: {error}\n"
        return
    yield name, _yaml(pods)
    for pod in pods:
        yield _log(runs, f"{name.rpartition('/')[0]}/{pod['metadata']['name']}.log", pod, log_lines=log_lines)


def _log(runs: Runs, name: str, pod: Mapping[str, Any], *, log_lines: int) -> tuple[str, str]:
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/log"
    try:
        return name, _cleaned(runs.api.text(path, tailLines=str(log_lines), timestamps="true"))
    except ClientError as error:
        return name, f"cannot be read: {error}\n"


def _file(name: str, read: Callable[[], Any]) -> Iterator[tuple[str, str]]:
    try:
        yield name, _yaml(read())
    except ClientError as error:
        yield name, f"cannot be read: {error}\n"


def _doctor(runs: Runs) -> Iterator[str]:
    for check in CHECKS:
        try:
            yield from (f"{f.grade} {f.about}: {f.message} {f.do}".rstrip() for f in check(runs))
        except ClientError as error:
            yield f"{check.__doc__} {error}"


def _yaml(value: Any) -> str:
    return _cleaned(dump(_without_values(value), "yaml") + "\n")


def _without_values(value: Any, *, inside: str = "") -> Any:
    """The same without what may be secret by its place: values of variables, data of Secrets and
    ConfigMaps, records that stand in the spec."""
    if isinstance(value, Mapping):
        found = {}
        for key, entry in value.items():
            if key in NOT_SHOWN:
                continue
            if inside == "env" and key == "value":
                found[key] = entry if str(value.get("name", "")).startswith("TRAINYARD_") else LEFT_OUT
            elif key == "inline":
                found[key] = LEFT_OUT
            elif key in ("data", "stringData", "binaryData") and isinstance(entry, Mapping):
                found[key] = dict.fromkeys(entry, LEFT_OUT)
            else:
                found[key] = _without_values(entry, inside=str(key))
        return found
    if isinstance(value, list):
        return [_without_values(entry, inside=inside) for entry in value]
    return value


def _cleaned(text: str) -> str:
    return redact(told(text))


def _is_about(event: Mapping[str, Any], run: Run) -> bool:
    return str((event.get("involvedObject") or {}).get("name", "")).startswith(run.name)


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    """What of a node decides where a pod goes."""
    status = node.get("status") or {}
    return {
        "name": node["metadata"]["name"],
        "labels": node["metadata"].get("labels"),
        "taints": node["spec"].get("taints"),
        "allocatable": status.get("allocatable"),
        "info": status.get("nodeInfo"),
        "conditions": [
            c for c in status.get("conditions") or () if c.get("type") in ("Ready", "MemoryPressure", "DiskPressure")
        ],
    }
