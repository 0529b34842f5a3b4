"""Local runs: what the operator would set and mount, from a manifest alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainyard.trainer import local
from trainyard.trainer.errors import UserError

MANIFEST = """
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRun
metadata: {name: here}
spec:
  model:
    scratch: {architecture: llama, tokenizer: {trainVocabSize: 300}}
  datasets:
  - {name: d, storageUri: "URI"}
  training: {method: Pretrain, learningRate: 1e-3}
"""


def write(tmp_path: Path, uri: str, extra: str = "") -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(MANIFEST.replace("URI", uri) + extra)
    return file


def test_the_steps_run_in_order_and_stop_at_the_first_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, dict[str, str]]] = []
    codes = {"prepare": 0, "train": 79}

    def fake(command: list[str], environment: dict[str, str]) -> int:
        seen.append((command[-1], dict(environment)))
        return codes[command[-1]]

    monkeypatch.setattr(local, "_wait", fake)
    (tmp_path / "claim").mkdir()
    code = local.run_local(write(tmp_path, "pvc://data/a.jsonl"), tmp_path / "work", {"data": str(tmp_path / "claim")})
    assert code == 79
    assert [step for step, _ in seen] == ["prepare", "train"]
    environment = seen[0][1]
    manifest = json.loads(Path(environment["TRAINYARD_RUN_FILE"]).read_text())
    assert manifest["spec"]["training"]["learningRate"] == 0.001
    assert Path(environment["TRAINYARD_VOLUMES_DIR"], "data").resolve() == tmp_path / "claim"
    assert environment["TRAINYARD_WORK_DIR"] == str(tmp_path / "work")


def test_the_sample_text_of_the_image_is_this_pythons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_wait", lambda command, environment: 0)
    local.run_local(write(tmp_path, "file:///opt/trainyard/samples/python-stdlib/*.py"), tmp_path / "work", {})
    manifest = json.loads((tmp_path / "work" / "run.json").read_text())
    uri = manifest["spec"]["datasets"][0]["storageUri"]
    assert Path(uri.removeprefix("file://")).parent.joinpath("argparse.py").exists()


def test_a_claim_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lies on claim data, which has no folder here") as caught:
        local.run_local(write(tmp_path, "pvc://data/a.jsonl"), tmp_path / "work", {})
    assert caught.value.hint == "add --volume data=FOLDER"
    with pytest.raises(UserError, match="is not a folder"):
        local.run_local(write(tmp_path, "pvc://data/a.jsonl"), tmp_path / "work", {"data": str(tmp_path / "none")})


def test_a_script_of_ones_own_needs_a_cluster(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "apiVersion: trainyard.dev/v1alpha1\nkind: TrainingRun\nmetadata: {name: s}\n"
        "spec: {image: my/image, command: [python, train.py]}\n"
    )
    with pytest.raises(UserError, match="only a cluster can start"):
        local.run_local(file, tmp_path / "work", {})
