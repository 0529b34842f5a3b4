"""What the demo reads from a run, its watch and its log."""

import io
import json
import queue
import subprocess
from typing import Any

import pytest

import demo

LOG = """\
eval: loss 5.1, perplexity 164.02 over 2,048 tokens of 9 records
sample 1:
  given:
    | def close(self):
  generated:
    |     self.close()
sample 2:
  given:
    | import os
done
  indented, but not of a sample
"""


def test_samples_are_the_indented_blocks() -> None:
    lines = list(demo.sample_lines(LOG))
    assert lines[0] == "sample 1:"
    assert lines[-1] == "    | import os"
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], None),
        ([{"type": "Ready", "status": "False"}], None),
        ([{"type": "Complete", "status": "True"}], "Complete"),
        ([{"type": "Failed", "status": "True"}], "Failed"),
        ([{"type": "Failed", "status": "False"}], None),
    ],
)
def test_a_run_has_ended_by_its_conditions(conditions: list[dict[str, str]], expected: str | None) -> None:
    assert demo.ended({"status": {"conditions": conditions}}) == expected
    assert demo.ended({}) is None


def test_a_watch_is_read_object_by_object() -> None:
    class Watch:
        stdout = io.StringIO("".join(json.dumps({"n": n, "inner": {"x": [1]}}, indent=4) + "\n" for n in range(3)))

    seen: queue.Queue[Any] = queue.Queue()
    demo._read_objects(Watch(), seen)  # type: ignore[arg-type]
    objects = [seen.get_nowait() for _ in range(4)]
    assert [o and o["n"] for o in objects] == [0, 1, 2, None]


def test_the_seconds_of_each_step_are_those_of_its_last_attempt() -> None:
    attempts = [
        {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:05Z"},
        {"startTime": "2026-01-01T00:01:00Z", "completionTime": "2026-01-01T00:01:30Z"},
    ]
    run = {"status": {"steps": [{"name": "train", "attempts": attempts}, {"name": "evaluate"}]}}
    assert list(demo.step_seconds(run)) == [("train", 30.0)]


def test_a_failing_driver_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(demo.target.Refused, match=r"tools/cluster up"):
        demo.driver("up")


def test_the_question_is_asked_in_a_pod_like_that_of_the_export() -> None:
    mounts = [{"name": "trainyard-checkpoints", "mountPath": "/trainyard/checkpoints"}]
    container = {"name": "trainer", "image": "trainer:dev", "command": ["python"], "volumeMounts": mounts}
    spec = {"securityContext": {"runAsUser": 1000}, "restartPolicy": "Never", "containers": [container]}
    job = {"spec": {"template": {"metadata": {"labels": {"trainyard.dev/run": "quickstart"}}, "spec": spec}}}
    pod = demo.asking(job, "quickstart-1/exports/file")
    (asked,) = pod["spec"]["containers"]
    assert asked["command"][3:] == [
        "/trainyard/checkpoints/quickstart-1/exports/file/quickstart-f16.gguf",
        demo.QUESTION,
    ]
    assert asked["volumeMounts"] == mounts
    assert "labels" not in pod["metadata"], "the operator would take it for one of the run's"
    assert container["command"] == ["python"]
