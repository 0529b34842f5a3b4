"""Jobs without a cluster: their pods start, train for a moment, and end as it is foreseen for the run of that name."""

import asyncio
import json
from typing import Any

from tests.unit.controller.fake_kube import FakeKube
from trainyard.api.names import TRAINER_CONTAINER
from trainyard.api.progress import REDUCTIONS

NOW = "2026-01-01T00:00:00Z"
ENDS = ("completed", "failed", "memory", "cancelled")
"""By the number in the name of a run."""


class Player:
    """Plays the Job controller and the kubelet on a fake API server."""

    def __init__(self, kube: FakeKube, *, seconds: float) -> None:
        self._kube = kube
        self._seconds = seconds
        self._since: dict[str, float] = {}

    async def play(self) -> None:
        """Until it is cancelled."""
        while True:
            for (_, name), job in list(self._kube.objects["jobs"].items()):
                self._step(name, job)
            await asyncio.sleep(0.05)

    def _step(self, name: str, job: dict[str, Any]) -> None:
        now = asyncio.get_running_loop().time()
        namespace = job["metadata"]["namespace"]
        pod = self._kube.objects["pods"].get((namespace, f"{name}-pod"))
        if pod is None:
            self._since[name] = now
            self._put_pod(job, name, {"running": {"startedAt": NOW}}, phase="Running")
            return
        if job.get("status", {}).get("conditions") or now - self._since.get(name, 0) < self._seconds:
            return
        end = ENDS[int(name.split("-")[1]) % len(ENDS)]
        if end == "cancelled":
            return  # trains until somebody cancels it
        code = 1 if end == "failed" else 0
        record: dict[str, Any] = {
            "version": 1, "step": "train", "attempt": 1, "outcome": "Failed" if code else "Succeeded",
            "stepNumber": 10, "totalSteps": 10, "metrics": {"loss": 0.25},
        }  # fmt: skip
        if code:
            record |= {"reason": "Error", "message": "it broke"}
        if end == "memory":
            record["effective"] = {REDUCTIONS: "batch 8 to 4 at step 3; batch 4 to 2 at step 5"}
        terminated = {"exitCode": code, "finishedAt": NOW, "message": json.dumps(record)}
        self._put_pod(job, name, {"terminated": terminated}, phase="Failed" if code else "Succeeded")
        condition = {
            "type": "Failed" if code else "Complete",
            "status": "True",
            "lastTransitionTime": NOW,
            "reason": "x",
        }
        job["status"] = {"conditions": [condition], "completionTime": NOW}
        self._kube.put("jobs", job)

    def _put_pod(self, job: dict[str, Any], name: str, state: dict[str, Any], *, phase: str) -> None:
        labels = job["spec"]["template"]["metadata"]["labels"] | {"batch.kubernetes.io/job-name": name}
        owner = {"kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": True}
        metadata = {"namespace": job["metadata"]["namespace"], "name": f"{name}-pod", "labels": labels}
        status = {"phase": phase, "containerStatuses": [{"name": TRAINER_CONTAINER, "state": state}]}
        body = {"metadata": metadata | {"ownerReferences": [owner]}, "spec": {"nodeName": "n"}, "status": status}
        self._kube.put("pods", body)
