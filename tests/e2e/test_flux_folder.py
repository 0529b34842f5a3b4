"""The Flux folder of the examples, applied as Flux applies it: healthy at the right time, rolled through, never fought over."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import ROOT
from tests.e2e import installed, runs, schedules
from tests.e2e.flux import Flux, dump, managers
from tests.e2e.kstatus import readings
from tests.e2e.kube import Kube, Object
from tests.e2e.recording import Recording
from tests.e2e.scripted import counting
from tests.e2e.test_schedules import trainyard
from trainyard.api.manifest import read_documents
from trainyard.controller.kube.resources import JOBS, TRAININGRUNS, TRAININGSCHEDULES

pytestmark = pytest.mark.timeout(400)
EXAMPLE = ROOT / "examples" / "flux" / "training"
NAME = "assistant"


class Repository:
    """A clone of the example whose namespace is the test's own; writing a file stands for a push."""

    def __init__(self, folder: Path, space: str) -> None:
        self.folder, self.space = folder, space
        shutil.copytree(EXAMPLE, folder)
        kustomization = self.read("kustomization.yaml")
        self.write("kustomization.yaml", {**kustomization, "namespace": space})
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "trainyard.dev/test": "e2e"}
        self.write(
            "namespace.yaml", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}}
        )

    def read(self, file: str) -> Object:
        (document,) = read_documents((self.folder / file).read_text())
        found: Object = document.value
        return found

    def write(self, file: str, content: Object) -> None:
        (self.folder / file).write_text(dump(content))

    def edit(self, **spec: object) -> None:
        """Change fields of the schedule; None takes one out."""
        schedule = self.read("trainingschedule.yaml")
        changed = {k: v for k, v in {**schedule["spec"], **spec}.items() if v is not None}
        self.write("trainingschedule.yaml", {**schedule, "spec": changed})

    def list_resources(self, *files: str) -> None:
        self.write("kustomization.yaml", {**self.read("kustomization.yaml"), "resources": ["namespace.yaml", *files]})


@pytest.fixture
def git(tmp_path: Path, space: str) -> Repository:
    return Repository(tmp_path / "training", space)


@pytest.fixture
def flux(kube: Kube, git: Repository) -> Flux:
    installed.until_ready(kube)
    return Flux(kube, git.folder)


def read_by_operator(kube: Kube, space: str) -> Object:
    """The schedule once the operator has seen its newest generation."""
    return schedules.until(
        kube,
        space,
        NAME,
        lambda s: s["status"]["observedGeneration"] == s["metadata"]["generation"],
        seconds=30,
        what="the operator's look",
    )


def test_healthy_when_the_operator_has_read_it_and_edits_roll_through(
    kube: Kube, space: str, git: Repository, flux: Flux
) -> None:
    with Recording(kube, TRAININGSCHEDULES, space) as record:
        flux.reconcile()
        first = read_by_operator(kube, space)
        assert flux.health() == {NAME: "Current", space: "Current"}
        flux.reconcile()  # nothing has changed: nothing is written
        assert kube.need(TRAININGSCHEDULES, space, NAME)["metadata"]["generation"] == 1
        git.edit(schedule="30 5 * * *")
        flux.reconcile()
        second = read_by_operator(kube, space)
        assert second["status"]["nextScheduleTime"] != first["status"]["nextScheduleTime"]
        assert flux.health()[NAME] == "Current"
        git.edit(timeZone="Europe/Atlantis")
        flux.reconcile()
        broken = read_by_operator(kube, space)
        assert "Europe/Atlantis" in broken["status"]["message"]
        assert flux.health()[NAME] == "Failed"
        git.edit(timeZone="Europe/Berlin")
        flux.reconcile()
        read_by_operator(kube, space)
        assert flux.health()[NAME] == "Current"
        versions = record.versions(NAME)
    before_the_first_look = [v for v in versions if v["status"]["observedGeneration"] != v["metadata"]["generation"]]
    assert before_the_first_look
    assert set(readings(before_the_first_look)) == {"InProgress"}, "never healthy before the operator has read it"
    assert kube.list(TRAININGRUNS, space) == [], "applying and editing start nothing"


def test_a_wrong_field_in_git_is_refused_with_its_name(space: str, git: Repository, flux: Flux) -> None:
    git.edit(concurrencyPolicy="Sometimes")
    with pytest.raises(AssertionError, match="concurrencyPolicy"):
        flux.reconcile()


def test_nobody_fights_over_suspend(kube: Kube, space: str, git: Repository, flux: Flux) -> None:
    flux.reconcile()
    read_by_operator(kube, space)
    git.edit(suspend=True)
    flux.reconcile()
    schedules.until(kube, space, NAME, lambda s: s["status"]["state"] == "Suspended", seconds=30, what="Suspended")
    assert flux.health()[NAME] == "Current"
    # A start by hand leaves the spec alone, and Flux leaves the request alone: one start, whatever Flux does meanwhile.
    done = trainyard("run-now", NAME, "-n", space)
    assert done.returncode == 0, done.stderr
    flux.reconcile()
    flux.reconcile()
    now = kube.need(TRAININGSCHEDULES, space, NAME)
    assert now["spec"]["suspend"] is True
    assert now["metadata"]["annotations"]["trainyard.dev/run-now"] == now["status"]["lastRunNow"]
    assert len(kube.list(TRAININGRUNS, space)) == 1
    # By kubectl it is an edit by hand of what Git says: Flux undoes it, once, and the operator does not answer back.
    kubectl = [str(schedules.KUBECTL), "--kubeconfig", str(schedules.KUBECONFIG), "-n", space]
    change = ["patch", "trainingschedules.trainyard.dev", NAME, "--type=merge", "-p", '{"spec": {"suspend": false}}']
    subprocess.run([*kubectl, *change], check=True, capture_output=True)
    flux.reconcile()
    assert kube.need(TRAININGSCHEDULES, space, NAME)["spec"]["suspend"] is True
    # What Git does not mention is nobody's but the person's who sets it.
    git.edit(suspend=None)
    flux.reconcile()
    schedules.until(kube, space, NAME, lambda s: s["status"]["state"] == "Running", seconds=30, what="its release")
    kube.merge(TRAININGSCHEDULES, space, NAME, {"spec": {"suspend": True}})
    flux.reconcile()
    generation = kube.need(TRAININGSCHEDULES, space, NAME)["metadata"]["generation"]
    flux.reconcile()
    last = read_by_operator(kube, space)
    assert last["spec"]["suspend"] is True
    assert last["metadata"]["generation"] == generation, "an apply of the same folder changes nothing"
    assert managers(last)["trainyard"] == {"status"}, "the operator owns nothing but the status"


def test_pruning_takes_the_runs_along_and_a_finished_run_is_not_repeated(
    kube: Kube, space: str, git: Repository, flux: Flux
) -> None:
    run = counting("once", steps=20, ttlSecondsAfterFinished=0)
    git.write("run.yaml", {"apiVersion": TRAININGRUNS.api_version, "kind": "TrainingRun", **run})
    git.list_resources("trainingschedule.yaml", "run.yaml")
    with Recording(kube, JOBS, space) as jobs:
        flux.reconcile()
        assert flux.health()["once"] == "InProgress"
        runs.until_succeeded(kube, space, "once", seconds=120)
        assert flux.health()["once"] == "Current"
        runs.until_cleaned_up(kube, space, "once", seconds=60)
        flux.reconcile()
        made = trainyard("run-now", NAME, "-n", space)
        assert made.returncode == 0, made.stderr
        child = made.stdout.split()[-1]
        git.list_resources("run.yaml")
        flux.reconcile()
        kube.wait_gone(TRAININGSCHEDULES, space, NAME, seconds=60)
        kube.wait_gone(TRAININGRUNS, space, child, seconds=60)
        assert [j for j in jobs.created() if j.startswith("once")] == ["once-train-1"]
    assert flux.health()["once"] == "Current"
