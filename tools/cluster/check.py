"""Proves that a cluster does what the project needs of one, by running pods in it.

A GPU Job on the tainted node writes a volume as an ordinary user with a read-only root file system; pods on both nodes
find a Service by name and reach the pod behind it; logs and exec work. Everything lives in one namespace, which is
removed at the end.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.timing import Timings, say

NAMESPACE = "trainyard-check"
SECONDS = 120

ASK = """
import socket, time, urllib.request
begin = time.monotonic()
while True:
    try:
        status = urllib.request.urlopen("http://web.trainyard-check.svc.cluster.local/", timeout=2).status
        break
    except OSError:
        if time.monotonic() - begin > 60:
            raise
        time.sleep(0.2)
begin = time.monotonic()
address = socket.gethostbyname("web")
print(f"status {status} from {address}, name found in {1000 * (time.monotonic() - begin):.0f} ms")
"""

WRITE = "id -u; echo written > /data/file; cat /data/file; ! touch /file 2> /dev/null"

TOLERATIONS = [{"key": "dedicated", "operator": "Equal", "value": "arcanine", "effect": "NoSchedule"}]


def objects(image: str) -> list[dict[str, Any]]:
    """Everything the check creates, in order."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    serve = ["python3", "-u", "-m", "http.server", "8080", "--directory", "/etc/apt"]
    web = _pod(image, serve, node="forge", restart="Always")
    web["containers"][0]["readinessProbe"] = {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1}
    gpu = _pod(image, ["sh", "-ec", WRITE], tolerations=TOLERATIONS)
    gpu["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    gpu["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    gpu["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    labels = {"app": "web"}
    deployment = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": web}}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
    ask = ["python3", "-c", ASK]
    return [
        _object("v1", "PersistentVolumeClaim", "data", claim),
        _object("v1", "Service", "web", service),
        _object("apps/v1", "Deployment", "web", deployment),
        _job("gpu", gpu),
        _job("ask-forge", _pod(image, ask, node="forge")),
        _job("ask-arcanine", _pod(image, ask, node="arcanine", tolerations=TOLERATIONS)),
    ]


def _object(version: str, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def _job(name: str, pod: Mapping[str, Any]) -> dict[str, Any]:
    return _object("batch/v1", "Job", name, {"backoffLimit": 0, "template": {"spec": pod}})


def _pod(
    image: str,
    command: list[str],
    *,
    node: str | None = None,
    tolerations: list[dict[str, str]] | None = None,
    restart: str = "Never",
) -> dict[str, Any]:
    """A pod that the restricted pod security standard admits."""
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
        "tolerations": tolerations or [],
        "securityContext": user,
        "containers": [{"name": "main", "image": image, "command": command, "securityContext": confined}],
    }


class Check:
    """Runs the check through kubectl, so it serves any cluster that a kubeconfig names."""

    def __init__(self, *, kubectl: Path, kubeconfig: Path, image: str) -> None:
        self._command = [str(kubectl), "--kubeconfig", str(kubeconfig)]
        self._image = image

    def _kubectl(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run([*self._command, *words], input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def run(self) -> None:
        """ClusterError names what failed; the namespace is removed in any case."""
        timings = Timings("check")
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
        self._kubectl("apply", "-f", "-", text=json.dumps(namespace))
        try:
            items = {"apiVersion": "v1", "kind": "List", "items": objects(self._image)}
            self._kubectl("apply", "-f", "-", text=json.dumps(items))
            with timings.part("GPU Job on arcanine writes a volume as uid 1000, root file system read-only"):
                self._expect("gpu", "1000\nwritten")
            with timings.part("a pod on forge finds and reaches the service"):
                self._expect("ask-forge", "status 200")
            with timings.part("a pod on arcanine finds and reaches it on the other node"):
                self._expect("ask-arcanine", "status 200")
            with timings.part("exec"):
                words = self._kubectl("exec", "-n", NAMESPACE, "deploy/web", "--", "python3", "-c", "print(6 * 7)")
                if words != "42":
                    raise ClusterError(f"exec in deploy/web printed {words!r}, not 42")
        finally:
            with timings.part("clean up"):
                self._kubectl("delete", "namespace", NAMESPACE, "--wait=true", f"--timeout={SECONDS}s")
        say(f"the cluster passed the check in {timings.total:.1f} s")

    def _expect(self, job: str, wanted: str) -> None:
        """Wait for the Job's end, and look for the text in its log."""
        try:
            self._kubectl("wait", "-n", NAMESPACE, f"job/{job}", "--for=condition=Complete", f"--timeout={SECONDS}s")
        except ClusterError as error:
            pods = self._kubectl("get", "pods,events", "-n", NAMESPACE)
            raise ClusterError(f"Job {job} did not complete: {error}\n{pods}") from error
        printed = self._kubectl("logs", "-n", NAMESPACE, f"job/{job}")
        say(f"             {job}: {printed!r}")
        if wanted not in printed:
            raise ClusterError(f"Job {job} printed {printed!r}, without {wanted!r}")
