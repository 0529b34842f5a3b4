"""The example agent-sre as it stands, on real weights and real servers; many minutes, so it is a test of `load`.

The run learns the runbook, passes its gates and goes to every place; a worse one goes nowhere; a second good one is rolled back.
What does not hang on the weights is shown by the same chain with a tiny model: a worse run, and both ways to take one back.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import demo_agent
from tests.e2e import runs
from tests.e2e.chains import FILES, Told, chain, reachable
from tests.e2e.command_line import CommandLine
from tests.e2e.kube import Kube, Object
from tests.servers import sinks
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


def rolled_back(kube: Kube, space: str, name: str) -> None:
    """Wait until it is."""

    def back(run: Object | None) -> bool:
        return bool(run and (run["status"].get("rollback") or {}).get("state") == "Succeeded")

    kube.wait(TRAININGRUNS, space, name, back, seconds=180, what="the rollback")


def test_what_is_worse_goes_nowhere_and_what_is_given_up_goes_back(kube: Kube, space: str, tmp_path: Path) -> None:
    gates = [{"metric": "loss", "minimumGain": 0}]
    with sinks.serving(tmp_path, files=FILES) as servers:
        reachable(kube, space, servers)
        told, version = Told(servers), {}

        def train(name: str, *, steps: int) -> Object:
            runs.apply(kube, space, chain(name, space, steps=steps, gates=gates))
            run = runs.until_succeeded(kube, space, name, seconds=600)
            version[name] = run["status"]["model"]["version"]
            return run

        good = train("good", steps=40)
        assert "no champion" in demo_agent.verdict(good)
        assert told.in_use() == (version["good"],) * 3

        worse = train("worse", steps=2)
        verdict = worse["status"]["evaluation"]["gates"][0]
        assert (runs.has(worse, "GatesPassed"), verdict["verdict"]) == (False, "Reject"), demo_agent.verdict(worse)
        assert {one["state"] for one in worse["status"]["exports"]} == {"Skipped"}
        assert told.in_use() == (version["good"],) * 3
        assert list(told.registered()[0].values()) == [version["good"]]

        train("better", steps=120)
        assert told.in_use() == (version["better"],) * 3

        CommandLine(tmp_path, space)("rollback", "better")
        rolled_back(kube, space, "better")
        assert told.in_use() == (version["good"],) * 3
        assert set(told.served()) == {version["good"], version["better"]}, "nothing is deleted"

        train("best", steps=160)
        assert told.in_use() == (version["best"],) * 3
        asked = {"metadata": {"annotations": {names.ROLLBACK_ANNOTATION: "it answers too slowly"}}}
        kube.merge(TRAININGRUNS, space, "best", asked)
        rolled_back(kube, space, "best")
        assert told.in_use() == (version["good"],) * 3
        assert len(told.commits()) == 6, "the first, good, better and back, best and back"
