"""Two pods train one model: one is killed, one is asked to go; both times the group goes on from one checkpoint."""

import re
import time

import pytest

from tests.e2e import measure, processes, runs
from tests.e2e.kube import Kube, Object
from trainyard.api import names
from trainyard.api.steps import STEP_TRAIN
from trainyard.controller.kube.resources import JOBS, PODS, SERVICES
from trainyard.controller.runs.views import INDEX_LABEL

NAME = "two-nodes"
SAVE = 20
KILLED_AT = 50
SENT_AWAY_AT = 110

pytestmark = pytest.mark.timeout(900)


def pods(kube: Kube, namespace: str, attempt: int, *, seconds: float) -> list[Object]:
    """Both pods of an attempt at the training, once their containers run."""
    job = names.job_name(NAME, STEP_TRAIN, attempt)
    running: dict[str, Object] = {}
    for change in kube.watch(PODS, namespace, seconds=seconds, labels=f"batch.kubernetes.io/job-name={job}"):
        if change.type != "DELETED" and processes.container_id(change.object, names.TRAINER_CONTAINER):
            running[change.object["metadata"]["labels"][INDEX_LABEL]] = change.object
        if len(running) == 2:
            return [running["0"], running["1"]]
    raise AssertionError(f"only {sorted(running)} of the two pods of attempt {attempt} ran")


def until_step(kube: Kube, namespace: str, pod: Object, wanted: int) -> int:
    """Follow the first pod's log until it says that the step is done."""
    for line in kube.follow_log(namespace, pod["metadata"]["name"], seconds=200):
        if (found := re.match(r"step (\d+)/200", line)) and int(found[1]) >= wanted:
            return int(found[1])
    raise AssertionError(f"the training ended before step {wanted}")


def test_two_pods_train_as_one_and_go_on_as_one(kube: Kube, space: str) -> None:
    (manifest,) = runs.example(NAME)
    begun = time.monotonic()
    runs.create_any(kube, space, manifest)
    first, second = pods(kube, space, 1, seconds=200)
    assert kube.get(SERVICES, space, names.service_name(NAME)) is not None
    assert kube.need(JOBS, space, names.job_name(NAME, STEP_TRAIN, 1))["spec"]["completionMode"] == "Indexed"
    killed_at = until_step(kube, space, first, KILLED_AT)
    assert processes.kill(second, names.TRAINER_CONTAINER)

    first, second = pods(kube, space, 2, seconds=200)
    sent_away_at = until_step(kube, space, first, SENT_AWAY_AT)
    kube.delete(PODS, space, second["metadata"]["name"])

    run = runs.until_succeeded(kube, space, NAME, seconds=400)
    killed, sent_away, last = runs.attempts(run)
    assert (killed["reason"], killed["counted"]) == ("Killed", False)
    assert sent_away["firstStep"] >= killed_at - killed_at % SAVE
    assert (sent_away["reason"], sent_away["counted"]) == ("Interrupted", False)
    assert last["firstStep"] >= sent_away_at, "both had agreed on a checkpoint before they went"
    assert run["status"]["trainerStatus"]["step"] == 200
    assert run["status"]["effective"]["processes"] == "2"
    measure.record(
        "two-nodes",
        killed_at=killed_at,
        went_on_from=sent_away["firstStep"],
        sent_away_at=sent_away_at,
        went_on_again_from=last["firstStep"],
        loss=run["status"]["summary"]["loss"],
        seconds=round(time.monotonic() - begun, 1),
    )
