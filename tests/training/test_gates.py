"""Gates over real models: metrics of each record, a champion on the same records, its kept scores, and kills in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import Run, Zygote
from trainyard.api.exitcodes import ExitCode

VERBS = ("get", "describe", "logs", "delete")
METRICS = ["loss", "perplexity", "tokenAccuracy", "exactMatch", "commandAccuracy", "latencyP50Seconds"]


def command_spec(*, steps: int = 150) -> dict[str, Any]:
    """A model that learns which command belongs to a word; what is held out are other cases of the same words."""
    records = [
        {
            "prompt": f"case {n}: {VERBS[n % 4]}\n",
            "completion": f"kubectl {VERBS[n % 4]} pod",
            "metadata": {"source": f"book-{n % 2}", "type": "command", "more": n},
        }
        for n in range(96)
    ]
    return {
        "model": {
            "scratch": {
                "architecture": "llama",
                "config": {
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                },
                "tokenizer": {"trainVocabSize": 400},
            }
        },
        "datasets": [
            {
                "name": "commands",
                "format": "PromptCompletion",
                "inline": {"records": records},
                "split": {"eval": 0.3},
            }
        ],
        "training": {
            "method": "SFT",
            "maxSteps": steps,
            "maxLength": 64,
            "perDeviceTrainBatchSize": 16,
            "learningRate": 1e-2,
            "precision": "FP32",
        },
        "evaluation": {
            "metrics": METRICS,
            "maxNewTokens": 16,
            "samples": 0,
            "gates": [{"metric": "accuracy", "minimum": 0.3, "minimumGain": 0.1}, {"metric": "loss", "minimumGain": 0}],
            "compareWith": {"baseModel": {}},
        },
    }


@pytest.fixture(scope="module")
def better(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(zygote, tmp_path_factory.mktemp("gates"), command_spec())
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
    return run


@pytest.fixture(scope="module")
def trained(better: Run) -> Run:
    """One that has learned hardly anything, on the same volume, to be compared with the better one."""
    spec = command_spec(steps=1)
    spec["evaluation"] |= {
        "metrics": [name for name in METRICS if name != "latencyP50Seconds"],
        "compareWith": {"run": better.name},
    }
    run = Run(better.zygote, better.folder, spec, "worse")
    for step in ("prepare", "train"):
        run.run(step)
    return run


@pytest.fixture
def worse(trained: Run) -> Run:
    """The same, not measured yet, and nothing kept of the champion."""
    forget(trained, champion=True)
    trained.patch = ""
    return trained


def forget(run: Run, *, champion: bool = False) -> None:
    shutil.rmtree(run.work / "evaluation", ignore_errors=True)
    if champion:
        shutil.rmtree(run.work.parent / "evaluations", ignore_errors=True)


def cached(run: Run) -> list[Path]:
    folder = run.work.parent / "evaluations"
    return [f for f in folder.iterdir() if (f / "manifest.json").exists()] if folder.is_dir() else []


def rows(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.work / "evaluation" / "records.jsonl").read_text().splitlines()]


def test_a_model_that_learned_passes_both_gates_with_interval_and_n(better: Run) -> None:
    result = json.loads((better.work / "evaluation" / "metrics.json").read_text())
    assert result["verdict"] == "Promote"
    assert result["passed"]
    assert set(METRICS) <= result["metrics"].keys()
    gates = {gate["metric"]: gate for gate in result["gates"]}
    assert gates["exactMatch"]["n"] == result["records"]
    low, high = gates["exactMatch"]["interval"]
    assert 0.1 < low < gates["exactMatch"]["gain"] <= high
    assert gates["loss"]["reference"] == pytest.approx(result["baseline"]["loss"])
    assert result["comparedWith"] == "the model before training"


def test_each_record_has_scores_of_both_and_metrics_are_made_of_them(better: Run) -> None:
    result = json.loads((better.work / "evaluation" / "metrics.json").read_text())
    found = rows(better)
    assert len(found) == result["records"]
    assert sum(row["loss"] for row in found) / sum(row["tokens"] for row in found) == pytest.approx(
        result["metrics"]["loss"]
    )
    assert sum(row["exactMatch"] for row in found) / len(found) == pytest.approx(result["metrics"]["exactMatch"])
    assert all("exactMatch" in row["champion"] and "answer" in row["champion"] for row in found)
    for row in found:
        assert row["exactMatch"] == int(row["answer"].split() == row["reference"].split())
        assert row["reference"].startswith("kubectl ")


def test_metrics_are_told_by_source_and_type(better: Run) -> None:
    groups = json.loads((better.work / "evaluation" / "metrics.json").read_text())["groups"]
    assert set(groups["source"]) == {"book-0", "book-1"}
    assert set(groups["type"]) == {"command"}
    assert sum(group["records"] for group in groups["source"].values()) == groups["type"]["command"]["records"]
    assert 0 <= groups["source"]["book-0"]["exactMatch"] <= 1


def test_a_worse_model_is_rejected_and_the_run_ends_well(worse: Run) -> None:
    worse.run("evaluate")
    result = worse.final_record["evaluation"]
    assert worse.final_record["outcome"] == "Succeeded"
    assert result["verdict"] == "Reject"
    assert result["passed"] is False
    assert result["comparedWith"] == "run tiny"
    gates = {gate["metric"]: gate for gate in result["gates"]}
    assert gates["loss"]["gain"] < 0
    assert gates["loss"]["interval"][1] < 0


def test_the_champions_scores_are_kept_and_give_the_same_verdict(worse: Run) -> None:
    worse.run("evaluate")
    first = worse.final_record["evaluation"]
    assert len(cached(worse)) == 1
    forget(worse)
    again = worse.run("evaluate")
    assert any("taken from the cache" in line for line in again.lines)
    assert worse.final_record["evaluation"] == first


def test_kept_scores_of_other_records_are_refused(worse: Run) -> None:
    """The cache has what was put there under this key; were that of other records, nothing would be compared."""
    worse.run("evaluate")
    (place,) = cached(worse)
    lines = (place / "records.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["digest"] = "0" * 16
    worse.patch = (
        "from trainyard.trainer.volume import commit; import trainyard.trainer.evaluation.champion as c; "
        "c.find_damage = lambda kept, hashes=True: None"
    )
    (place / "records.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    forget(worse)
    worse.run("evaluate", expect=ExitCode.INVALID_DATA)
    assert "are of other records than those of this run: 1 of" in worse.final_record["message"]


def test_damaged_scores_are_measured_anew(worse: Run) -> None:
    worse.run("evaluate")
    first = worse.final_record["evaluation"]
    (place,) = cached(worse)
    with open(place / "records.jsonl", "r+") as stream:
        stream.write("#")
    forget(worse)
    again = worse.run("evaluate")
    assert not any("taken from the cache" in line for line in again.lines)
    assert worse.final_record["evaluation"] == first


@pytest.mark.parametrize("moment", ["run tiny loss", "eval: loss"])
def test_killed_in_the_middle_it_ends_with_the_same_verdict(worse: Run, moment: str) -> None:
    """Once after the champion was measured, once after the result was."""
    step = worse.start("evaluate")
    step.wait_for_line(lambda line: moment in line)
    step.kill()
    step.wait()
    again = worse.run("evaluate")
    assert any("taken from the cache" in line for line in again.lines)
    killed = worse.final_record["evaluation"]
    forget(worse, champion=True)
    worse.run("evaluate")
    assert worse.final_record["evaluation"] == killed


def test_a_champion_that_reads_other_tokens_is_refused(better: Run) -> None:
    spec = command_spec(steps=1)
    spec["model"]["scratch"]["tokenizer"]["trainVocabSize"] = 300
    spec["evaluation"]["compareWith"] = {"run": better.name}
    run = Run(better.zygote, better.folder, spec, "other-tokens")
    for step in ("prepare", "train"):
        run.run(step)
    run.run("evaluate", expect=ExitCode.INVALID_CONFIG)
    assert "has another tokenizer" in run.final_record["message"]


@pytest.mark.parametrize(
    ("champion", "told"),
    [
        ({"run": "nobody"}, "compareWith.run nobody: no result of such a run"),
        ({"storageUri": "file:///nowhere"}, "/nowhere"),
        ({"storageUri": f"file://{Path(__file__).parent}"}, "has no whole model"),
    ],
)
def test_a_champion_that_is_not_there_is_told_before_the_training(
    zygote: Zygote, tmp_path: Path, champion: dict[str, Any], told: str
) -> None:
    run = Run(zygote, tmp_path, command_spec())
    run.spec["evaluation"]["compareWith"] = champion
    run.run("prepare", expect=ExitCode.INVALID_CONFIG)
    assert told in run.final_record["message"]
    assert run.final_record["hint"]
