"""Tasks of lm-evaluation-harness over a trained model: the real package, offline, on the user's own YAML and records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.runs import Run, Zygote
from tests.training.test_gates import VERBS, command_spec
from trainyard.api.exitcodes import ExitCode
from trainyard.api.run.harness import HARNESS_METRICS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RECORDS = 12
COMMON = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "questions.jsonl"}}, "test_split": "test"}
METRICS = {
    "pick": ["acc", "acc_norm", "acc_bytes"],
    "say": ["exact_match", "bleu", "chrf", "ter"],
    "end": ["acc", "perplexity"],
    "read": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
}


def tasks(folder: Path) -> Path:
    """One of each kind that the harness has."""
    folder.mkdir()
    with open(folder / "questions.jsonl", "w") as stream:
        for n in range(RECORDS):
            words = [f"kubectl {verb} pod" for verb in VERBS]
            record = {"question": f"case {n}: {VERBS[n % 4]}\n", "choices": words, "answer": n % 4}
            stream.write(json.dumps(record) + "\n")
    asked = {"doc_to_text": "{{question}}", "target_delimiter": ""}
    right = {"doc_to_target": "{{choices[answer]}}"}
    kinds: dict[str, dict[str, Any]] = {
        "pick": {**asked, "output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "answer"},
        "say": {
            **asked,
            **right,
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12, "do_sample": False},
        },
        "end": {**asked, **right, "output_type": "loglikelihood"},
        "read": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}"},
    }
    for name, kind in kinds.items():
        listed = [{"metric": metric} for metric in METRICS[name]]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **COMMON, **kind, "metric_list": listed}))
    return folder


def spec_of(folder: Path, **harness: Any) -> dict[str, Any]:
    spec = command_spec()
    spec["evaluation"] = {
        "metrics": ["loss", "exactMatch"],
        "maxNewTokens": 16,
        "baselineAnswers": True,
        "harness": {"tasks": list(METRICS), "includeFrom": f"file://{folder}", **harness},
    }
    return spec


def test_each_kind_of_task_is_asked_offline_and_told_as_metrics(zygote: Zygote, tmp_path: Path) -> None:
    assert {name for names in METRICS.values() for name in names} == set(HARNESS_METRICS), "all that are allowed"
    away = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    run = Run(zygote, tmp_path, spec_of(tasks(tmp_path / "tasks")), environment=away)
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
    found = json.loads((run.work / "evaluation/metrics.json").read_text())
    told = {name for name in found["metrics"] if "/" in name}
    assert told == {f"{task}/{metric}" for task, names in METRICS.items() for metric in names}
    assert found["metrics"]["pick/acc"] == pytest.approx(found["metrics"]["say/exact_match"], abs=0.3)
    assert found["metrics"]["pick/acc"] > 0.9, "it has learned which command belongs to a word"
    lines = [json.loads(line) for line in (run.work / "evaluation/harness.jsonl").read_text().splitlines()]
    of_pick = [line["acc"] for line in lines if line["task"] == "pick"]
    assert len(of_pick) == RECORDS
    assert sum(of_pick) / RECORDS == found["metrics"]["pick/acc"]
    assert found["baseline"]["exactMatch"] < found["metrics"]["exactMatch"], "the model before training answers too"
    assert run.final_record["evaluation"]["metrics"]["pick/acc"] == found["metrics"]["pick/acc"]


def test_what_cannot_be_asked_is_known_before_the_training(zygote: Zygote, tmp_path: Path) -> None:
    folder = tasks(tmp_path / "tasks")
    (folder / "pick.yaml").write_text(yaml.safe_dump({"task": "pick", **COMMON, "metric_list": [{"metric": "rouge"}]}))
    run = Run(zygote, tmp_path, spec_of(folder))
    step = run.start("prepare")
    assert step.wait() == ExitCode.INVALID_CONFIG
    assert any("pick.yaml: metric rouge is none" in line for line in step.lines)
    run = Run(zygote, tmp_path, spec_of(folder, tasks=["nowhere"]), name="other")
    assert run.start("prepare").wait() == ExitCode.INVALID_CONFIG


def test_what_the_harness_itself_refuses_is_told_in_its_words(zygote: Zygote, tmp_path: Path) -> None:
    folder = tasks(tmp_path / "tasks")
    say = yaml.safe_load((folder / "say.yaml").read_text())
    (folder / "say.yaml").write_text(yaml.safe_dump(say | {"doc_to_text": "{{nothing}}"}))
    run = Run(zygote, tmp_path, spec_of(folder, tasks=["say"], limit=2))
    run.run("prepare")
    run.run("train")
    step = run.start("evaluate")
    assert step.wait() == ExitCode.INVALID_CONFIG
    assert any("lm-evaluation-harness refuses: " in line and "nothing" in line for line in step.lines)


def test_a_template_reaches_nothing_but_the_record(zygote: Zygote, tmp_path: Path) -> None:
    folder = tasks(tmp_path / "tasks")
    say = yaml.safe_load((folder / "say.yaml").read_text())
    (folder / "say.yaml").write_text(yaml.safe_dump(say | {"doc_to_text": "{{question.__class__.__mro__}}"}))
    run = Run(zygote, tmp_path, spec_of(folder, tasks=["say"], limit=2))
    run.run("prepare")
    run.run("train")
    step = run.start("evaluate")
    assert step.wait() == ExitCode.INVALID_CONFIG
    assert any("unsafe" in line for line in step.lines)


def test_gates_on_tasks_compare_with_the_model_before_and_with_a_champion_once(zygote: Zygote, tmp_path: Path) -> None:
    folder = tasks(tmp_path / "tasks")
    spec = spec_of(folder, tasks=["pick", "read"])
    spec["evaluation"] |= {
        "gates": [
            {"metric": "pick/acc", "minimum": 0.5, "minimumGain": 0},
            {"metric": "read/bits_per_byte", "minimumGain": -9},
        ],
        "compareWith": {"baseModel": {}},
    }
    run = Run(zygote, tmp_path, spec)
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
    found = json.loads((run.work / "evaluation/metrics.json").read_text())
    assert found["verdict"] == "Promote", found["message"]
    picked, read = found["gates"]
    assert picked["n"] == read["n"] == RECORDS
    assert picked["reference"] == found["baseline"]["pick/acc"] < found["metrics"]["pick/acc"] == picked["value"]
    assert read["reference"] == found["baseline"]["read/bits_per_byte"] < read["value"], (
        "questions are not what it learns"
    )
    assert not list(run.work.glob(".tmp-*")), "the model before training was laid down for a while only"

    spec["training"]["maxSteps"] = 1
    spec["evaluation"] |= {"compareWith": {"run": run.name}, "baselineAnswers": False}
    worse = Run(zygote, tmp_path, spec, name="worse")
    for step in ("prepare", "train", "evaluate"):
        worse.run(step)
    judged = json.loads((worse.work / "evaluation/metrics.json").read_text())
    assert judged["verdict"] == "Reject", judged["message"]
    assert judged["gates"][0]["reference"] == picked["value"]
    shutil.rmtree(worse.work / "evaluation")
    again = worse.start("evaluate")
    assert again.wait() == ExitCode.OK
    assert sum("its scores are taken from the cache" in line for line in again.lines) == 2, "of records and of tasks"
    assert json.loads((worse.work / "evaluation/metrics.json").read_text())["gates"] == judged["gates"]
