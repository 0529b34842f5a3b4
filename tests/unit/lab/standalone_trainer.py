"""A trainer that knows nothing of Trainyard, written from the description of the lab's contract alone.

It reads the lab's variables, posts metrics while it "trains", and triggers alerts at the three places that the description names. Nothing
of Trainyard is imported here: what it sends is what the lab's own trainer would send. `python standalone_trainer.py --config FILE
--execution-id ID` is how it is called.
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

SAMPLE = {
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
    "timestamp": "2025-12-19T10:30:00.000Z",
}
"""The description's own example."""
TIMEOUT = 10


class LabClient:
    """What the lab's trainer has of an API."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.metrics_api_url = env.get("METRICS_API_URL", "")
        self.alert_api_url = env.get("ALERT_API_URL", "")
        self.job_id = env.get("JOB_ID", "")
        self.job_token = env.get("JOB_TOKEN", "")
        self.user_id = env.get("USER_ID", "")
        self.model_name = env.get("MODEL_NAME", "")
        self.internal_api_key = env.get("INTERNAL_API_KEY", "")
        self.failures: list[str] = []

    def post_metrics(self, *points: Mapping[str, Any]) -> int:
        if not self.metrics_api_url:
            return 0
        headers = {"Authorization": f"Bearer {self.job_token}", "Content-Type": "application/json"}
        return self.request("POST", self.metrics_api_url, {"job_id": self.job_id, "metrics": list(points)}, headers)[0]

    def trigger_alert(self, alert_type: str, **fields: Any) -> int:
        if not (self.alert_api_url and self.job_id and self.user_id):
            return 0
        headers = {"Content-Type": "application/json"}
        if self.internal_api_key:
            headers["X-API-Key"] = self.internal_api_key
        body = {
            "type": alert_type,
            "job_id": self.job_id,
            "user_id": self.user_id,
            "model_name": self.model_name,
            **fields,
        }
        return self.request("POST", self.alert_api_url, body, headers)[0]

    def get_metrics(self, origin: str) -> tuple[int, Any]:
        url = f"{origin}/api/training/local/{self.job_id}/metrics"
        return self.request("GET", url, None, {"Authorization": f"Bearer {self.job_token}"})

    def request(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=dict(headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            self.failures.append(f"HTTP {error.code}")
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else text.decode()
        except OSError as error:  # reporting must not stop the training
            self.failures.append(str(error))
            return 0, None


class TrainingMetricsCallback:
    """By the description's names."""

    def __init__(self, client: LabClient, *, steps: int) -> None:
        self.metrics_api_url, self.job_id, self.job_token = client.metrics_api_url, client.job_id, client.job_token
        self.progress: dict[str, Any] = {"current_step": 0, "current_epoch": 0, "train_loss": None}
        self._client, self._steps = client, steps

    def on_train_begin(self) -> None:
        self._client.trigger_alert("job_started", status="running", total_steps=self._steps)

    def on_log(self, step: int, loss: float) -> None:
        self.progress = {"current_step": step, "current_epoch": step / self._steps, "train_loss": loss}
        self._post_metrics_to_api(
            {"step": step, "epoch": step / self._steps, "train_loss": loss, "learning_rate": 1e-4}
        )

    def on_evaluate(self, step: int, loss: float) -> None:
        self._post_metrics_to_api({"step": step, "eval_loss": loss, "perplexity": 2.718})

    def _post_metrics_to_api(self, point: Mapping[str, Any]) -> None:
        self._client.post_metrics(point)


def main(words: list[str], env: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--execution-id", required=True)
    given = parser.parse_args(words)
    with open(given.config) as file:
        config = json.load(file)
    client = LabClient(env)
    print(f"METRICS_API_URL={client.metrics_api_url} ALERT_API_URL={client.alert_api_url}", flush=True)
    assert given.execution_id == client.job_id, "the id of the call is JOB_ID"
    settings = config["spec"].get("training") or {}
    steps, logging_steps = settings.get("maxSteps") or 100, settings.get("loggingSteps") or 10
    code = train(client, steps=steps, logging_steps=logging_steps, fail_at=int(env.get("FAIL_AT", "0")))
    print("; ".join(client.failures) or "everything was taken", flush=True)
    return code


def train(client: LabClient, *, steps: int, logging_steps: int, fail_at: int = 0) -> int:
    """The exit code."""
    callback = TrainingMetricsCallback(client, steps=steps)
    try:
        callback.on_train_begin()
        for step in range(1, steps + 1):
            if step == fail_at:
                raise RuntimeError("CUDA out of memory")
            if step % logging_steps == 0:
                callback.on_log(step, 2.0 / step)
        callback.on_evaluate(steps, 0.42)
        client.trigger_alert("job_completed", status="completed", loss=0.25)
        return 0
    except RuntimeError as error:
        client.trigger_alert("job_failed", status="failed", error_message=str(error), error_type="CUDA_OOM")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
