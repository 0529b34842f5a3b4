"""A cluster in memory: just enough of the API server, the Job controller and the garbage collector to plan against.

Jobs and pods are real manifests here (the planner's own), so that the views that read them are tested along.
"""

import copy
import itertools
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from trainyard.api.manifest import parse_run
from trainyard.api.names import (
    APPROVED_ANNOTATION,
    ATTEMPT_LABEL,
    CANCEL_ANNOTATION,
    ROLLBACK_ANNOTATION,
    SKIP_IF_DATASET_ANNOTATION,
    STEP_LABEL,
)
from trainyard.api.progress import CheckpointRecord, ProgressRecord
from trainyard.api.run.status import TrainingRunStatus
from trainyard.api.run.trainingrun import TrainingRun
from trainyard.api.run.yield_from import YieldFrom
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.runs.actions import Create, Delete, Patch
from trainyard.controller.runs.ending import Plan
from trainyard.controller.runs.observed import Held, Observed, Policy, Prerequisites, Question, Used
from trainyard.controller.runs.plan import plan
from trainyard.controller.runs.publish import Found, objects_of
from trainyard.controller.runs.views import JobView, PodView, is_job_of, owner_uid
from trainyard.controller.runs.volumes import NO_VOLUMES, Volumes
from trainyard.controller.runs.waiting import Complaint, Waited
from trainyard.controller.runs.yielding import Yielding

POLICY = Policy(Defaults(trainer_image="trainer:test", receiver_url="http://receiver:8080"))
UID = "11112222-3333-4444-5555-666677778888"


def manifest(**spec: Any) -> dict[str, Any]:
    """A small valid TrainingRun; keyword arguments replace parts of its spec."""
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "tiny", "namespace": "lab", "uid": UID, "generation": 1},
        "spec": {
            "model": {
                "scratch": {
                    "architecture": "llama",
                    "config": {"hidden_size": 64},
                    "tokenizer": {"trainVocabSize": 500},
                }
            },
            "datasets": [{"name": "text", "inline": {"text": "hello"}, "split": {"eval": 0.1}}],
            "training": {"method": "Pretrain", "maxSteps": 10},
            **spec,
        },
    }


class Died(Exception):
    """The operator ended between two requests."""


@lru_cache(maxsize=64)
def parsed_run(text: str) -> TrainingRun:
    return parse_run(json.loads(text))


@dataclass
class World:
    """All state that outlives the operator."""

    run: dict[str, Any] = field(default_factory=manifest)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    """Names of all Jobs that were ever made, in order."""
    others: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Objects that belong to nobody's run, by plural and name."""
    refusal: str = ""
    """Why the operator may not touch them."""
    writes: int = 0
    progress: ProgressRecord | None = None
    warning: Complaint | None = None
    impossible: tuple[str, ...] = ()
    volumes: Volumes = NO_VOLUMES
    unheard: str = ""
    used: tuple[int, int] = (0, 0)
    """GPU seconds of this month: in all, of the run's agent."""
    token: str = "token"
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    # The operator's half

    def status(self) -> TrainingRunStatus:
        return TrainingRunStatus.model_validate(self.run.get("status") or {})

    def observe(self) -> Observed:
        parsed = parsed_run(json.dumps({name: part for name, part in self.run.items() if name != "status"}))
        metadata = self.run["metadata"]
        return Observed(
            run=RunRef.of(self.run, parsed),
            generation=metadata["generation"],
            status=self.status(),
            now=self.now,
            fresh=not self.run.get("status"),
            progress=self.progress,
            cancel=parsed.metadata.annotations.get(CANCEL_ANNOTATION),
            approved=parsed.metadata.annotations.get(APPROVED_ANNOTATION),
            rollback=parsed.metadata.annotations.get(ROLLBACK_ANNOTATION),
            trained_already=parsed.metadata.annotations.get(SKIP_IF_DATASET_ANNOTATION),
            token=self.token,
            dying_claims=frozenset(n for n, c in self.claims.items() if "deletionTimestamp" in c["metadata"]),
        )

    def decide(self) -> Plan:
        seen = self.observe()
        while (decided := plan(seen, POLICY)).questions:
            assert not decided.questions & seen.answered, "it asks the same twice"
            for question in decided.questions:
                seen = replace(self.answer(seen, question), answered=seen.answered | {question})
        return decided

    def answer(self, seen: Observed, question: Question) -> Observed:
        match question:
            case Question.CHILDREN:
                uid = self.run["metadata"]["uid"]
                jobs = tuple(
                    v for raw in self.jobs.values() if is_job_of(raw, run="tiny", uid=uid) and (v := JobView.of(raw))
                )
                return replace(seen, jobs=jobs, pods=tuple(map(PodView.of, self.pods.values())))
            case Question.PREREQUISITES:
                config = self.held(self.secrets.get(f"{seen.run.name}-trainyard"))
                service = self.held(self.services.get(f"{seen.run.name}-pods"))
                claims = copy.deepcopy(self.claims)
                return replace(seen, prerequisites=Prerequisites(config=config, service=service, claims=claims))
            case Question.EVENTS | Question.NODES | Question.QUEUE:
                about = Waited(self.warning, self.impossible, volumes=self.volumes, unheard=self.unheard)
                return replace(seen, waits={job.name: about for job in seen.jobs})
            case Question.USED:
                return replace(seen, used=Used(*self.used))
            case Question.PUBLISHED:
                found = {
                    step: Found(
                        {r.plural: copy.deepcopy(self._store(r.plural).get(n)) for r, n in objects_of(export).items()},
                        refusal=self.refusal,
                    )
                    for step, export in seen.run.exports.items()
                    if export.row.by_operator
                }
                return replace(seen, published=found)
            case Question.YIELDING:
                return replace(seen, yielding=tuple(map(self.yielding, seen.run.spec.placement.yield_from)))

    def yielding(self, wanted: YieldFrom) -> Yielding:
        raw = self.others.get("deployments", {}).get(wanted.deployment)
        pods = tuple(self.others.get("pods", {}))
        return Yielding(wanted.namespace or "lab", wanted.deployment, copy.deepcopy(raw), pods, self.refusal)

    def held(self, raw: dict[str, Any] | None) -> Held | None:
        if raw is None:
            return None
        metadata = raw["metadata"]
        made_from = metadata.get("annotations", {}).get("trainyard.dev/spec-hash", "")
        return Held(metadata["uid"], "1", owner_uid(raw) == self.run["metadata"]["uid"], made_from)

    def reconcile(self, *, dies_after: int | None = None) -> Plan:
        """One look; with `dies_after` the operator ends after so many writes of it."""
        decided = self.decide()
        budget = itertools.count() if dies_after is None else iter(range(dies_after))
        try:
            for action in decided.actions:
                if next(budget, None) is None:
                    raise Died
                self.carry_out(action)
            if next(budget, None) is None:
                raise Died
        except Died:
            return decided
        except FileExistsError:
            # A create met an object that an earlier look had made: the shell looks again, properly.
            self.run.setdefault("status", {}).setdefault("state", "Pending")
            return self.reconcile()
        self.put_status(decided.status)
        return decided

    def settle(self, rounds: int = 10) -> None:
        """Reconcile until nothing changes any more at this moment."""
        for _ in range(rounds):
            before = json.dumps([self.run.get("status"), sorted(self.jobs), self.others], default=str)
            self.reconcile()
            if before == json.dumps([self.run.get("status"), sorted(self.jobs), self.others], default=str):
                return
        raise AssertionError("it never settles")

    def put_status(self, status: TrainingRunStatus) -> None:
        dumped = status.model_dump(by_alias=True, exclude_none=True)
        if dumped != self.run.get("status"):
            self.run["status"] = dumped
            self.writes += 1

    def carry_out(self, action: Any) -> None:
        self.writes += 1
        match action:
            case Create(resource, body):
                name, store = body["metadata"]["name"], self._store(resource.plural)
                if name in store:
                    raise FileExistsError(name)
                store[name] = self._stamped(body)
                if resource.plural == "jobs":
                    entered = {f"tiny-{s.name}-{a.number}" for s in self.status().steps or () for a in s.attempts or ()}
                    assert name not in entered, f"{name} stands in the status already and is made again"
                    self.created.append(name)
            case Patch(resource, name, body):
                version = self._store(resource.plural)[name]["metadata"].get("resourceVersion")
                if version is not None and body["metadata"].get("resourceVersion") != version:
                    raise Died  # a conflict: the shell looks again later
                there = self._store(resource.plural)[name]
                there |= {part: merge_patched(there[part], value) for part, value in body.items() if part != "metadata"}
                metadata = self._store(resource.plural)[name]["metadata"]
                for key, value in body["metadata"].items():
                    if isinstance(value, dict):
                        merged = {**metadata.get(key, {}), **value}
                        metadata[key] = {k: v for k, v in merged.items() if v is not None}
                    elif key != "resourceVersion":
                        metadata[key] = value
            case Delete(resource, name, uid, _, grace):
                if resource.plural == "pods":
                    self.pods[name]["metadata"] |= {
                        "deletionTimestamp": self.now.isoformat(),
                        "deletionGracePeriodSeconds": grace,
                    }
                    return
                if name in self._store(resource.plural):
                    assert self._store(resource.plural)[name]["metadata"]["uid"] == uid, f"{name} is another one"
                    if resource.plural == "jobs":
                        self.jobs[name]["metadata"]["deletionTimestamp"] = self.now.isoformat()
                    else:
                        del self._store(resource.plural)[name]

    def _store(self, plural: str) -> dict[str, dict[str, Any]]:
        return {
            "jobs": self.jobs,
            "persistentvolumeclaims": self.claims,
            "secrets": self.secrets,
            "services": self.services,
            **self.others,
        }.get(plural, {})

    def _stamped(self, body: dict[str, Any]) -> dict[str, Any]:
        body = copy.deepcopy(body)
        body["metadata"] |= {"uid": f"uid-{next(self.numbers)}", "creationTimestamp": self.now.isoformat()}
        return body

    # The cluster's half

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def edit(self, **spec: Any) -> None:
        self.run["spec"] |= spec
        self.run["metadata"]["generation"] += 1

    def live_job(self) -> dict[str, Any] | None:
        live = [j for j in self.jobs.values() if not j.get("status", {}).get("conditions")]
        assert len(live) <= 1, f"more than one unfinished Job: {[j['metadata']['name'] for j in live]}"
        return live[0] if live else None

    def start_pod(self, *, node: str = "forge") -> None:
        job = self.live_job()
        assert job is not None
        name = f"{job['metadata']['name']}-x"
        self.pods[name] = {
            "metadata": {
                "name": name,
                "uid": f"pod-{name}",
                "creationTimestamp": self.now.isoformat(),
                "labels": {"batch.kubernetes.io/job-name": job["metadata"]["name"], **job["metadata"]["labels"]},
            },
            "spec": {"nodeName": node},
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "trainer", "state": {"running": {"startedAt": self.now.isoformat()}}},
                ],
            },
        }

    def pending_pod(self, *, message: str) -> None:
        self.start_pod()
        pod = next(reversed(self.pods.values()))
        pod["spec"] = {}
        pod["status"] = {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
        }

    def end(self, *, exit_code: int = 0, reason: str = "", record: dict[str, Any] | None = None, log: str = "") -> None:
        """The live Job's container ends, and the Job with it."""
        job = self.live_job()
        assert job is not None
        if not any(
            p["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job["metadata"]["name"]
            for p in self.pods.values()
        ):
            self.start_pod()
        pod = self.pods[f"{job['metadata']['name']}-x"]
        labels = job["metadata"]["labels"]
        text = log
        if record is not None:
            base = {"step": labels[STEP_LABEL], "attempt": int(labels[ATTEMPT_LABEL]), "outcome": "Succeeded"}
            text = json.dumps(base | record)
        ended = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": text,
        }
        running = pod["status"].get("containerStatuses", [{"state": {}}])[0]["state"].get("running", {})
        ended |= running | {"finishedAt": self.now.isoformat()}
        pod["status"] = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
        }
        kind = "Complete" if exit_code == 0 else "Failed"
        job["status"] = {
            "conditions": [
                {
                    "type": kind,
                    "status": "True",
                    "lastTransitionTime": self.now.isoformat(),
                    "message": "",
                    "reason": "",
                }
            ]
        }

    def collect(self) -> None:
        """The garbage collector: Jobs that were deleted go, and their pods with them."""
        for name in [n for n, j in self.jobs.items() if "deletionTimestamp" in j["metadata"]]:
            self.remove_job(name)

    def remove_job(self, name: str) -> None:
        del self.jobs[name]
        self.pods.pop(f"{name}-x", None)


def merge_patched(there: Any, patch: Any) -> Any:
    """A merge patch."""
    if not isinstance(there, dict) or not isinstance(patch, dict):
        return patch
    return {**there, **{key: merge_patched(there.get(key), value) for key, value in patch.items()}}


def condition(world: World, kind: str) -> tuple[str, str] | None:
    found = next((c for c in world.status().conditions or () if c.type == kind), None)
    return (found.status, found.reason) if found else None


def progress(
    world: World,
    *,
    step: int,
    of: int = 10,
    attempt: int = 1,
    checkpoint: int | None = None,
    first_step: int | None = None,
) -> ProgressRecord:
    return ProgressRecord(
        run_uid=world.run["metadata"]["uid"],
        step="train",
        attempt=attempt,
        sequence=step,
        time="2026-01-01T00:00:00Z",
        phase="train",
        first_step=first_step,
        step_number=step,
        total_steps=of,
        percentage=100 * step / of,
        estimated_remaining_seconds=200.0,
        metrics={"loss": 1.25},
        checkpoint=None if checkpoint is None else CheckpointRecord(step=checkpoint, path=f"c/{checkpoint}"),
    )


def until_training(world: World) -> None:
    world.settle()
    world.end(record={"dataset": {"digest": "sha256:1", "records": 3, "splits": {"train": 2, "eval": 1}}})
    world.settle()
    world.start_pod()
    world.settle()
