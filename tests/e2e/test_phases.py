"""The committee: five phases in a row, killed in the third; what was complete stays so, the third goes on by itself."""

import re
import time

import pytest

from tests.e2e import measure, processes, runs
from tests.e2e.kube import Kube
from tests.e2e.volumes import work_folder
from trainyard.api import names
from trainyard.api.steps import is_train, train_step
from trainyard.controller.kube.resources import PODS

PHASES = ("pretrain", "code", "instruct", "specialist", "consensus")
NAME = "committee-small"
KILLED_AT = 50
SAVE = 20

pytestmark = pytest.mark.timeout(900)


def test_the_committee_is_killed_in_its_third_phase_and_ends_right(kube: Kube, space: str) -> None:
    (manifest,) = [m for m in runs.example("committee") if m["metadata"]["name"] == NAME]
    manifest["spec"].pop("exports", None)  # what is looked at here ends with the last phase
    begun = time.monotonic()
    runs.create_any(kube, space, manifest)
    job = names.job_name(NAME, "train-instruct", 1)
    reached = 0
    for change in kube.watch(PODS, space, seconds=400, labels=f"batch.kubernetes.io/job-name={job}"):
        if change.type == "DELETED" or not processes.container_id(change.object, names.TRAINER_CONTAINER):
            continue
        for line in kube.follow_log(space, change.object["metadata"]["name"], seconds=120):
            if found := re.match(r"step (\d+)/200", line):
                reached = int(found[1])
                if reached == KILLED_AT:
                    assert processes.kill(change.object, names.TRAINER_CONTAINER)
        break
    assert KILLED_AT <= reached < 200
    between = runs.until(
        kube, space, NAME, lambda r: len(runs.attempts(r, "train-instruct")) == 2, seconds=60, what="another attempt"
    )
    assert between["status"]["currentPhase"] == "instruct"
    assert between["status"]["trainerStatus"]["progressPercentage"] < 100
    run = runs.until_succeeded(kube, space, NAME, seconds=400)

    made = sorted(j["metadata"]["name"] for j in runs.jobs(kube, space, NAME))
    steps = ["prepare", *map(train_step, PHASES), "evaluate"]
    assert made == sorted([f"{NAME}-{step}-1" for step in steps] + [f"{NAME}-train-instruct-2"])
    killed, again = runs.attempts(run, "train-instruct")
    # What was printed between the decision and the death counts too.
    assert killed["reason"] == "Killed"
    assert again["firstStep"] in range(KILLED_AT - KILLED_AT % SAVE, reached + 1, SAVE)
    log = kube.log(space, f"{runs.pods(kube, space, NAME, step='train-instruct')[-1]['metadata']['name']}")
    assert f"going on from step-{again['firstStep']:08d}" in log
    assert f"step {again['firstStep'] + 1}/200" in log
    digests = [s["datasetDigest"] for s in run["status"]["steps"] if is_train(s["name"])]
    assert len(set(digests)) == len(PHASES)
    assert run["status"]["evaluation"]["metrics"]
    assert run["status"]["trainerStatus"]["progressPercentage"] == 100
    work = work_folder(kube, run)
    assert (work / "model" / "model.safetensors").read_bytes() == (
        work / "phases" / "consensus" / "model" / "model.safetensors"
    ).read_bytes()
    measure.record(
        "committee",
        killed_at=reached,
        went_on_from=again["firstStep"],
        counted=killed["counted"],
        seconds=round(time.monotonic() - begun, 1),
    )
