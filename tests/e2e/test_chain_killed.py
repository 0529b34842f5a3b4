"""A chain of exports whose pods, and the operator, are killed with SIGKILL at moments that nobody chose.

TRAINYARD_KILLS moments, some in each of several runs of the same spec, TRAINYARD_SEED says which. Afterwards every sink has what
an undisturbed run left in it, once; and whoever read the bucket meanwhile had an old model or the new one.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.e2e import installed, measure, processes, runs
from tests.e2e.chains import FILES, Told, chain, reachable
from tests.e2e.kube import Kube, Object
from tests.servers import sinks
from tests.servers.reader import Reader
from trainyard.api.names import TRAINER_CONTAINER
from trainyard.controller.kube.resources import TRAININGRUNS

pytestmark = [pytest.mark.load, pytest.mark.servers, pytest.mark.timeout(3600)]
A_RUN = 10
"""Kills of one run at most."""
PAUSE = 8.0
"""Seconds between two kills of one run at most: an export of this model takes about that."""
OWN_TO_EACH_RUN = ("README.md", "manifest.json")
"""Files with the run's own version or time in them."""


def exporting(run: Object) -> bool:
    """Whether the training is over."""
    return any(one.get("attempts") for one in run["status"].get("exports") or ())


def strike(kube: Kube, space: str, chance: random.Random) -> str | None:
    """Kill a pod of an export that runs, or the operator; what was killed."""
    running = [pod for pod in runs.pods(kube, space, "chain") if processes.container_id(pod, TRAINER_CONTAINER)]
    if running and chance.random() < 0.7:
        pod = chance.choice(running)
        return pod["metadata"]["name"].rsplit("-", 2)[0] if processes.kill(pod, TRAINER_CONTAINER) else None
    return "operator" if installed.kill(kube, replace=True) else None


def test_a_chain_leaves_the_same_wherever_it_is_killed(kube: Kube, space: str, tmp_path: Path, kills: int) -> None:
    seed = int(os.environ.get("TRAINYARD_SEED", str(time.time_ns() % 1_000_000)))
    print(f"\nTRAINYARD_SEED={seed}")
    chance, struck, begun = random.Random(seed), [], time.monotonic()
    with sinks.serving(tmp_path, files=FILES) as servers:
        reachable(kube, space, servers)
        told, reader = Told(servers), Reader(servers.store())
        reader.start()

        def done(*, disturbed: bool) -> Object:
            if kube.get(TRAININGRUNS, space, "chain"):
                kube.delete(TRAININGRUNS, space, "chain")
                kube.wait_gone(TRAININGRUNS, space, "chain", seconds=60)
                runs.until_nothing_is_left(kube, space, seconds=120)
            runs.apply(kube, space, chain("chain", space, steps=20, tries=A_RUN))
            runs.until(kube, space, "chain", exporting, seconds=300, what="the exports")
            mine = 0
            while disturbed and mine < A_RUN and len(struck) < kills:
                time.sleep(chance.uniform(0, PAUSE))  # a moment that means nothing
                if runs.finished(kube.need(TRAININGRUNS, space, "chain")):
                    break
                if victim := strike(kube, space, chance):
                    struck.append(victim)
                    mine += 1
            run = runs.until_succeeded(kube, space, "chain", seconds=900)
            assert {one["state"] for one in run["status"]["exports"]} == {"Succeeded"}
            return run

        finals = [done(disturbed=False)]
        while len(struck) < kills:
            finals.append(done(disturbed=True))
        reader.stopped.set()
        reader.join(60)

        versions = [run["status"]["model"]["version"] for run in finals]
        assert len(set(versions)) == len(finals)
        assert reader.faults == []
        assert told.in_use() == (versions[-1],) * 3
        registered, aliases = told.registered()
        assert sorted(registered.values()) == sorted(versions), "each once"
        assert registered[aliases["previous"]] == versions[-2]
        assert told.commits()[1:] == [f"agent-sre: model {version}" for version in versions]
        served = told.served()
        assert served.keys() == set(versions)
        assert len(set(served.values())) == 1, "the same file, template and settings"
        stored = [told.stored(version) for version in versions]
        assert {frozenset(files) for files in stored} == {frozenset(stored[0])}
        for name in stored[0].keys() - set(OWN_TO_EACH_RUN):
            assert len({files[name] for files in stored}) == 1, name
        assert "model.safetensors" in stored[0]
        assert servers.store().list_multipart_uploads(Bucket="models").get("Uploads", []) == []
        digests = [{one["name"]: one.get("digest") for one in run["status"]["exports"]} for run in finals]
        assert len({one["files"] for one in digests}) == len({one["serve"] for one in digests}) == 1
    measure.record(
        "chain-killed",
        kills=len(struck),
        operator=struck.count("operator"),
        victims=struck,
        runs=len(finals),
        seen=len(reader.models),
        seconds=round(time.monotonic() - begun, 1),
        seed=seed,
    )
