"""What the planner shows of the progress that was reported."""

from typing import Any

from tests.unit.controller.runs.world import World, manifest, progress, until_training


def test_progress_shows_in_the_columns() -> None:
    world = World()
    until_training(world)
    world.progress = progress(world, step=4, checkpoint=3)
    world.settle()
    summary: Any = world.status().summary
    assert (summary.progress, summary.step, summary.loss, summary.eta, summary.node) == (
        "40%",
        "4/10",
        "1.2500",
        "3m20s",
        "forge",
    )
    assert world.status().checkpoint is not None


def test_what_a_script_reported_last_is_kept_when_it_ends() -> None:
    """It leaves no final record; the report and the end may be seen in one look."""
    world = World(run=manifest(command=["python", "train.py"], image="own:1", model=None, datasets=None, training=None))
    world.settle()
    world.start_pod()
    world.progress = progress(world, step=6)
    world.settle()
    world.progress = progress(world, step=9)
    world.end()
    world.settle()
    summary, trainer = world.status().summary, world.status().trainer_status
    assert summary is not None
    assert trainer is not None
    assert (summary.step, summary.progress, summary.eta) == ("9/10", "100%", None)
    assert trainer.phase == "done"


def test_a_report_from_before_the_end_does_not_take_back_the_final_record() -> None:
    world = World()
    until_training(world)
    world.progress = progress(world, step=6)
    world.settle()
    world.end(record={"stepNumber": 10, "totalSteps": 10, "metrics": {"loss": 0.5}})
    world.settle()
    world.settle()
    assert world.status().current_step == "evaluate"
    summary = world.status().summary
    assert summary is not None
    assert (summary.step, summary.progress, summary.loss) == ("10/10", "100%", "0.5000")


def test_progress_of_an_earlier_attempt_is_not_shown() -> None:
    world = World()
    until_training(world)
    world.end(exit_code=75)
    world.settle()
    world.progress = progress(world, step=9, attempt=1)
    world.settle()
    assert world.status().trainer_status is None


def test_a_final_record_with_impossible_facts_ends_the_step_all_the_same() -> None:
    world = World()
    until_training(world)
    wrong = {"percentage": 700, "stepNumber": 10**40, "mlflowRunId": "../x", "checkpoint": {"step": -1}}
    world.end(record={"totalSteps": 10, "metrics": {"loss": 0.5, "n" * 300: 1}} | wrong)
    world.settle()
    status = world.status()
    assert status.current_step == "evaluate"
    assert status.trainer_status is not None
    assert (status.trainer_status.total_steps, status.checkpoint, status.mlflow_run_id) == (10, None, None)
    assert [(m.name, m.value) for m in status.trainer_status.metrics or ()] == [("loss", "0.5")]
