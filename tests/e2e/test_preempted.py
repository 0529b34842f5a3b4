"""A more urgent run takes the GPU from one that trains. The one that had it loses neither a step nor an attempt."""

import pytest

from tests.e2e import measure, runs
from tests.e2e.kube import PRIORITY_CLASSES, Kube
from tests.e2e.scripted import counting, steps_done

STEPS = 60


@pytest.mark.timeout(300)
def test_a_run_that_the_scheduler_pushes_out_goes_on_later(kube: Kube, space: str) -> None:
    gpu = {"requests": {"cpu": "10m"}, "limits": {"nvidia.com/gpu": 1}}
    place = {"nodeNames": ["arcanine"]}
    urgent = f"{space}-urgent"
    kube.create(PRIORITY_CLASSES, None, {"metadata": {"name": urgent}, "value": 1000})
    try:
        runs.apply(
            kube, space, counting("patient", steps=STEPS, pause=0.3, resources=gpu, placement=place, backoffLimit=0)
        )
        runs.until(kube, space, "patient", lambda r: runs.step_number(r) > 3, seconds=90, what="some steps")
        pushing = {**place, "priorityClassName": urgent}
        runs.apply(kube, space, counting("urgent", steps=20, resources=gpu, placement=pushing))
        waiting = runs.until(
            kube, space, "patient", lambda r: "urgent" in runs.message(r), seconds=90, what="whom it waits for"
        )
        assert not runs.has(waiting, "Stalled")
        runs.until_succeeded(kube, space, "urgent", seconds=120)
        run = runs.until_succeeded(kube, space, "patient", seconds=120)
    finally:
        kube.delete(PRIORITY_CLASSES, None, urgent)
    first, second = runs.attempts(run)
    assert first["reason"] in ("Interrupted", "Disrupted")
    assert first["counted"] is False
    assert run["status"]["restartsCountTowardsMax"] == 0
    assert steps_done(kube, run) == dict.fromkeys(range(1, STEPS + 1), 1), "it goes on at the very step"
    measure.record("preempted", reason=first["reason"], after=first.get("lastStep"), ended=second["state"])
