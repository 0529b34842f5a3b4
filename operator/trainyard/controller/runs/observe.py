"""Looking things up: live reads, and only those that the planner has asked for.

Nothing here comes from kopf's watch: a watch can miss a deletion, and a decision made on a stale picture makes a Job
twice. Of Secrets only the metadata is read, so that no credential of a user ever passes through the operator.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainyard.api import names
from trainyard.api.names import SPEC_HASH_ANNOTATION
from trainyard.api.quantity import parse_quantity
from trainyard.api.run.status import TrainingRunStatus
from trainyard.api.run.yield_from import YieldFrom
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.errors import ClusterError, Forbidden, Invalid
from trainyard.controller.kube.resources import (
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    NODES,
    PODS,
    PVCS,
    SECRETS,
    SERVICES,
    TRAININGRUNS,
    Resource,
)
from trainyard.controller.manifests.job import referenced_secrets, resources_field, step_resources
from trainyard.controller.manifests.metadata import RunRef
from trainyard.controller.manifests.placement import HOSTNAME_LABEL, extended_resources
from trainyard.controller.runs.device_queue import wanted_device, who_waits
from trainyard.controller.runs.observed import Held, Observed, Prerequisites, Question
from trainyard.controller.runs.publish import Found, objects_of
from trainyard.controller.runs.queues import why_nobody_listens
from trainyard.controller.runs.quota import used
from trainyard.controller.runs.told import read_status
from trainyard.controller.runs.views import JobView, PodView, controller, is_job_of, owner_uid
from trainyard.controller.runs.volumes import look
from trainyard.controller.runs.waiting import Complaint, needs_events
from trainyard.controller.runs.yielding import Yielding


async def answer(cluster: Cluster, seen: Observed, question: Question) -> Observed:
    """The picture, enlarged by what the planner wanted to know."""
    match question:
        case Question.CHILDREN:
            seen = await _children(cluster, seen)
        case Question.PREREQUISITES:
            seen = await _prerequisites(cluster, seen)
        case Question.EVENTS:
            seen = await _complaints(cluster, seen)
        case Question.QUEUE:
            unheard = await why_nobody_listens(cluster, seen.run)
            for job in seen.jobs:
                seen = _noted(seen, job, unheard=unheard)
        case Question.NODES:
            seen = await _nodes(cluster, seen)
        case Question.USED:
            seen = await _used(cluster, seen)
        case Question.PUBLISHED:
            seen = await _published(cluster, seen)
        case Question.YIELDING:
            seen = replace(
                seen,
                yielding=tuple([await _yielding(cluster, seen.run, one) for one in seen.run.spec.placement.yield_from]),
            )
    return replace(seen, answered=seen.answered | {question})


async def _children(cluster: Cluster, seen: Observed) -> Observed:
    """Jobs by the run's label, and by name those that must be there all the same; whose they are, their owner says."""
    run = seen.run
    selector = f"{names.RUN_LABEL}={run.name},{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
    found = {raw["metadata"]["name"]: raw for raw in await cluster.list(JOBS, run.namespace, label_selector=selector)}
    # A label can be edited away. The attempt that the status calls running is not closed before its Job is not there by name.
    for name in sorted(seen.met | _under_way(seen.status) - found.keys()):
        if (raw := await cluster.get(JOBS, run.namespace, name)) is not None:
            found[name] = raw
    mine = {name: raw for name, raw in found.items() if is_job_of(raw, run=run.name, uid=run.uid)}
    foreign = (found[name] for name in sorted(found.keys() - mine))
    conflict, lasts = next((why for raw in foreign if (why := _in_the_way(raw, seen))), (None, False))
    jobs = tuple(view for raw in mine.values() if (view := JobView.of(raw)))
    pods: tuple[PodView, ...] = ()
    # A suspended Job has none; one that is gone may have left some.
    if not jobs or any(not job.suspended for job in jobs):
        selector = f"{names.RUN_UID_LABEL}={run.uid}"
        pods = tuple(map(PodView.of, await cluster.list(PODS, run.namespace, label_selector=selector)))
    return replace(seen, jobs=jobs, pods=pods, conflict=conflict, conflict_lasts=lasts)


def _under_way(status: TrainingRunStatus) -> set[str]:
    """Names of the Jobs that work according to the status."""
    steps = [s for s in status.steps or () if s.attempts and s.attempts[-1].state == "Running"]
    return {step.job for step in steps if step.job}


def _in_the_way(raw: Mapping[str, Any], seen: Observed) -> tuple[str, bool] | None:
    """Why nothing can be made beside somebody else's Job, and whether it stays so."""
    name, owner = raw["metadata"]["name"], controller(raw)
    if owner is not None and owner.get("kind") == "TrainingRun":
        if owner.get("name") == seen.run.name:
            return f"Job {name} belongs to an earlier run of this name; waiting for it to be gone", False
        if name in seen.met:
            return f"Job {name} belongs to TrainingRun {owner.get('name')}; give this run another name", True
    elif name in seen.met:
        return f"Job {name} exists and does not belong to this run; delete or rename it", True
    return None


async def _prerequisites(cluster: Cluster, seen: Observed) -> Observed:
    run, namespace = seen.run, seen.run.namespace
    several = run.spec.num_nodes > 1
    there: dict[str, Mapping[str, Any]] = {}
    for use in seen.claims:
        if use.name not in there and (claim := await cluster.get(PVCS, namespace, use.name)) is not None:
            there[use.name] = claim
    missing = {
        name: field
        for name, field in referenced_secrets(run).items()
        if await cluster.get(SECRETS, namespace, name, metadata_only=True) is None
    }
    answered = Prerequisites(
        config=await _held(cluster, run, SECRETS, names.config_secret_name(run.name)),
        service=await _held(cluster, run, SERVICES, names.service_name(run.name)) if several else None,
        claims=there,
        missing_secrets=missing,
    )
    return replace(seen, prerequisites=answered)


async def _used(cluster: Cluster, seen: Observed) -> Observed:
    runs = await cluster.list(TRAININGRUNS, seen.run.namespace)
    statuses = [(_agent(raw.get("spec") or {}), read_status(raw.get("status"))) for raw in runs]
    return replace(seen, used=used(statuses, agent=_agent(seen.run.raw_spec), now=seen.now))


def _agent(spec: Mapping[str, Any]) -> str:
    return str((spec.get("owner") or {}).get("agent") or "")


async def _held(cluster: Cluster, run: RunRef, kind: Resource, name: str) -> Held | None:
    raw = await cluster.get(kind, run.namespace, name, metadata_only=True)
    if raw is None:
        return None
    metadata = raw["metadata"]
    made_from = (metadata.get("annotations") or {}).get(SPEC_HASH_ANNOTATION, "")
    return Held(metadata["uid"], metadata["resourceVersion"], owner_uid(raw) == run.uid, made_from)


async def _complaints(cluster: Cluster, seen: Observed) -> Observed:
    """About the pod where there is one, else about the Job, whose controller says why it cannot make a pod."""
    for job in seen.jobs:
        pod = seen.pod_of(job)
        if not needs_events(job, pod, seen.now):
            continue
        selector = f"involvedObject.uid={pod.uid if pod else job.uid},type=Warning"
        found = await cluster.list(EVENTS, seen.run.namespace, field_selector=selector, limit=50)
        if newest := max(found, key=_event_time, default=None):
            complaint = Complaint(newest.get("reason", ""), newest.get("message", ""))
            seen = _noted(seen, job, complaint=complaint)
    return seen


def _noted(seen: Observed, job: JobView, **found: Any) -> Observed:
    return replace(seen, waits={**seen.waits, job.name: replace(seen.about(job), **found)})


def _event_time(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )


async def _yielding(cluster: Cluster, run: RunRef, wanted: YieldFrom) -> Yielding:
    """A Deployment that makes room, and those of its pods that are still there."""
    namespace = wanted.namespace or run.namespace
    try:
        raw = await cluster.get(DEPLOYMENTS, namespace, wanted.deployment)
        labels = ((raw or {}).get("spec", {}).get("selector") or {}).get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        pods = await cluster.list(PODS, namespace, label_selector=selector) if selector else []
    except Forbidden as error:
        return Yielding(namespace, wanted.deployment, refusal=refused(error, value="rbac.yieldFrom"))
    there = tuple(pod["metadata"]["name"] for pod in pods if PodView.of(pod).live)
    return Yielding(namespace, wanted.deployment, raw, there)


async def _nodes(cluster: Cluster, seen: Observed) -> Observed:
    """Of each pod that the scheduler cannot place: whether any node could hold it, and who holds what it waits for."""
    for job in seen.jobs:
        pod = seen.pod_of(job)
        if job.finished or pod is None or not pod.unschedulable:
            continue
        impossible = await _impossible(cluster, seen.run, job.step)
        line = "" if impossible else await _line(cluster, seen.run, job.step, pod)
        volumes = await look(cluster, seen.run.namespace, seen.claims, said=pod.unschedulable)
        seen = _noted(seen, job, impossible=impossible, line=line, volumes=volumes)
    return seen


async def _published(cluster: Cluster, seen: Observed) -> Observed:
    """The objects that exports of the operator's own name. What was refused on the way is kept: it is the export's fault."""
    found = dict(seen.published)
    for step, export in seen.run.exports.items():
        if not export.row.by_operator or step in found:
            continue
        objects: dict[str, Any] = {}
        try:
            for resource, name in objects_of(export).items():
                objects[resource.plural] = await cluster.get(resource, seen.run.namespace, name)
        except (Forbidden, Invalid) as error:
            found[step] = Found(refusal=refused(error))
        else:
            found[step] = Found(objects)
    return replace(seen, published=found)


def refused(error: ClusterError, *, value: str = "rbac.exports") -> str:
    """What the API server has against a request of the operator, and which value of the chart helps."""
    text = f"the operator may not {error.request}: {error.message}"
    return f"{text} (chart value {value})" if isinstance(error, Forbidden) else text


async def _impossible(cluster: Cluster, run: RunRef, step: str) -> tuple[str, ...]:
    """Why no node can ever hold the pod. Empty where some can, or where nodes may not be read (namespaced mode)."""
    try:
        nodes = await cluster.list(NODES)
    except Forbidden:
        return ()
    hosts = [n["metadata"].get("labels", {}).get(HOSTNAME_LABEL, n["metadata"]["name"]) for n in nodes]
    allocatable = [n.get("status", {}).get("allocatable", {}) for n in nodes]
    return unknown_nodes(run, hosts) + too_large(run, step, allocatable)


async def _line(cluster: Cluster, run: RunRef, step: str, pod: PodView) -> str:
    """Who has the device that the pod waits for. With a queue in charge (Kueue), the queue tells."""
    device = wanted_device(pod.unschedulable, extended_resources(step_resources(run, step)))
    if device is None or names.QUEUE_LABEL in run.labels:
        return ""
    ours = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
    try:
        pods = await cluster.list(PODS, label_selector=ours)
        for node in run.spec.placement.node_names:  # others than trainings may hold it too
            pods += await cluster.list(PODS, field_selector=f"spec.nodeName={node}")
    except Forbidden:  # the operator sees some namespaces only
        pods = await cluster.list(PODS, run.namespace)
    return who_waits(run, device, pods)


def unknown_nodes(run: RunRef, hosts: list[str]) -> tuple[str, ...]:
    """That none of the named nodes exists, as a sentence."""
    named = run.spec.placement.node_names
    if not named or set(named) & set(hosts):
        return ()
    there = ", ".join(sorted(hosts)[:10])
    return (
        f"spec.placement.nodeNames has {', '.join(named)}, there are {there}; correct the name, or add such a node",
    )


def too_large(run: RunRef, step: str, nodes: list[Mapping[str, str]]) -> tuple[str, ...]:
    """Which requests exceed the largest node, each as a sentence."""
    resources, field = step_resources(run, step), resources_field(run, step)
    wanted = {**{k: str(v) for k, v in resources.limits.items()}, **{k: str(v) for k, v in resources.requests.items()}}
    result = []
    for name, value in wanted.items():
        largest = max((n.get(name, "0") for n in nodes), key=parse_quantity, default="0")
        if parse_quantity(value) > parse_quantity(largest):
            result.append(
                f"{field} asks for {name}: {value}, the largest node has {largest}; lower it, or add such a node"
            )
    return tuple(result)
