"""What a run's pods say, over all its steps and attempts, as one text.

A run is many pods, one after the other. They are taken in the order in which they were made, each to its end, and then the
next: so whoever follows a run needs to know neither steps nor attempts. A connection that breaks goes on at the last time
stamp. Where a pod is gone, the status still has the end of a failed one's log.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.api.names import ATTEMPT_LABEL, RUN_LABEL, RUN_UID_LABEL, STEP_LABEL, TRAINER_CONTAINER
from trainyard.client.errors import Away, NotFound, Rejected
from trainyard.client.run import Run
from trainyard.client.transport import Api

SILENCE = 300
PAUSE = 1.0
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class Line:
    """One line and where it comes from. `time` is the kubelet's stamp; empty for what the status has kept."""

    step: str
    attempt: int
    pod: str
    time: str
    text: str


@dataclass(frozen=True)
class Wanted:
    """Which of the run's pods are read, and how much of each."""

    step: str = ""
    attempt: int | None = None
    rank: int = 0
    """Of the pods that train together, whose log."""
    tail: int | None = None
    since: str = ""
    """Only what was said after this time (RFC 3339)."""

    def takes(self, pod: Mapping[str, Any]) -> bool:
        labels = pod["metadata"].get("labels") or {}
        step, attempt = labels.get(STEP_LABEL, ""), labels.get(ATTEMPT_LABEL, "")
        return self.takes_attempt(step, int(attempt or 0)) and int(labels.get(INDEX, self.rank)) == self.rank

    def takes_attempt(self, step: str, attempt: int) -> bool:
        return (not self.step or step == self.step) and self.attempt in (None, attempt)


EVERYTHING = Wanted()


def pods_of(api: Api, run: Run) -> list[dict[str, Any]]:
    """The run's pods, the oldest first."""
    path = f"/api/v1/namespaces/{run.namespace}/pods"
    selector = f"{RUN_LABEL}={run.name},{RUN_UID_LABEL}={run.uid}"
    found = [
        pod for pod in api.items(path, labelSelector=selector) if STEP_LABEL in (pod["metadata"].get("labels") or {})
    ]
    return sorted(found, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))


def follow(
    api: Api, run: Run, *, again: Callable[[], Run], follow_on: bool = False, wanted: Wanted = EVERYTHING
) -> Iterator[Line]:
    """The lines of all pods that are there; with `follow_on` also of those to come, until the run has ended.

    `again` reads the run anew.
    """
    last: dict[str, str] = {}
    done: set[str] = set()
    yield from _kept_lines(api, run, wanted)
    while True:
        pods = [pod for pod in pods_of(api, run) if pod["metadata"]["uid"] not in done and wanted.takes(pod)]
        started = [pod for pod in pods if _container(pod).get("state", {}).keys() & {"running", "terminated"}]
        for pod in started:
            uid = pod["metadata"]["uid"]
            for line in _lines(api, pod, after=last.get(uid, ""), follow_on=follow_on, wanted=wanted):
                last[uid] = line.time
                yield line
            if not follow_on or _has_ended(api, pod):
                done.add(uid)
        if not follow_on:
            return
        if not started and again().ended:
            return
        time.sleep(PAUSE)


def _kept_lines(api: Api, run: Run, wanted: Wanted) -> Iterator[Line]:
    there = {
        (p["metadata"]["labels"].get(STEP_LABEL), p["metadata"]["labels"].get(ATTEMPT_LABEL)) for p in pods_of(api, run)
    }
    for step in run.status.get("steps") or ():
        for attempt in step.get("attempts") or ():
            number = int(attempt.get("number", 0))
            if (step["name"], str(number)) not in there and wanted.takes_attempt(step["name"], number):
                for text in attempt.get("lastLogLines") or ():
                    yield Line(step["name"], number, "", "", text)


def _lines(api: Api, pod: Mapping[str, Any], *, after: str, follow_on: bool, wanted: Wanted) -> Iterator[Line]:
    metadata = pod["metadata"]
    query = {"container": TRAINER_CONTAINER, "timestamps": "true"}
    if follow_on:
        query["follow"] = "true"
    if after or wanted.since:
        query["sinceTime"] = max(_whole_second(after), wanted.since)
    elif wanted.tail is not None:
        query["tailLines"] = str(wanted.tail)
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log"
    step, attempt = metadata["labels"].get(STEP_LABEL, ""), int(metadata["labels"].get(ATTEMPT_LABEL) or 0)
    try:
        for raw in api.lines(path, silence=SILENCE, **query):
            stamp, _, text = raw.decode(errors="replace").rstrip("\n").partition(" ")
            if stamp > after:
                yield Line(step, attempt, metadata["name"], stamp, text)
    except (NotFound, Rejected, Away):
        # The pod has gone, its container is not there yet, or its node does not answer; the next look tells which.
        return


def _whole_second(stamp: str) -> str:
    return f"{stamp[:19]}Z" if stamp.endswith("Z") else stamp


def _container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any]
    for found in (pod.get("status") or {}).get("containerStatuses") or ():
        if found.get("name") == TRAINER_CONTAINER:
            return found
    return {}


def _has_ended(api: Api, pod: Mapping[str, Any]) -> bool:
    try:
        now = api.get(f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}")
    except NotFound:
        return True
    return "terminated" in _container(now).get("state", {}) or now["metadata"]["uid"] != pod["metadata"]["uid"]
