"""The champion of a real MLflow registry: an alias that points nowhere, at a model, at what cannot be read, and a server away."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import restartable
from tests.unit.trainer.run_contexts import context_of
from trainyard.api.conditions import Reason
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError
from trainyard.trainer.evaluation.champion import find_champion, registered
from trainyard.trainer.evaluation.gates import NoChampion

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[restartable.Server]:
    with restartable.mlflow(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


def post(server: restartable.Server, what: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server.url}/api/2.0/mlflow/{what}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def register(server: restartable.Server, model: str, source: str, *, alias: str) -> str:
    """A version with this source, which the alias points to from now on."""
    version = str(post(server, "model-versions/create", name=model, source=source)["model_version"]["version"])
    post(server, "registered-models/alias", name=model, alias=alias, version=version)
    return version


def context(server: restartable.Server, folder: Path, model: str, **more: Any) -> RunContext:
    spec = {
        "model": {"storageUri": "hf://org/name"},
        "datasets": [{"name": "d", "inline": {"text": "hello"}, "split": {"eval": 0.5}}],
        "training": {"method": "SFT"},
        "tracking": {"mlflow": {"trackingUri": server.url}},
        "evaluation": {
            "gates": [{"metric": "loss", "minimumGain": 0}],
            "compareWith": {"mlflow": {"model": model, **more}},
        },
    }
    return context_of(folder, spec)


def found(run: RunContext) -> tuple[str, str] | NoChampion:
    wanted = run.run.spec.evaluation.compare_with
    assert wanted is not None
    assert wanted.mlflow is not None
    return registered(run, wanted.mlflow)


def test_a_model_that_nobody_registered_has_no_champion_yet(server: restartable.Server, tmp_path: Path) -> None:
    assert found(context(server, tmp_path, "nobody")) == NoChampion("Promote", "no version of nobody@champion")


def test_a_model_whose_versions_have_no_such_alias_has_none_either(server: restartable.Server, tmp_path: Path) -> None:
    post(server, "registered-models/create", name="other-alias")
    register(server, "other-alias", "s3://models/a", alias="candidate")
    run = context(server, tmp_path, "other-alias", noChampion="Reject")
    assert found(run) == NoChampion("Reject", "no version of other-alias@champion")


def test_the_alias_is_followed_to_the_version_that_it_points_to_now(server: restartable.Server, tmp_path: Path) -> None:
    post(server, "registered-models/create", name="agent")
    register(server, "agent", "s3://models/agent/1", alias="champion")
    newest = register(server, "agent", "pvc://models/agent/2", alias="champion")
    register(server, "agent", "s3://models/agent/3", alias="candidate")
    run = context(server, tmp_path, "agent")
    folder = run.volumes_dir / "models" / "agent" / "2"
    folder.mkdir(parents=True)
    assert found(run) == ("pvc://models/agent/2", newest)
    champion = find_champion(run)
    assert champion is not None
    assert not isinstance(champion, NoChampion)
    assert (champion.told, champion.folder) == (f"models:/agent@champion (version {newest})", folder)


def test_a_source_that_is_not_read_here_is_told_with_the_way_out(server: restartable.Server, tmp_path: Path) -> None:
    post(server, "registered-models/create", name="logged")
    register(server, "logged", "gs://models/logged", alias="champion")
    with pytest.raises(UserError, match="has its source at gs://models/logged") as refused:
        found(context(server, tmp_path, "logged"))
    assert "storageUri" in refused.value.hint


def test_a_server_that_is_away_is_asked_again_by_the_next_attempt(server: restartable.Server, tmp_path: Path) -> None:
    run = context(server, tmp_path, "agent")
    server.stop()
    try:
        with pytest.raises(UserError) as refused:
            found(run)
    finally:
        server.start()
    assert refused.value.reason == Reason.SOURCE_UNAVAILABLE
