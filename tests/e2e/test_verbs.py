"""One run, steered by the verbs alone, on real pods: what people type and what they get for it."""

import base64
import re
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.e2e import runs
from tests.e2e.command_line import CommandLine
from tests.e2e.kube import Kube, Object
from tests.e2e.volumes import work_folder
from trainyard.api import API_VERSION
from trainyard.api.names import CHECKPOINTS_MOUNT, config_secret_name
from trainyard.cli.inspection import INSPECTS_LABEL
from trainyard.cli.printing import readable_size
from trainyard.controller.kube.resources import PODS, SECRETS, TRAININGRUNS

STEPS, SAVE = 1500, 50

pytestmark = pytest.mark.timeout(900)


def manifest(folder: Path) -> str:
    run = runs.tiny("steered", training={"maxSteps": STEPS}, checkpoints={"everySteps": SAVE, "keepLast": 4})
    whole = {"apiVersion": API_VERSION, "kind": "TrainingRun", **run}
    (folder / "run.yaml").write_text(yaml.safe_dump(whole))
    return "run.yaml"


def test_a_run_is_started_watched_stopped_resumed_looked_into_and_fetched(
    kube: Kube, space: str, tmp_path: Path
) -> None:
    trainyard = CommandLine(tmp_path, space)

    created = trainyard("run", "-f", manifest(tmp_path))
    assert f"created steered in namespace {space}: prepare -> train -> evaluate" in created
    assert f"trainyard logs -f steered -n {space}" in created
    followed = trainyard.start("logs", "-f", "steered")

    # While it trains: its own pod.
    runs.until(kube, space, "steered", lambda r: runs.step_number(r) >= 2 * SAVE, seconds=300, what="two checkpoints")
    assert "Training" in trainyard("status", "steered")
    assert "the model is being trained" in trainyard("explain", "steered")
    there = trainyard("shell", "steered", "--", "ls", f"{CHECKPOINTS_MOUNT}/{folder(kube, space)}").split()
    assert {"checkpoints", "data"} <= set(there)
    listed = trainyard("checkpoints", "steered", "-o", "name").split()
    assert listed, "those that are committed"
    assert all(path.startswith(f"{folder(kube, space)}/checkpoints/step-") for path in listed)
    assert "has no nvidia-smi; the device that steered trains on:" in trainyard("gpu", "steered", code=1)
    assert not inspecting(kube, space), "the pod that works is there for it"

    # Stopped: a short-lived pod with the volume.
    stopped = trainyard("stop", "steered", "--wait", "3m")
    assert "steered Suspended" in stopped
    assert f"trainyard resume steered -n {space}" in stopped
    assert f"let it go on: trainyard resume steered -n {space}" in words(trainyard("explain", "steered"))
    at = int(re.findall(r"step-0*(\d+)", trainyard("checkpoints", "steered"))[-1])
    assert SAVE <= at < STEPS
    printed = trainyard(
        "shell",
        "steered",
        "--",
        "sh",
        "-c",
        f"cat {CHECKPOINTS_MOUNT}/{folder(kube, space)}/checkpoints/*/manifest.json",
    )
    assert '"files"' in printed
    assert "Read-only" in trainyard("shell", "steered", "--", "touch", f"{CHECKPOINTS_MOUNT}/x", code=1)
    assert not inspecting(kube, space), "none of them stays"

    assert f"steered goes on from step {at}" in trainyard("resume", "steered")
    assert "steered Succeeded" in trainyard("wait", "steered", "--timeout", "8m", seconds=500)
    log, _ = followed.communicate(timeout=60)
    assert followed.returncode == 0, log
    headings = re.findall(r"^==> (\w+), attempt (\d+)", log, re.MULTILINE)
    assert headings == [("prepare", "1"), ("train", "1"), ("train", "2"), ("evaluate", "1")]
    assert f"step {STEPS}/{STEPS}" in log

    # The result, broken off and gone on with.
    assert "sha256 checked" in trainyard("download", "steered", "model")
    here = tmp_path / "steered" / "model"
    there = work_folder(kube, run(kube, space, "steered")) / "model"
    whole = (here / "model.safetensors").read_bytes()
    assert whole == (there / "model.safetensors").read_bytes()
    half = len(whole) // 2
    (here / "model.safetensors.part").write_bytes(whole[:half])
    (here / "model.safetensors").unlink()
    again = trainyard("download", "steered", "model")
    assert (here / "model.safetensors").read_bytes() == whole
    copied = re.search(r", ([\d.]+ k?B) of them copied now", again)
    assert copied, again
    assert copied[1] == readable_size(len(whole) - half), "what was here already is not copied again"

    # From one of its checkpoints, by the path that people write.
    kept = trainyard("checkpoints", "steered", "-o", "name").split()
    step = int(kept[0].rpartition("step-")[2])
    forked = trainyard("resume", "steered", "--from", f"/checkpoints/step-{step}")
    assert f"created steered-2, which starts from {folder(kube, space)}/checkpoints/step-{step:08d}" in forked
    assert "steered-2 Succeeded" in trainyard("wait", "steered-2", "--timeout", "8m", seconds=500)
    assert runs.attempts(run(kube, space, "steered-2"))[0]["firstStep"] == step


def test_a_report_holds_no_secret_and_the_doctor_finds_the_installation_well(
    kube: Kube, space: str, tmp_path: Path
) -> None:
    trainyard = CommandLine(tmp_path, space)
    env = [{"name": "API_KEY", "value": "sk-very-secret-value"}]
    kube.create(TRAININGRUNS, space, runs.tiny("reported", training={"maxSteps": 20}, podTemplate={"env": env}))
    runs.until_succeeded(kube, space, "reported", seconds=300)
    trainyard("report", "reported", "--file", "report.tar.gz")
    secret = kube.get(SECRETS, space, config_secret_name("reported"))
    assert secret is not None
    hidden = [base64.b64decode(value).decode() for name, value in secret["data"].items() if "token" in name]
    with tarfile.open(tmp_path / "report.tar.gz") as bundle:
        texts = {member.name: (bundle.extractfile(member) or bundle).read().decode() for member in bundle.getmembers()}
    assert len(hidden) == 2
    for name, text in texts.items():
        for word in (*hidden, "sk-very-secret-value"):
            assert word not in text, name
    assert any("step 20/20" in text for text in texts.values()), "its log is there"
    assert any("reported" in text and "kind: TrainingRun" in text for text in texts.values())

    said = trainyard("doctor")
    assert "trainyard-system/trainyard" in said
    assert not [line for line in said.splitlines() if line.startswith("FAIL")], said


def run(kube: Kube, namespace: str, name: str) -> Object:
    found = kube.get(TRAININGRUNS, namespace, name)
    assert found is not None
    return found


def folder(kube: Kube, namespace: str) -> str:
    return f"steered-{run(kube, namespace, 'steered')['metadata']['uid'][:8]}"


def inspecting(kube: Kube, namespace: str) -> list[str]:
    """Pods that were made to look at a volume, and are not on their way out."""
    found = kube.list(PODS, namespace, labels=INSPECTS_LABEL)
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def words(text: str) -> str:
    """Without its line ends."""
    return " ".join(text.split())
