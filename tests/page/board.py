"""A page with runs that somebody plays: the real application on a real port, over a cluster and a history in memory."""

import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from trainyard.controller.clock import SystemClock
from trainyard.controller.kube.resources import TRAININGRUNS, TRAININGSCHEDULES, TRAININGSWEEPS, Resource
from trainyard.controller.page.application import Page
from trainyard.controller.page.board import Board
from trainyard.controller.page.reader import Doorman, Person
from trainyard.controller.ports import Limits, Served
from trainyard.controller.reports.history import Curves, Key, Mark, News, Point

Raw = dict[str, Any]
CREATED = "2026-11-28T10:00:00Z"


class MemoryHistory:
    """A `History` of what is put in."""

    def __init__(self) -> None:
        self.curves: dict[str, Curves] = defaultdict(Curves)
        self._news: list[News] = []
        self._numbers = itertools.count(1)
        self._more = asyncio.Condition()

    async def add(self, uid: str, said: Point | Mark) -> None:
        known = self.curves[uid]
        point, mark = (said, None) if isinstance(said, Point) else (None, said)
        self.curves[uid] = Curves(known.points + ((point,) if point else ()), known.marks + ((mark,) if mark else ()))
        async with self._more:
            self._news.append(
                News(f"h-{next(self._numbers)}", "point" if point else "mark", uid=uid, point=point, mark=mark)
            )
            self._more.notify_all()

    async def points(self, key: Key, uid: str) -> Curves:
        return self.curves[uid]

    async def subscribe(self, *, uid: str | None = None, last_event_id: str | None = None) -> AsyncIterator[News]:
        at = int(last_event_id.partition("-")[2]) if last_event_id else len(self._news)
        while True:
            async with self._more:
                while len(self._news) <= at:
                    await self._more.wait()
            for one in self._news[at:]:
                at += 1
                if uid in (None, one.uid):
                    yield one


class MemoryCluster:
    """As much of a `Cluster` as the page asks."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Raw] = {}
        self.reads = 0

    async def get(self, kind: Resource, namespace: str, name: str) -> Raw | None:
        self.reads += 1
        return self.objects.get((kind.plural, namespace, name))


class MemoryReviews:
    """An API server that knows two people."""

    def __init__(self) -> None:
        self.asked = 0

    async def review_token(self, token: str) -> Person | None:
        return {"ann": Person("ann", ("team-a",)), "bob": Person("bob")}.get(token)

    async def may_list_runs(self, person: Person, namespace: str | None) -> bool:
        self.asked += 1
        return person.name == "bob" or namespace == "team-a"


class Stage:
    """Plays runs on a page."""

    def __init__(self, doorman: Doorman | None = None) -> None:
        self.board = Board(clock=SystemClock(), started="1")
        self.history, self.cluster, self.reviews = MemoryHistory(), MemoryCluster(), MemoryReviews()
        self.doorman = doorman or Doorman("Open", reviews=self.reviews, clock=SystemClock())
        self.port = 0

    def put(self, raw: Raw) -> Raw:
        metadata = raw["metadata"]
        events = {
            TRAININGRUNS.kind: self.board.run_event,
            TRAININGSCHEDULES.kind: self.board.schedule_event,
            TRAININGSWEEPS.kind: self.board.sweep_event,
        }
        plural = f"{raw['kind'].lower()}s"
        self.cluster.objects[plural, metadata["namespace"], metadata["name"]] = raw
        events[raw["kind"]]("MODIFIED", raw)
        return raw

    def delete(self, raw: Raw) -> None:
        metadata = raw["metadata"]
        self.cluster.objects.pop((TRAININGRUNS.plural, metadata["namespace"], metadata["name"]))
        self.board.run_event("DELETED", raw)

    @asynccontextmanager
    async def served(self) -> AsyncIterator["Stage"]:
        page = Page(board=self.board, history=self.history, cluster=self.cluster, doorman=self.doorman)  # type: ignore[arg-type]
        limits = Limits(in_all=256, of_one_address=256, seconds=300)
        server = Served(page.application(), port=0, host="127.0.0.1", limits=limits)
        self.port = await server.start()
        try:
            yield self
        finally:
            await server.stop()


def training_run(
    name: str, *, namespace: str = "team-a", state: str = "Training", step: int = 40, **status: Any
) -> Raw:
    """A run as the operator writes it."""
    ended = state in ("Succeeded", "Failed")
    summary = {
        "method": "SFT", "model": "SmolLM2-135M", "progress": f"{step}%", "step": f"{step}/100", "loss": "1.2345",
        "node": "arcanine", "stepName": "train", **({} if ended else {"eta": "3m20s"}),
    }  # fmt: skip
    return {
        "apiVersion": TRAININGRUNS.api_version,
        "kind": TRAININGRUNS.kind,
        "metadata": {
            "name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", "creationTimestamp": CREATED,
            "resourceVersion": "1", "labels": {},
        },
        "spec": {
            "model": {"storageUri": "hf://org/base"},
            "datasets": [{"name": "runbook", "storageUri": "s3://bucket/data.jsonl"}],
            "training": {"method": "SFT", "maxSteps": 100, "learningRate": 0.0002},
            "podTemplate": {"env": [{"name": "WORD", "value": "hidden-in-the-spec"}]},
        },
        "status": {
            "state": state,
            "message": status.pop("message", "training on arcanine"),
            "startTime": CREATED,
            **({"completionTime": "2026-11-28T10:30:00Z"} if ended else {}),
            "trainerStatus": {"progressPercentage": step, "step": step, "totalSteps": 100},
            "summary": summary,
            "steps": [
                {
                    "name": "train",
                    "state": "Running",
                    "job": f"{name}-train-1",
                    "attempts": [{"number": 1, "state": "Running", "startTime": CREATED, "node": "arcanine"}],
                }
            ],
            **status,
        },
    }  # fmt: skip


def training_sweep() -> Raw:
    """A sweep with a parameter that may be shown and one that may not."""
    values = [{"training.learningRate": f"{rate:g}", "args[1]": "hidden-in-the-spec"} for rate in (1e-3, 1e-2, 1e-4)]
    states = ("Succeeded", "Stopped", "Running")
    trials = [
        {"number": n, "run": f"tune-{n}", "state": state, "assignments": given}
        | ({"value": f"{2 + n / 2}", "rung": 10} if state != "Running" else {})
        for n, state, given in zip((1, 2, 3), states, values, strict=True)
    ]
    return {
        "apiVersion": TRAININGSWEEPS.api_version,
        "kind": TRAININGSWEEPS.kind,
        "metadata": {"name": "tune", "namespace": "lab", "uid": "u", "creationTimestamp": CREATED},
        "spec": {
            "objective": {"metric": "eval_loss", "direction": "Minimize"},
            "algorithm": "TPE",
            "parameters": [
                {"name": "training.learningRate", "double": {"min": 1e-5, "max": 1e-1, "log": True}},
                {"name": "args[1]", "choice": {"values": ["hidden-in-the-spec"]}},
            ],
        },
        "status": {
            "state": "Running",
            "summary": "2/4",
            "best": {"number": 1, "run": "tune-1", "value": "2.5", "assignments": values[0]},
            "trialCounts": {"total": 4, "running": 1, "stopped": 1, "succeeded": 1, "failed": 0, "cancelled": 0},
            "trials": trials,
        },
    }


def curve(steps: int) -> list[Point]:
    """A loss that falls."""
    return [
        Point(
            1e9 + step,
            step,
            {
                "loss": 3 * math.exp(-step / 40) + 0.4 + 0.05 * math.sin(step),
                "learning_rate": 2e-4 * (1 - step / max(1, steps)),
                "tokens_per_second": 240 + 10 * math.sin(step / 3),
                **({"eval_loss": 3 * math.exp(-step / 40) + 0.5} if step % 20 == 0 else {}),
            },
        )
        for step in range(1, steps + 1)
    ]


def marks() -> list[Mark]:
    return [
        Mark(1e9, 25, "checkpoint", "step-25"),
        Mark(1e9, 50, "checkpoint", "step-50"),
        Mark(1e9, 60, "restart", "attempt 2"),
        Mark(1e9, 70, "out-of-memory", "batch 8 -> 4"),
    ]


async def example() -> Stage:
    """What the screenshots show."""
    stage = Stage()
    gates = [
        {
            "metric": "commandAccuracy",
            "verdict": "Promote",
            "value": "0.86",
            "reference": "0.41",
            "gain": "0.45",
            "interval": ["0.36", "0.54"],
            "n": 118,
        }
    ]
    run = training_run(
        "agent-sre-7",
        step=72,
        checkpoint={"step": 50, "path": "checkpoints/step-50"},
        evaluation={"gates": gates, "metrics": [{"name": "loss", "value": "0.81"}]},
        exports=[
            {"name": "store", "target": "s3", "state": "Succeeded", "uri": "s3://models/agent-sre/7", "version": "7"},
            {"name": "chat", "target": "ollama", "state": "Running"},
        ],
    )
    stage.put(run)
    for said in (*curve(72), *marks()):
        await stage.history.add(run["metadata"]["uid"], said)
    stage.put(
        training_run(
            "committee-dpo",
            state="Pending",
            step=0,
            message="waiting for a GPU: nvidia.com/gpu on arcanine is held by team-a/agent-sre-7, which has about 3m20s left",
        )
    )
    failed = training_run(
        "quickstart",
        namespace="lab",
        state="Failed",
        message="train failed: InvalidData: dataset runbook: line 7 has no messages",
        failure={
            "reason": "InvalidData",
            "step": "prepare",
            "message": "dataset runbook: runbook.jsonl line 7 has no messages",
            "hint": "correct line 7, or set onInvalid: Skip",
        },
    )
    stage.put(failed)
    stage.put(training_run("trm-monthly-20261101", namespace="lab", state="Succeeded", step=100, message="succeeded"))
    stage.put(
        {
            "apiVersion": TRAININGRUNS.api_version,
            "kind": "TrainingSchedule",
            "metadata": {"name": "trm-monthly", "namespace": "lab", "uid": "s1", "resourceVersion": "1"},
            "spec": {"timeZone": "Europe/Berlin"},
            "status": {
                "state": "Scheduled",
                "message": "next start 2026-12-01T02:00:00Z",
                "summary": "0 2 1 * *",
                "nextScheduleTime": "2026-12-01T02:00:00Z",
                "lastScheduleTime": "2026-11-01T02:00:00Z",
                "lastRun": {"name": "trm-monthly-20261101", "startedBy": "Schedule", "state": "Succeeded"},
                "runs": {"created": 9, "succeeded": 8, "failed": 1, "missed": 0, "skipped": 0},
            },
        }
    )
    stage.put(training_sweep())
    return stage


def tail(raw: Mapping[str, Any]) -> str:
    """The path of a run's page."""
    return f"/runs/{raw['metadata']['namespace']}/{raw['metadata']['name']}"
