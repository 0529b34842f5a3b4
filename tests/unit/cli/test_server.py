"""`trainyard validate --server`: kubectl's answers, and the objects that a run names."""

import stat
from pathlib import Path

import pytest

from tests.unit.cli.calling import call

MANIFEST = """\
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRun
metadata: {name: a, namespace: team}
spec:
  model: {storageUri: "pvc://models/base", secretRef: {name: hub}}
  datasets:
  - {name: d, storageUri: s3://bucket/key, secretRef: {name: store}}
  - {name: e, storageUri: "pvc://data/x.jsonl"}
  - {name: f, code: {storageUri: "pvc://repos/app"}}
  training: {method: SFT}
  pushToHub: {repo: org/name, secretRef: {name: writer}}
  storage:
    checkpoints: {claimName: kept}
    cache: {claimName: cache, size: 1Gi}
"""


def fake_kubectl(folder: Path, script: str) -> None:
    """A kubectl that writes down how it was called and then runs the script."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def validate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    result = call("validate", "-f", "-", "--server", stdin=MANIFEST)
    return result.exit_code, result.output


def test_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kubectl(tmp_path, "exit 0")
    code, output = validate(tmp_path, monkeypatch)
    assert code == 0, output
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "--namespace team apply --dry-run=server --validate=strict -f -" in calls[0]
    assert all("--namespace team" in call for call in calls)


def test_a_missing_secret_is_a_fault_of_its_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kubectl(tmp_path, 'case "$*" in *"secret store"*) echo "Error from server (NotFound): x" >&2; exit 1;; esac')
    code, output = validate(tmp_path, monkeypatch)
    assert code == 1
    assert "spec.datasets[d].secretRef.name: there is no secret 'store' in the namespace" in output


def test_the_api_servers_refusal_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kubectl(
        tmp_path, 'case "$*" in *apply*) echo "Error from server (Forbidden): quota exceeded" >&2; exit 1;; esac'
    )
    code, output = validate(tmp_path, monkeypatch)
    assert code == 1
    assert "API server: (Forbidden): quota exceeded" in output


def test_no_cluster_is_no_fault_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kubectl(tmp_path, 'echo "The connection to the server 127.0.0.1:1 was refused" >&2; exit 1')
    code, output = validate(tmp_path, monkeypatch)
    assert code == 5
    assert "cannot reach an API server" in output


def test_no_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = call("validate", "-f", "-", "--server", stdin=MANIFEST)
    assert result.exit_code == 2
    assert "needs kubectl on the PATH" in result.output
