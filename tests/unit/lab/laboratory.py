"""The operator as a process, before an API server on loopback, and pods of which only their environment exists.

What a script would find in its pod is read from the Job that the operator has made, with values from Secrets looked up as the kubelet
does it. The test's own thread stays free: it is the pod.
"""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.unit.controller.fake_clock import eventually
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.test_process import OperatorProcess
from trainyard.api.crd import training_run_crd
from trainyard.api.names import CANCEL_ANNOTATION, TRAINER_CONTAINER

NAMESPACE = "lab"
SCRIPT = {"image": "lab/trainer:1", "command": ["python", "standalone_trainer.py"]}


@dataclass(frozen=True)
class Pod:
    """What a process in the pod's container has around it."""

    name: str
    uid: str
    env: dict[str, str]
    job: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        return dict(self.job["spec"]["template"]["spec"]["containers"][0])

    @property
    def mounts(self) -> dict[str, dict[str, Any]]:
        return {mount["mountPath"]: mount for mount in self.container["volumeMounts"]}

    def volume(self, path: str) -> dict[str, Any]:
        """What is mounted there."""
        name = self.mounts[path]["name"]
        return next(v for v in self.job["spec"]["template"]["spec"]["volumes"] if v["name"] == name)


class Laboratory:
    """Started by `with`."""

    def __init__(self, folder: Path, **environ: str) -> None:
        """`environ`: further settings of the operator."""
        self.environ = environ
        self.kube = FakeKube()
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="laboratory", daemon=True)

    def __enter__(self) -> "Laboratory":
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *failed: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.operator.receiver}"

    def operator_metrics(self) -> str:
        """What Prometheus would read."""
        return self._do(self.operator.get(self.operator.metrics, "/metrics"))[1]

    def logged(self) -> str:
        return "".join(self.operator.lines)

    def secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self._call(lambda: self.kube.put("secrets", {"metadata": {"namespace": NAMESPACE, "name": name}, "data": data}))

    def submit(self, name: str, *, user: str = "", **spec: Any) -> str:
        """Apply a run; its uid. Without a spec it is a script and nothing else."""
        metadata = {"namespace": NAMESPACE, "name": name, "labels": {"trainyard.dev/user": user} if user else {}}
        body = {"metadata": metadata, "spec": json.loads(json.dumps(SCRIPT | spec))}
        return str(self._call(lambda: self.kube.put("trainingruns", body))["metadata"]["uid"])

    def pod(self, name: str, *, attempt: int = 1, **spec: Any) -> Pod:
        """The training's pod, once the operator wants one. The run is applied where there is none of that name; steps before the
        training end well at once."""
        if (NAMESPACE, name) not in self.kube.objects["trainingruns"]:
            self.submit(name, **spec)
        uid = self.run(name)["metadata"]["uid"]
        wanted = (NAMESPACE, f"{name}-train-{attempt}")
        self._until(lambda: wanted in self.kube.objects["jobs"] or self._ended_before(name))
        job = self.kube.objects["jobs"][wanted]
        self._call(lambda: self._put_pod(job, {"running": {"startedAt": now()}}, phase="Running"))
        return Pod(name, uid, self._environment(job), job)

    def end(self, pod: Pod, *, code: int = 0, record: dict[str, Any] | None = None, signal: int = 0) -> None:
        """The container has ended; with a record, as the built-in trainer leaves one."""

        def ended() -> None:
            message = json.dumps({"version": 1, "step": "train", "attempt": 1} | record) if record else ""
            terminated = {"exitCode": code, "finishedAt": now(), "message": message} | (
                {"signal": signal} if signal else {}
            )
            self._put_pod(pod.job, {"terminated": terminated}, phase="Failed" if code else "Succeeded")
            self._end_job(pod.job, failed=bool(code))

        self._call(ended)

    def cancel(self, name: str, why: str) -> None:
        self._call(lambda: self._annotate(name, CANCEL_ANNOTATION, why))

    def vanish(self, pod: Pod, *, job: bool = True) -> None:
        """The pod is gone, with its Job once the operator has deleted that."""
        name = pod.job["metadata"]["name"]
        if job:
            self._until(lambda: (NAMESPACE, name) not in self.kube.objects["jobs"])
        self._call(lambda: self.kube.remove("pods", NAMESPACE, f"{name}-pod"))

    def run(self, name: str) -> dict[str, Any]:
        return self.kube.objects["trainingruns"][NAMESPACE, name]

    def status(self, name: str) -> dict[str, Any]:
        return self.run(name).get("status") or {}

    def wait(self, condition: Callable[[], object], seconds: float = 30) -> None:
        self._until(condition, seconds)

    # In the other thread

    async def _start(self) -> None:
        await self.kube.start()
        self.kube.put("customresourcedefinitions", training_run_crd())
        kubeconfig = self.folder / "kubeconfig"
        kubeconfig.write_text(self.kube.kubeconfig())
        self.operator = OperatorProcess(
            kubeconfig,
            TRAINYARD_TRIGGERS_ALLOW_LOOPBACK="true",
            TRAINYARD_PROGRESS_INTERVAL_SECONDS="1",
            TRAINYARD_RETRY_BASE_SECONDS="0",
            **self.environ,
        )
        await (await self.operator.start()).ready()

    async def _stop(self) -> None:
        await self.operator.signal(15)
        await self.kube.stop()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)

    def _call(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return self._do(call())

    def _until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        self._do(eventually(condition, seconds))

    def _annotate(self, name: str, key: str, value: str) -> None:
        run = self.run(name)
        run["metadata"].setdefault("annotations", {})[key] = value
        self.kube.put("trainingruns", run)

    def _ended_before(self, name: str) -> bool:
        """Let what comes before the training end; false, so that it is looked again."""
        for (_, job_name), job in list(self.kube.objects["jobs"].items()):
            step = job["metadata"]["labels"]["trainyard.dev/step"]
            if job_name.startswith(f"{name}-") and step != "train" and not job.get("status"):
                record = {"version": 1, "step": step, "attempt": 1, "outcome": "Succeeded"}
                terminated = {"exitCode": 0, "finishedAt": now(), "message": json.dumps(record)}
                self._put_pod(job, {"terminated": terminated}, phase="Succeeded")
                self._end_job(job, failed=False)
        return False

    def _put_pod(self, job: dict[str, Any], state: dict[str, Any], *, phase: str) -> None:
        name = job["metadata"]["name"]
        labels = job["spec"]["template"]["metadata"]["labels"] | {"batch.kubernetes.io/job-name": name}
        owner = {"kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": True}
        metadata = {"namespace": NAMESPACE, "name": f"{name}-pod", "labels": labels, "ownerReferences": [owner]}
        status = {"phase": phase, "containerStatuses": [{"name": TRAINER_CONTAINER, "state": state}]}
        self.kube.put("pods", {"metadata": metadata, "spec": {"nodeName": "forge"}, "status": status})

    def _end_job(self, job: dict[str, Any], *, failed: bool) -> None:
        kind = "Failed" if failed else "Complete"
        condition = {"type": kind, "status": "True", "lastTransitionTime": now(), "reason": "x"}
        job["status"] = {"conditions": [condition], "completionTime": now()}
        self.kube.put("jobs", job)

    def _environment(self, job: dict[str, Any]) -> dict[str, str]:
        found = {}
        for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]:
            if "value" in entry:
                found[entry["name"]] = entry["value"]
            elif (value := self.from_secret(**entry["valueFrom"]["secretKeyRef"])) is not None:
                found[entry["name"]] = value
        return found

    def from_secret(self, name: str, key: str, optional: bool = False) -> str | None:
        secret = self.kube.objects["secrets"].get((NAMESPACE, name), {})
        if (text := secret.get("stringData", {}).get(key)) is not None:
            return str(text)
        if (data := secret.get("data", {}).get(key)) is not None:
            return base64.b64decode(data).decode()
        assert optional, f"the kubelet would not start the container: Secret {name} has no {key}"
        return None


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
