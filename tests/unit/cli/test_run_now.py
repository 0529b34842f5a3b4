"""`trainyard run-now`: the request's form, what is checked before it is made, and what kubectl is asked to do."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.calling import call
from trainyard.api.schedule.trainingschedule import OVERRIDES_ANNOTATION, RUN_NOW_ANNOTATION, VARIANTS_ANNOTATION
from trainyard.cli.exits import Refused
from trainyard.cli.run_now import patch_of

SCHEDULE: dict[str, Any] = {
    "apiVersion": "trainyard.dev/v1alpha1",
    "kind": "TrainingSchedule",
    "metadata": {"name": "agents", "namespace": "lab", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {
        "schedule": "0 0 * * *",
        "variants": [{"name": "sre"}, {"name": "billing"}],
        "template": {
            "spec": {
                "model": {"scratch": {"architecture": "llama", "config": {}, "tokenizer": {"trainVocabSize": 500}}},
                "datasets": [{"name": "text", "inline": {"text": "hello"}}],
                "training": {"method": "Pretrain", "maxSteps": 10},
            }
        },
    },
}


class Kubectl:
    """A kubectl that answers `get` with the schedule, takes every patch, and writes down how it was called.

    With `answers`, the operator is there: the schedule carries the last request's value in its status.
    """

    def __init__(self, folder: Path, *, answers: bool = True) -> None:
        self._folder = folder
        (folder / "schedule.json").write_text(json.dumps(SCHEDULE))
        program = folder / "kubectl"
        program.write_text(
            "#!/bin/sh\n"
            f'for word in "$@"; do printf "%s\\0" "$word"; done >> {shlex.quote(str(folder / "calls"))}\n'
            f"printf '\\n' >> {shlex.quote(str(folder / 'calls'))}\n"
            f'case "$*" in *" patch "*) {self._take(answers)};; *" get "*) cat {folder}/schedule.json;; esac\n'
        )
        program.chmod(0o755)

    def _take(self, answers: bool) -> str:
        if not answers:
            return ":"
        done = self._folder / "done.py"
        done.write_text(
            "import json, sys\n"
            f"path = {str(self._folder / 'schedule.json')!r}\n"
            "schedule = json.load(open(path))\n"
            f"value = json.loads(sys.argv[-1])['metadata']['annotations'][{RUN_NOW_ANNOTATION!r}]\n"
            "schedule['status'] = {'lastRunNow': value, 'lastMoment': '2026-03-01T00:00:00Z', 'message': 'm'}\n"
            "json.dump(schedule, open(path, 'w'))\n"
        )
        return f'python3 {shlex.quote(str(done))} "$@"'

    def calls(self) -> list[list[str]]:
        path = self._folder / "calls"
        return [line.split("\0")[:-1] for line in path.read_text().splitlines()] if path.exists() else []

    def patched(self) -> dict[str, str | None]:
        (patch,) = [call for call in self.calls() if "patch" in call]
        annotations: dict[str, str | None] = json.loads(patch[-1])["metadata"]["annotations"]
        return annotations


def run_now(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    result = call("run-now", "agents", "-n", "lab", *words)
    return result.exit_code, result.output


def test_a_request_is_one_patch_and_names_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = Kubectl(tmp_path)
    code, output = run_now(tmp_path, monkeypatch)
    assert code == 0, output
    assert (
        output
        == "made agents-sre-1772323200; agents-billing-1772323200 will follow, each at the end of the one before\n"
    )
    annotations = kubectl.patched()
    assert annotations[OVERRIDES_ANNOTATION] is None  # what an earlier request left behind goes
    assert annotations[VARIANTS_ANNOTATION] is None
    assert not (annotations[RUN_NOW_ANNOTATION] or "force").startswith("force")


def test_everything_that_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = Kubectl(tmp_path)
    words = ["--set", "training.maxSteps=3", "--set", "training.learningRate=1e-4", "--variant", "billing", "--force"]
    code, output = run_now(tmp_path, monkeypatch, *words)
    assert (code, output) == (0, "made agents-billing-1772323200\n")
    annotations = kubectl.patched()
    assert json.loads(annotations[OVERRIDES_ANNOTATION] or "") == {"training": {"maxSteps": 3, "learningRate": 1e-4}}
    assert annotations[VARIANTS_ANNOTATION] == "billing"
    assert str(annotations[RUN_NOW_ANNOTATION]).startswith("force-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "training.maxStep=3"], "did you mean maxSteps"),
        (["--set", "training.maxSteps=many"], "maxSteps"),
        (["--set", "training"], "FIELD=VALUE"),
        (["--set", "training=3", "--set", "training.maxSteps=3"], "goes into training"),
        (["--set", "args=[1"], "not YAML"),
        (["--variant", "sales"], "the schedule has sre, billing"),
    ],
)
def test_a_wrong_request_is_never_made(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = Kubectl(tmp_path)
    code, output = run_now(tmp_path, monkeypatch, *words)
    assert code == 1
    assert said in output
    assert not any("patch" in call for call in kubectl.calls())


def test_an_operator_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Kubectl(tmp_path, answers=False)
    code, output = run_now(tmp_path, monkeypatch)
    assert code == 1
    assert "is it running?" in output


def test_keys_with_dots_and_values_that_remove() -> None:
    assert patch_of([r"resources.limits.nvidia\.com/gpu=1", "model.adapter=null", "args=[a, b]"]) == {
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "model": {"adapter": None},
        "args": ["a", "b"],
    }
    with pytest.raises(Refused):
        patch_of(["=1"])
