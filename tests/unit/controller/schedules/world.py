"""A cluster in memory: just enough of the API server and of the run side to plan schedules against."""

import copy
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from trainyard.api.names import CANCEL_ANNOTATION
from trainyard.api.schedule.children import ScheduleRef
from trainyard.api.schedule.status import TrainingScheduleStatus
from trainyard.api.schedule.trainingschedule import TrainingSchedule
from trainyard.controller.clock import rfc3339
from trainyard.controller.schedules.draft import Cancel, Create, Delete, Notice, Plan
from trainyard.controller.schedules.observed import Look, Observed, Reading
from trainyard.controller.schedules.plan import plan
from trainyard.controller.schedules.views import ChildView

UID = "aaaa2222-3333-4444-5555-666677778888"
RUN_SPEC: dict[str, Any] = {
    "model": {
        "scratch": {"architecture": "llama", "config": {"hidden_size": 64}, "tokenizer": {"trainVocabSize": 500}}
    },
    "datasets": [{"name": "text", "inline": {"text": "hello"}}],
    "training": {"method": "Pretrain", "maxSteps": 10},
}


def manifest(**spec: Any) -> dict[str, Any]:
    """A schedule of every hour; keyword arguments replace parts of its spec."""
    clock = {} if {"schedule", "intervalSeconds", "triggers"} & spec.keys() else {"schedule": "0 * * * *"}
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingSchedule",
        "metadata": {
            "name": "hourly",
            "namespace": "lab",
            "uid": UID,
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {},
        },
        "spec": {**clock, "template": {"spec": copy.deepcopy(RUN_SPEC)}, **spec},
    }


class Died(Exception):
    """The operator ended between two requests."""


@dataclass
class World:
    """All state that outlives the operator, and what it remembers while it lives (`looks`)."""

    schedule: dict[str, Any] = field(default_factory=manifest)
    now: datetime = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    """Names of all runs that were ever made, in order."""
    refuse: dict[str, str] = field(default_factory=dict)
    """Runs that the API server does not take."""
    looks: dict[str, Look] = field(default_factory=dict)
    polled: list[str] = field(default_factory=list)
    writes: int = 0
    notices: list[Notice] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    # The operator's half

    @property
    def status(self) -> TrainingScheduleStatus:
        return TrainingScheduleStatus.model_validate(self.schedule.get("status") or {})

    def observe(self, refused: dict[str, str] | None = None) -> Observed:
        metadata = self.schedule["metadata"]
        parsed = TrainingSchedule.model_validate({k: v for k, v in self.schedule.items() if k != "status"})
        return Observed(
            schedule=ScheduleRef(
                name=metadata["name"],
                namespace=metadata["namespace"],
                uid=metadata["uid"],
                created=datetime.fromisoformat(metadata["creationTimestamp"]),
                spec=parsed.spec,
                raw_spec=self.schedule["spec"],
                annotations=parsed.metadata.annotations,
            ),
            generation=metadata["generation"],
            status=self.status,
            now=self.now,
            children=tuple(map(ChildView.of, self.runs.values())),
            looks=dict(self.looks),
            refused=refused or {},
        )

    def look(self, *, dies_after: int | None = None) -> Plan:
        """One look; with `dies_after` the operator ends after so many writes of it."""
        budget = itertools.count() if dies_after is None else iter(range(dies_after))
        decided = plan(self.observe())
        try:
            if decided.write_first:
                self._spend(budget)
                self._put(decided)
                decided = plan(self.observe(), may_open=False)
            refused: dict[str, str] = {}
            while True:
                fresh = {}
                for action in decided.actions:
                    self._spend(budget)
                    fresh |= self._carry_out(action)
                if not fresh:
                    break
                refused |= fresh
                decided = plan(self.observe(refused), may_open=False)
            self._spend(budget)
            self._put(decided)
        except Died:
            self.looks.clear()  # a new process has seen nothing yet
        return decided

    def settle(self, rounds: int = 20) -> Plan:
        """Look until nothing changes any more at this moment."""
        for _ in range(rounds):
            before = self.picture()
            decided = self.look()
            if before == self.picture():
                return decided
        raise AssertionError("it never settles")

    def picture(self) -> str:
        return json.dumps([self.schedule.get("status"), self.runs], default=str, sort_keys=True)

    def _spend(self, budget: Any) -> None:
        if next(budget, None) is None:
            raise Died

    def _put(self, decided: Plan) -> None:
        dumped = decided.status.model_dump(by_alias=True, exclude_none=True)
        self.polled += decided.polls
        self.notices += decided.notices
        if dumped != self.schedule.get("status"):
            self.schedule["status"] = dumped
            self.writes += 1

    def _carry_out(self, action: Any) -> dict[str, str]:
        self.writes += 1
        match action:
            case Create(body):
                name = body["metadata"]["name"]
                if name in self.refuse:
                    return {name: self.refuse[name]}
                assert name not in self.runs, f"{name} was made although the picture showed it"
                self.runs[name] = copy.deepcopy(body)
                self.runs[name]["metadata"] |= {
                    "uid": f"uid-{next(self.numbers)}",
                    "creationTimestamp": rfc3339(self.now),
                }
                self.created.append(name)
            case Cancel(name, why):
                self.runs[name]["metadata"]["annotations"][CANCEL_ANNOTATION] = why
            case Delete(name, uid):
                assert self.runs[name]["metadata"]["uid"] == uid
                del self.runs[name]
        return {}

    # The cluster's half

    def at(self, text: str) -> "World":
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return self

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def edit(self, **spec: Any) -> None:
        self.schedule["spec"] = {k: v for k, v in (self.schedule["spec"] | spec).items() if v is not None}
        self.schedule["metadata"]["generation"] += 1

    def annotate(self, **annotations: str) -> None:
        names = {f"trainyard.dev/{k.replace('_', '-')}": v for k, v in annotations.items()}
        self.schedule["metadata"]["annotations"] |= names

    def live(self) -> list[str]:
        return [n for n, r in self.runs.items() if not r.get("status", {}).get("conditions")]

    def end(self, name: str, *, reason: str = "Succeeded", dataset: str = "sha256:1") -> None:
        kind = "Complete" if reason == "Succeeded" else "Failed"
        self.runs[name]["status"] = {
            "state": "Cancelled" if reason in ("Cancelled", "Unchanged") else reason,
            "completionTime": rfc3339(self.now),
            "dataset": {"digest": dataset},
            "conditions": [{"type": kind, "status": "True", "reason": reason}],
        }

    def answer(self, trigger: str, token: str, *, holds: bool | None = None) -> None:
        """The trigger's source has been asked, and has said this."""
        self.looks[trigger] = Look(self.now, Reading(self.now, token, f"saw {token}", holds))

    def source_down(self, trigger: str) -> None:
        last = self.looks.get(trigger)
        self.looks[trigger] = Look(self.now, last.reading if last else None, "connection refused")
