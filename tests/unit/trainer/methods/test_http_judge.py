"""A web service that judges: what it is asked, what is made of its answer, and what is said where it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.webserver import Asked, Reply, Web, web
from trainyard.api.exitcodes import ExitCode
from trainyard.api.references import sources
from trainyard.api.run.reward import HttpJudge, Reward
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.trainer.data.collect import http
from trainyard.trainer.errors import UserError
from trainyard.trainer.methods.rewards import Judge, Response, built_in, by_http

POLICY = SimpleNamespace(decode=lambda ids, skip_special_tokens: " ".join(map(str, ids)))
TWO = [Response([1, 2], [3], "three", "3"), Response([4], [5, 6], "five six", "")]


def asked(server: Web, secrets: Path, **given: Any) -> list[float]:
    judge = HttpJudge.model_validate({"url": f"{server.url}/judge", **given})
    context: Any = SimpleNamespace(secrets_dir=secrets)
    return by_http(context, judge, POLICY, field="spec.training.rewards[0].http").judge(TWO)


def test_it_gets_all_completions_at_once_and_gives_a_number_for_each(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "token").write_text("open sesame")
    with web(lambda asked: Reply({"scores": [0.5, -1]})) as server:
        assert asked(server, tmp_path, secretRef={"name": "judge"}) == [0.5, -1.0]
        (request,) = server.asked
    assert (request.method, request.path, request.authorization) == ("POST", "/judge", "Bearer open sesame")
    assert json.loads(request.body) == {
        "completions": [
            {"prompt": "1 2", "completion": "three", "answer": "3"},
            {"prompt": "4", "completion": "five six", "answer": ""},
        ]
    }


@pytest.mark.parametrize(
    "answer",
    [{"scores": [1.0]}, {"scores": [1, True]}, {"scores": [1, "2"]}, {"score": [1, 2]}, [1, 2], {"scores": [1, 1e999]}],
)
def test_what_is_no_score_for_each_is_told(answer: Any, tmp_path: Path) -> None:
    with web(lambda asked: Reply(json.dumps(answer).encode())) as server, pytest.raises(UserError) as caught:
        asked(server, tmp_path)
    assert "rewards[0].http.url" in caught.value.message
    assert "2 completions" in caught.value.message


def test_a_refusal_names_the_field_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "token").write_text("open sesame")
    with web(lambda asked: Reply({}, status=403)) as server, pytest.raises(UserError) as caught:
        asked(server, tmp_path, secretRef={"name": "judge"})
    told = f"{caught.value.message} {caught.value.hint}"
    assert "spec.training.rewards[0].http" in told
    assert "access is refused" in told
    assert "sesame" not in told


def test_a_service_that_is_away_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSES", (0.0, 0.0))
    answers: list[Reply] = [Reply({}, status=503), Reply({"scores": [1, 2]})]

    def answer(asked: Asked) -> Reply:
        return answers.pop(0)

    with web(answer) as server:
        assert asked(server, tmp_path) == [1, 2]
    with web(lambda asked: Reply({}, status=503)) as server, pytest.raises(UserError) as caught:
        asked(server, tmp_path)
    assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE, "the step is tried again later"


def test_it_is_weighed_like_any_other_reward() -> None:
    from trainyard.trainer.methods.rewards import Together

    judge = Judge([("http", 2.0, Together(lambda many: [float(len(r.ids)) for r in many])), ("a", 1.0, lambda r: 1.0)])
    totals, means = judge(TWO)
    assert totals == [3.0, 5.0]
    assert means == {"rewards/http": 1.5, "rewards/a": 1.0}


@pytest.mark.parametrize(
    ("text", "answer", "score"),
    [
        ('{"name": "get", "arguments": {"a": 1, "b": 2}}', '{"arguments": {"b": 2, "a": 1}, "name": "get"}', 1.0),
        ('{"name": "get", "arguments": {"a": 1}}', '{"name": "get", "arguments": {"a": 2}}', 0.0),
        ("```sh\nkubectl get pods  -n web\n```", "kubectl get pods -n web", 1.0),
        ("I do not know.\nReally.", "I do not know.\nReally.", 0.0),
    ],
)
def test_the_same_tool_call(text: str, answer: str, score: float) -> None:
    name, judge = built_in(Reward.model_validate({"toolCall": {}}), field="f")
    assert name == "toolCall"
    assert isinstance(judge, Callable)  # type: ignore[arg-type]
    assert judge(Response([], [], text, answer)) == score


def test_its_secret_is_opened_by_the_steps_that_judge() -> None:
    spec = TrainingRunSpec.model_validate(
        {
            "model": {"storageUri": "hf://a/b"},
            "datasets": [
                {"name": "d", "format": "Prompt", "inline": {"records": [{"prompt": "x"}]}, "split": {"eval": 0.1}}
            ],
            "training": {
                "method": "GRPO",
                "rewards": [{"http": {"url": "https://judge", "secretRef": {"name": "judge"}}}],
            },
        }
    )
    (found,) = [one for one in sources(spec) if one.name == "judge"]
    assert found.field == "spec.training.rewards[0].http.secretRef.name"
    assert found.steps == {"train", "evaluate"}
