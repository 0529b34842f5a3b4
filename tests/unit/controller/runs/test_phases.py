"""Phases in the operator: in order, each with its own attempts, none twice."""

from typing import Any

from hypothesis import settings

from tests.unit.controller.runs.test_plan_properties import RunLife
from tests.unit.controller.runs.world import World, manifest
from tests.unit.controller.runs.world import progress as world_progress
from trainyard.api.progress import CheckpointRecord

PHASES = [
    {"name": "pretrain", "training": {"method": "Pretrain", "maxSteps": 30}},
    {"name": "code", "training": {"method": "CPT", "maxSteps": 10}},
    {"name": "more", "training": {"method": "CPT", "maxSteps": 60}},
]


def phased(**spec: Any) -> World:
    return World(run=manifest(training={"learningRate": 0.001}, phases=PHASES, **spec))


def saved_in(phase: str, step: int) -> CheckpointRecord:
    return CheckpointRecord(step=step, path=f"tiny-11112222/phases/{phase}/checkpoints/step-{step:08d}")


def progress(world: World, phase: str, *, step: int, of: int, attempt: int = 1, saved: int | None = None) -> None:
    checkpoint = None if saved is None else saved_in(phase, saved)
    record = world_progress(world, step=step, of=of, attempt=attempt)
    world.progress = record.model_copy(update={"step": f"train-{phase}", "checkpoint": checkpoint})


def finish(world: World, record: dict[str, Any] | None = None) -> None:
    world.end(record=record or {})
    world.settle()


def done(phase: str, steps: int) -> dict[str, Any]:
    return {
        "stepNumber": steps,
        "totalSteps": steps,
        "percentage": 100,
        "checkpoint": saved_in(phase, steps).model_dump(),
        "dataset": {"digest": f"sha256:{phase}"},
    }


def test_each_phase_is_a_step_with_jobs_of_its_own() -> None:
    world = phased()
    world.settle()
    finish(world, {"dataset": {"digest": "sha256:all", "records": 9}})
    job = world.live_job()
    assert job is not None
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "trainyard.trainer", "train", "--phase", "pretrain"]
    assert job["metadata"]["labels"]["trainyard.dev/step"] == "train-pretrain"
    world.start_pod()
    world.settle()
    assert (world.status().state, world.status().message) == ("Training", "training phase pretrain on forge")
    finish(world, done("pretrain", 30))
    finish(world, done("code", 10))
    finish(world, done("more", 60))
    finish(world, {"evaluation": {"metrics": {"loss": 2.5}}, "dataset": {"digest": "sha256:more"}})
    status = world.status()
    assert status.state == "Succeeded"
    assert world.created == [
        f"tiny-{s}-1" for s in ("prepare", "train-pretrain", "train-code", "train-more", "evaluate")
    ]
    assert status.current_phase is None
    assert status.dataset is not None
    assert status.dataset.digest == "sha256:all"
    assert [(s.name, s.dataset_digest, s.total_steps) for s in (status.steps or ())[1:4]] == [
        ("train-pretrain", "sha256:pretrain", 30),
        ("train-code", "sha256:code", 10),
        ("train-more", "sha256:more", 60),
    ]


def test_progress_is_that_of_all_phases_and_steps_are_those_of_the_present_one() -> None:
    world = phased()
    world.settle()
    finish(world)
    world.start_pod()
    progress(world, "pretrain", step=15, of=30)
    world.settle()
    status = world.status()
    assert status.trainer_status is not None
    assert status.trainer_status.progress_percentage == 15  # 15 of 100 steps
    finish(world, done("pretrain", 30))
    status = world.status()
    assert status.current_phase == "code"
    assert status.trainer_status is not None
    assert (status.trainer_status.progress_percentage, status.trainer_status.step) == (30, None)
    world.start_pod()
    progress(world, "code", step=5, of=10)
    world.settle()
    status = world.status()
    assert status.trainer_status is not None
    assert status.trainer_status.progress_percentage == 35
    assert status.summary is not None
    assert (status.summary.step, status.summary.step_name, status.summary.method) == ("5/10", "train-code", "CPT")


def test_a_phase_that_fails_is_tried_again_alone_and_from_its_own_checkpoint() -> None:
    world = phased(backoffLimit=1)
    world.settle()
    finish(world)
    finish(world, done("pretrain", 30))
    world.start_pod()
    world.end(exit_code=137)  # before its first checkpoint: that of the phase before must not count as progress
    world.settle()
    attempt = (world.status().steps or [])[2].attempts
    assert attempt is not None
    assert (attempt[0].first_step, attempt[0].reason, attempt[0].counted) == (0, "Killed", True)
    world.pass_time(60)
    world.settle()
    world.start_pod()
    progress(world, "code", step=7, of=10, attempt=2, saved=5)
    world.settle()
    assert world.status().checkpoint is not None
    assert world.status().checkpoint.step == 5  # type: ignore[union-attr]
    world.end(exit_code=137)
    world.settle()
    world.pass_time(60)
    world.settle()
    attempts = (world.status().steps or [])[2].attempts
    assert attempts is not None
    assert [(a.number, a.first_step, a.counted) for a in attempts] == [(1, 0, True), (2, 0, False), (3, 5, None)]
    assert world.created.count("tiny-train-pretrain-1") == 1
    assert not any(name.startswith("tiny-train-pretrain-2") for name in world.created)


def test_only_the_phases_that_are_named_run() -> None:
    world = phased(runPhases=["code"])
    world.settle()
    finish(world)
    finish(world, done("code", 10))
    finish(world)
    assert world.created == ["tiny-prepare-1", "tiny-train-code-1", "tiny-evaluate-1"]
    assert world.status().state == "Succeeded"


class PhasedLife(RunLife):
    """The same crashes, evictions, edits and users, over three phases."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            run=manifest(
                training={}, phases=PHASES, backoffLimit=2, activeDeadlineSeconds=5000, ttlSecondsAfterFinished=300
            )
        )


TestPhasedLife = PhasedLife.TestCase
TestPhasedLife.settings = settings(max_examples=12, stateful_step_count=30)
