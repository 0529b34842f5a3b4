"""Thousands of manifests that nobody would write: each is refused, or told about, and none of them stays without a word.

They are made from the examples by a few random changes: fields that go, that come twice, that get another type, a huge number,
a long text. The runs that the API server takes carry a queue label that nobody admits, so that no pod is made of them.
"""

import copy
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import ROOT
from tests.e2e import installed, measure, runs
from tests.e2e.kube import Kube, Object
from trainyard.api import names
from trainyard.api.manifest import InvalidManifest, read_documents
from trainyard.controller.kube.resources import JOBS, TRAININGRUNS

MANIFESTS = int(os.environ.get("TRAINYARD_ODD_MANIFESTS", "10000"))
BATCH = 250
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 1e308, 1e-9, 0.5, "", "x", " ", "a" * 300, "ünï-ćode", "../..", "1Gi", "1e-4",
    "pvc://claim/a", "hf://a/b@main", "s3://b/k", "https://h/x?y=z", "{{x}}", "a\nb", "\x1b[31m", [], [[]], ["a"], ["a", "a"], {},
    {"a": "b"}, {"name": "x"}, [{"name": "x"}, {"name": "x"}],
]  # fmt: skip
pytestmark = [pytest.mark.load, pytest.mark.timeout(3600)]


def examples() -> list[Object]:
    """The specs of all runs among the examples."""
    found = []
    for file in sorted((ROOT / "examples").rglob("*.yaml")):
        try:
            documents = [d.value for d in read_documents(file.read_text())]
        except InvalidManifest:
            continue
        found += [d["spec"] for d in documents if d.get("kind") == "TrainingRun"]
        found += [d["spec"]["template"]["spec"] for d in documents if d.get("kind") == "TrainingSchedule"]
    return found


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a spec with every key of it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from places(inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield value, index
            yield from places(inner)


def odd(chance: random.Random, sources: list[Object]) -> Object:
    """One of the specs, changed in one to four places."""
    spec = copy.deepcopy(chance.choice(sources))
    for _ in range(chance.randint(1, 4)):
        found = list(places(spec))
        if not found:
            break
        holder, key = chance.choice(found)
        match chance.randint(0, 4):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case 2 if isinstance(holder, dict):
                other, source = chance.choice(list(places(chance.choice(sources))))
                holder[source if isinstance(source, str) else key] = copy.deepcopy(other[source])
            case _:
                holder[key] = copy.deepcopy(chance.choice(VALUES))
    return spec


def test_odd_manifests(kube: Kube, space: str) -> None:
    seed = int(os.environ.get("TRAINYARD_SEED", str(time.time_ns() % 1_000_000)))
    print(f"\nTRAINYARD_SEED={seed}")
    chance, sources = random.Random(seed), examples()
    answers: Counter[int] = Counter()
    told: Counter[str] = Counter()
    silent: list[str] = []
    installed.until_ready(kube)
    begun, before = time.monotonic(), installed.pod(kube)

    def create(numbered: tuple[int, Object]) -> tuple[int, str]:
        name = f"odd-{numbered[0]}"
        metadata = {"name": name, "labels": {names.QUEUE_LABEL: "nobody-admits"}}
        body = {"metadata": metadata, "spec": numbered[1]}
        return kube.try_create(TRAININGRUNS, space, body).code, name

    with ThreadPoolExecutor(8) as pool:
        for first in range(0, MANIFESTS, BATCH):
            batch = [(n, odd(chance, sources)) for n in range(first, min(first + BATCH, MANIFESTS))]
            made = list(pool.map(create, batch))
            answers.update(code for code, _ in made)
            taken = {name for code, name in made if code == 201}
            deadline, heard = time.monotonic() + 60, dict[str, Object]()
            for change in kube.watch(TRAININGRUNS, space, seconds=60):
                name, status = change.object["metadata"]["name"], change.object.get("status", {})
                if name in taken and status.get("conditions") and status.get("observedGeneration", -1) > 0:
                    heard[name] = change.object
                if taken <= heard.keys() or time.monotonic() > deadline:
                    break
            silent += sorted(taken - heard.keys())
            told.update(runs.condition(r, "Ready")["reason"] for r in heard.values())  # type: ignore[index]
            assert not silent, f"no word about {silent[:5]}: {[b for n, b in batch if f'odd-{n}' in silent][:1]}"
            list(pool.map(lambda name: kube.delete(TRAININGRUNS, space, name), taken))
    until_gone(kube, space)
    after = installed.pod(kube)
    assert before is not None
    assert after is not None
    log = kube.log(installed.NAMESPACE, after["metadata"]["name"])
    measure.record(
        "odd-manifests",
        manifests=MANIFESTS,
        seconds=round(time.monotonic() - begun),
        answers=dict(answers),
        told=dict(told),
        silent=len(silent),
        tracebacks=len(re.findall("Traceback", log)),
        seed=seed,
    )
    assert answers.keys() <= {201, 400, 422}, answers
    assert "Traceback" not in log
    restarts = [p["status"]["containerStatuses"][0]["restartCount"] for p in (before, after)]
    assert restarts[0] == restarts[1], "the operator has died"


def until_gone(kube: Kube, space: str) -> None:
    for resource in (TRAININGRUNS, JOBS):
        for _ in kube.watch(resource, space, seconds=300, tell_absence=True):
            if not kube.list(resource, space):
                break
