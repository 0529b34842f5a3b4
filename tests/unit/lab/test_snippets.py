"""The lab's own lines for a shell, as they are printed in its documentation: only the addresses of the pod are its variables."""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.unit.lab.laboratory import Laboratory, Pod

METRICS = """curl -X POST "$METRICS_API_URL" \\
  -H "Authorization: Bearer ${JOB_TOKEN}" \\
  -H "Content-Type: application/json" \\
  -d '{
    "job_id": "'"${JOB_ID}"'",
    "metrics": [{
      "step": 100,
      "epoch": 1,
      "train_loss": 0.45,
      "eval_loss": 0.42,
      "learning_rate": 0.00005,
      "grad_norm": 0.512,
      "samples_per_second": 12.5,
      "gpu_memory_allocated_gb": 22.1,
      "gpu_utilization_percent": 97.5,
      "perplexity": 1.41,
      "timestamp": "2025-12-19T10:30:00.000Z"
    }]
  }'"""
READ = """curl -H "Authorization: Bearer ${JOB_TOKEN}" "${METRICS_API_URL%/metrics*}/${JOB_ID}/metrics" """
POST_TO_A_JOB = (
    """curl -o /dev/null -w '%{http_code}' -X POST -d '{}' "${METRICS_API_URL%/metrics*}/${JOB_ID}/metrics" """
)
ALERT = """curl -X POST "$ALERT_API_URL" \\
  -H "X-API-Key: ${INTERNAL_API_KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{
    "type": "job_failed",
    "job_id": "'"${JOB_ID}"'",
    "user_id": "'"${USER_ID}"'",
    "model_name": "meta-llama/Llama-2-7b",
    "status": "failed",
    "progress": 50.0,
    "current_step": 500,
    "total_steps": 1000,
    "loss": 0.35,
    "duration": 3600000,
    "error_message": "CUDA out of memory",
    "error_type": "CUDA_OOM"
  }'"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Laboratory(tmp_path_factory.mktemp("lab")) as laboratory:
        yield laboratory


def shell(line: str, pod: Pod) -> str:
    env = {"PATH": os.environ["PATH"]} | pod.env
    script = line.replace("curl ", "curl -sS --max-time 30 ")
    done = subprocess.run(["bash", "-euc", script], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_are_posted_and_read_back(lab: Laboratory) -> None:
    pod = lab.pod("posting")
    assert json.loads(shell(METRICS, pod)) == {"success": True, "job_id": pod.uid, "received": 1}
    sample = json.loads(METRICS.partition("-d '")[2][:-1].replace("'\"${JOB_ID}\"'", pod.uid))
    assert json.loads(shell(READ, pod)) == sample


def test_a_job_in_the_address_of_a_post_is_405(lab: Laboratory) -> None:
    assert shell(POST_TO_A_JOB, lab.pod("misposting")) == "405"


def test_an_alert_is_taken(lab: Laboratory) -> None:
    assert json.loads(shell(ALERT, lab.pod("alarming", user="ada"))) == {"success": True}
