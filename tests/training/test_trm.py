"""Whole runs as processes: the continuation against an undisturbed run, and the use of the model, over HTTP too."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.runs import Run, Zygote
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.trm.inference import TRMModel
from trainyard.trainer.trm.program import export_step
from trainyard.trainer.trm.serve import make_server
from trainyard.trainer.trm.train import can_compile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def trm_spec() -> dict[str, Any]:
    return {
        "model": {
            "trm": {
                "hiddenSize": 32,
                "numHeads": 2,
                "hCycles": 2,
                "lCycles": 2,
                "mixer": "MLP",
                "registers": 1,
                "maxIterations": 4,
            }
        },
        "datasets": [{"name": "s", "puzzle": {"kind": "Sudoku", "size": 4, "count": 40}, "split": {"eval": 0.25}}],
        "training": {
            "method": "TRM",
            "maxSteps": 30,
            "perDeviceTrainBatchSize": 16,
            "learningRate": 3e-3,
            "loggingSteps": 1,
            "evalSteps": 7,
            "precision": "FP32",
        },
        "checkpoints": {"everySteps": 5},
        "evaluation": {"minimumGain": 0.9},
    }


@pytest.fixture(scope="module")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained from beginning to end without interruption."""
    run = Run(zygote, tmp_path_factory.mktemp("trm"), trm_spec())
    run.run("prepare")
    run.run("train")
    return run


def killed_and_continued(whole: Run, folder: Path, *, times: int, seed: int) -> Run:
    """The same run, killed somewhere again and again."""
    run = whole.fork(folder)
    chance = np.random.default_rng(seed)
    wanted = ("step ", "checkpoint at", "model:", "training is complete")
    for _ in range(times):
        step = run.start("train")
        reached = step.wait_for_line(lambda line: line.startswith(wanted))
        for _ in range(int(chance.integers(1, 12))):
            if reached.startswith(("model:", "training is complete")):
                break
            reached = step.wait_for_line(lambda line: line.startswith(wanted))
        step.kill()
        assert step.wait() in (-signal.SIGKILL, 0)
    run.run("train")
    return run


def digests(run: Run) -> list[str]:
    """Of the model, and of everything in the last checkpoint that a continuation would begin with."""
    last = run.work / "checkpoints" / "step-00000030"
    files = [run.work / "model" / "model.safetensors", *sorted(last.glob("*.safetensors")), last / "state.json"]
    return [f"{f.name} {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files]


def test_killed_at_random_moments(whole: Run, tmp_path: Path) -> None:
    run = killed_and_continued(whole, tmp_path, times=3, seed=1)
    assert digests(run) == digests(whole)
    assert "average.safetensors" in " ".join(digests(run))
    assert "best.safetensors" in " ".join(digests(run))


@pytest.mark.load
def test_killed_ten_times(whole: Run, tmp_path: Path) -> None:
    assert digests(killed_and_continued(whole, tmp_path, times=10, seed=2)) == digests(whole)


def test_told_to_stop(whole: Run, tmp_path: Path) -> None:
    run = whole.fork(tmp_path)
    run.stop("step 8/")
    assert run.final_record["outcome"] == "Resume"
    reached = run.final_record["checkpoint"]["step"]
    assert reached >= 8
    run.run("train")
    assert run.final_record["firstStep"] == reached
    assert digests(run) == digests(whole)


def test_the_result_is_measured_and_the_gate_says_no(whole: Run) -> None:
    whole.run("evaluate")
    result = whole.final_record["evaluation"]
    assert result["passed"] is False
    assert result["verdict"] == "Reject"
    assert [gate["metric"] for gate in result["gates"]] == ["exactMatch"]
    assert "less than a gain of" in result["message"]
    assert {"exact", "token_accuracy", "baseline_Majority", "calibration_error"} <= result["metrics"].keys()
    again = whole.run("evaluate")
    assert any("has been measured" in line for line in again.lines)


def test_another_network_does_not_go_on_from_these_checkpoints(whole: Run, tmp_path: Path) -> None:
    run = whole.fork(tmp_path)
    shutil.copytree(whole.work / "checkpoints", run.work / "checkpoints")
    run.spec["model"]["trm"]["hiddenSize"] = 64
    run.run("train", expect=ExitCode.INVALID_CONFIG)
    assert "spec.model.trm.hiddenSize" in run.final_record["message"], run.final_record
    assert "set back what is named" in run.final_record["hint"]


@pytest.mark.skipif(can_compile(), reason="a compiler and torch's headers are here")
def test_compiling_needs_a_compiler(whole: Run, tmp_path: Path) -> None:
    run = whole.fork(tmp_path)
    run.spec["training"]["trm"] = {"compile": True}
    step = run.run("train", expect=ExitCode.INVALID_CONFIG)
    assert any("there is no C++ compiler in this image" in line for line in step.lines)


def test_a_dry_run_counts_without_training(whole: Run, tmp_path: Path) -> None:
    run = Run(whole.zygote, tmp_path, trm_spec() | {"mode": "DryRun"})
    run.run("validate")
    report = json.loads((run.work / "validation" / "report.json").read_text())
    made = TRMModel.load_from_checkpoint(whole.work / "model", device="cpu")
    assert report["model"]["parameters"] == sum(p.numel() for p in made.network.parameters())
    assert report["training"]["steps"] == 30


# ---- use


@pytest.fixture(scope="module")
def model(whole: Run) -> TRMModel:
    return TRMModel.load_from_checkpoint(whole.work / "model", device="cpu")


def test_reasoning_shows_its_steps(model: TRMModel) -> None:
    found = model.reason("1... ..3. .2.. ...4", max_iterations=3)
    assert len(found.answer) == 16
    assert 1 <= found.steps <= 3
    assert len(found.trajectory) == found.steps
    assert 0 <= found.confidence <= 1
    assert found.trajectory[-1].answer == found.answer


def test_a_batch_answers_as_one_by_one_does(model: TRMModel) -> None:
    problems = ["1..." + "." * 12, "." * 12 + "...4"]
    together = model.reason_all(problems, max_iterations=2)
    assert [f.answer for f in together] == [model.reason(p, max_iterations=2).answer for p in problems]


def test_the_most_believed_of_several_attempts_is_taken(model: TRMModel) -> None:
    problem = "1..." + "." * 12
    one = model.reason(problem, max_iterations=2)
    many = [model.reason(problem, max_iterations=2, attempts=6, noise=1.0, seed=n) for n in (1, 1, 2)]
    assert many[0] == many[1]
    assert all(m.confidence >= one.confidence for m in many)


def test_a_problem_of_another_size_is_refused(model: TRMModel) -> None:
    with pytest.raises(ValueError, match="grids of 16 ids"):
        model.reason("123")


def test_the_lines_that_scripts_for_such_models_have(
    model: TRMModel, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed; only the path is another one."""
    monkeypatch.chdir(whole.work)
    problem = "1... ..3. .2.. ...4"
    lines = """
from models.recursive_reasoning import TRMModel
model = TRMModel.load_from_checkpoint("model/model.ckpt")
result = model.reason(problem, max_iterations=10)
"""
    names: dict[str, Any] = {"problem": problem}
    exec(lines, names)
    assert names["result"].answer == model.reason(problem, max_iterations=10).answer


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        TRMModel.load_from_checkpoint(tmp_path)


def test_a_damaged_checkpoint_is_refused(whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.work / "model", tmp_path / "model")
    (tmp_path / "model" / "model.ckpt").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"model.ckpt cannot be read as weights"):
        TRMModel.load_from_checkpoint(tmp_path / "model" / "model.ckpt")
    assert TRMModel.load_from_checkpoint(tmp_path / "model" / "model.safetensors", device="cpu").task


@pytest.fixture
def address(model: TRMModel) -> Iterator[str]:
    server = make_server(model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def post(address: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{address}/api/generate", data=data, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_it_is_served(address: str, model: TRMModel) -> None:
    problem = "1..." + "." * 12
    status, answer = post(address, {"model": "trm-homelab", "prompt": problem, "options": {"max_iterations": 2}})
    assert status == 200
    assert answer["done"]
    assert answer["response"] == model.reason(problem, 2).answer
    status, answer = post(address, {"prompt": [problem, problem]})
    assert status == 200
    assert len(answer["response"]) == len(answer["confidence"]) == 2
    for body, code, message in (
        ({"prompt": problem, "model": "other"}, 404, "only 'trm-homelab'"),
        ({"prompt": "12"}, 400, "grids of 16 ids"),
        ({"prompt": problem, "options": {"attempts": 0}}, 400, "options.attempts"),
        (b"{", 400, "not JSON"),
        ([], 400, "must be an object"),
    ):
        status, answer = post(address, body)
        assert status == code
        assert message in answer["error"]
    text = urllib.request.urlopen(f"{address}/metrics", timeout=60).read().decode()
    assert 'trainyard_trm_requests_total{model="trm-homelab",code="200"} 2' in text
    assert 'trainyard_trm_answers_total{model="trm-homelab"} 3' in text
    tags = json.loads(urllib.request.urlopen(f"{address}/api/tags", timeout=60).read())
    assert tags["models"][0]["name"] == "trm-homelab"


def test_one_step_is_exported(model: TRMModel, tmp_path: Path) -> None:
    export_step(model, tmp_path / "step.pt2")
    program = torch.export.load(tmp_path / "step.pt2").module()
    ids = torch.ones(3, 16, dtype=torch.long)
    start = model.network.start(3)
    given = program(ids, start.h, start.z)
    rows = model.network.puzzle_embedding[torch.zeros(3, dtype=torch.long)]
    with torch.no_grad():
        _, logits, halting = model.network.step(start, model.network.embed(ids, rows))
    torch.testing.assert_close(given[2], logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(given[3], halting, rtol=1e-4, atol=1e-4)
