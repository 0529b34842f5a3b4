"""`trigger_alert` in a script of one's own, and the lab's way to call the trainer."""

import json
from typing import Any

import pytest

from tests.webserver import Reply, web
from trainyard.trainer import __main__ as program
from trainyard.trainer.alerts import trigger_alert
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.tracking.lab import LabFollower


def env(url: str, **more: str) -> dict[str, str]:
    return {"ALERT_API_URL": url, "JOB_ID": "j", "USER_ID": "u", "MODEL_NAME": "meta-llama/Llama-2-7b", **more}


def test_the_descriptions_three_examples_are_sent_in_its_words():
    with web(lambda asked: Reply({"success": True})) as lab:
        assert trigger_alert("job_started", environment=env(lab.url), total_steps=1000)
        assert trigger_alert("job_completed", environment=env(lab.url, INTERNAL_API_KEY="k"), loss=0.25)
        assert trigger_alert("job_failed", environment=env(lab.url), error_message=str(ValueError("x")))
    bodies = [json.loads(asked.body) for asked in lab.asked]
    common = {"job_id": "j", "user_id": "u", "model_name": "meta-llama/Llama-2-7b"}
    assert bodies == [
        {"type": "job_started", "status": "running", "total_steps": 1000, **common},
        {"type": "job_completed", "status": "completed", "loss": 0.25, **common},
        {"type": "job_failed", "status": "failed", "error_message": "x", **common},
    ]
    assert [asked.headers["X-API-Key"] for asked in lab.asked] == [None, "k", None]


@pytest.mark.parametrize("missing", ["ALERT_API_URL", "JOB_ID", "USER_ID"])
def test_without_address_job_or_user_nothing_is_sent_and_nothing_is_said(missing: str, capsys: Any):
    with web(lambda asked: Reply()) as lab:
        assert not trigger_alert("job_started", environment={**env(lab.url), missing: ""})
    assert lab.asked == []
    assert capsys.readouterr().out == ""


def test_nothing_is_ever_raised_and_no_secret_is_said(capsys: Any):
    with web(lambda asked: Reply(status=500)) as lab:
        assert not trigger_alert("job_failed", environment=env(lab.url + "/?token=abcdefgh", INTERNAL_API_KEY="thekey"))
    assert not trigger_alert("job_failed", environment=env("http://127.0.0.1:9/"))
    assert not trigger_alert("job_failed", environment=env("no address"))
    assert not trigger_alert("job_paused", environment=env("http://127.0.0.1:9/"))
    said = capsys.readouterr().out
    assert "HTTP 500" in said
    assert "job_started" in said, "the types there are"
    assert "abcdefgh" not in said
    assert "thekey" not in said


def test_a_signed_address_in_a_message_of_an_error_is_cut():
    with web(lambda asked: Reply()) as lab:
        trigger_alert("job_failed", environment=env(lab.url), error_message="https://b/x?X-Amz-Signature=abc: 403")
    assert b"abc" not in lab.asked[0].body


def test_the_labs_metrics_are_posted_in_batches_with_the_token():
    with web(lambda asked: Reply({"success": True})) as lab:
        follower = LabFollower(url=lab.url, job="j", token="t", pause=0.05)
        reporter = Reporter("train", 1)
        follower.follow(reporter)
        for step in range(1, 31):
            metrics = {"loss": 1.0 / step, "memory_bytes": 2.0**31, "other": 1.0}
            reporter.report(step_number=step, epoch=0.5, metrics=metrics)
        follower.close()
    points = [point for asked in lab.asked for point in json.loads(asked.body)["metrics"]]
    assert [point["step"] for point in points] == list(range(1, 31))
    assert points[0]["train_loss"] == 1.0
    assert points[0]["gpu_memory_allocated_gb"] == 2.0
    assert points[0]["timestamp"].endswith("Z")
    assert "other" not in points[0]
    assert len(lab.asked) < 30
    assert {asked.authorization for asked in lab.asked} == {"Bearer t"}


def test_a_lab_that_is_away_for_a_moment_gets_all_points_and_none_twice():
    answers = [503, 503]

    def answer(asked: Any) -> Reply:
        return Reply(status=answers.pop() if answers else 200)

    with web(answer) as lab:
        follower = LabFollower(url=lab.url, job="j", token="t", pause=0.02)
        for step in range(5):
            follower.add(step, {"loss": 1.0})
        while len(lab.asked) < 3:
            pass
        follower.close()
    assert [p["step"] for asked in lab.asked[2:] for p in json.loads(asked.body)["metrics"]] == [0, 1, 2, 3, 4]


def test_without_an_address_nobody_follows():
    assert LabFollower.of({}) is None


def test_the_labs_call_names_what_is_wrong_with_its_file(tmp_path: Any, monkeypatch: Any, capsys: Any):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert program.main(["--config", "config.json", "--execution-id", "test-123"]) == 64
    assert program.main(["--config", "nowhere.json", "--execution-id", "test-123"]) == 64
    assert program.main(["--config", "config.json", "--execution-id", "../x"]) == 64
    said = capsys.readouterr().out
    assert "--config config.json" in said
    assert "--config nowhere.json cannot be read" in said
    assert "--execution-id '../x'" in said


def test_the_labs_call_runs_all_steps_of_a_run_in_a_folder_of_its_own(tmp_path: Any, monkeypatch: Any):
    called: list[tuple[str, str]] = []

    def local(config: str, folder: Any, volumes: Any, *, before: Any) -> int:
        called.append((config, str(folder)))
        return 0

    monkeypatch.setattr("trainyard.trainer.job.run_local", local)
    monkeypatch.setenv("TRAINYARD_WORK_DIR", str(tmp_path))
    monkeypatch.delenv("JOB_ID", raising=False)
    assert program.main(["--config", "c.json", "--execution-id=test-123"]) == 0
    assert called == [("c.json", f"{tmp_path}/test-123")]
