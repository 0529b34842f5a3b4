"""Kill -9 the operator again and again under ten runs. None of them may notice.

The moments are random (with a printed seed) while it works. Every second one is the very moment at which a Job has come
into being, when the operator has not yet written down that it made it. Most deaths leave the restart to the kubelet; the
first of every four takes the pod away too, so that a new pod has to take the Lease over from a dead holder. That also keeps
the kubelet's pause before a restart short: it doubles with each restart of one pod, also with those of an earlier test.
"""

import os
import random
import time
from collections import Counter

import pytest

from tests.e2e import installed, measure, runs
from tests.e2e.kube import Kube
from tests.e2e.recording import Recording
from tests.e2e.scripted import counting, steps_done
from trainyard.api import names
from trainyard.controller.kube.resources import JOBS, PODS, TRAININGRUNS

RUNS = 10
REAL = int(os.environ.get("TRAINYARD_REAL_RUNS", "1"))
"""How many of them train a real model; the rest count steps, because ten models do not fit into two cores."""
SAVE = 10
SECONDS_A_KILL = 20.0
"""About how long a death with its return takes; the runs are made to last as long as all of them."""


@pytest.mark.timeout(2400)
def test_runs_do_not_notice_that_the_operator_dies(kube: Kube, space: str, kills: int) -> None:
    seed = int(os.environ.get("TRAINYARD_SEED", str(time.time_ns() % 1_000_000)))
    print(f"\nTRAINYARD_SEED={seed}")
    chance = random.Random(seed)
    lasting = SECONDS_A_KILL * kills
    # They begin and end at different times, so that some step of some run begins or ends all the time.
    shares = [0.2 + 0.5 * i / RUNS for i in range(RUNS)]
    made = [runs.tiny(f"real-{i}", training={"maxSteps": round(5 * lasting * shares[i])}) for i in range(REAL)]
    counts = {f"counted-{i}": round(lasting * shares[i] / 0.2) for i in range(RUNS - REAL)}
    made += [counting(name, steps=steps, save=SAVE, pause=0.2) for name, steps in counts.items()]
    starts = sorted(chance.uniform(0, 0.3 * lasting) for _ in made)
    deaths: list[float] = []
    at_a_birth = 0
    returns: list[float] = []
    begun = time.monotonic()
    with Recording(kube, JOBS, space) as job_record, Recording(kube, TRAININGRUNS, space) as run_record:
        while len(deaths) < kills or made:
            while made and (time.monotonic() - begun >= starts[-len(made)] or len(deaths) == kills):
                runs.apply(kube, space, made.pop(0))
            if len(deaths) < kills:
                if len(deaths) % 2:
                    mark = job_record.mark()
                    if made:
                        runs.apply(kube, space, made.pop(0))
                    at_a_birth += job_record.await_another(mark, seconds=6.0)
                else:
                    meaningless_moment(chance.uniform(0.0, 6.0))
                if (victim := installed.kill(kube, replace=len(deaths) % 4 == 0)) is not None:
                    died = time.monotonic()
                    deaths.append(died - begun)
                    installed.until_running(kube, after=victim)
                    installed.until_ready(kube)
                    returns.append(time.monotonic() - died)
        finals = [
            runs.until_succeeded(kube, space, run["metadata"]["name"], seconds=900)
            for run in kube.list(TRAININGRUNS, space)
        ]
        assert len(finals) == RUNS
        created = Counter(job_record.created())
        took = time.monotonic() - begun

    doubled = {name: count for name, count in created.items() if count > 1}
    assert not doubled, f"Jobs that were made more than once: {doubled}"
    for run in finals:
        name = run["metadata"]["name"]
        steps = ["prepare", "train", "evaluate"] if name.startswith("real") else ["train"]
        mine = sorted(job for job in created if job.startswith(f"{name}-"))
        assert mine == sorted(names.job_name(name, step, 1) for step in steps), "no step may be started a second time"
        assert run["status"]["restarts"] == 0
        assert run["status"]["summary"]["progress"] == "100%"
        ends = [runs.finished(v) for v in run_record.versions(name)]
        assert ends == sorted(ends), f"{name} was finished and then not"
        if name.startswith("counted"):
            done = steps_done(kube, run)
            assert sorted(done) == list(range(1, counts[name] + 1))
            twice = [step for step, times in done.items() if times > 1]
            assert not twice, f"{name} did steps {twice} more than once"

    for run in finals:
        kube.delete(TRAININGRUNS, space, run["metadata"]["name"])
    runs.until_nothing_is_left(kube, space, seconds=120)
    measure.record(
        "operator-killed",
        kills=len(deaths),
        runs=RUNS,
        real=REAL,
        succeeded=len(finals),
        jobs=sum(created.values()),
        doubled=len(doubled),
        seconds=round(took, 1),
        right_after_a_job_was_made=at_a_birth,
        ready_again_after=measure.spread(returns),
        seed=seed,
    )


def meaningless_moment(seconds: float) -> None:
    """Wait for a moment that means nothing: that is the point of it."""
    time.sleep(seconds)


@pytest.mark.timeout(600)
def test_a_pod_ends_while_no_operator_is_there(kube: Kube, space: str) -> None:
    """The end of a step, and what it left, are found afterwards."""
    installed.until_ready(kube)
    runs.apply(kube, space, counting("alone", steps=60, pause=0.1, save=20))
    runs.until(kube, space, "alone", lambda r: runs.state(r) == "Training", seconds=60, what="training")
    with installed.away(kube):
        pod = runs.pods(kube, space, "alone", step="train")[0]["metadata"]["name"]
        kube.wait(
            PODS,
            space,
            pod,
            lambda p: bool(p and p["status"]["phase"] == "Succeeded"),
            seconds=60,
            what="the end of the pod",
        )
        assert not runs.finished(kube.need(TRAININGRUNS, space, "alone"))
    begun = time.monotonic()
    run = runs.until_succeeded(kube, space, "alone", seconds=120)
    measure.record("operator-away", seconds_until_noticed=round(time.monotonic() - begun, 1))
    assert run["status"]["restarts"] == 0
    assert set(steps_done(kube, run).values()) == {1}
