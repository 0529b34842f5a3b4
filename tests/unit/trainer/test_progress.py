"""The progress client against a real server, which is away for a while, refuses, or is gone for good."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from trainyard.api.progress import ProgressRecord
from trainyard.trainer.progress import Sender
from trainyard.trainer.reporter import Reporter, SavedCheckpoint


def saved(step: int) -> SavedCheckpoint:
    return SavedCheckpoint(step, f"step-{step}", "2026-11-01T02:00:00Z", 1000)


class Receiver:
    """Answers with `status`, and keeps what it accepted."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.accepted: list[ProgressRecord] = []
        self.requests: list[tuple[str, str]] = []
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.changed:  # noted before the answer, which lets the client go on
                    status = receiver.status
                    receiver.requests.append((self.path, self.headers.get("Authorization", "")))
                    if status < 300:
                        receiver.accepted.append(ProgressRecord.model_validate_json(body))
                    receiver.changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        HTTPServer.allow_reuse_address = True
        self.server = HTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def wait_until(self, true: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(true, timeout=20)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.close()


def reporter(port: int, tmp_path: Path, **named: Any) -> Reporter:
    (tmp_path / "token").write_text("secret-token\n")
    options: dict[str, Any] = {"interval": 0.05, "backoff": 0.02} | named
    made = Reporter("train", 2)
    made.send_through(
        Sender(
            url=f"http://127.0.0.1:{port}/api/progress",
            token_file=tmp_path / "token",
            run_uid="u1",
            step="train",
            attempt=2,
            **options,
        )
    )
    return made


def test_the_first_record_goes_out_at_once_with_token_and_identity(receiver: Receiver, tmp_path: Path) -> None:
    sending = reporter(receiver.port, tmp_path)
    sending.report(step_number=1, total_steps=10, metrics={"loss": 2.5})
    receiver.wait_until(lambda: len(receiver.accepted) == 1)
    record = receiver.accepted[0]
    assert (record.run_uid, record.step, record.attempt, record.step_number) == ("u1", "train", 2, 1)
    assert record.metrics == {"loss": 2.5}
    assert receiver.requests[0] == ("/api/progress", "Bearer secret-token")
    sending.close()


def test_many_changes_become_few_records_and_the_last_one_arrives(receiver: Receiver, tmp_path: Path) -> None:
    sending = reporter(receiver.port, tmp_path, interval=0.2)
    for number in range(1, 2001):
        sending.report(step_number=number)
    sending.close()
    assert receiver.accepted[-1].step_number == 2000
    assert len(receiver.accepted) <= 5
    sequences = [record.sequence for record in receiver.accepted]
    assert sequences == sorted(set(sequences))


def test_milestones_survive_an_outage_in_their_order(tmp_path: Path) -> None:
    gone = Receiver()
    port = gone.port
    gone.close()
    sending = reporter(port, tmp_path)
    for number in (5, 10, 15):
        sending.report(step_number=number, checkpoint=saved(number))
        for between in range(number, number + 4):
            sending.report(step_number=between, metrics={"loss": between / 10})
    back = Receiver(port)
    back.wait_until(lambda: bool(back.accepted) and back.accepted[-1].step_number == 18)
    steps = [record.checkpoint.step for record in back.accepted if record.checkpoint]
    assert sorted(set(steps)) == [5, 10, 15]
    assert steps == sorted(steps)
    assert back.accepted[-1].metrics == {"loss": 1.8}
    sending.close()
    back.close()


def test_an_outage_never_slows_the_training(tmp_path: Path) -> None:
    gone = Receiver()
    gone.close()
    sending = reporter(gone.port, tmp_path)
    slowest = 0.0
    for number in range(3000):
        started = time.perf_counter()
        sending.report(step_number=number, milestone=number % 10 == 0)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 1.0
    started = time.perf_counter()
    sending.close(timeout=2.0)
    assert time.perf_counter() - started < 4.0


def test_errors_of_the_server_are_tried_again(receiver: Receiver, tmp_path: Path) -> None:
    receiver.status = 503
    sending = reporter(receiver.port, tmp_path)
    sending.report(phase="train", step_number=3)
    receiver.wait_until(lambda: len(receiver.requests) >= 3)
    receiver.status = 200
    receiver.wait_until(lambda: len(receiver.accepted) >= 1)
    assert receiver.accepted[0].phase == "train"
    sending.close()


@pytest.mark.parametrize("status", [401, 404, 410])
def test_a_run_that_is_gone_is_left_in_peace(receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.status = status
    sending = reporter(receiver.port, tmp_path)
    sending.report(phase="load")
    receiver.wait_until(lambda: len(receiver.requests) == 1)
    for number in range(50):
        sending.report(phase=f"p{number}")
    sending.close()
    assert len(receiver.requests) == 1


def test_what_is_left_goes_out_at_the_end(receiver: Receiver, tmp_path: Path) -> None:
    sending = reporter(receiver.port, tmp_path, interval=60.0)
    sending.report(step_number=1)
    receiver.wait_until(lambda: len(receiver.accepted) == 1)
    sending.report(step_number=99, percentage=100.0)
    sending.close()
    assert receiver.accepted[-1].step_number == 99


def test_without_an_address_nothing_happens() -> None:
    silent = Reporter("train", 1)
    silent.report(step_number=1, milestone=True)
    silent.close()


def test_numbers_that_json_does_not_know_are_sent_as_null(receiver: Receiver, tmp_path: Path) -> None:
    sending = reporter(receiver.port, tmp_path)
    sending.report(metrics={"loss": float("nan"), "grad_norm": float("inf")})
    receiver.wait_until(lambda: len(receiver.accepted) == 1)
    sending.close()
    assert json.loads(receiver.accepted[0].to_json())["metrics"] == {"loss": None, "grad_norm": None}


def test_a_misspelt_field_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="percentge"):
        Reporter("train", 1).report(percentge=3.0)  # type: ignore[call-arg]


def test_more_metrics_than_a_record_holds_cost_the_training_nothing(receiver: Receiver, tmp_path: Path) -> None:
    sending = reporter(receiver.port, tmp_path)
    sending.report(metrics={f"metric_{number}": float(number) for number in range(65)}, milestone=True)
    receiver.wait_until(lambda: len(receiver.accepted) == 1)
    assert list(receiver.accepted[0].metrics) == [f"metric_{number}" for number in range(64)]
    sending.close()


def test_what_no_record_holds_is_left_out_and_the_rest_arrives(receiver: Receiver, tmp_path: Path) -> None:
    sending = reporter(receiver.port, tmp_path)
    sending.report(phase="p" * 1000, step_number=-1, percentage=250.0, checkpoint=saved(5), total_steps=10)
    receiver.wait_until(lambda: len(receiver.accepted) == 1)
    record = receiver.accepted[0]
    assert (record.phase, record.step_number, record.percentage, record.total_steps) == (None, None, None, 10)
    assert record.checkpoint is not None
    sending.close()
    final = sending.final_record("Resume")
    assert (final.outcome, final.total_steps, final.checkpoint and final.checkpoint.step) == ("Resume", 10, 5)


def test_records_are_made_by_the_thread_that_sends_them(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    original = ProgressRecord.lenient

    def lenient(told: Any) -> Any:
        threads.add(threading.current_thread().name)
        return original(told)

    monkeypatch.setattr(ProgressRecord, "lenient", lenient)
    sending = reporter(receiver.port, tmp_path)
    sending.report(step_number=1, checkpoint=saved(1), metrics={"loss": 1.0})
    sending.report(step_number=2, percentage=20.0)
    sending.close()
    assert receiver.accepted[-1].step_number == 2
    assert threads == {"progress"}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_record_that_is_refused_keeps_no_other_one_back(receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.status = status
    sending = reporter(receiver.port, tmp_path)
    sending.report(checkpoint=saved(1))
    receiver.wait_until(lambda: len(receiver.requests) == 1)
    receiver.status = 200
    sending.report(checkpoint=saved(2))
    receiver.wait_until(lambda: len(receiver.accepted) == 1)
    assert receiver.accepted[0].checkpoint is not None
    assert receiver.accepted[0].checkpoint.step == 2
    assert len(receiver.requests) == 2, "the first one is not sent again"
    sending.close()


def test_a_moment_stays_what_it_was_however_late_it_is_sent(tmp_path: Path) -> None:
    gone = Receiver()
    port = gone.port
    gone.close()
    sending = reporter(port, tmp_path)
    sending.report(step_number=5, metrics={"loss": 1.0}, checkpoint=saved(5))
    sending.report(step_number=9, metrics={"loss": 0.5})
    back = Receiver(port)
    back.wait_until(lambda: bool(back.accepted) and back.accepted[-1].step_number == 9)
    assert (back.accepted[0].step_number, back.accepted[0].metrics) == (5, {"loss": 1.0})
    sending.close()
    back.close()
