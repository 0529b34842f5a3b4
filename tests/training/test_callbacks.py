"""Callbacks of the user's own: they see and steer the training, also over kills, and are named when something is wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.runs import Run, tiny_spec
from trainyard.api.conditions import Reason
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError
from trainyard.trainer.methods.callbacks import own_callbacks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODULE = '''
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class Count(TrainerCallback, ExportableState):
    """Counts steps over all attempts, and ends the training at the twelfth that it has counted."""

    def __init__(self):
        self.steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1
        print(f"counted {self.steps}", flush=True)
        control.should_training_stop = self.steps == 12

    def state(self):
        return {"args": {}, "attributes": {"steps": self.steps}}


class Fails(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyError("no such key")


class Asks(TrainerCallback):
    def __init__(self, threshold):
        pass


NUMBER = 5
'''


def with_callbacks(run: Run, *names: str) -> Run:
    """The run's workspace, as the prepare step leaves it."""
    run.spec = tiny_spec()
    run.spec["training"]["callbacks"] = list(names)
    run.spec["storage"] = {"workspace": {"git": {"url": "https://git.example.org/lab"}}}
    lab = run.work / "workspace" / "lab"
    lab.mkdir(parents=True)
    (lab / "own.py").write_text(MODULE)
    (run.work / "workspace" / ".git").mkdir()
    (run.work / "workspace" / ".git" / "trainyard-commit").write_text("0" * 40)
    run.run("prepare")
    return run


def test_one_that_ends_the_training_ends_it_at_the_same_step_after_kills(
    new_run: Callable[..., Run], tmp_path: Path
) -> None:
    whole = with_callbacks(new_run(), "lab.own:Count")
    run = whole.fork(tmp_path / "killed")
    shutil.copytree(whole.work / "workspace", run.work / "workspace")
    step = whole.run("train")
    assert "counted 12" in step.lines, "\n".join(step.lines)
    assert "counted 13" not in step.lines
    assert whole.checkpoints[-1] == "step-00000012"
    for line in ("counted 8", "counted 11"):
        again = run.start("train")
        again.wait_for_line(lambda said, line=line: line in said)  # type: ignore[misc]
        again.kill()
        again.wait()
    assert "counted 13" not in run.run("train").lines
    assert run.model_digest == whole.model_digest
    counters = json.loads((run.work / "checkpoints/step-00000012/trainyard.json").read_text())
    assert (counters["callbacks"], counters["ended"]) == ({"lab.own:Count": {"steps": 12}}, True)
    # Killed between the last checkpoint and the result: it is over all the same.
    (run.work / "model").rename(run.work / "taken-away")
    assert "counted 13" not in run.run("train").lines


def test_what_one_raises_ends_the_run_under_its_name(new_run: Callable[..., Run]) -> None:
    run = with_callbacks(new_run(), "lab.own:Count", "lab.own:Fails")
    step = run.start("train")
    assert step.wait() == ExitCode.INVALID_CONFIG
    said = "\n".join(step.lines)
    assert "spec.training.callbacks lab.own:Fails: failed in on_step_begin: KeyError: 'no such key'" in said
    assert "in on_step_begin" in said, "the traceback is in the log"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere.own:Count", "there is no module nowhere in the workspace or the image"),
        ("lab_faults.none:Count", "there is no module lab_faults.none in the workspace or the image"),
        ("lab_faults.needs:Count", "module lab_faults.needs needs polarsberg, which is neither in the workspace nor in the image"),
        ("lab_faults.broken:Count", "module lab_faults.broken cannot be imported: SyntaxError"),
        ("lab_faults.leaves:Count", "module lab_faults.leaves cannot be imported: SystemExit: 3"),
        ("lab_faults.own:Coun", "module lab_faults.own has no Coun; did you mean Count?"),
        ("lab_faults.own:Missing", "module lab_faults.own has no Missing; its callbacks are TrainerCallback, Count, Fails, Asks"),
        ("lab_faults.own:NUMBER", "NUMBER is no class of transformers' TrainerCallback"),
        ("lab_faults.own:Asks", "cannot be made without arguments: TypeError"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_told_by_name(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in [module for module in sys.modules if module.startswith("lab_faults")]:
        monkeypatch.delitem(sys.modules, known)
    lab = tmp_path / "workspace" / "lab_faults"
    lab.mkdir(parents=True)
    (lab / "own.py").write_text(MODULE)
    (lab / "needs.py").write_text("import polarsberg")
    (lab / "broken.py").write_text("class Count(:")
    (lab / "leaves.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path / "workspace"))
    with pytest.raises(UserError) as caught:
        own_callbacks(context(tmp_path, name))
    assert caught.value.message.startswith(f"spec.training.callbacks {name}: {told}")
    assert caught.value.reason is Reason.INVALID_CONFIG


def context(run_dir: Path, *names: str) -> Any:
    training, spec = SimpleNamespace(callbacks=names), SimpleNamespace(storage=SimpleNamespace(workspace=None))
    return SimpleNamespace(training=training, run=SimpleNamespace(spec=spec), run_dir=run_dir)
