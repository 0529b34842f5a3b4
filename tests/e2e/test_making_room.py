"""A Deployment that has the GPU makes room for runs that train, and comes back, also where the operator dies again and again."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.e2e import installed, measure, runs
from tests.e2e.kube import Found, Kube, Object
from tests.e2e.scripted import IMAGE, counting, steps_done
from trainyard.api import names
from trainyard.controller.kube.resources import DEPLOYMENTS, PODS, TRAININGRUNS, Resource
from trainyard.controller.runs.yielding import YIELDED_ANNOTATION, YIELDED_LABEL

ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
GPU: Object = {"requests": {"cpu": "10m"}, "limits": {"nvidia.com/gpu": 1}}
STEPS = 40
SERVER = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(3600)"


@pytest.fixture
def server(kube: Kube, space: str) -> Iterator[str]:
    """What serves on the GPU of arcanine, and the operator's right to change it, as rbac.yieldFrom gives it."""
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "patch"]}]
    account = {"kind": "ServiceAccount", "name": installed.NAME, "namespace": installed.NAMESPACE}
    kube.create(ROLES, None, {"metadata": {"name": space}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": space}
    kube.create(BINDINGS, None, {"metadata": {"name": space}, "roleRef": reference, "subjects": [account]})
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "serve", "image": IMAGE, "command": ["python3", "-c", SERVER], "resources": GPU}
    pod = {
        "containers": [{**container, "securityContext": confined}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": {"kubernetes.io/hostname": "arcanine"},
        "tolerations": [{"operator": "Exists"}],
    }
    labels = {"app": "server"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    kube.create(DEPLOYMENTS, space, {"metadata": {"name": "server"}, "spec": spec})
    serving(kube, space)
    yield "server"
    kube.delete(BINDINGS, None, space)
    kube.delete(ROLES, None, space)


def serving(kube: Kube, space: str) -> Object:
    """The Deployment, once its pod is there and ready."""

    def ready(found: Found | None) -> bool:
        return found is not None and found.get("status", {}).get("readyReplicas") == 1

    return kube.wait(
        DEPLOYMENTS, space, "server", ready, seconds=200, what="a pod that serves"
    )  # other tests want the GPU too


def on_the_gpu(kube: Kube, space: str) -> set[str]:
    """Who runs there now: names of runs, and `server`."""
    running = [p for p in kube.list(PODS, space) if p.get("status", {}).get("phase") == "Running"]
    holding = [p for p in running if any("nvidia.com/gpu" in str(c.get("resources")) for c in p["spec"]["containers"])]
    return {p["metadata"]["labels"].get(names.RUN_LABEL, "server") for p in holding}


@pytest.mark.timeout(900)
def test_the_training_has_the_gpu_and_the_server_has_it_back(kube: Kube, space: str, server: str, kills: int) -> None:
    place = {"nodeNames": ["arcanine"], "yieldFrom": [{"deployment": server}]}
    for name in ("one", "two"):
        runs.apply(kube, space, counting(name, steps=STEPS, pause=0.3, resources=GPU, placement=place))
    deaths, empty, longest, since = 0, 0.0, 0.0, time.monotonic()
    while not all(runs.finished(kube.get(TRAININGRUNS, space, name)) for name in ("one", "two")):
        there = on_the_gpu(kube, space)
        assert len(there) <= 1, f"{there} have it at once"
        empty = 0.0 if there else empty + time.monotonic() - since
        longest, since = max(longest, empty), time.monotonic()
        if deaths < kills and there - {"server"} and installed.kill(kube, replace=deaths % 2 == 0) is not None:
            deaths += 1
        time.sleep(0.5)  # a look at what is there, not a wait for something
    for name in ("one", "two"):
        run = runs.until_succeeded(kube, space, name, seconds=10)
        assert steps_done(kube, run) == dict.fromkeys(range(1, STEPS + 1), 1)
    back = serving(kube, space)
    assert back["spec"]["replicas"] == 1
    assert YIELDED_LABEL not in back["metadata"].get("labels", {})
    assert YIELDED_ANNOTATION not in back["metadata"].get("annotations", {})
    ended = max(runs.moment(kube.need(TRAININGRUNS, space, n)["status"]["completionTime"]) for n in ("one", "two"))
    after = (datetime.now(UTC) - ended).total_seconds()
    measure.record("making room", kills=deaths, back_after_seconds=round(after, 1), gpu_empty_at_most=round(longest, 1))


@pytest.mark.timeout(600)
def test_it_is_back_when_the_run_is_suspended_and_gone(kube: Kube, space: str, server: str) -> None:
    place = {"nodeNames": ["arcanine"], "yieldFrom": [{"deployment": server}]}
    runs.apply(kube, space, counting("long", steps=2000, pause=0.3, resources=GPU, placement=place))
    runs.until(kube, space, "long", lambda r: runs.step_number(r) > 3, seconds=120, what="some steps")
    assert kube.need(DEPLOYMENTS, space, server)["spec"]["replicas"] == 0
    runs.suspend(kube, space, "long", True)
    serving(kube, space)
    runs.suspend(kube, space, "long", False)
    runs.until(kube, space, "long", lambda r: len(runs.attempts(r or {})) > 1, seconds=90, what="another attempt")
    kube.delete(TRAININGRUNS, space, "long")
    serving(kube, space)
