"""A training that is interrupted is the same training: the weights at the end are equal, bit by bit.

One undisturbed run is the yardstick. The same spec, on the CPU in full precision and with the same seed, is then killed
again and again, and suspended in the middle.
"""

import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import measure, processes, runs
from tests.e2e.kube import Kube, Object
from tests.e2e.recording import Recording
from tests.e2e.volumes import weights
from trainyard.api import names
from trainyard.api.steps import STEP_TRAIN
from trainyard.controller.kube.resources import PODS, TRAININGRUNS

STEPS = 400
SAVE = 25
TRAINING = {"maxSteps": STEPS, "loggingSteps": 1}

pytestmark = pytest.mark.timeout(1500)


def spec(name: str, **more: object) -> Object:
    return runs.tiny(name, training=TRAINING, checkpoints={"everySteps": SAVE, "keepLast": 3}, **more)


@dataclass(frozen=True)
class Yardstick:
    weights: str
    loss: str


@pytest.fixture(scope="module")
def undisturbed(kube: Kube, wide_space: str) -> Yardstick:
    runs.apply(kube, wide_space, spec("undisturbed"))
    run = runs.until_succeeded(kube, wide_space, "undisturbed", seconds=300)
    return Yardstick(weights(kube, run), run["status"]["summary"]["loss"])


def logged_steps(kube: Kube, namespace: str, pod: str, *, seconds: float) -> Iterator[int]:
    """Optimizer steps as the trainer's log tells them, one by one."""
    for line in kube.follow_log(namespace, pod, seconds=seconds):
        if found := re.match(r"step (\d+)/", line):
            yield int(found[1])


def training_pod(kube: Kube, namespace: str, name: str, attempt: int, *, seconds: float) -> Object:
    """The training pod of an attempt, once its container runs."""
    job = names.job_name(name, STEP_TRAIN, attempt)
    for change in kube.watch(PODS, namespace, seconds=seconds, labels=f"batch.kubernetes.io/job-name={job}"):
        if change.type != "DELETED" and processes.container_id(change.object, names.TRAINER_CONTAINER):
            return change.object
    raise AssertionError(f"attempt {attempt} did not run within {seconds:.0f} s")


def test_killing_the_training_again_and_again(kube: Kube, wide_space: str, kills: int, undisturbed: Yardstick) -> None:
    seed = int(os.environ.get("TRAINYARD_SEED", str(time.time_ns() % 1_000_000)))
    print(f"\nTRAINYARD_SEED={seed}")
    kills = min(kills, 10)
    moments = sorted(random.Random(seed).sample(range(2, STEPS - 1), kills))
    runs.apply(kube, wide_space, spec("killed", backoffLimit=kills))
    reached: list[int] = []
    begun = time.monotonic()
    for attempt, moment in enumerate(moments, start=1):
        pod = training_pod(kube, wide_space, "killed", attempt, seconds=300)
        steps = []
        for step in logged_steps(kube, wide_space, pod["metadata"]["name"], seconds=120):
            steps.append(step)
            if step == moment or (step > moment and len(steps) == 1):
                assert processes.kill(pod, names.TRAINER_CONTAINER)
        # What was printed between the decision and the death counts too; the log ends with the container.
        assert steps, f"attempt {attempt} did no step"
        reached.append(steps[-1])
    run = runs.until_succeeded(kube, wide_space, "killed", seconds=400)

    attempts = runs.attempts(run)
    assert [a["number"] for a in attempts] == list(range(max(1, kills + 2 - 10), kills + 2))
    firsts = {a["number"]: a["firstStep"] for a in attempts}
    lost = [step - firsts[n + 1] for n, step in enumerate(reached, start=1) if n + 1 in firsts]
    measure.record(
        "training-killed",
        kills=kills,
        at=reached,
        lost_steps=lost,
        save_interval=SAVE,
        reasons=[a.get("reason") for a in attempts],
        counted=run["status"].get("restartsCountTowardsMax"),
        equal_weights=weights(kube, run) == undisturbed.weights,
        seconds=round(time.monotonic() - begun, 1),
        seed=seed,
    )
    assert all(0 <= steps <= SAVE for steps in lost), f"steps lost: {lost}"
    assert {a["reason"] for a in attempts[:-1]} == {"Killed"}
    assert run["status"]["restarts"] == kills
    assert run["status"]["summary"]["loss"] == undisturbed.loss
    assert weights(kube, run) == undisturbed.weights


def test_suspending_frees_the_gpu_and_resuming_goes_on_there(
    kube: Kube, wide_space: str, undisturbed: Yardstick
) -> None:
    name = "paused"
    gpu = {"limits": {**runs.SMALL["limits"], "nvidia.com/gpu": 1}}
    placed = {"placement": {"nodeNames": ["arcanine"]}, "resources": {**runs.SMALL, **gpu}}
    with Recording(kube, PODS, wide_space) as pods, Recording(kube, TRAININGRUNS, wide_space, name=name) as record:
        runs.apply(kube, wide_space, spec(name, **placed))
        pod = training_pod(kube, wide_space, name, 1, seconds=200)
        assert pod["spec"]["nodeName"] == "arcanine"
        assert gpus_in_use(kube) == 1
        reached = 0
        for reached in logged_steps(kube, wide_space, pod["metadata"]["name"], seconds=120):
            if reached == STEPS // 3:
                asked = time.monotonic()
                kube.merge(TRAININGRUNS, wide_space, name, {"spec": {"suspend": True}})
        assert reached < STEPS, "the run was not stopped"
        paused = runs.until(
            kube, wide_space, name, lambda r: runs.has(r, "Suspended"), seconds=90, what="the suspension"
        )
        assert kube.get(PODS, wide_space, pod["metadata"]["name"]) is None, "Suspended while the pod still exists"
        assert gpus_in_use(kube) == 0
        assert runs.jobs(kube, wide_space, name)[0]["metadata"]["labels"][names.STEP_LABEL] == "prepare"
        for change in record.follow(seconds=10):
            if runs.has(change.object, "Suspended"):
                suspended = change.at
                break
        gone = next(
            c.at for c in pods.changes if c.type == "DELETED" and c.object["metadata"]["uid"] == pod["metadata"]["uid"]
        )
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        assert gone - asked < grace
        assert paused["status"]["checkpoint"]["step"] == reached, "the step under way was not kept"
        assert "goes on from step" in runs.message(paused)

        resumed = time.monotonic()
        kube.merge(TRAININGRUNS, wide_space, name, {"spec": {"suspend": False}})
        second = training_pod(kube, wide_space, name, 2, seconds=60)
        again = time.monotonic()
        went_on = next(logged_steps(kube, wide_space, second["metadata"]["name"], seconds=120))
        first_step_after = time.monotonic() - resumed
        run = runs.until_succeeded(kube, wide_space, name, seconds=300)
    first, last = runs.attempts(run)
    assert (first["state"], first["reason"], first["counted"]) == ("Stopped", "Suspended", False)
    assert first["lastStep"] == reached
    assert last["firstStep"] == reached
    assert went_on == reached + 1
    assert run["status"]["restartsCountTowardsMax"] == 0
    suspended_condition = runs.condition(run, "Suspended")
    assert suspended_condition is not None
    assert suspended_condition["status"] == "False"
    measure.record(
        "suspend",
        at_step=reached,
        pod_gone_after=round(gone - asked, 2),
        suspended_true_after=round(suspended - asked, 2),
        grace_seconds=grace,
        pod_runs_again_after=round(again - resumed, 2),
        first_step_after=round(first_step_after, 2),
        equal_weights=weights(kube, run) == undisturbed.weights,
    )
    assert weights(kube, run) == undisturbed.weights


def gpus_in_use(kube: Kube) -> int:
    """GPUs of the node that pods hold: what the scheduler counts."""
    holding = [
        p
        for p in kube.list(PODS, fields="spec.nodeName=arcanine")
        if p["status"].get("phase") not in ("Succeeded", "Failed")
    ]
    return sum(
        int(c.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))
        for p in holding
        for c in p["spec"]["containers"]
    )
