"""Tracking without a training: what is noted, what reaches the server, and what an outage costs (nothing)."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.tracking.mlflow_stand_in import StandIn, running
from trainyard.api.manifest import parse_run
from trainyard.trainer.context import RunContext
from trainyard.trainer.reporter import PreparedDataset, Reporter
from trainyard.trainer.tracking import follow as following
from trainyard.trainer.tracking.outbox import Outbox
from trainyard.trainer.tracking.tensorboard import EventFile, masked_crc


@pytest.fixture
def server() -> Iterator[StandIn]:
    with running() as state:
        yield state


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.3)


def context(
    folder: Path, server: StandIn, *, step: str = "train", attempt: int = 1, uid: str = "u-1", **mlflow: Any
) -> RunContext:
    manifest = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "tiny"},
        "spec": {
            "model": {"scratch": {"architecture": "llama", "config": {}, "tokenizer": {"trainVocabSize": 500}}},
            "datasets": [{"name": "text", "inline": {"text": "hello"}, "split": {"eval": 0.1}}],
            "training": {"method": "Pretrain", "maxSteps": 10, "learningRate": 0.001},
            "tracking": {"mlflow": {"trackingUri": server.url, **mlflow}, "tensorboard": True},
        },
    }
    work = folder / "tiny-1"
    work.mkdir(exist_ok=True)
    return RunContext(
        run=parse_run(manifest),
        step=step,
        attempt=attempt,
        uid=uid,
        work_dir=work,
        cache_dir=folder,
        volumes_dir=folder,
        secrets_dir=folder / "secrets",
        progress_url=None,
        token_file=folder / "token",
    )


class Step:
    """One step's life with its followers."""

    def __init__(self, about: RunContext, *, last: bool = False) -> None:
        self.reporter = Reporter(about.step, about.attempt)
        made = PreparedDataset("d" * 64, records=3, tokens=30)
        self.reporter.report(dataset=made, effective={"device": "cpu"})
        tracking = following.follow(about, self.reporter, is_last_step=last)
        assert tracking is not None
        self.tracking = tracking

    def train(self, steps: range) -> None:
        for step in steps:
            self.reporter.report(metrics={"loss": 1 / (step + 1), "grad_norm": float("nan")}, step_number=step)

    def end(self, *, succeeded: bool = True) -> None:
        self.tracking.close(succeeded=succeeded)


def test_a_whole_run(tmp_path: Path, server: StandIn) -> None:
    training = Step(context(tmp_path, server))
    training.train(range(1, 4))
    training.end()
    assert [(name, step) for name, _, step in server.metrics] == [("loss", 1), ("loss", 2), ("loss", 3)]
    assert server.parameters["learning_rate"] == "0.001"
    assert server.parameters["device"] == "cpu"
    assert server.tags["trainyard.dev/dataset-digest"] == "d" * 64
    assert [d["digest"] for d in server.datasets] == ["d" * 36]
    assert server.statuses == []
    assert training.reporter.final_record("Succeeded").mlflow_run_id == "run0"

    about = context(tmp_path, server, step="evaluate")
    about.evaluation_dir.mkdir()
    (about.evaluation_dir / "samples.json").write_text("[]")
    evaluation = Step(about, last=True)
    evaluation.reporter.report(metrics={"eval_loss": 0.5, "perplexity": 1.6}, percentage=100.0)
    evaluation.end()
    assert ("evaluation/loss", 0.5, 3) in server.metrics
    assert server.artifacts == {"7/run0/artifacts/evaluation/samples.json": b"[]"}
    assert server.statuses == ["FINISHED"]
    assert len(server.runs) == 1


def test_a_restart_goes_on_with_the_same_run_and_notes_no_step_twice(tmp_path: Path, server: StandIn) -> None:
    first = Step(context(tmp_path, server))
    first.train(range(1, 6))
    first.end(succeeded=False)
    second = Step(context(tmp_path, server, attempt=2))
    second.train(range(4, 8))
    second.end()
    assert [step for name, _, step in server.metrics if name == "loss"] == [1, 2, 3, 4, 5, 6, 7]
    assert server.statuses == ["FAILED", "RUNNING"]
    assert len(server.runs) == 1


def test_a_run_that_was_made_and_not_written_down_is_found_again(tmp_path: Path, server: StandIn) -> None:
    Step(context(tmp_path, server)).end(succeeded=False)
    (tmp_path / "tiny-1" / "tracking" / "run.json").unlink()
    Step(context(tmp_path, server, attempt=2)).end()
    assert len(server.runs) == 1


def test_an_outage_costs_nothing_and_is_told_once(
    tmp_path: Path, server: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    server.away = True
    training = Step(context(tmp_path, server))
    training.train(range(1, 200))
    training.end()
    told = capsys.readouterr().out
    assert told.count("MLflow is away") == 1
    assert "the next step sends them" in told
    assert server.metrics == []
    server.away = False
    Step(context(tmp_path, server, step="evaluate"), last=True).end()
    assert [step for _, _, step in server.metrics] == list(range(1, 200))
    assert server.statuses == ["FINISHED"]


def test_the_outage_ends_while_it_trains(tmp_path: Path, server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    server.away = True
    training = Step(context(tmp_path, server))
    training.train(range(1, 3))
    training.tracking._courier._thread.join(0.2)  # type: ignore[union-attr]
    server.away = False
    training.end()
    while_away = capsys.readouterr().out
    if "MLflow is away" in while_away:
        Step(context(tmp_path, server, step="evaluate")).end()
    assert [step for _, _, step in server.metrics] == [1, 2]


def test_what_the_server_refuses_is_told_once_and_the_rest_arrives(
    tmp_path: Path, server: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuses = {"log-inputs"}
    training = Step(context(tmp_path, server))
    training.train(range(1, 4))
    training.end()
    assert "MLflow does not take dataset: INVALID_PARAMETER_VALUE: not like that" in capsys.readouterr().out
    assert len(server.metrics) == 3
    assert training.tracking._outbox is not None
    assert training.tracking._outbox.left == 0


@pytest.mark.parametrize(
    ("secret", "sent"), [({"token": "t0ken"}, "Bearer t0ken"), ({"username": "a", "password": "b"}, "Basic YTpi")]
)
def test_credentials(tmp_path: Path, server: StandIn, secret: dict[str, str], sent: str) -> None:
    folder = tmp_path / "secrets" / "mlflow"
    folder.mkdir(parents=True)
    for key, value in secret.items():
        (folder / key).write_text(value)
    Step(context(tmp_path, server, secretRef={"name": "mlflow"})).end()
    assert server.authorization == {sent}


def test_the_model_is_sent_where_that_is_asked_for(tmp_path: Path, server: StandIn) -> None:
    for asked in (False, True):
        about = context(tmp_path, server, logModel=asked, attempt=1 + asked)
        about.model_dir.mkdir(exist_ok=True)
        (about.model_dir / "model.safetensors").write_bytes(b"weights")
        Step(about).end()
        assert list(server.artifacts.values()) == ([b"weights"] if asked else [])


def test_an_outbox_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add({"metrics": {"loss": 1.0}, "step": 1, "time": 0})
    with (tmp_path / "outbox.jsonl").open("a") as file:
        file.write('{"metrics": {"lo')
    again = Outbox(tmp_path)
    again.add({"metrics": {"loss": 0.5}, "step": 2, "time": 0})
    assert [entry["step"] for _, entry in again.waiting()] == [1, 2]
    assert again.last_step == 2


def test_a_volume_that_takes_nothing_stops_the_tracking_and_not_the_training(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Step(context(tmp_path, server))
    full = OSError(28, "No space left on device")

    def refuse(*_: Any, **__: Any) -> None:
        raise full

    monkeypatch.setattr(EventFile, "add", refuse)
    monkeypatch.setattr(Outbox, "add", refuse)
    training.train(range(1, 5))
    training.end()
    told = capsys.readouterr().out
    assert told.count("No space left") == 2, "once for each follower"
    monkeypatch.setattr(EventFile, "__init__", refuse)
    assert following.follow(context(tmp_path, server), training.reporter, is_last_step=False) is None


def test_event_files_are_records_with_right_checksums(tmp_path: Path) -> None:
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF  # RFC 3720
    EventFile(tmp_path, attempt=1).add(300, {"loss": 0.5})
    (path,) = tmp_path.iterdir()
    data, records = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        content = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12]) == (masked_crc(data[:8]),)
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked_crc(content),)
        records.append(content)
        data = data[16 + length :]
    assert len(records) == 2
    assert b"loss" in records[1]
