"""Gates as people write them: names, aliases, and what is told of a wrong one."""

from typing import Any

import pytest

from tests.api.manifests import CHAMPION, PHASED, TRM, run
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.references import named
from trainyard.api.run.evaluation import Evaluation
from trainyard.api.run.trainingrun import resolve


def gates(*gates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**CHAMPION, "evaluation": {"gates": list(gates), **more}}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("exactmatch", "exactMatch"),
        ("exact_match", "exactMatch"),
        ("acuracy", "accuracy"),
        ("perplexityy", "perplexity"),
        ("commandaccuracy", "commandAccuracy"),
        ("latency_p50_seconds", "latencyP50Seconds"),
        ("token_acc", "tokenAccuracy"),
    ],
)
def test_a_misspelt_metric_is_told_with_what_was_meant(written: str, meant: str) -> None:
    for spec in (gates({"metric": written, "minimum": 0}), {**CHAMPION, "evaluation": {"metrics": [written]}}):
        with pytest.raises(InvalidManifest, match=f"'{written}': no such metric; did you mean {meant}"):
            parse_run(run(spec))


def test_of_a_metric_like_no_other_all_are_told() -> None:
    with pytest.raises(InvalidManifest, match=r"known are loss, perplexity, .*, accuracy"):
        parse_run(run(gates({"metric": "zzz", "minimum": 0})))


def test_two_names_of_one_metric_are_one_gate_too_many() -> None:
    with pytest.raises(InvalidManifest, match="two gates are about the same metric"):
        parse_run(run(gates({"metric": "accuracy", "minimum": 0}, {"metric": "exactMatch", "maximum": 1})))


def test_what_gates_name_is_measured_besides_the_usual() -> None:
    spec = parse_run(run(gates({"metric": "accuracy", "minimum": 0}))).spec
    assert spec.evaluation.measured() == ("loss", "perplexity", "tokenAccuracy", "exactMatch")


def test_the_old_field_is_a_gate_by_the_value_alone() -> None:
    (gate,) = parse_run(run({**TRM, "evaluation": {"minimumGain": 0.05}})).spec.evaluation.all_gates()
    assert (gate.metric, gate.minimum_gain, gate.confidence) == ("exactMatch", 0.05, 0)
    both = Evaluation.model_validate({"minimumGain": 0.05, "gates": [{"metric": "accuracy", "minimumGain": 0.1}]})
    assert [gate.minimum_gain for gate in both.all_gates()] == [0.1]


def test_the_champions_secret_and_claim_are_the_evaluations_alone() -> None:
    spec = parse_run(run(CHAMPION)).spec
    assert "store" in named(spec, "Secret", step="evaluate")
    assert "store" not in named(spec, "Secret", step="train")
    champion = {"storageUri": "pvc://models/last"}
    spec = parse_run(run(gates({"metric": "loss", "minimumGain": 0}, compareWith=champion))).spec
    assert named(spec, "PersistentVolumeClaim", step="evaluate") == {"models": "spec.evaluation.compareWith.storageUri"}
    assert not named(spec, "PersistentVolumeClaim", step="train")


def test_of_phases_only_the_last_is_judged() -> None:
    names = [phase["name"] for phase in PHASED["phases"]]
    datasets = [*PHASED["datasets"], {"name": "held", "role": "Eval", "inline": {"text": "hello"}}]
    asked = {"gates": [{"metric": "loss", "maximum": 9}]}
    phases = [{**phase, "datasets": None} for phase in PHASED["phases"]]
    spec = parse_run(run({**PHASED, "phases": phases, "datasets": datasets, "evaluation": asked})).spec
    assert resolve(spec, names[0]).evaluation.gates is None
    assert resolve(spec, names[-1]).evaluation.gates is not None


@pytest.mark.parametrize("metric", ["pods/acc", "pods/exact_match.strict-match", "a.b-c_d/word_perplexity"])
def test_a_gate_may_be_on_what_a_task_measures(metric: str) -> None:
    harness = {"tasks": [metric.partition("/")[0]], "includeFrom": "pvc://tasks/pods"}
    spec = parse_run(run(gates({"metric": metric, "minimum": 0}, harness=harness))).spec
    assert spec.evaluation.measured() == ("loss", "perplexity", "tokenAccuracy"), "the records are scored by their own"


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("pods/rouge", "no such metric; of a task of evaluation.harness it is task/metric with one of acc"),
        ("other/acc", "whose task is not asked: add the task to evaluation.harness.tasks"),
        ("pods/bleu", "bleu, chrf, ter are of a task as a whole"),
    ],
)
def test_a_gate_on_what_no_task_measures_is_refused(metric: str, told: str) -> None:
    harness = {"tasks": ["pods"], "includeFrom": "pvc://tasks/pods"}
    with pytest.raises(InvalidManifest, match=told):
        parse_run(run(gates({"metric": metric, "minimum": 0}, harness=harness)))
