"""Which alerts a run owes, and in what words."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.controller.runs.world import UID, manifest
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.progress import REDUCTIONS
from trainyard.api.run.status import ATTEMPTS_KEPT, AlertStatus, TrainingRunStatus
from trainyard.controller.alerts.bodies import alert, posted
from trainyard.controller.alerts.edges import OUT_OF_MEMORY_LIMIT, Owed, owed, warning_in, with_told
from trainyard.controller.manifests.metadata import RunRef

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
HOOK = {"name": "lab", "url": "https://lab.example.org/api/alerts/trigger"}


def ref(*notifications: dict[str, Any], **spec: Any) -> RunRef:
    raw = manifest(notifications=list(notifications or (HOOK,)), **spec)
    return RunRef.of(raw, parse_run(raw))


def status(*, state: str = "Training", ended: str = "", node: str | None = "n", **rest: Any) -> TrainingRunStatus:
    facts: dict[str, Any] = {
        "state": state,
        "startTime": "2026-01-01T00:00:00Z",
        "steps": [{"name": "train", "state": "Running", "attempts": [{"number": 1, "state": "Running", "node": node}]}],
        "trainerStatus": {
            "progressPercentage": 50, "step": 500, "totalSteps": 1000, "metrics": [{"name": "loss", "value": "0.35"}],
        },
        **rest,
    }  # fmt: skip
    if node is None:
        del facts["steps"][0]["attempts"][0]["node"]
    if ended:
        stamp = {"message": "", "lastTransitionTime": "2026-01-01T01:00:00Z", "reason": "x"}
        facts["conditions"] = [{"type": ended, "status": "True", **stamp}]
        facts["completionTime"] = "2026-01-01T01:00:00Z"
    return TrainingRunStatus.model_validate(facts)


def names(found: list[Owed]) -> list[str]:
    return [one.name for one in found]


def test_a_run_without_receivers_owes_nothing():
    raw = manifest()
    assert owed(parse_run(raw).spec, status(state="Failed", ended="Failed"), now=NOW) == []


def test_the_start_is_owed_when_the_training_has_a_node_and_not_before():
    assert names(owed(ref().spec, status(node=None), now=NOW)) == []
    assert names(owed(ref().spec, status(), now=NOW)) == ["job_started/lab"]


@pytest.mark.parametrize(
    ("state", "condition", "edge"),
    [
        ("Succeeded", "Complete", "job_completed"),
        ("Failed", "Failed", "job_failed"),
        ("Cancelled", "Failed", "job_cancelled"),
    ],
)
def test_each_end_is_one_alert_after_that_of_the_start(state: str, condition: str, edge: str):
    ended = status(state=state, ended=condition)
    assert names(owed(ref().spec, ended, now=NOW)) == ["job_started/lab", f"{edge}/lab"]
    told = [AlertStatus(name=name, state="Told") for name in ("job_started/lab", f"{edge}/lab")]
    assert owed(ref().spec, with_told(ended, told), now=NOW) == []


def test_each_receiver_is_told_what_it_asks_for():
    other = {"name": "slack", "type": "Slack", "secretRef": {"name": "s"}, "events": ["job_failed"]}
    found = names(owed(ref(HOOK, other).spec, status(state="Failed", ended="Failed"), now=NOW))
    assert found == ["job_started/lab", "job_failed/lab", "job_failed/slack"]


def test_each_rung_of_the_ladder_of_memory_is_one_alert_and_there_is_an_end_to_them():
    effective = {REDUCTIONS: "batch 8 to 4; batch 4 to 2"}
    first = owed(ref().spec, status(effective=effective), now=NOW)
    assert [one.edge.type for one in first] == ["job_started", "gpu_oom", "gpu_oom"]
    assert len(set(names(first))) == 3
    told = with_told(status(effective=effective), [AlertStatus(name=name, state="Told") for name in names(first)])
    assert owed(ref().spec, told, now=NOW) == []
    many = status(effective={REDUCTIONS: "; ".join(f"rung {n}" for n in range(40))})
    memory = [one for one in owed(ref().spec, many, now=NOW) if one.edge.type == "gpu_oom"]
    assert len(memory) == OUT_OF_MEMORY_LIMIT
    all_told = with_told(many, [AlertStatus(name=one.name, state="Told") for one in memory])
    assert names(owed(ref().spec, all_told, now=NOW)) == ["job_started/lab"]
    assert OUT_OF_MEMORY_LIMIT >= ATTEMPTS_KEPT


def test_the_warning_comes_before_the_deadline_once_and_never_after_the_end():
    spec = ref(activeDeadlineSeconds=3600).spec
    active = status(activeSince="2026-01-01T00:00:00Z")
    early = NOW - timedelta(seconds=400)
    assert names(owed(spec, active, now=early)) == ["job_started/lab"]
    assert warning_in(spec, active, now=early) == pytest.approx(40)
    late = NOW - timedelta(seconds=300)
    assert names(owed(spec, active, now=late)) == ["job_started/lab", "timeout_warning/lab"]
    assert warning_in(spec, active, now=late) is None
    ended = status(state="Failed", ended="Failed", activeSince="2026-01-01T00:00:00Z")
    assert "timeout_warning/lab" not in names(owed(spec, ended, now=NOW))
    suspended = status(state="Suspended", activeSeconds=3500)
    assert "timeout_warning/lab" not in names(owed(spec, suspended, now=NOW))


def sent(kind: str, **changes: Any) -> dict[str, Any]:
    run, seen = ref(HOOK | {"type": kind}), status(state="Failed", ended="Failed", **changes)
    failed = next(one for one in owed(run.spec, seen, now=NOW) if one.edge.type == "job_failed")
    found: dict[str, Any] = json.loads(posted(kind, alert(run, seen, failed.edge, now=NOW)).body)
    return found


def test_the_webhook_gets_the_labs_body():
    failure = {"reason": "DeviceOutOfMemory", "message": "the device ran out of memory"}
    assert sent("Webhook", failure=failure) == {
        "type": "job_failed",
        "job_id": UID,
        "user_id": "lab",
        "model_name": "llama (scratch)",
        "status": "failed",
        "progress": 50.0,
        "current_step": 500,
        "total_steps": 1000,
        "loss": 0.35,
        "duration": 3600000,
        "error_message": "the device ran out of memory",
        "error_type": "CUDA_OOM",
    }


def test_no_signed_address_and_no_mention_leaves_in_a_message():
    message = "https://bucket/data.jsonl?X-Amz-Signature=abc123 is refused @everyone <!channel>"
    for kind in ("Webhook", "Slack", "Discord", "Alertmanager"):
        run, seen = (
            ref(HOOK),
            status(state="Failed", ended="Failed", failure={"reason": "InvalidData", "message": message}),
        )
        edge = next(one.edge for one in owed(run.spec, seen, now=NOW) if one.edge.type == "job_failed")
        body = posted(kind, alert(run, seen, edge, now=NOW, said={"error_message": message})).body.decode()
        assert "abc123" not in body
        if kind == "Slack":
            assert "<!channel>" not in json.loads(body)["text"]
        if kind == "Discord":
            assert json.loads(body)["allowed_mentions"] == {"parse": []}


def test_ntfy_and_alertmanager_get_their_own_words():
    run, seen = ref(HOOK), status(state="Failed", ended="Failed", failure={"reason": "Error", "message": "übel"})
    edge = next(one.edge for one in owed(run.spec, seen, now=NOW) if one.edge.type == "job_failed")
    made = alert(run, seen, edge, now=NOW)
    ntfy = posted("Ntfy", made)
    assert "übel" in ntfy.body.decode()
    assert ntfy.headers["Title"] == "lab/tiny failed"
    assert ntfy.headers["Priority"] == "high"
    manager = posted("Alertmanager", made)
    (one,) = json.loads(manager.body)
    assert manager.path == "/api/v2/alerts"
    assert one["labels"] == {
        "alertname": "Trainyard_job_failed", "severity": "warning", "namespace": "lab", "run": "tiny", "uid": UID,
    }  # fmt: skip
    assert one["startsAt"] == "2026-01-01T01:00:00Z"


def test_a_receiver_without_an_address_is_refused_at_apply():
    with pytest.raises(InvalidManifest, match="needs url, or secretRef"):
        parse_run(manifest(notifications=[{"name": "lab"}]))
