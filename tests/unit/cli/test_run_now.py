"""`trainyard run-now`: the request's form, what is checked before it is made, and what becomes of it."""

import json
from typing import Any

import pytest

from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import FakeCluster
from trainyard.api.schedule.trainingschedule import OVERRIDES_ANNOTATION, RUN_NOW_ANNOTATION, VARIANTS_ANNOTATION
from trainyard.cli.exits import Refused
from trainyard.cli.patches import patch_of

SCHEDULE: dict[str, Any] = {
    "apiVersion": "trainyard.dev/v1alpha1",
    "kind": "TrainingSchedule",
    "metadata": {"name": "agents", "namespace": "lab", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {
        "schedule": "0 0 * * *",
        "variants": [{"name": "sre"}, {"name": "billing"}],
        "template": {
            "spec": {
                "model": {"scratch": {"architecture": "llama", "config": {}, "tokenizer": {"trainVocabSize": 500}}},
                "datasets": [{"name": "text", "inline": {"text": "hello"}}],
                "training": {"method": "Pretrain", "maxSteps": 10},
            }
        },
    },
}


PATH = "/apis/trainyard.dev/v1alpha1/namespaces/lab/trainingschedules/agents"


class Operator:
    """The schedule, and what the operator makes of a request for a start; with `answers` false there is none."""

    def __init__(self, cluster: FakeCluster, *, answers: bool = True) -> None:
        self._cluster = cluster
        cluster.put(PATH, json.loads(json.dumps(SCHEDULE)))
        ask = cluster.answer

        def answer(method: str, target: str, body: Any) -> tuple[int, Any]:
            found = ask(method, target, body)
            if method == "PATCH" and answers:
                value = body["metadata"]["annotations"][RUN_NOW_ANNOTATION]
                status = {"lastRunNow": value, "lastMoment": "2026-03-01T00:00:00Z", "message": "m"}
                cluster.put(PATH, {**cluster.objects[PATH], "status": status})
                for variant in ("sre", "billing"):
                    cluster.run(f"agents-{variant}-1772323200")
            return found

        cluster.answer = answer  # type: ignore[method-assign]

    def patched(self) -> dict[str, str | None]:
        (patch,) = self._cluster.bodies("PATCH")
        annotations: dict[str, str | None] = patch["metadata"]["annotations"]
        return annotations


def run_now(*words: str) -> tuple[int, str]:
    result = call("run-now", "agents", "-n", "lab", "--wait", "0.2s", *words)
    return result.exit_code, result.output


def test_a_request_is_one_patch_and_names_the_runs(cluster: FakeCluster) -> None:
    operator = Operator(cluster)
    code, output = run_now()
    assert code == 0, output
    first, *following = output.splitlines()
    assert (
        first == "made agents-sre-1772323200; agents-billing-1772323200 will follow, each at the end of the one before"
    )
    assert following[0] == "Next: trainyard watch agents-sre-1772323200 -n lab"
    annotations = operator.patched()
    assert annotations[OVERRIDES_ANNOTATION] is None  # what an earlier request left behind goes
    assert annotations[VARIANTS_ANNOTATION] is None
    assert not (annotations[RUN_NOW_ANNOTATION] or "force").startswith("force")


def test_everything_that_can_be_asked_for(cluster: FakeCluster) -> None:
    operator = Operator(cluster)
    words = ["--set", "training.maxSteps=3", "--set", "training.learningRate=1e-4", "--variant", "billing", "--force"]
    code, output = run_now(*words)
    assert (code, output.splitlines()[0]) == (0, "made agents-billing-1772323200")
    annotations = operator.patched()
    assert json.loads(annotations[OVERRIDES_ANNOTATION] or "") == {"training": {"maxSteps": 3, "learningRate": 1e-4}}
    assert annotations[VARIANTS_ANNOTATION] == "billing"
    assert str(annotations[RUN_NOW_ANNOTATION]).startswith("force-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "training.maxStep=3"], "did you mean maxSteps"),
        (["--set", "training.maxSteps=many"], "maxSteps"),
        (["--set", "training"], "FIELD=VALUE"),
        (["--set", "training=3", "--set", "training.maxSteps=3"], "goes into training"),
        (["--set", "args=[1"], "not YAML"),
        (["--variant", "sales"], "the schedule has sre, billing"),
    ],
)
def test_a_wrong_request_is_never_made(words: list[str], said: str, cluster: FakeCluster) -> None:
    Operator(cluster)
    code, output = run_now(*words)
    assert code == 1
    assert said in output
    assert not cluster.bodies("PATCH")


def test_an_operator_that_is_away_is_told(cluster: FakeCluster) -> None:
    Operator(cluster, answers=False)
    code, output = run_now()
    assert code == 1
    assert "is it running?" in output


def test_keys_with_dots_and_values_that_remove() -> None:
    assert patch_of([r"resources.limits.nvidia\.com/gpu=1", "model.adapter=null", "args=[a, b]"]) == {
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "model": {"adapter": None},
        "args": ["a", "b"],
    }
    with pytest.raises(Refused):
        patch_of(["=1"])
