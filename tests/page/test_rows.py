"""What leaves the process about a run, and what does not."""

import json

from tests.page.board import training_run, training_sweep
from trainyard.controller.page.rows import run_detail, run_row, schedule_row, sweep_detail, sweep_row


def test_a_line_has_the_columns_of_kubectl_and_why_it_waits() -> None:
    row = run_row(training_run("one", message="waiting for a GPU"))
    assert row["name"] == "one"
    assert row["state"] == "Training"
    assert row["progress"] == "40%"
    assert row["message"] == "waiting for a GPU"
    assert "verdict" not in row


def test_a_run_that_nobody_has_looked_at_yet_is_pending() -> None:
    raw = training_run("one")
    del raw["status"]
    assert run_row(raw)["state"] == "Pending"
    assert run_detail(raw)["status"]["steps"] == []


def test_the_worst_of_the_gates_is_the_verdict() -> None:
    gates = [{"verdict": "Promote"}, {"verdict": "Reject"}, {"verdict": "Inconclusive"}]
    assert run_row(training_run("one", evaluation={"gates": gates}))["verdict"] == "Reject"


def test_a_message_of_any_length_fits_into_a_list() -> None:
    assert len(run_row(training_run("one", message="x" * 32768))["message"]) == 300


def test_what_an_author_may_have_written_in_confidence_stays_here() -> None:
    raw = training_run("one")
    raw["spec"]["args"] = ["--password=hidden-in-the-spec"]
    raw["spec"]["datasets"][0]["inline"] = "hidden-in-the-spec"
    raw["spec"]["training"]["extraArgs"] = {"word": "hidden-in-the-spec"}
    raw["spec"]["model"]["storageUri"] = "https://files.example.org/base?X-Amz-Signature=hidden-in-the-spec"
    raw["spec"]["datasets"][0]["storageUri"] = "https://ann:hidden-in-the-spec@files.example.org/x.jsonl"
    told = json.dumps(run_detail(raw))
    assert "hidden-in-the-spec" not in told
    assert "https://files.example.org/base?" in told
    assert "maxSteps" in told


def test_a_schedule_says_when_it_starts_next() -> None:
    row = schedule_row(
        {
            "metadata": {"name": "s", "namespace": "n", "uid": "u"},
            "status": {"nextScheduleTime": "2026-12-01T02:00:00Z"},
        }
    )
    assert row["next"] == "2026-12-01T02:00:00Z"


def test_a_sweep_shows_its_trials_with_what_is_varied() -> None:
    assert sweep_row(training_sweep()) | {"state": "Running", "trials": "2/4", "metric": "eval_loss"} == sweep_row(
        training_sweep()
    )
    detail = sweep_detail(training_sweep())
    assert detail["parameters"] == [{"name": "training.learningRate", "log": True}]
    assert detail["table"][0]["assignments"] == {"training.learningRate": "0.001"}


def test_arguments_that_a_sweep_varies_stay_here() -> None:
    assert "hidden-in-the-spec" not in json.dumps([sweep_row(training_sweep()), sweep_detail(training_sweep())])
