"""The example agent-sre as it stands, on real weights and real servers; many minutes, so it is a test of `load`.

The run learns the runbook, passes its gates and goes to every place; a worse one goes nowhere; a second good one is rolled back.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import demo_agent
from tests.e2e import runs
from tests.e2e.kube import Kube, Object
from tests.servers.sinks import Sinks
from trainyard.api import names
from trainyard.controller.kube.resources import TRAININGRUNS

pytestmark = [pytest.mark.load, pytest.mark.servers, pytest.mark.timeout(3600)]
SPACE = demo_agent.NAMESPACE
SECONDS = 1500


def done(kube: Kube, manifest: Object) -> Object:
    """The run, applied afresh, when it has succeeded."""
    name = manifest["metadata"]["name"]
    kube.delete(TRAININGRUNS, SPACE, name)
    kube.wait(TRAININGRUNS, SPACE, name, lambda run: run is None, seconds=60, what="an earlier one to be gone")
    runs.apply(kube, SPACE, manifest)
    return runs.until_succeeded(kube, SPACE, name, seconds=SECONDS)


def accuracy(run: Object, part: str) -> float:
    """Of the result (metrics), or of the model before training (baseline)."""
    return next(float(one["value"]) for one in run["status"]["evaluation"][part] if one["name"] == "exactMatch")


def standing(servers: Sinks, folder: Path) -> tuple[str, str, str]:
    """Version that the champion has, that latest.json has, and that Flux applies."""
    body = servers.store().get_object(Bucket="models", Key=f"{demo_agent.AGENT}/latest.json")["Body"].read()
    return demo_agent.champion(servers), json.loads(body)["version"], demo_agent.flux(servers, folder)


def test_a_runbook_becomes_an_agent_that_answers(kube: Kube, tmp_path: Path) -> None:
    with demo_agent.lab(tmp_path) as servers:
        first = done(kube, demo_agent.manifest())
        version = first["status"]["model"]["version"]
        assert runs.has(first, "GatesPassed"), demo_agent.verdict(first)
        after, before = (accuracy(first, part) for part in ("metrics", "baseline"))
        print(f"accuracy on held-out commands: {before:.3f} before training, {after:.3f} after")
        assert after > before
        assert standing(servers, tmp_path) == ("1", version, version)
        answer = demo_agent.ask(servers, f"{demo_agent.AGENT}:{version}", demo_agent.QUESTION)
        assert answer.startswith("kubectl -n shop ")

        worse = done(kube, demo_agent.worse())
        assert not runs.has(worse, "GatesPassed"), demo_agent.verdict(worse)
        assert standing(servers, tmp_path) == ("1", version, version)

        again = demo_agent.manifest()
        again["metadata"]["name"] = "agent-sre-again"
        second = done(kube, again)
        assert standing(servers, tmp_path)[0] == ("2" if runs.has(second, "GatesPassed") else "1")
        if runs.has(second, "GatesPassed"):
            asked = {"metadata": {"annotations": {names.ROLLBACK_ANNOTATION: "it answers too slowly"}}}
            kube.merge(TRAININGRUNS, SPACE, "agent-sre-again", asked)

            def back(run: Object | None) -> bool:
                return bool(run and (run["status"].get("rollback") or {}).get("state") == "Succeeded")

            kube.wait(TRAININGRUNS, SPACE, "agent-sre-again", back, seconds=120, what="the rollback")
            assert standing(servers, tmp_path) == ("1", version, version)
