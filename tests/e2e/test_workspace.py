"""Files from a git repository in real pods: callbacks of the built-in trainer, beside an init container, and a script."""

import json
from pathlib import Path

import pytest

from tests.e2e import runs
from tests.e2e.kube import Kube
from tests.e2e.scripted import IMAGE
from tests.e2e.web import ADDRESS, PASSWORD, USER
from tests.servers.git_server import commit, serving
from trainyard.controller.kube.resources import SECRETS

pytestmark = pytest.mark.timeout(400)

WATCH = """
import os
from pathlib import Path

from transformers import TrainerCallback


class StopAtFive(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            print("told:", Path(os.environ["TRAINYARD_CHECKPOINT_DIR"]).parents[1].joinpath("told.txt").read_text())
            control.should_training_stop = True


class Fails(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        raise ValueError("not today")
"""
SCRIPT = """
import lab.watch_not_needed as own
print("hello from", own.NAME, flush=True)
"""
INIT = {
    "name": "tell",
    "image": IMAGE,
    "command": ["sh", "-c", "echo from the init container as $(id -u) > /volume/told.txt"],
    "volumeMounts": [{"name": "trainyard-checkpoints", "mountPath": "/volume"}],
}


def test_callbacks_an_init_container_and_a_script(kube: Kube, space: str, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"lab/watch.py": WATCH, "lab/watch_not_needed.py": "NAME = 'the workspace'\n"}
    made = commit(tmp_path / "lab", files | {"train.py": SCRIPT})
    kube.create(SECRETS, space, {"metadata": {"name": "login"}, "stringData": {"username": USER, "password": PASSWORD}})
    with serving(tmp_path, login=f"{USER}:{PASSWORD}", host=ADDRESS) as server:
        workspace = {"git": {"url": f"{server.url}/lab", "secretRef": {"name": "login"}}}
        storage = {"checkpoints": {"size": "1Gi"}, "workspace": workspace}
        script = {"image": IMAGE, "command": ["python3", "train.py"], "storage": storage, "resources": runs.SMALL}
        called = {"callbacks": ["lab.watch:StopAtFive"]}
        pod = {"initContainers": [INIT], "terminationGracePeriodSeconds": 30}
        runs.apply(kube, space, runs.tiny("called", training=called, storage=storage, podTemplate=pod))
        runs.apply(kube, space, {"metadata": {"name": "scripted"}, "spec": script})
        failing = {"callbacks": ["lab.watch:StopAtFive", "lab.watch:Fails"]}
        runs.apply(kube, space, runs.tiny("failing", training=failing, storage=storage))
        run = runs.until_succeeded(kube, space, "called", seconds=240)
        other = runs.until_succeeded(kube, space, "scripted", seconds=120)
        failed = runs.until_finished(kube, space, "failing", seconds=120)
    assert runs.step_number(run) == 5
    (trained,) = runs.pods(kube, space, "called", step="train")
    assert "told: from the init container as 1000" in kube.log(space, trained["metadata"]["name"])
    security = [c["securityContext"] for c in trained["spec"]["initContainers"] + trained["spec"]["containers"]]
    assert security[0] == security[1]
    assert PASSWORD not in json.dumps([run, trained])
    assert "login" not in json.dumps(trained["spec"]["volumes"]), "the login is the prepare step's alone"
    for one in (run, other):
        assert one["status"]["provenance"]["workspace"] == f"{server.url}/lab@{made}"
    (scripted,) = runs.pods(kube, space, "scripted", step="train")
    assert "hello from the workspace" in kube.log(space, scripted["metadata"]["name"])
    assert failed["status"]["failure"]["reason"] == "InvalidConfig"
    assert "spec.training.callbacks lab.watch:Fails: failed in on_train_begin: ValueError: not today" in runs.message(
        failed
    )
