"""Tracking of a real training by a real MLflow, which goes away and comes back; and how TensorBoard and Trackio read its files."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import restartable
from trainyard.trainer.tracking.tensorboard import EventFile

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
STEPS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[restartable.Server]:
    with restartable.mlflow(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


def manifest(name: str, url: str, **mlflow: Any) -> dict[str, Any]:
    records = [{"text": f"the quick brown fox number {i} jumps over the lazy dog " * 4} for i in range(60)]
    config = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name},
        "spec": {
            "model": {"scratch": {"architecture": "llama", "config": config, "tokenizer": {"trainVocabSize": 300}}},
            "datasets": [{"name": "text", "inline": {"records": records}, "split": {"eval": 0.2}}],
            "training": {
                "method": "Pretrain",
                "maxSteps": STEPS,
                "maxLength": 32,
                "perDeviceTrainBatchSize": 2,
                "loggingSteps": 1,
                "evalSteps": 20,
            },
            "checkpoints": {"everySteps": 10},
            "tracking": {"mlflow": {"trackingUri": url, "experiment": "trackers", **mlflow}, "tensorboard": True},
        },
    }


class Training:
    """`trainyard run --local` in a process of its own; its lines as they come."""

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self.work = folder / run["metadata"]["name"]
        file = folder / "run.json"
        file.write_text(json.dumps(run))
        words = [sys.executable, "-u", "-m", "trainyard.cli.main", "run", "--local", "-f", str(file)]
        self._process = subprocess.Popen(
            [*words, "--workdir", str(self.work)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def until(self, words: str, *, seconds: float = 300) -> None:
        with self._news:
            there = self._news.wait_for(lambda: any(words in line for line in self.lines), seconds)
        assert there, "".join(self.lines)

    def end(self) -> int:
        code = self._process.wait(300)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        os.killpg(self._process.pid, 9)
        self.end()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()


def ask(server: restartable.Server, what: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = restartable.HTTP.request("POST", f"{server.url}/api/2.0/mlflow/{what}", json=body, timeout=60)
    assert answer.status == 200, answer.data
    return dict(answer.json())


def history(server: restartable.Server, run: str, metric: str) -> list[tuple[int, float]]:
    url = f"{server.url}/api/2.0/mlflow/metrics/get-history"
    answer = restartable.HTTP.request("GET", url, fields={"run_id": run, "metric_key": metric}, timeout=60).json()
    return sorted((int(m.get("step", 0)), m["value"]) for m in answer.get("metrics", []))


def only_run(server: restartable.Server, name: str) -> dict[str, Any]:
    found = restartable.HTTP.request(
        "GET", f"{server.url}/api/2.0/mlflow/experiments/get-by-name", fields={"experiment_name": "trackers"}
    ).json()
    body = {"experiment_ids": [found["experiment"]["experiment_id"]], "filter": f"attributes.run_name = '{name}'"}
    (run,) = ask(server, "runs/search", body)["runs"]
    return dict(run)


def test_killed_and_continued_it_is_one_run_with_every_step_once(server: restartable.Server, tmp_path: Path) -> None:
    run = manifest("killed", server.url, logModel=True)
    first = Training(tmp_path, run)
    first.until("step 25/")
    first.kill()
    second = Training(tmp_path, run)
    assert second.end() == 0, "".join(second.lines)
    tracked = only_run(server, "killed")
    losses = history(server, tracked["info"]["run_id"], "loss")
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    assert [step for step, _ in history(server, tracked["info"]["run_id"], "eval_loss")] == [20, 40]
    assert [step for step, _ in history(server, tracked["info"]["run_id"], "evaluation/loss")] == [STEPS]
    assert tracked["info"]["status"] == "FINISHED"
    parameters = {p["key"]: p["value"] for p in tracked["data"]["params"]}
    assert parameters["max_steps"] == str(STEPS)
    (dataset,) = tracked["inputs"]["dataset_inputs"]
    tags = {t["key"]: t["value"] for t in tracked["data"]["tags"]}
    assert tags["trainyard.dev/dataset-digest"].startswith(dataset["dataset"]["digest"])
    for folder, wanted in (
        ("evaluation", {"metrics.json", "samples.json"}),
        ("model", {"config.json", "model.safetensors"}),
    ):
        listed = restartable.HTTP.request(
            "GET",
            f"{server.url}/api/2.0/mlflow/artifacts/list",
            fields={"run_id": tracked["info"]["run_id"], "path": folder},
        ).json()
        assert wanted <= {Path(f["path"]).name for f in listed["files"]}


def test_without_a_server_it_trains_all_the_same_and_sends_afterwards(
    server: restartable.Server, tmp_path: Path
) -> None:
    run = manifest("alone", server.url)
    server.stop()
    try:
        training = Training(tmp_path, run)
        assert training.end() == 0, "".join(training.lines)
    finally:
        server.start()
    told = "".join(training.lines)
    assert told.count("MLflow is away") == 3, told  # once in each step
    assert "entries for MLflow wait on the volume" in told
    again = Training(tmp_path, run)  # everything is done already; what waits is sent
    assert again.end() == 0, "".join(again.lines)
    tracked = only_run(server, "alone")
    losses = history(server, tracked["info"]["run_id"], "loss")
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))


def test_tensorboards_own_reader_reads_the_files(server: restartable.Server, tmp_path: Path) -> None:
    run = manifest("events", server.url)
    del run["spec"]["tracking"]["mlflow"]
    training = Training(tmp_path, run)
    assert training.end() == 0, "".join(training.lines)
    script = (
        "import json, sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "found = EventAccumulator(sys.argv[1]); found.Reload()\n"
        "print(json.dumps([[e.step, e.value] for e in found.Scalars('loss')]))\n"
    )
    python = restartable.tensorboard_python()
    done = subprocess.run(
        [python, "-c", script, str(training.work / "logs")], capture_output=True, text=True, check=True
    )
    read = json.loads(done.stdout.splitlines()[-1])
    assert [step for step, _ in read] == list(range(1, STEPS + 1))
    assert read[-1][1] < read[0][1], "the loss falls"


IMPORT = """
import json, sqlite3, sys
import trackio
trackio.import_tf_events(sys.argv[1], project="lab")
names = [run.name for run in trackio.Api().runs("lab")]
rows = sqlite3.connect(sys.argv[2] + "/lab.db").execute("select run_name, step, metrics from metrics order by step").fetchall()
print(json.dumps([names, [[name, step, json.loads(metrics)] for name, step, metrics in rows]]))
"""


def test_trackio_reads_the_same_files_of_a_whole_volume(tmp_path: Path) -> None:
    """Offline. Why the trainer does not follow in it by itself stands in docs/use/tracking.md."""
    for number, run in enumerate(("first-1", "second-2")):
        file = EventFile(tmp_path / "volume" / run / "logs", attempt=1)
        for step in (1, 2, 3):
            file.add(step, {"loss": number + 1 / step})
    home = tmp_path / "trackio"
    words = [restartable.trackio_python(), "-c", IMPORT, str(tmp_path / "volume"), str(home)]
    offline = os.environ | {"TRACKIO_DIR": str(home), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=offline)
    names, rows = json.loads(done.stdout.splitlines()[-1])
    assert sorted(name.split("/")[0] for name in names) == ["first-1", "second-2"]
    losses = [metrics["loss"] for name, _, metrics in rows if name.startswith("second-2")]
    assert losses == pytest.approx([2, 1.5, 4 / 3])
