"""Two hundred runs and an hour of faults: none lost, none doubled, none in a wrong state, none stuck.

TRAINYARD_CHAOS_SECONDS and TRAINYARD_CHAOS_RUNS make it shorter; TRAINYARD_SEED repeats one, and TRAINYARD_CHAOS_ACTS names the
faults to play (comma-separated; all).
"""

import os
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from urllib3.exceptions import HTTPError

from tests.e2e import installed, measure, runs
from tests.e2e.chaos.acts import ACTS, Stage
from tests.e2e.chaos.apiproxy import ApiProxy
from tests.e2e.chaos.operator_process import FAKETIME, OperatorProcess
from tests.e2e.kube import Kube, Object, TimedOut
from tests.e2e.recording import Recording
from tests.e2e.scripted import IMAGE, counting, steps_done
from trainyard.api import names
from trainyard.controller.kube.resources import JOBS, PODS, TRAININGRUNS

SECONDS = float(os.environ.get("TRAINYARD_CHAOS_SECONDS", "3600"))
RUNS = int(os.environ.get("TRAINYARD_CHAOS_RUNS", "200"))
ONLY = {name for name in os.environ.get("TRAINYARD_CHAOS_ACTS", "").split(",") if name}
AT_ONCE = 14
CALM_SECONDS = 600.0
"""So long after the last fault every run has to have ended."""
pytestmark = [pytest.mark.load, pytest.mark.e2e]


@dataclass
class Part:
    """One run of the play: what it is, and what a person does to it on the way."""

    name: str
    manifest: Object
    steps: int
    ends: str = "Succeeded"
    suspended_for: float = 0.0
    asked: float = 0.0


def cast(chance: random.Random) -> list[Part]:
    """The runs. Kills count only without a newer checkpoint, so the limit is high: what is tested is that all get there."""
    parts = []
    for index in range(RUNS):
        name, steps = f"chaos-{index:03}", chance.randint(100, 400)
        rest = {"backoffLimit": 1000}
        kind = chance.random()
        if kind < 0.06:
            manifest = runs.tiny(name, training={"maxSteps": 40}, **rest)
            parts.append(Part(name, manifest, 0))
        elif kind < 0.12:
            manifest = counting(name, command=["python3", "-c", "raise SystemExit(64)"], args=[], backoffLimit=1000)
            parts.append(Part(name, manifest, 0, ends="Failed"))
        elif kind < 0.22:
            parts.append(Part(name, counting(name, steps=100_000, pause=0.2, save=10, **rest), 0, ends="Cancelled"))
        elif kind < 0.37:
            manifest = counting(name, steps=steps, pause=0.2, save=10, **rest)
            parts.append(Part(name, manifest, steps, suspended_for=chance.uniform(5, 40)))
        else:
            parts.append(Part(name, counting(name, steps=steps, pause=0.2, save=10, **rest), steps))
    return parts


@pytest.mark.timeout(SECONDS + CALM_SECONDS + 600)
def test_an_hour_of_faults(kube: Kube, space: str, tmp_path: Path) -> None:
    if not FAKETIME.exists():
        pytest.fail(f"{FAKETIME} is missing: apt-get install faketime")
    seed = int(os.environ.get("TRAINYARD_SEED", str(time.time_ns() % 1_000_000)))
    print(f"\nTRAINYARD_SEED={seed}, operator's log in {tmp_path}")
    chance = random.Random(seed)
    proxy = ApiProxy(tmp_path, kube.server, seed=seed)
    operator = OperatorProcess(tmp_path, proxy.kubeconfig, namespace=space, image=IMAGE)
    stage = Stage(kube, space, proxy, operator, chance, tmp_path)
    done: Counter[str] = Counter()
    with (
        installed.away(kube),
        Recording(kube, JOBS, space) as jobs,
        Recording(kube, PODS, space) as pods,
        Recording(kube, TRAININGRUNS, space) as history,
    ):
        operator.start()
        operator.until_ready()
        try:
            parts = cast(chance)
            play(stage, parts, done)
            finals = {part.name: until_ended(stage, part) for part in parts}
        finally:
            operator.stop()
            proxy.close()
        verdicts = [fault for part in parts for fault in wrong(kube, part, finals[part.name], history)]
        verdicts += doubled(jobs, pods)
        measure.record(
            "chaos",
            seconds=SECONDS,
            runs=len(parts),
            ended=dict(Counter(runs.state(r) for r in finals.values() if r)),
            stuck=sum(1 for r in finals.values() if not runs.finished(r)),
            attempts=len(jobs.created()),
            restarts=sum((r or {}).get("status", {}).get("restarts", 0) for r in finals.values()),
            faults=dict(sorted(done.items())),
            operator_ended_by_itself=operator.starts - operator.kills - 1,
            requests_failed=dict(proxy.failed),
            verdicts=verdicts,
            seed=seed,
        )
    assert not verdicts, "\n".join(verdicts)


def play(stage: Stage, parts: list[Part], done: Counter[str]) -> None:
    """Runs come one after the other, some at a time; faults come all the while."""
    begun = time.monotonic()
    waiting, pace = list(parts), SECONDS * 0.85 / len(parts)
    chosen = {act: often for act, often in ACTS.items() if not ONLY or act.__name__ in ONLY}
    acts, weights = list(chosen), list(chosen.values())
    came: dict[str, float] = {}
    while time.monotonic() - begun < SECONDS:
        now = time.monotonic()
        stage.operator.start()  # as the kubelet does with one that has ended by itself
        if waiting and now - begun >= (len(parts) - len(waiting)) * pace and len(alive(stage)) < AT_ONCE:
            part = waiting.pop(0)
            firmly(lambda part=part: runs.apply(stage.kube, stage.namespace, part.manifest))  # type: ignore[misc]
            came[part.name] = now
        firmly(lambda: people(stage, [p for p in parts if p.name in came], came))
        act = stage.chance.choices(acts, weights)[0]
        if (told := firmly(lambda act=act: act(stage))) is not None:  # type: ignore[misc]
            done[act.__name__] += 1
            print(f"{now - begun:6.0f} s  {act.__name__}: {told}", flush=True)
        stage.pause(1, 8)
    stage.operator.start()
    for part in waiting:
        runs.apply(stage.kube, stage.namespace, part.manifest)
        came[part.name] = time.monotonic()
    while any((p.ends == "Cancelled" and not p.asked) or p.suspended_for for p in parts):
        firmly(lambda: people(stage, parts, came))
        stage.pause(1, 2)


def people(stage: Stage, parts: list[Part], came: dict[str, float]) -> None:
    """What those who own the runs do: suspend some and let them go on, cancel some."""
    for part in parts:
        age = time.monotonic() - came[part.name]
        if part.ends == "Cancelled" and not part.asked and age > 30:
            change: Object = {"metadata": {"annotations": {names.CANCEL_ANNOTATION: "not wanted any more"}}}
            if stage.patch(TRAININGRUNS, part.name, change).accepted:
                part.asked = age
        elif part.suspended_for and not part.asked and age > 20:
            if stage.patch(TRAININGRUNS, part.name, {"spec": {"suspend": True}}).accepted:
                part.asked = age
        elif (
            part.suspended_for
            and part.asked
            and age > part.asked + part.suspended_for
            and stage.patch(TRAININGRUNS, part.name, {"spec": {"suspend": False}}).accepted
        ):
            part.suspended_for = 0.0


def alive(stage: Stage) -> list[Object]:
    return [r for r in firmly(lambda: stage.kube.list(TRAININGRUNS, stage.namespace)) or [] if not runs.finished(r)]


def firmly(deed):  # type: ignore[no-untyped-def]
    """An act of the play meets the API server at a bad moment too; then it has not happened."""
    try:
        return deed()
    except (AssertionError, OSError, KeyError, HTTPError, subprocess.SubprocessError) as error:
        print(f"          not done: {str(error)[:160]}", flush=True)
        return None


def until_ended(stage: Stage, part: Part) -> Object | None:
    try:
        return runs.until_finished(stage.kube, stage.namespace, part.name, seconds=CALM_SECONDS)
    except TimedOut as error:
        print(f"stuck: {error}", flush=True)
        return stage.kube.get(TRAININGRUNS, stage.namespace, part.name)


def wrong(kube: Kube, part: Part, run: Object | None, history: Recording) -> list[str]:
    """What is not as it should be at the end of a run, and on its way."""
    if run is None:
        return [f"{part.name} is lost"]
    if not runs.finished(run):
        return [f"{part.name} is stuck: {runs.state(run)}: {runs.message(run)}"]
    found = []
    if runs.state(run) != part.ends:
        found.append(f"{part.name} is {runs.state(run)}, not {part.ends}: {runs.message(run)}")
    ends = [runs.finished(v) for v in history.versions(part.name)]
    if ends != sorted(ends):
        found.append(f"{part.name} was finished and then not")
    if part.steps and runs.state(run) == "Succeeded" and set(steps_done(kube, run)) != set(range(1, part.steps + 1)):
        found.append(f"{part.name} did not do all of its steps")
    return found


def doubled(jobs: Recording, pods: Recording) -> list[str]:
    """Jobs of one name made twice, and moments at which two pods of a run worked."""
    found = [f"Job {name} was made {n} times" for name, n in Counter(jobs.created()).items() if n > 1]
    spans: dict[str, list[tuple[str, str, str]]] = {}
    last = {c.object["metadata"]["uid"]: c.object for c in pods.changes}
    for pod in last.values():
        for status in pod["status"].get("containerStatuses", []):
            ended = status["state"].get("terminated") or {}
            if ended.get("startedAt") and ended.get("finishedAt"):
                run = pod["metadata"]["labels"][names.RUN_LABEL]
                spans.setdefault(run, []).append((ended["startedAt"], ended["finishedAt"], pod["metadata"]["name"]))
    for run, mine in spans.items():
        mine.sort()
        for (_, end, one), (start, _, other) in pairwise(mine):
            if start < end:
                found.append(f"{run}: {one} ended at {end}, {other} began at {start}")
    return found
