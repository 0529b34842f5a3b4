"""doctor, report and completion: what they look at, what they leave out, what a shell is told."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.unit.cli import runs
from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import FakeCluster
from trainyard.api.crd import training_run_crd, training_schedule_crd, training_sweep_crd
from trainyard.cli.catalogue import OTHER_NAMES, VERBS

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def installed(cluster: FakeCluster) -> FakeCluster:
    """Trainyard as the chart installs it, in a cluster with a GPU."""
    for definition in (training_run_crd(), training_schedule_crd(), training_sweep_crd()):
        cluster.put(f"{CRDS}/{definition['metadata']['name']}", definition)
    labels = {"app.kubernetes.io/name": "trainyard"}
    container = {"name": "operator", "image": "trainyard:0.1.0", "env": [{"name": "TRAINYARD_NAMESPACES", "value": ""}]}
    cluster.put(
        "/apis/apps/v1/namespaces/trainyard-system/deployments/trainyard",
        {
            "metadata": {"name": "trainyard", "namespace": "trainyard-system", "labels": labels},
            "spec": {"template": {"spec": {"containers": [container]}}},
            "status": {"readyReplicas": 1},
        },
    )
    root = "/apis/admissionregistration.k8s.io/v1"
    cluster.put(
        f"{root}/validatingadmissionpolicies/trainyard-secrets",
        {"metadata": {"name": "trainyard-secrets", "labels": labels}},
    )
    cluster.put(
        f"{root}/validatingadmissionpolicybindings/b",
        {"metadata": {"name": "b"}, "spec": {"policyName": "trainyard-secrets"}},
    )
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    cluster.put("/apis/storage.k8s.io/v1/storageclasses/local", {"metadata": {"name": "local", "annotations": default}})
    node = {"metadata": {"name": "arcanine"}, "spec": {}, "status": {"allocatable": {"nvidia.com/gpu": "1"}}}
    cluster.put("/api/v1/nodes/arcanine", node)
    cluster.unknown.add("kueue.x-k8s.io")
    runs.training(cluster)
    return cluster


def findings(*words: str) -> tuple[int, dict[str, tuple[str, str]]]:
    result = call("doctor", "-o", "json", *words)
    return result.exit_code, {f["check"]: (f["grade"], f["message"]) for f in json.loads(result.stdout)}


def test_a_sound_installation_has_no_fault(installed: FakeCluster) -> None:
    code, found = findings()
    assert code == 0
    assert {about for about, (grade, _) in found.items() if grade == "ok"} == {
        "API server",
        "CRD",
        "operator",
        "admission policies",
        "storage",
        "GPU nodes",
        "queue",
        "runs",
    }
    grade, message = found["your rights"]
    assert grade == "note"
    assert "create pods/exec (for shell, download, checkpoints, gpu)" in message


def test_what_is_wrong_is_told_with_what_to_do(installed: FakeCluster) -> None:
    deployment = installed.objects["/apis/apps/v1/namespaces/trainyard-system/deployments/trainyard"]
    deployment["status"] = {}
    deployment["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "team-a"
    schema = installed.objects[f"{CRDS}/trainingruns.trainyard.dev"]
    schema["metadata"]["annotations"] = {}
    del schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["phases"]
    del installed.objects[f"{CRDS}/trainingschedules.trainyard.dev"]
    installed.run("alone")
    installed.read("alone").pop("status")
    result = call("doctor")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())
    for part in (
        "FAULT CRD: trainingruns.trainyard.dev is older than this program and lacks spec.phases -> install the CRDs",
        "FAULT CRD: trainingschedules.trainyard.dev is not installed",
        "FAULT operator: trainyard-system/trainyard is not ready",
        "serves team-a and not lab -> add lab to the chart's watchNamespaces",
        "FAULT runs: 1 without a status, such as alone",
    ):
        assert part in said
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_what_one_may_not_read_is_a_note(installed: FakeCluster) -> None:
    for part in ("GET /api/v1/nodes", "GET /apis/apps", "customresourcedefinitions"):
        installed.refused[part] = (403, "forbidden for you")
    code, found = findings()
    assert code == 0
    assert found["CRDs"] == ("note", "you may not look: forbidden for you")


def test_a_cluster_that_is_away_is_no_finding(cluster: FakeCluster) -> None:
    cluster.kubeconfig.write_text(cluster.kubeconfig.read_text().replace(cluster.url, "http://127.0.0.1:1"))
    assert call("doctor").exit_code == 5


def bundle(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            found[member.name.partition("/")[2]] = content.read().decode()
        return found


def test_a_report_has_all_of_a_run_and_no_secret(installed: FakeCluster, tmp_path: Path) -> None:
    token = "hf_" + "aB3" * 12
    env = [{"name": "PASSWORD", "value": "correct-horse-battery"}, {"name": "TRAINYARD_STEP", "value": "train"}]
    run = installed.read()
    run["spec"] |= {
        "podTemplate": {"env": env},
        "datasets": [{"name": "d", "inline": {"text": "private words"}}],
        "model": {"storageUri": "https://models/x?X-Amz-Signature=abcdef0123456789"},
    }
    run["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    run["metadata"]["managedFields"] = [{}]
    installed.logs["runbook-train-2-x"] = f"2026-03-01T12:00:00Z downloading with {token}\n"
    target = tmp_path / "out.tar.gz"
    result = call("report", "runbook", "--file", str(target))
    assert result.exit_code == 0, result.output
    found = bundle(target)
    assert {
        "version.txt",
        "server.yaml",
        "doctor.txt",
        "nodes.yaml",
        "operator/deployments.yaml",
        "runs/runbook/run.yaml",
        "runs/runbook/pods.yaml",
        "runs/runbook/runbook-train-2-x.log",
    } <= set(found)
    whole = "\n".join(found.values())
    for secret in (
        token,
        "correct-horse-battery",
        "private words",
        "abcdef0123456789",
        "secret-token",
        "managedFields",
    ):
        assert secret not in whole
    assert "downloading with" in found["runs/runbook/runbook-train-2-x.log"]
    assert "TRAINYARD_STEP" in whole
    assert not any("/secrets" in target for _, target, _ in installed.asked)


def test_a_report_says_what_could_not_be_read(installed: FakeCluster, tmp_path: Path) -> None:
    installed.refused["/jobs"] = (403, "not yours")
    call("report", "--file", str(tmp_path / "r.tgz"))
    assert bundle(tmp_path / "r.tgz")["runs/runbook/jobs.yaml"] == "cannot be read: not yours\n"


def candidates(*words: str) -> list[str]:
    *lines, directive = call("__complete", *words).stdout.splitlines()
    assert directive == ":4"
    return [line.partition("\t")[0] for line in lines]


def test_verbs_are_completed() -> None:
    assert candidates("") == list(VERBS)
    assert candidates("st") == ["status", "stop"]


def test_names_are_completed_from_the_cluster_without_reading_the_objects(installed: FakeCluster) -> None:
    installed.run("older")
    assert candidates("logs", "-f", "r") == ["runbook"]
    assert candidates("status", "-n", "lab", "") == ["older", "runbook"]
    assert candidates("status", "runbook", "") == []
    assert candidates("list", "--context", "") == ["here"]


@pytest.mark.parametrize("verb", [*VERBS, *OTHER_NAMES])
def test_options_of_each_verb_are_completed(verb: str) -> None:
    assert "--help" in candidates(verb, "--")


def test_choices_steps_and_files_are_completed() -> None:
    assert candidates("list", "-o", "") == ["table", "wide", "json", "yaml", "name"]
    assert candidates("completion", "") == ["bash", "fish", "zsh"]
    assert "train" in candidates("logs", "runbook", "--step", "")
    assert call("__complete", "validate", "-f", "").stdout == ":0\n"


def test_a_cluster_that_is_away_completes_nothing_and_says_nothing(cluster: FakeCluster) -> None:
    cluster.kubeconfig.write_text(cluster.kubeconfig.read_text().replace(cluster.url, "http://127.0.0.1:1"))
    result = call("__complete", "logs", "")
    assert (result.exit_code, result.output) == (0, ":4\n")


def bash(script: str, folder: Path) -> str:
    program = folder / "trainyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m trainyard.cli.main "$@"\n')
    program.chmod(0o755)
    environment: Any = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image"}
    return subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True).stdout


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    script = (
        "source <(trainyard completion bash); COMP_WORDS=(trainyard st); COMP_CWORD=1; _trainyard; echo ${COMPREPLY[@]}"
    )
    assert bash(script, tmp_path) == "status stop\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_words_of_their_shell(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    script = call("completion", shell).stdout
    subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_kubectl_finds_its_completion(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from trainyard.cli.main import complete

    monkeypatch.setattr(sys, "argv", ["kubectl_complete-trainyard", "sta"])
    with pytest.raises(SystemExit) as ended:
        complete()
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == ":4"
