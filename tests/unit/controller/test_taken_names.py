"""A name that a run needs and that somebody else has is told in its status, at the first look, and left alone."""

from itertools import product
from typing import Any

import pytest

from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import manifest
from tests.unit.controller.test_edited_by_hand import Desk
from trainyard.api.names import JOB_NAME_LIMIT, config_secret_name, job_name, service_name
from trainyard.controller.kube.cluster import Cluster


@pytest.fixture
def desk(kube: FakeKube, cluster: Cluster) -> Desk:
    return Desk(kube, cluster)


def foreign(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "lab", "uid": f"theirs-{name}", **metadata}}


def ready(desk: Desk) -> tuple[str, str]:
    found = {c["type"]: c for c in desk.status["conditions"]}
    assert found["Stalled"]["status"] == "True"
    return found["Ready"]["reason"], desk.status["message"]


async def test_a_foreign_job_is_named_at_the_first_look(desk: Desk) -> None:
    desk.kube.put("trainingruns", manifest())
    theirs = desk.kube.put("jobs", foreign("tiny-prepare-1"))
    await desk.look()
    told = "Job tiny-prepare-1 exists and does not belong to this run; delete or rename it"
    assert ready(desk) == ("NameConflict", told)
    assert await desk.look() is not None, "it is looked at again"
    assert desk.job() == theirs
    desk.kube.remove("jobs", "lab", "tiny-prepare-1")
    await desk.look(2)
    assert "ownerReferences" in desk.job()["metadata"]


async def test_a_foreign_job_beside_a_secret_that_an_earlier_look_has_made(desk: Desk) -> None:
    """The look before made the Secret, met the Job, and ended with its process."""
    desk.kube.put("trainingruns", manifest())
    desk.kube.put("jobs", foreign("tiny-prepare-1"))
    await desk.look()
    desk.kube.objects["trainingruns"]["lab", "tiny"]["status"] = {}
    assert ("lab", "tiny-trainyard") in desk.kube.objects["secrets"]
    await desk.look()
    assert ready(desk)[0] == "NameConflict"


async def test_a_job_of_another_run_names_that_run(desk: Desk) -> None:
    desk.kube.put("trainingruns", manifest())
    owner = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "name": "tin",
        "uid": "t",
        "controller": True,
    }
    desk.kube.put("jobs", foreign("tiny-prepare-1", ownerReferences=[owner]))
    await desk.look()
    told = "Job tiny-prepare-1 belongs to TrainingRun tin; give this run another name"
    assert ready(desk) == ("NameConflict", told)


async def test_a_claim_that_somebody_else_made_under_the_runs_own_name_is_not_written_to(desk: Desk) -> None:
    desk.kube.put("trainingruns", manifest())
    desk.kube.put("persistentvolumeclaims", foreign("tiny-checkpoints"))
    await desk.look()
    reason, message = ready(desk)
    assert reason == "NameConflict"
    assert message == (
        "PersistentVolumeClaim tiny-checkpoints exists and was not made by Trainyard: name it in "
        "spec.storage.checkpoints.claimName to use it, or delete or rename it"
    )
    assert not desk.jobs()


async def test_a_claim_that_was_kept_of_an_earlier_run_of_the_name_is_used(desk: Desk) -> None:
    desk.kube.put("trainingruns", manifest())
    kept = foreign("tiny-checkpoints", labels={"app.kubernetes.io/managed-by": "trainyard"})
    desk.kube.put("persistentvolumeclaims", kept)
    await desk.look()
    assert desk.jobs() == ["tiny-prepare-1"]


WORDS = ("a", "train", "prepare", "export", "evaluate", "x", "validate", "train-prepare", "x-train", "export-train")
STEPS = (
    "prepare",
    "train",
    "evaluate",
    "validate",
    *(f"{kind}-{word}" for kind in ("train", "export") for word in WORDS),
)


def test_no_two_runs_need_the_same_job() -> None:
    """Names of runs, phases and exports that read like steps, at every length."""
    runs = sorted({"-".join(words) for n in (1, 2, 3) for words in product(WORDS, repeat=n)})
    runs = [name for name in runs if len(name) <= 44]
    made: dict[str, tuple[str, str]] = {}
    for run, step in product(runs, STEPS):
        name = job_name(run, step, 1)
        assert len(name) <= JOB_NAME_LIMIT
        assert made.setdefault(name, (run, step)) == (run, step), f"{name} is needed twice"
    assert len({config_secret_name(run) for run in runs} | {service_name(run) for run in runs}) == 2 * len(runs)


def test_names_that_can_be_read_in_one_way_only_stay_short() -> None:
    assert job_name("k-train", "prepare", 1) == "k-train-prepare-1"
    assert job_name("k", "train-warm-up", 2) == "k-train-warm-up-2"
    assert job_name("k", "train-prepare", 1) != "k-train-prepare-1"
