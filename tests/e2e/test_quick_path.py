"""One small run from apply to trained model, watched all the way: what people and programs see of it is true.

The run happens once; the tests below look at different sides of the record it left.
"""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from tests.e2e import measure, runs
from tests.e2e.kstatus import readings
from tests.e2e.kube import VOLUMES, Kube, Object
from tests.e2e.recording import Recording
from tests.e2e.volumes import work_folder
from trainyard.api import names
from trainyard.controller.kube.resources import EVENTS, JOBS, PODS, TRAININGRUNS

NAME = "quick"
STEPS = int(os.environ.get("TRAINYARD_QUICK_STEPS", "4000"))
LAG_SECONDS = 3.0
"""How long a state may be behind the pods."""
PROGRESS_SECONDS = 10.0

pytestmark = pytest.mark.timeout(600)


@dataclass
class Row:
    """One line of `kubectl get -w`."""

    at: float
    text: str


@dataclass
class Seen:
    """The run's whole life."""

    namespace: str
    run: Object
    runs: Recording
    pods: Recording
    jobs: Recording
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    def step_pods(self, step: str) -> list[tuple[float, Object]]:
        """Versions of the step's pods, with the moment each was seen."""
        return [
            (c.at, c.object)
            for c in self.pods.changes
            if c.object["metadata"]["labels"].get(names.STEP_LABEL) == step and c.type != "DELETED"
        ]

    def states(self) -> list[tuple[float, str]]:
        """Each state as it came up, with its moment."""
        found: list[tuple[float, str]] = []
        for change in self.runs.changes:
            state = runs.state(change.object)
            if not found or found[-1][1] != state:
                found.append((change.at, state))
        return found


class Watched:
    """`kubectl get trainingruns -w`, line by line."""

    def __init__(self, namespace: str) -> None:
        kubectl = measure.FOLDER.parent / "bin" / "kubectl"
        config = measure.FOLDER.parent / "kubeconfig"
        command = [
            str(kubectl),
            "--kubeconfig",
            str(config),
            "-n",
            namespace,
            "get",
            "trainingruns.trainyard.dev",
            "-w",
        ]
        self.rows: list[Row] = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._end = threading.Event()
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.rows.append(Row(time.monotonic(), line.rstrip()))
            if " Succeeded " in line:
                self._end.set()

    def stop(self) -> list[Row]:
        """The rows up to the last one, which kubectl prints a moment after the object was written."""
        self._end.wait(10)
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        return self.rows


@pytest.fixture(scope="module")
def seen(kube: Kube, wide_space: str) -> Iterator[Seen]:
    with (
        Recording(kube, TRAININGRUNS, wide_space) as run_record,
        Recording(kube, PODS, wide_space) as pod_record,
        Recording(kube, JOBS, wide_space) as job_record,
    ):
        watched = Watched(wide_space)
        begun = time.monotonic()
        runs.apply(kube, wide_space, runs.tiny(NAME, training={"maxSteps": STEPS}, checkpoints={"everySteps": 200}))
        run = runs.until_succeeded(kube, wide_space, NAME, seconds=500)
        for change in run_record.follow(seconds=10):
            if runs.finished(change.object):
                break
        yield Seen(
            wide_space, run, run_record, pod_record, job_record, watched.stop(), round(time.monotonic() - begun, 1)
        )


def test_every_step_has_one_job_and_none_is_left_running(kube: Kube, seen: Seen) -> None:
    assert sorted(seen.jobs.created()) == [f"{NAME}-evaluate-1", f"{NAME}-prepare-1", f"{NAME}-train-1"]
    runs.until_jobs_are_complete(kube, seen.namespace, seconds=20)
    assert seen.run["status"]["restarts"] == 0


def test_states_come_in_order_and_agree_with_the_pods(seen: Seen) -> None:
    order = [state for _, state in seen.states()]
    words = [s for s in order if s not in ("", "Pending")]
    assert words == ["Preparing", "Training", "Evaluating", "Succeeded"]
    lags = {}
    for step, state in (("prepare", "Preparing"), ("train", "Training"), ("evaluate", "Evaluating")):
        pods = seen.step_pods(step)
        running = next(at for at, pod in pods if pod["status"].get("phase") == "Running")
        ended = next(at for at, pod in pods if pod["status"].get("phase") == "Succeeded")
        shown = next(at for at, s in seen.states() if s == state)
        left = next(at for at, s in seen.states() if at > shown and s != state)
        lags[step] = (round(shown - running, 2), round(left - ended, 2))
        assert -0.5 < shown - running < LAG_SECONDS, f"{state} was shown {shown - running:.1f} s after the pod ran"
        assert -0.5 < left - ended < LAG_SECONDS, f"{state} was shown {left - ended:.1f} s longer than the pod ran"
    measure.record("state-lag", **lags, whole_run_seconds=seen.seconds)


def test_progress_moves_at_least_every_ten_seconds(seen: Seen) -> None:
    """In what `kubectl get -w` prints, from the first number to the last one."""
    moved: list[float] = []
    numbers: list[int] = []
    for row in seen.rows[1:]:
        found = re.search(r"\s(\d+)/(\d+)\s", row.text)
        if found and (not numbers or int(found[1]) != numbers[-1]):
            assert int(found[2]) == STEPS
            numbers.append(int(found[1]))
            moved.append(row.at)
    assert numbers == sorted(numbers), f"the step went back: {numbers}"
    assert numbers[-1] == STEPS
    gaps = [later - earlier for earlier, later in pairwise(moved)]
    training = moved[-1] - moved[0]
    measure.record(
        "progress-rows", rows=len(moved), seconds=round(training, 1), longest_gap=round(max(gaps), 2), steps=STEPS
    )
    assert max(gaps) <= PROGRESS_SECONDS
    assert training > 2 * PROGRESS_SECONDS, "the run was too short to tell: raise TRAINYARD_QUICK_STEPS"


def test_the_last_row_is_right(seen: Seen) -> None:
    header, last = seen.rows[0].text, seen.rows[-1].text
    columns = ["NAME", "STATE", "METHOD", "MODEL", "PROGRESS", "STEP", "LOSS", "ETA", "RESTARTS", "AGE"]
    assert header.split() == columns
    print("\n" + "\n".join(r.text for r in (seen.rows[0], *seen.rows[-3:])))
    # kubectl -w sets each row for itself, so an empty cell (no ETA at the end) leaves nothing but blanks.
    row = dict(zip((c for c in columns if c != "ETA"), re.split(r"\s{2,}", last.strip()), strict=True))
    assert row["NAME"] == NAME
    assert (row["STATE"], row["PROGRESS"], row["STEP"]) == ("Succeeded", "100%", f"{STEPS}/{STEPS}")
    assert (row["METHOD"], row["MODEL"], row["RESTARTS"]) == ("Pretrain", "llama (scratch)", "0")
    assert re.fullmatch(r"\d+\.\d{4}", row["LOSS"])


def test_conditions_are_never_wrong(seen: Seen) -> None:
    """In each written version, and in the first one already."""
    unseen, *versions = seen.runs.versions(NAME)
    assert unseen["status"] == {"observedGeneration": -1}
    for version in versions:
        ready = runs.condition(version, "Ready")
        assert ready is not None
        assert isinstance(version["status"]["observedGeneration"], int)
        done = runs.finished(version)
        assert (ready["status"] == "True") == runs.has(version, "Complete")
        assert runs.has(version, "Reconciling") != done, f"{runs.state(version)}: Reconciling and finished must differ"
        for kind in ("Stalled", "Failed", "Suspended"):
            assert runs.condition(version, kind) is None
        assert runs.message(version), f"{runs.state(version)} has no message"
    assert runs.finished(versions[-1])


def test_flux_reads_in_progress_until_current(seen: Seen) -> None:
    found = readings(seen.runs.versions(NAME))
    assert found[-1] == "Current"
    assert set(found[:-1]) == {"InProgress"}


def test_the_status_tells_what_was_made(kube: Kube, seen: Seen) -> None:
    status = seen.run["status"]
    assert re.fullmatch(r"(sha256:)?[0-9a-f]{64}", status["dataset"]["digest"])
    splits = status["dataset"]["splits"]
    assert splits["train"] > 0
    assert splits["eval"] > 0
    metrics = runs.evaluated(seen.run)
    assert metrics["loss"] > 0
    assert metrics["perplexity"] > 1
    assert status["effective"]["precision"] == "FP32"
    assert status["effective"]["device"]
    assert status["provenance"]["seed"] == "42"
    assert {"torch", "transformers", "python"} <= status["provenance"].keys()
    assert status["checkpoint"]["step"] == STEPS
    folder = work_folder(kube, seen.run)
    assert status["outputs"]["model"] == f"{folder.name}/model"
    assert status["outputs"]["uri"] == f"pvc://{NAME}-checkpoints/{folder.name}/model"
    for file in ("config.json", "tokenizer.json"):
        assert (folder / "model" / file).is_file()
    assert list((folder / "model").glob("*.safetensors"))


def test_events_tell_the_story_once(kube: Kube, seen: Seen) -> None:
    fields = f"involvedObject.uid={seen.run['metadata']['uid']}"
    told: list[str] = []

    def complete() -> bool:
        events = kube.list(EVENTS, seen.namespace, fields=fields)
        told[:] = [e["reason"] for e in events for _ in range(e.get("count") or 1)]
        return "Succeeded" in told

    for _ in kube.watch(EVENTS, seen.namespace, seconds=20):
        if complete():
            break
    assert told.count("StepStarted") == 3
    assert told.count("StepSucceeded") == 3
    assert told.count("Succeeded") == 1
    assert not [e for e in kube.list(EVENTS, seen.namespace, fields=fields) if e["type"] == "Warning"]


def test_nothing_of_the_run_outlives_it(kube: Kube, seen: Seen) -> None:
    volume = work_folder(kube, seen.run).parent
    kube.delete(TRAININGRUNS, seen.namespace, NAME)
    runs.until_nothing_is_left(kube, seen.namespace, seconds=90)
    kube.wait_gone(VOLUMES, None, volume.name, seconds=60)
    assert not volume.exists()
