"""Who has the device that a waiting pod wants, and who stands in line before it. Pure.

Which pod comes next is the scheduler's decision alone: the one of higher priority first, among equals usually the older
one. Nothing here holds a pod back; it says what a person would otherwise gather from three kubectl commands. Runs of
other namespaces are counted and not named, because not everybody who may read this run may read those.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from trainyard.api.names import RUN_LABEL, RUN_UID_LABEL
from trainyard.controller.manifests.metadata import RunRef

NAMED = 4
"""How many runs are named in one sentence."""


def wanted_device(unschedulable: str, devices: Iterable[str]) -> str | None:
    """The device that the scheduler misses, according to its own message."""
    return next((d for d in devices if f"Insufficient {d}" in unschedulable), None)


def who_waits(run: RunRef, device: str, pods: Iterable[Mapping[str, Any]]) -> str:
    """One sentence; empty when the pods explain nothing. `pods` may hold the same pod twice, and others of any kind."""
    rivals = {p["metadata"]["uid"]: p for p in pods if _is_live(p) and _asks_for(p, device)}.values()
    mine = next((p for p in rivals if _labels(p).get(RUN_UID_LABEL) == run.uid and not _node(p)), None)
    holders = [p for p in rivals if _node(p)]
    before = [] if mine is None else [p for p in rivals if not _node(p) and _order(p) < _order(mine)]
    parts = []
    if holders:
        parts.append(f"{device} is held by {_told(run, holders, lambda p: f' on {_node(p)}')}")
    if before and mine is not None:
        own = _priority(mine)
        line = sorted(before, key=_order)
        told = _told(run, line, lambda p: f" (priority {_priority(p)})" if _priority(p) > own else " (older)")
        parts.append(f"before this run comes {told}" if len(line) == 1 else f"before this run come {told}")
    return "; ".join(parts)


def _told(run: RunRef, pods: list[Mapping[str, Any]], about: Any) -> str:
    ours = [p for p in pods if p["metadata"]["namespace"] == run.namespace]
    words = [f"{_labels(p).get(RUN_LABEL) or 'pod ' + p['metadata']['name']}{about(p)}" for p in ours[:NAMED]]
    if more := len(ours) - len(words):
        words.append(f"{more} more")
    if elsewhere := len(pods) - len(ours):
        words.append(f"{elsewhere} pod{'s' if elsewhere > 1 else ''} of other namespaces")
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _is_live(pod: Mapping[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in ("Pending", "Running")


def _asks_for(pod: Mapping[str, Any], device: str) -> bool:
    containers = pod["spec"].get("containers") or ()
    return any(device in ((c.get("resources") or {}).get("limits") or {}) for c in containers)


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def _node(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("nodeName") or "")


def _priority(pod: Mapping[str, Any]) -> int:
    return int(pod["spec"].get("priority") or 0)


def _order(pod: Mapping[str, Any]) -> tuple[int, datetime, str]:
    return -_priority(pod), datetime.fromisoformat(pod["metadata"]["creationTimestamp"]), pod["metadata"]["name"]
