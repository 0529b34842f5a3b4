"""shell, checkpoints, download and gpu: real commands on a real folder, by a kubectl that runs them here."""

import os
from pathlib import Path

import pytest

from tests.unit.cli import runs
from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import NAMESPACE, FakeCluster, fake_kubectl

FOLDER = "runbook-01234567"


@pytest.fixture
def volume(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The volume of `runbook`, which works."""
    root = tmp_path / "volume"
    for step in (100, 200):
        folder = root / FOLDER / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        os.utime(folder / "manifest.json", (1772366400, 1772366400 + step))
    (root / FOLDER / "checkpoints" / ".tmp-step-00000300").mkdir()
    model = root / FOLDER / "model"
    (model / "sub dir").mkdir(parents=True)
    (model / "weights").write_bytes(os.urandom(300_000))
    (model / "sub dir" / "config.json").write_text("{}")
    (model / "empty").write_text("")
    runs.training(cluster)
    fake_kubectl(tmp_path, root)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return root


def same(here: Path, there: Path) -> bool:
    files = {str(p.relative_to(there)): p.read_bytes() for p in there.rglob("*") if p.is_file()}
    return files == {str(p.relative_to(here)): p.read_bytes() for p in here.rglob("*") if p.is_file()}


def test_checkpoints_are_those_that_are_committed(volume: Path) -> None:
    result = call("checkpoints", "runbook")
    assert result.exit_code == 0, result.output
    heading, first, second, *following = result.stdout.splitlines()
    assert heading.split() == ["STEP", "SIZE", "SAVED", "PATH"]
    assert first.split()[0] == "100"
    assert second.split()[-1] == f"{FOLDER}/checkpoints/step-00000200"
    assert following[0] == "Next: trainyard resume runbook --from step-200"
    assert call("checkpoints", "runbook", "-o", "name").stdout.splitlines()[0] == f"{FOLDER}/checkpoints/step-00000100"


def test_the_pod_that_works_is_used_and_left_alone(volume: Path, cluster: FakeCluster, tmp_path: Path) -> None:
    call("checkpoints", "runbook")
    assert "exec --namespace lab runbook-train-2-x -c trainer" in (tmp_path / "calls").read_text()
    assert not cluster.bodies("DELETE")
    assert not cluster.bodies("POST")


def test_without_a_pod_a_short_lived_one_is_made_and_deleted(volume: Path, cluster: FakeCluster) -> None:
    cluster.objects.pop(f"/api/v1/namespaces/{NAMESPACE}/pods/runbook-train-2-x")
    claim = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/runbook-checkpoints"
    assert "has no volume to look at" in call("checkpoints", "runbook").stderr
    cluster.put(claim, {"metadata": {"name": "runbook-checkpoints"}})
    assert "give --image" in call("checkpoints", "runbook").stderr
    assert call("checkpoints", "runbook", "--image", "busybox").exit_code == 0
    (pod,) = cluster.bodies("POST")
    assert pod["metadata"]["ownerReferences"][0]["uid"] == cluster.read()["metadata"]["uid"]
    container = pod["spec"]["containers"][0]
    assert container["image"] == "busybox"
    assert container["volumeMounts"][0] == {
        "name": "checkpoints",
        "mountPath": "/trainyard/checkpoints",
        "readOnly": True,
    }
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["activeDeadlineSeconds"] > 0
    assert "trainyard.dev/run" not in pod["metadata"]["labels"]
    assert not any("/pods/runbook-inspect" in path for path in cluster.objects)


def test_the_short_lived_pod_goes_also_when_the_command_fails(volume: Path, cluster: FakeCluster) -> None:
    cluster.put(
        f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/runbook-checkpoints", {"metadata": {"name": "c"}}
    )
    words = ["--new-pod", "--image", "busybox"]
    assert call("shell", "runbook", *words, "--", "sh", "-c", "exit 7").exit_code == 7
    assert not any("/pods/runbook-inspect" in path for path in cluster.objects)


def test_download_brings_a_folder_whole(volume: Path, tmp_path: Path) -> None:
    result = call("download", "runbook")
    assert result.exit_code == 0, result.output
    assert same(tmp_path / "runbook/model", volume / FOLDER / "model")
    assert result.stdout.startswith("runbook/model: 3 files, 300 kB, 300 kB of them copied now; sha256 checked\n")
    assert "0 B of them copied now" in call("download", "runbook").stdout


def test_download_goes_on_where_it_broke_off(volume: Path, tmp_path: Path) -> None:
    weights = (volume / FOLDER / "model/weights").read_bytes()
    part = tmp_path / "runbook/model/weights.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(weights[:200_000])
    result = call("download", "runbook")
    assert "100 kB of them copied now" in result.stdout
    assert same(tmp_path / "runbook/model", volume / FOLDER / "model")


def test_another_word_for_the_folder(volume: Path, tmp_path: Path) -> None:
    assert call("download", "runbook", "--output-dir", "artifacts/models/v1").exit_code == 0
    assert same(tmp_path / "artifacts/models/v1", volume / FOLDER / "model")


def test_a_stream_that_ends_early_is_asked_for_the_rest(volume: Path, tmp_path: Path) -> None:
    fake_kubectl(tmp_path, volume, pieces=70_000)
    result = call("download", "runbook", "model", "-d", "here")
    assert result.exit_code == 0, result.output
    assert same(tmp_path / "here", volume / FOLDER / "model")


def test_what_is_damaged_here_is_copied_again(volume: Path, tmp_path: Path) -> None:
    call("download", "runbook")
    weights = tmp_path / "runbook/model/weights"
    weights.write_bytes(b"x" * 300_000)
    assert "300 kB of them copied now" in call("download", "runbook").stdout
    assert same(tmp_path / "runbook/model", volume / FOLDER / "model")


def test_a_checkpoint_is_named_as_everywhere(volume: Path, tmp_path: Path) -> None:
    for number, path in enumerate(("step-100", "/checkpoints/step-100", f"{FOLDER}/checkpoints/step-00000100")):
        assert call("download", "runbook", path, "-d", f"d{number}").exit_code == 0
        assert (tmp_path / f"d{number}/manifest.json").read_text() == "{}"


@pytest.mark.parametrize(("path", "said"), [("exports/none", "there is no folder"), ("../x", "leaves the volume")])
def test_a_folder_that_is_not_there_is_wrong_use(path: str, said: str, volume: Path) -> None:
    result = call("download", "runbook", path)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_command_in_the_pod_ends_with_its_code(volume: Path) -> None:
    assert call("shell", "runbook", "--", "sh", "-c", "exit 3").exit_code == 3


def test_gpu_says_when_there_is_no_nvidia_smi(volume: Path) -> None:
    result = call("gpu", "runbook")
    assert result.exit_code == 1
    assert "has no nvidia-smi; the device that runbook trains on: cuda" in result.stderr


def test_gpu_shows_what_nvidia_smi_says(volume: Path, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "RTX 3090 $@"\n')
    program.chmod(0o755)
    assert call("gpu", "runbook", "--", "-q").stdout == "RTX 3090 -q\n"
    assert "RTX 3090" in call("status", "runbook", "--gpu").stdout


def test_without_a_run_the_nodes_with_gpus_are_shown(volume: Path, cluster: FakeCluster) -> None:
    result = call("gpu")
    assert (result.exit_code, "no node of this cluster offers a GPU" in result.stderr) == (3, True)
    taints = [{"key": "dedicated", "value": "arcanine", "effect": "NoSchedule"}]
    node = {
        "metadata": {"name": "arcanine"},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "8", "nvidia.com/gpu": "2", "hugepages-2Mi": "0"}},
    }
    cluster.put("/api/v1/nodes/arcanine", node)
    assert call("gpu").stdout.splitlines()[1].split() == [
        "arcanine",
        "nvidia.com/gpu",
        "1",
        "2",
        "dedicated=arcanine:NoSchedule",
    ]


def test_without_kubectl_it_is_said(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = call("download", "runbook")
    assert result.exit_code == 2
    assert "needs kubectl on the PATH" in result.stderr
