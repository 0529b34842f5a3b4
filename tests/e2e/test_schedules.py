"""TrainingSchedules in the real cluster: on time, once, and never twice, whoever dies meanwhile.

The soaks are marked `load`; TRAINYARD_SOAK_MINUTES, TRAINYARD_KILLS and TRAINYARD_RESTARTS say how long and how rough.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e import installed, measure, runs, schedules
from tests.e2e.faults import driver
from tests.e2e.kube import PRIORITY_CLASSES, QUOTAS, Kube
from tests.e2e.recording import Recording
from tests.e2e.scripted import counting
from trainyard.controller.kube.resources import TRAININGRUNS, TRAININGSCHEDULES

MINUTES = int(os.environ.get("TRAINYARD_SOAK_MINUTES", "20"))
SOAK_KILLS = int(os.environ.get("TRAINYARD_KILLS", "40"))
RESTARTS = int(os.environ.get("TRAINYARD_RESTARTS", "3"))
AT_ONCE = int(os.environ.get("TRAINYARD_SCHEDULES", "500"))
SOAKING = 5


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def trainyard(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line, with the local cluster's kubectl."""
    place = f"{schedules.KUBECTL.parent}:{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(schedules.KUBECONFIG), "PATH": place}
    command = [sys.executable, "-m", "trainyard.cli.main", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_a_start_by_hand(kube: Kube, space: str) -> None:
    """One request, one start; with what was asked for, and told at once what is wrong with it."""
    variants = [{"name": n, "labels": {"agent": n}} for n in ("sre", "billing")]
    schedules.create(
        kube, space, schedules.schedule("agents", suspend=True, variants=variants, variantPolicy="Parallel")
    )
    schedules.until(kube, space, "agents", lambda s: s["status"]["state"] == "Suspended", seconds=30, what="a status")
    wrong = trainyard("run-now", "agents", "-n", space, "--set", "backoffLimitt=3")
    assert wrong.returncode == 1
    assert "backoffLimit" in wrong.stderr
    begun = time.monotonic()
    done = trainyard("run-now", "agents", "-n", space, "--set", "backoffLimit=7", "--variant", "billing")
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    name = done.stdout.splitlines()[0].split()[-1]
    run = kube.need(TRAININGRUNS, space, name)
    assert run["spec"]["backoffLimit"] == 7
    assert run["metadata"]["labels"]["agent"] == "billing"
    assert len(kube.list(TRAININGRUNS, space)) == 1
    measure.record("run-now", seconds=round(took, 1))


@pytest.mark.timeout(300)
def test_a_quota_holds_a_start_back_and_does_not_lose_it(kube: Kube, space: str) -> None:
    kube.create(
        QUOTAS, space, {"metadata": {"name": "one"}, "spec": {"hard": {"count/trainingruns.trainyard.dev": "1"}}}
    )
    kube.wait(QUOTAS, space, "one", lambda q: bool(q and q["status"].get("used")), seconds=60, what="its counts")
    variants = [{"name": "a"}, {"name": "b"}]
    schedules.create(
        kube, space, schedules.schedule("agents", suspend=True, variants=variants, variantPolicy="Parallel")
    )
    schedules.until(kube, space, "agents", lambda s: s["status"]["state"] == "Suspended", seconds=30, what="a status")
    assert trainyard("run-now", "agents", "-n", space, "--wait", "0").returncode == 0
    held = schedules.until(
        kube, space, "agents", lambda s: "exceeded quota" in s["status"]["message"], seconds=30, what="the quota's no"
    )
    assert held["status"]["state"] == "Waiting"
    (first,) = kube.list(TRAININGRUNS, space)
    kube.merge(QUOTAS, space, "one", {"spec": {"hard": {"count/trainingruns.trainyard.dev": "2"}}})
    second = first["metadata"]["name"].replace("agents-a-", "agents-b-")
    kube.wait(TRAININGRUNS, space, second, lambda r: r is not None, seconds=90, what="the other run")
    after = schedules.until(kube, space, "agents", lambda s: "firing" not in s["status"], seconds=30, what="the end")
    assert schedules.counts(after)["created"] == 2


@pytest.mark.timeout(400)
def test_runs_that_want_one_gpu_say_whom_they_wait_for(kube: Kube, space: str) -> None:
    """Priority goes before age; among equals the scheduler decides, and what it decided is measured."""
    gpu = {"requests": runs.SMALL["requests"], "limits": {**runs.SMALL["limits"], "nvidia.com/gpu": 1}}
    urgent = f"{space}-urgent"
    # Never: it goes first in line, and does not push the training out that runs.
    kube.create(PRIORITY_CLASSES, None, {"metadata": {"name": urgent}, "value": 1000, "preemptionPolicy": "Never"})
    try:
        placement = {"nodeNames": ["arcanine"]}
        runs.apply(kube, space, counting("first", steps=150, resources=gpu, placement=placement))
        runs.until(kube, space, "first", lambda r: runs.state(r) == "Training", seconds=90, what="the GPU")
        for name, more in (("second", {}), ("third", {}), ("urgent", {"priorityClassName": urgent})):
            runs.apply(kube, space, counting(name, steps=20, resources=gpu, placement={**placement, **more}))
            runs.until(kube, space, name, lambda r: "first on" in runs.message(r), seconds=60, what="its place")
        told = runs.until(
            kube, space, "third", lambda r: "urgent" in runs.message(r), seconds=90, what="the urgent one before it"
        )
        line = runs.message(told)
        assert "nvidia.com/gpu is held by first on arcanine; before this run come" in line
        assert "urgent (priority 1000) and second (older)" in line
        assert runs.condition(told, "Stalled") is None
        ended = {
            name: runs.until_succeeded(kube, space, name, seconds=200)["status"]["completionTime"]
            for name in ("first", "urgent", "second", "third")
        }
        order = sorted(ended, key=lambda name: ended[name])
        measure.record("gpu-line", order=order)
        assert order[:2] == ["first", "urgent"]
    finally:
        kube.delete(PRIORITY_CLASSES, None, urgent)


@pytest.mark.load
@pytest.mark.timeout(3600)
def test_every_minute_while_the_operator_dies(kube: Kube, space: str) -> None:
    seed = int(os.environ.get("TRAINYARD_SEED", str(time.time_ns() % 1_000_000)))
    chance = random.Random(seed)
    installed.until_ready(kube)
    names = [f"soak-{i}" for i in range(SOAKING)]
    with Recording(kube, TRAININGRUNS, space) as record:
        for name in names:
            schedules.create(kube, space, schedules.schedule(name, concurrencyPolicy="Allow"))
        first = (int(time.time()) // 60 + 1) * 60
        end = first + MINUTES * 60
        blows = ["kill"] * SOAK_KILLS + ["restart"] * RESTARTS
        chance.shuffle(blows)
        moments = sorted(chance.uniform(first - 5, end - 5) for _ in blows)
        returns: list[float] = []
        for moment, blow in zip(moments, blows, strict=True):
            time.sleep(max(0.0, moment - time.time()))
            if blow == "restart":
                driver("apiserver", "restart")
                continue
            if (victim := installed.kill(kube, replace=len(returns) % 3 == 2)) is not None:
                died = time.monotonic()
                installed.until_running(kube, after=victim)
                installed.until_ready(kube)
                returns.append(time.monotonic() - died)
        last = end  # the slot at the end itself is the last one that is looked at
        time.sleep(max(0.0, last + 1 - time.time()))
        installed.until_ready(kube)
        statuses = [
            schedules.until(
                kube,
                space,
                name,
                lambda s: (
                    runs.moment(s["status"].get("lastScheduleTime") or "1970-01-01T00:00:00Z").timestamp() >= last
                ),
                seconds=120,
                what="the last slot",
            )
            for name in names
        ]
        created = Counter(record.created())
        made = {c.object["metadata"]["name"]: c.at for c in reversed(record.changes) if c.type == "ADDED"}
    due = {f"{name}-{(first + 60 * i) // 60}" for name in names for i in range((last - first) // 60 + 1)}
    late = [max(0.0, schedules.wall(made[run]) - schedules.slot_of(run)) for run in due & made.keys()]
    missed, doubled = due - made.keys(), [run for run, times in created.items() if times > 1]
    figures = {
        "minutes": MINUTES,
        "kills": len(returns),
        "restarts": RESTARTS,
        "slots": len(due),
        "missed": len(missed),
        "doubled": len(doubled),
        "late_p50": percentile(late, 0.5),
        "late_p99": percentile(late, 0.99),
        "late_max": percentile(late, 1.0),
        "ready_again_after": measure.spread(returns),
        "load": round(os.getloadavg()[0], 1),
        "seed": seed,
    }
    measure.record("schedule-soak", **figures)
    assert not missed, figures
    assert not doubled, figures
    assert all(schedules.counts(s)["missed"] == 0 for s in statuses)
    assert max(late) < 300, "later than startingDeadlineSeconds"


@pytest.mark.load
@pytest.mark.timeout(900)
def test_many_schedules_of_one_second(kube: Kube, space: str) -> None:
    """All of them are due at the same minute; how long until the last run exists."""
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=2 + AT_ONCE // 250)
    clock = f"{due.minute} {due.hour} {due.day} {due.month} *"
    with Recording(kube, TRAININGRUNS, space) as record, ThreadPoolExecutor(4) as pool:
        made = pool.map(
            lambda i: schedules.create(kube, space, schedules.schedule(f"many-{i}", schedule=clock)), range(AT_ONCE)
        )
        assert len(list(made)) == AT_ONCE
        assert datetime.now(UTC) < due - timedelta(seconds=10), "the machine is too slow to make them in time"
        arrivals: dict[str, float] = {}
        for change in record.follow(seconds=600):
            arrivals.setdefault(change.object["metadata"]["uid"], schedules.wall(change.at) - due.timestamp())
            if len(arrivals) == AT_ONCE:
                break
        created = Counter(record.created())
    late = list(arrivals.values())
    measure.record(
        "schedules-at-once",
        schedules=AT_ONCE,
        first=percentile(late, 0.0),
        p50=percentile(late, 0.5),
        last=percentile(late, 1.0),
        load=round(os.getloadavg()[0], 1),
    )
    assert len(created) == AT_ONCE
    assert set(created.values()) == {1}


@pytest.mark.load
@pytest.mark.timeout(900)
def test_the_operator_is_away_over_three_slots(kube: Kube, space: str) -> None:
    """Skip gives up what is late; RunOnce makes up for all of it by one start."""
    late = {"startingDeadlineSeconds": 10, "concurrencyPolicy": "Allow"}
    with Recording(kube, TRAININGRUNS, space) as record:
        for name, policy in (("skips", "Skip"), ("catches-up", "RunOnce")):
            schedules.create(kube, space, schedules.schedule(name, catchUp=policy, **late))
            schedules.until(kube, space, name, lambda s: "nextScheduleTime" in s["status"], seconds=30, what="a clock")
        with installed.away(kube):
            before = set(record.created())
            gone = int(time.time()) // 60
            # Back in the middle of a minute: late for the third slot, and not on time for a fourth.
            time.sleep((gone + 3) * 60 + 25 - time.time())
        back = time.time()
        third = (gone + 3) * 60
        names = {"catches-up": f"catches-up-{third // 60}", "skips": f"skips-{third // 60 + 1}"}
        for name, run in names.items():
            kube.wait(TRAININGRUNS, space, run, lambda r: r is not None, seconds=120, what="the next run")
            schedules.until(
                kube, space, name, lambda s: schedules.counts(s)["missed"] >= 2, seconds=30, what="the count"
            )
        after = sorted(set(record.created()) - before)
        counted = {name: schedules.counts(kube.need(TRAININGSCHEDULES, space, name)) for name in names}
    slots = {name: [schedules.slot_of(r) for r in after if r.startswith(name)] for name in names}
    measure.record("schedules-after-absence", counted=counted, away_seconds=round(back - gone * 60))
    assert min(slots["skips"]) > back - 60, "a late start was made although catchUp is Skip"
    assert slots["catches-up"][0] == third
    assert sum(slot <= third for slot in slots["catches-up"]) == 1, "RunOnce makes one start for all"
    assert counted["skips"]["missed"] == 3
    assert counted["catches-up"]["missed"] == 2
