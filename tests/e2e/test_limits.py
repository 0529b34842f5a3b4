"""What bounds a run: deadlines, retries, the time after its end; and queues, which may hold it back."""

import time
from datetime import timedelta
from typing import Any

import pytest

from tests.e2e import runs
from tests.e2e.kube import Kube, Object
from tests.e2e.recording import Recording
from tests.e2e.scripted import IMAGE, counting
from trainyard.controller.kube.resources import JOBS, PVCS, SECRETS, TRAININGRUNS

pytestmark = pytest.mark.timeout(300)
SUCCEEDS = 'print("fine")'


def script(name: str, source: str, **spec: Any) -> Object:
    """A run whose training is a line of Python."""
    return counting(name, **({"command": ["python3", "-c", source], "args": []} | spec))


def test_a_run_ends_at_its_deadline(kube: Kube, space: str) -> None:
    runs.apply(kube, space, counting("too-long", steps=10_000, activeDeadlineSeconds=15))
    run = runs.until_finished(kube, space, "too-long", seconds=60)
    assert runs.has(run, "Failed")
    failure = run["status"]["failure"]
    assert failure["reason"] == "DeadlineExceeded"
    assert "activeDeadlineSeconds of 15" in failure["message"]
    assert failure["hint"]
    begun, ended = (runs.moment(run["status"][key]) for key in ("startTime", "completionTime"))
    assert timedelta(seconds=14) <= ended - begun <= timedelta(seconds=20)
    kube.wait_gone(JOBS, space, "too-long-train-1", seconds=60)
    assert runs.pods(kube, space, "too-long") == []


def test_after_its_time_everything_but_run_and_volume_goes(kube: Kube, space: str) -> None:
    runs.apply(kube, space, script("tidy", SUCCEEDS, ttlSecondsAfterFinished=5))
    with Recording(kube, JOBS, space) as jobs:
        run = runs.until_succeeded(kube, space, "tidy", seconds=60)
        runs.until_cleaned_up(kube, space, "tidy", seconds=30)
        waited = time.time() - runs.moment(run["status"]["completionTime"]).timestamp()
        assert waited >= 4
        kube.wait_gone(SECRETS, space, "tidy-trainyard", seconds=20)
        kube.wait_gone(JOBS, space, "tidy-train-1", seconds=20)
        assert runs.leftovers(kube, space) == ["PersistentVolumeClaim tidy-checkpoints"]
        run = kube.need(TRAININGRUNS, space, "tidy")
        assert runs.state(run) == "Succeeded"
        # Whatever is done to it now: what has ended has ended.
        kube.merge(TRAININGRUNS, space, "tidy", {"spec": {"backoffLimit": 7}})
        edited = kube.wait(
            TRAININGRUNS,
            space,
            "tidy",
            lambda r: bool(r and r["status"]["observedGeneration"] == r["metadata"]["generation"]),
            seconds=20,
            what="the new generation",
        )
        assert runs.has(edited, "Complete")
        assert jobs.created() == ["tidy-train-1"]


def test_a_failing_script_is_tried_again_and_then_given_up(kube: Kube, space: str) -> None:
    source = 'import sys; print("cannot find the flux capacitor"); sys.exit(3)'
    with Recording(kube, JOBS, space) as jobs:
        runs.apply(kube, space, script("hopeless", source, backoffLimit=1))
        run = runs.until(
            kube, space, "hopeless", lambda r: "is tried again at" in runs.message(r), seconds=60, what="the retry"
        )
        ready = runs.condition(run, "Ready")
        assert ready is not None
        assert ready["reason"] == "Retrying"
        assert "flux capacitor" in runs.message(run)
        run = runs.until_finished(kube, space, "hopeless", seconds=90)
    assert runs.has(run, "Failed")
    assert run["status"]["failure"]["reason"] == "BackoffLimitExceeded"
    assert "spec.backoffLimit is 1" in runs.message(run)
    assert "flux capacitor" in runs.message(run)
    assert jobs.created() == ["hopeless-train-1", "hopeless-train-2"]
    attempts = runs.attempts(run)
    assert [(a["reason"], a["counted"], a["exitCode"]) for a in attempts] == [("Error", True, 3)] * 2
    assert attempts[0]["lastLogLines"][-1] == "cannot find the flux capacitor"
    assert run["status"]["restarts"] == 1
    pause = runs.moment(attempts[1]["startTime"]) - runs.moment(attempts[0]["completionTime"])
    assert pause >= timedelta(seconds=9)


def test_a_queue_holds_the_job_back_and_nobody_fights_it(kube: Kube, space: str) -> None:
    manifest = script("queued", SUCCEEDS)
    manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "low"}
    with Recording(kube, JOBS, space) as jobs:
        runs.apply(kube, space, manifest)
        run = runs.until(kube, space, "queued", lambda r: "queue" in runs.message(r), seconds=30, what="Queued")
        ready = runs.condition(run, "Ready")
        assert ready is not None
        assert ready["reason"] == "Queued"
        job = runs.jobs(kube, space, "queued")[0]
        assert job["spec"]["suspend"] is True
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
        assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low"
        for resource, name in ((PVCS, "queued-checkpoints"), (SECRETS, "queued-trainyard")):
            assert kube.get(resource, space, name) is None, "what waits takes nothing but its Job"
        # Kueue's part: admit, take back, admit again.
        for suspend in (False, True, False):
            kube.merge(JOBS, space, "queued-train-1", {"spec": {"suspend": suspend}})
        runs.until_succeeded(kube, space, "queued", seconds=90)
        written = {c.object["spec"].get("suspend") for c in jobs.changes}
        assert jobs.created() == ["queued-train-1"]
    assert written == {True, False}


def test_a_shared_claim_goes_with_its_last_run(kube: Kube, space: str) -> None:
    shared = {"checkpoints": {"claimName": "together", "size": "1Gi"}}
    for name in ("one", "two"):
        runs.apply(kube, space, script(name, SUCCEEDS, storage=shared))
    for name in ("one", "two"):
        runs.until_succeeded(kube, space, name, seconds=90)
    owners = {o["name"] for o in kube.need(PVCS, space, "together")["metadata"]["ownerReferences"]}
    assert owners == {"one", "two"}
    kube.delete(TRAININGRUNS, space, "one")
    claim = kube.wait(
        PVCS,
        space,
        "together",
        lambda c: bool(c and [o["name"] for o in c["metadata"].get("ownerReferences", [])] == ["two"]),
        seconds=60,
        what="one owner less",
    )
    assert claim is not None
    assert "deletionTimestamp" not in claim["metadata"]
    kube.delete(TRAININGRUNS, space, "two")
    kube.wait_gone(PVCS, space, "together", seconds=60)


def test_a_retained_claim_outlives_the_run(kube: Kube, space: str) -> None:
    """Retention may still be asked for when the run has ended."""
    runs.apply(kube, space, script("kept", SUCCEEDS))
    runs.until_succeeded(kube, space, "kept", seconds=90)
    kube.merge(TRAININGRUNS, space, "kept", {"spec": {"storage": {"checkpoints": {"retain": True}}}})
    kube.wait(
        PVCS,
        space,
        "kept-checkpoints",
        lambda c: bool(c and not c["metadata"].get("ownerReferences")),
        seconds=20,
        what="a claim without owner",
    )
    kube.delete(TRAININGRUNS, space, "kept")
    kube.wait_gone(JOBS, space, "kept-train-1", seconds=60)
    kube.wait_gone(SECRETS, space, "kept-trainyard", seconds=60)
    claim = kube.need(PVCS, space, "kept-checkpoints")
    assert "deletionTimestamp" not in claim["metadata"]


def test_somebody_elses_claim_is_used_and_left_alone(kube: Kube, space: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    kube.create(PVCS, space, {"metadata": {"name": "mine"}, "spec": spec})
    runs.apply(kube, space, script("guest", SUCCEEDS, storage={"checkpoints": {"claimName": "mine"}}))
    runs.until_succeeded(kube, space, "guest", seconds=90)
    kube.delete(TRAININGRUNS, space, "guest")
    kube.wait_gone(SECRETS, space, "guest-trainyard", seconds=60)
    assert "ownerReferences" not in kube.need(PVCS, space, "mine")["metadata"]


def test_what_runs_is_what_the_restricted_profile_allows(kube: Kube, space: str) -> None:
    """And no pod of a run can speak to the API server."""
    source = "import os, pathlib; print(os.getuid(), pathlib.Path('/var/run/secrets/kubernetes.io').exists())"
    runs.apply(kube, space, script("modest", source, image=IMAGE))
    runs.until_succeeded(kube, space, "modest", seconds=60)
    pod = runs.pods(kube, space, "modest")[0]
    assert kube.log(space, pod["metadata"]["name"]).strip() == "1000 False"
