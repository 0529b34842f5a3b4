"""The built-in trainer on somebody's own machine, called as the lab calls its own, with the lab's variables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.webserver import Asked, Reply, web
from trainyard.api.exitcodes import ExitCode

pytestmark = pytest.mark.slow
RECORDS = "".join(
    json.dumps({"text": f"{n} quick brown foxes jump over {n} lazy dogs. " * 12}) + "\n" for n in range(60)
)
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIG: dict[str, Any] = {
    "apiVersion": "trainyard.dev/v1alpha1",
    "kind": "TrainingRun",
    "metadata": {"name": "local"},
    "spec": {
        "model": {"scratch": {"architecture": "llama", "config": SHAPE, "tokenizer": {"trainVocabSize": 300}}},
        "datasets": [{"name": "text", "format": "Text", "storageUri": "RECORDS", "split": {"eval": 0.2}}],
        "training": {"method": "Pretrain", "maxSteps": 20, "loggingSteps": 5, "maxLength": 64, "evalSteps": 10},
    },
}


def called(folder: Path, url: str, **spec: Any) -> subprocess.CompletedProcess[str]:
    config = CONFIG | {"spec": CONFIG["spec"] | spec}
    (folder / "records.jsonl").write_text(RECORDS)
    (folder / "test_config.json").write_text(json.dumps(config).replace("RECORDS", f"file://{folder}/records.jsonl"))
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"),
        "METRICS_API_URL": f"{url}/api/training/local/metrics", "JOB_TOKEN": "the-token", "USER_ID": "ada",
        "MODEL_NAME": "small", "ALERT_API_URL": f"{url}/api/alerts/trigger?sig=abc", "INTERNAL_API_KEY": "the-key",
    }  # fmt: skip
    words = ["-m", "trainyard.trainer", "--config", "test_config.json", "--execution-id", "test-123"]
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=280)


def alerts(asked: list[Asked]) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in asked if one.path == "/api/alerts/trigger"]


def test_it_starts_posts_each_logging_step_and_evaluation_and_completes(tmp_path: Path):
    with web(lambda asked: Reply({"success": True})) as lab:
        done = called(tmp_path, lab.url)
    assert done.returncode == 0, done.stdout + done.stderr
    points = [p for asked in lab.asked if asked.path.endswith("/metrics") for p in json.loads(asked.body)["metrics"]]
    assert {asked.authorization for asked in lab.asked if asked.path.endswith("/metrics")} == {"Bearer the-token"}
    assert {json.loads(asked.body)["job_id"] for asked in lab.asked} == {"test-123"}
    logged = [point["step"] for point in points if point.get("train_loss") is not None]
    assert sorted({*logged} & {5, 10, 15, 20}) == [5, 10, 15, 20]
    assert {point["step"] for point in points if point.get("eval_loss") is not None} >= {10, 20}
    started, completed = alerts(lab.asked)
    assert (started["type"], started["status"], started["total_steps"]) == ("job_started", "running", 20)
    assert (completed["type"], completed["status"]) == ("job_completed", "completed")
    assert completed["loss"] > 0
    assert completed["duration"] > 1000
    assert (completed["user_id"], completed["model_name"]) == ("ada", "small")
    assert {one.headers["X-API-Key"] for one in lab.asked if one.path == "/api/alerts/trigger"} == {"the-key"}
    for said in (
        f"metrics are posted to {lab.url}/api/training/local/metrics",
        f"alerts are posted to {lab.url}/api/alerts/trigger\n",
    ):
        assert said in done.stdout
    assert not any(secret in done.stdout + done.stderr for secret in ("the-token", "the-key", "sig=abc"))


def test_it_tells_once_why_it_has_failed(tmp_path: Path):
    with web(lambda asked: Reply({"success": True})) as lab:
        broken = [{"name": "text", "storageUri": f"file://{tmp_path}/nothing.txt", "format": "Text"}]
        done = called(tmp_path, lab.url, datasets=broken)
    assert done.returncode == ExitCode.INVALID_DATA, done.stdout + done.stderr
    (failed,) = alerts(lab.asked)
    assert (failed["type"], failed["status"]) == ("job_failed", "failed")
    assert "nothing.txt" in failed["error_message"]
    assert failed["error_type"] == "InvalidData"


def test_a_configuration_that_is_none_is_told_too(tmp_path: Path):
    with web(lambda asked: Reply({"success": True})) as lab:
        done = called(tmp_path, lab.url, training={"method": "Nothing"})
    assert done.returncode == ExitCode.INVALID_CONFIG
    (failed,) = alerts(lab.asked)
    assert "training.method" in failed["error_message"]
    assert failed["error_type"] == "InvalidConfig"
