"""An operator that is killed again and again, and a receiver that is away for a third of the time."""

import asyncio
import base64
import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.controller.alerts.lived import ENDS, Player
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.test_process import OperatorProcess
from tests.webserver import Asked, Reply, web
from trainyard.api.crd import training_run_crd
from trainyard.api.names import CANCEL_ANNOTATION

RUNS = int(os.environ.get("ALERT_RUNS", "100"))
KILLS = int(os.environ.get("ALERT_KILLS", "200"))
AWAY_SECONDS, BACK_SECONDS = 2.0, 4.0
OWED = {
    "completed": {"job_started", "job_completed"},
    "failed": {"job_started", "job_failed"},
    "memory": {"job_started", "job_completed", "gpu_oom"},
    "cancelled": {"job_started", "job_cancelled"},
}
IMPATIENT = """
import sys
from trainyard.controller import __main__
from trainyard.controller.alerts import desk
desk.AlertDesk.__init__.__kwdefaults__.update(first_pause=0.2, longest_pause=2.0)
sys.exit(__main__.main())
"""


def spec() -> dict:
    notification = {"name": "lab", "secretRef": {"name": "lab"}}
    return {"image": "i", "command": ["train"], "backoffLimit": 0, "notifications": [notification]}


@pytest.mark.load
@pytest.mark.timeout(3600)
async def test_every_alert_is_told_once_by_its_key_and_none_is_missing(kube: FakeKube, tmp_path: Path):
    kube.put("customresourcedefinitions", training_run_crd())
    began = time.monotonic()
    told: list[tuple[str, dict]] = []
    asked = away = kills = 0
    lives: Counter[tuple[str, int]] = Counter()

    def answer(request: Asked) -> Reply:
        nonlocal asked, away
        asked += 1
        if (time.monotonic() - began) % (AWAY_SECONDS + BACK_SECONDS) < AWAY_SECONDS:
            away += 1
            return Reply(status=503)
        lives[str(request.headers["Idempotency-Key"]), kills] += 1
        told.append((str(request.headers["Idempotency-Key"]), json.loads(request.body)))
        return Reply({"success": True})

    with web(answer) as receiver:
        url = base64.b64encode(f"{receiver.url}/api/alerts/trigger".encode()).decode()
        kube.put("secrets", {"metadata": {"namespace": "team", "name": "lab"}, "data": {"url": url}})
        (tmp_path / "kubeconfig").write_text(kube.kubeconfig())
        operator = OperatorProcess(
            tmp_path / "kubeconfig", command=("-c", IMPATIENT), TRAINYARD_TRIGGERS_ALLOW_LOOPBACK="true"
        )
        player = asyncio.create_task(Player(kube, seconds=1.0).play())
        expected: dict[str, set[str]] = {}
        made = 0
        dice = random.Random(1)
        try:
            while kills < KILLS:
                await operator.start()
                while made < RUNS and made <= kills * RUNS / (0.8 * KILLS):
                    body = {"metadata": {"namespace": "team", "name": f"run-{made}"}, "spec": spec()}
                    expected[kube.put("trainingruns", body)["metadata"]["uid"]] = OWED[ENDS[made % len(ENDS)]]
                    made += 1
                cancel_some(kube, dice)
                # From before it is ready to well at work: sooner or later at any moment of its life.
                await operator.ready()
                await asyncio.sleep(dice.expovariate(1 / 0.4))
                assert operator.process is not None
                operator.process.kill()
                await operator.ended()
                kills += 1
            await operator.start()
            async with asyncio.timeout(300):
                while missing(expected, told, kube) or some_work(kube):
                    cancel_some(kube, dice, share=1.0)
                    await asyncio.sleep(0.5)
            assert operator.process is not None
            operator.process.terminate()
            await operator.ended()
        finally:
            player.cancel()
            if operator.process is not None and operator.process.returncode is None:
                operator.process.kill()
                await operator.ended()

    keys = Counter(key for key, _ in told)
    print(
        f"{len(kube.objects['trainingruns'])} runs, {kills} kills, {asked} posts of which {away} found nobody, "
        f"{len(keys)} alerts, {sum(keys.values()) - len(keys)} sent more than once, {time.monotonic() - began:.0f} s"
    )
    assert max(lives.values()) == 1, "sent again without a kill in between"
    by_run: dict[str, Counter[str]] = {}
    for key in keys:
        body = next(body for told_key, body in told if told_key == key)
        assert key.startswith(body["job_id"] + "/")
        by_run.setdefault(body["job_id"], Counter())[body["type"]] += 1
    assert by_run.keys() == expected.keys()
    for uid, counted in by_run.items():
        want = {kind: 2 if kind == "gpu_oom" else 1 for kind in expected[uid]}
        assert dict(counted) == want, uid


def cancel_some(kube: FakeKube, dice: random.Random, *, share: float = 0.3) -> None:
    """Of those that train until somebody does."""
    for (_, name), run in list(kube.objects["trainingruns"].items()):
        if (
            ENDS[int(name.split("-")[1]) % len(ENDS)] != "cancelled"
            or (run.get("status") or {}).get("state") != "Training"
        ):
            continue
        annotations = run["metadata"].setdefault("annotations", {})
        if CANCEL_ANNOTATION not in annotations and dice.random() < share:
            annotations[CANCEL_ANNOTATION] = "enough"
            kube.put("trainingruns", run)
    for place, pod in list(kube.objects["pods"].items()):
        job = (place[0], pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
        if job not in kube.objects["jobs"]:
            kube.remove("pods", *place)


def missing(expected: dict[str, set[str]], told: list[tuple[str, dict]], kube: FakeKube) -> bool:
    there = {(body["job_id"], body["type"]) for _, body in list(told)}
    return any((uid, kind) not in there for uid, kinds in expected.items() for kind in kinds)


def some_work(kube: FakeKube) -> bool:
    """Whether a status does not say yet that all has been told."""
    return any(
        len({a["name"].split("-")[0] for a in (run.get("status") or {}).get("alerts") or ()}) < 2
        for run in kube.objects["trainingruns"].values()
    )
