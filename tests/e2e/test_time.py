"""How long it takes from `kubectl apply` to the first training step, from the last step to a free GPU, and where it goes.

The images are on the nodes. The run asks for the GPU node, so that scheduling with a taint, an affinity and a device is
part of it. The limits hold for a machine that does nothing else; where others compete for the cores, the limit grows with
the load, and the printed figures say by how much.
"""

import os
import re
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from tests.e2e import measure, runs
from tests.e2e.kube import Kube, Object
from tests.e2e.processes import container_id
from tests.e2e.recording import Recording
from trainyard.api import names
from trainyard.controller.kube.resources import PODS

REPEATS = int(os.environ.get("TRAINYARD_REPEATS", "1"))
FIRST_STEP_SECONDS = 20.0
FREE_SECONDS = 10.0
STEPS = 30
GPU = {"requests": runs.SMALL["requests"], "limits": {**runs.SMALL["limits"], "nvidia.com/gpu": 1}}


def crowding() -> float:
    """Runnable processes per core, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wall(monotonic: float) -> float:
    """A moment of the monotonic clock as seconds since the epoch."""
    return time.time() - (time.monotonic() - monotonic)


def step_line(log: list[tuple[datetime, str]], step: int) -> float:
    """When the log tells of a step."""
    return next(at for at, text in log if re.match(rf"step {step}/", text)).timestamp()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(REPEATS))
def test_from_apply_to_the_first_step_and_from_the_last_to_a_free_gpu(kube: Kube, space: str, number: int) -> None:
    crowded = crowding()
    with Recording(kube, PODS, space) as record:
        applied = time.time()
        placement = {"nodeNames": ["arcanine"]}
        runs.apply(kube, space, runs.tiny("timed", training={"maxSteps": STEPS}, placement=placement, resources=GPU))
        done = runs.until_succeeded(kube, space, "timed", seconds=300)
        finished = time.time()

    def seen(step: str, holds: Callable[[Object], bool]) -> float:
        labelled = (c for c in record.changes if c.object["metadata"]["labels"][names.STEP_LABEL] == step)
        return wall(next(c.at for c in labelled if c.type != "DELETED" and holds(c.object)))

    def scheduled(pod: Object) -> bool:
        return bool(pod["spec"].get("nodeName"))

    def running(pod: Object) -> bool:
        return container_id(pod, names.TRAINER_CONTAINER) is not None

    def succeeded(pod: Object) -> bool:
        return bool(pod["status"].get("phase") == "Succeeded")

    pod = runs.pods(kube, space, "timed", step="train")[0]
    log = kube.timed_log(space, pod["metadata"]["name"])
    first, last = step_line(log, 1), step_line(log, STEPS)
    timings = runs.final_record(pod)["timings"]
    process_began = first - timings["firstStepAfter"]
    parts = {
        "operator, until the prepare pod exists": seen("prepare", lambda p: True) - applied,
        "scheduling of prepare, with its volume": seen("prepare", scheduled) - seen("prepare", lambda p: True),
        "container start of prepare": seen("prepare", running) - seen("prepare", scheduled),
        "prepare": seen("prepare", succeeded) - seen("prepare", running),
        "operator, until the training pod exists": seen("train", lambda p: True) - seen("prepare", succeeded),
        "scheduling of training": seen("train", scheduled) - seen("train", lambda p: True),
        "container start of training": process_began - seen("train", scheduled),
        "imports": timings["imports"],
        "model": timings["load"],
    }
    parts["first step and the rest"] = first - applied - sum(parts.values())
    free = seen("train", succeeded) - last
    measure.record(
        "time-to-first-step",
        seconds=round(first - applied, 2),
        parts={name: round(value, 2) for name, value in parts.items()},
        last_step_to_gpu_free=round(free, 2),
        whole_run=round(finished - applied, 2),
        crowding=round(crowded, 2),
        node=done["status"]["summary"]["node"],
    )
    assert first - applied < FIRST_STEP_SECONDS * crowded
    assert free < FREE_SECONDS * crowded
