"""How GitOps tools read a run, from its first written status to its last: by Flux's own library, and by kubectl."""

import subprocess
import threading

import pytest

from tests.e2e import measure, runs
from tests.e2e.kstatus import readings
from tests.e2e.kube import Kube
from tests.e2e.recording import Recording
from tests.e2e.scripted import counting
from trainyard.controller.kube.resources import TRAININGRUNS

pytestmark = pytest.mark.timeout(400)


def kubectl_wait(namespace: str, name: str, condition: str, *, seconds: int) -> subprocess.CompletedProcess[str]:
    kubectl, config = (measure.FOLDER.parent / part for part in ("bin/kubectl", "kubeconfig"))
    command = [str(kubectl), "--kubeconfig", str(config), "-n", namespace, "wait", f"--for=condition={condition}"]
    return subprocess.run(
        [*command, f"--timeout={seconds}s", f"trainingruns.trainyard.dev/{name}"],
        capture_output=True,
        text=True,
        check=False,
    )


def ordered(found: list[str]) -> list[str]:
    """Each reading once, in the order of its first coming."""
    return list(dict.fromkeys(found))


def test_a_run_that_succeeds(kube: Kube, space: str) -> None:
    with Recording(kube, TRAININGRUNS, space) as record:
        runs.apply(kube, space, counting("good", steps=30))
        done = kubectl_wait(space, "good", "Ready", seconds=200)
        assert done.returncode == 0, done.stderr
        for change in record.follow(seconds=10):
            if runs.finished(change.object):
                break
        versions = record.versions("good")
    found = readings(versions)
    assert ordered(found) == ["InProgress", "Current"]
    for version, reading in zip(versions, found, strict=True):
        assert (reading == "Current") == runs.has(version, "Complete")


def test_the_moment_before_the_operator_has_looked_is_not_ready(kube: Kube, space: str) -> None:
    """Flux takes an object without status for done, so the API server gives a new one a generation that nobody has seen."""
    with Recording(kube, TRAININGRUNS, space) as record:
        runs.apply(kube, space, counting("new", steps=30))
        times: dict[str, float] = {}
        for change in record.follow(seconds=30):
            times.setdefault("told" if runs.condition(change.object, "Ready") else "created", change.at)
            if "told" in times:
                break
    unseen, told = record.versions("new")[:2]
    assert unseen["status"] == {"observedGeneration": -1}
    assert told["status"]["observedGeneration"] == told["metadata"]["generation"]
    assert readings([unseen, told]) == ["InProgress", "InProgress"]
    measure.record("first-status", seconds=round(times["told"] - times["created"], 3))
    assert times["told"] - times["created"] < 5


def test_a_run_that_fails(kube: Kube, space: str) -> None:
    with Recording(kube, TRAININGRUNS, space) as record:
        runs.apply(kube, space, counting("bad", command=["python3", "-c", "raise SystemExit(64)"], args=[]))
        runs.until_finished(kube, space, "bad", seconds=60)
        failed = kubectl_wait(space, "bad", "Failed", seconds=20)
        assert failed.returncode == 0, failed.stderr
        for change in record.follow(seconds=10):
            if runs.finished(change.object):
                break
    assert ordered(readings(record.versions("bad"))) == ["InProgress", "Failed"]


def test_a_run_that_waits_for_somebody(kube: Kube, space: str) -> None:
    with Recording(kube, TRAININGRUNS, space) as record:
        runs.apply(kube, space, counting("stuck", storage={"checkpoints": {"claimName": "not-there"}}))
        runs.until(kube, space, "stuck", lambda r: runs.has(r, "Stalled"), seconds=30, what="Stalled")
        for change in record.follow(seconds=10):
            if runs.has(change.object, "Stalled"):
                break
    versions = [v for v in record.versions("stuck") if v.get("status")]
    assert readings(versions)[-1] == "Failed"


def test_a_run_that_is_suspended_and_edited(kube: Kube, space: str) -> None:
    """Suspended is not done; and a spec that the operator has not seen yet is never done."""
    with Recording(kube, TRAININGRUNS, space) as record:
        runs.apply(kube, space, counting("pausing", steps=60, pause=0.2))
        runs.until(kube, space, "pausing", lambda r: runs.state(r) == "Training", seconds=120, what="Training")
        runs.suspend(kube, space, "pausing", True)
        runs.until(kube, space, "pausing", lambda r: runs.has(r, "Suspended"), seconds=120, what="Suspended")
        waiting = threading.Thread(target=lambda: runs.suspend(kube, space, "pausing", False))
        waiting.start()
        assert kubectl_wait(space, "pausing", "Ready", seconds=200).returncode == 0
        waiting.join()
        for change in record.follow(seconds=10):
            if runs.finished(change.object):
                break
    versions = record.versions("pausing")
    found = readings(versions)
    assert ordered(found) == ["InProgress", "Current"]
    suspended = [r for v, r in zip(versions, found, strict=True) if runs.has(v, "Suspended")]
    assert set(suspended) == {"InProgress"}
