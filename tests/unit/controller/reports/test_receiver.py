"""Reports over real HTTP on loopback, sent as a pod would send them."""

import asyncio
import json
import urllib.request
from datetime import UTC, datetime

import aiohttp
import pytest

from trainyard.api.progress import ProgressRecord
from trainyard.controller.health import Served
from trainyard.controller.reports.progress_store import Accepted, ProgressStore
from trainyard.controller.reports.receiver import BODY_LIMIT, Receiver
from trainyard.controller.reports.tokens import RunTokens

TOKENS = RunTokens(b"k" * 32)
UID = "0c5b7a52-6a51-4f9f-9f5e-3d9b4a1c2d3e"


def record(**changes) -> dict:
    fields = {"run_uid": UID, "step": "train", "attempt": 1, "sequence": 1, "time": "2026-01-01T00:00:00Z"} | changes
    return json.loads(ProgressRecord(**fields).to_json())


class Pod:
    """A sender, and what the operator made of what it sent."""

    def __init__(self, http: aiohttp.ClientSession, base: str, store: ProgressStore):
        self.http, self.base, self.store = http, base, store
        self.reports: list[tuple[tuple[str, str], str, Accepted]] = []
        self.results: list[tuple[str, str]] = []

    async def post(self, path: str, body, *, token: str | None = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token or TOKENS.for_run(UID)}"} if token != "" else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.base + path, data=data, headers=headers) as response:
            answer = await response.text()
            return response.status, json.loads(answer).get("error", "") if answer.startswith("{") else answer

    async def progress(self, body, **kwargs) -> tuple[int, str]:
        return await self.post("/v1/runs/ns/alpha/progress", body, **kwargs)

    async def kubeflow(self, body, *, query: str = "?step=train&attempt=1", **kwargs) -> tuple[int, str]:
        return await self.post(f"/v1/kubeflow/ns/alpha/{UID}{query}", body, **kwargs)


@pytest.fixture
async def pod():
    store = ProgressStore()
    holder: list[Pod] = []
    receiver = Receiver(
        store=store,
        tokens=TOKENS,
        on_report=lambda key, uid, accepted: holder[0].reports.append((key, uid, accepted)),
        on_result=lambda wire_format, result: holder[0].results.append((wire_format, result)),
    )
    served = Served(receiver.application(), port=0, host="127.0.0.1")
    port = await served.start()
    async with aiohttp.ClientSession() as http:
        holder.append(Pod(http, f"http://127.0.0.1:{port}", store))
        yield holder[0]
    await served.stop()


async def test_a_record_is_kept_and_announced(pod: Pod):
    body = record(step_number=42, metrics={"loss": 1.5})
    assert await pod.progress(body) == (200, "")
    held = pod.store.get(UID)
    assert held is not None
    assert (held.step_number, held.metrics) == (42, {"loss": 1.5})
    assert pod.reports == [(("ns", "alpha"), UID, Accepted.NEW)]
    assert pod.results == [("trainyard", "new")]


async def test_a_late_record_is_fine_and_changes_nothing(pod: Pod):
    await pod.progress(record(sequence=5, step_number=50))
    assert await pod.progress(record(sequence=4, step_number=40)) == (200, "")
    held = pod.store.get(UID)
    assert held is not None
    assert held.step_number == 50


@pytest.mark.parametrize("token", ["", "wrong", TOKENS.for_run("another run")])
async def test_without_the_runs_own_token_nothing_is_taken(pod: Pod, token: str):
    for status, text in (await pod.progress(record(), token=token), await pod.kubeflow({}, token=token)):
        assert status == 401
        assert "token" in text.lower()
    assert pod.store.get(UID) is None
    assert pod.reports == []


async def test_a_token_is_good_for_its_own_run_only(pod: Pod):
    assert (await pod.progress(record(run_uid="another"), token=TOKENS.for_run(UID)))[0] == 401


async def test_a_run_that_has_ended_takes_no_more(pod: Pod):
    pod.store.forget(UID)
    status, text = await pod.progress(record())
    assert (status, "has ended" in text) == (410, True)
    assert pod.reports == []


async def test_what_is_too_large_is_refused(pod: Pod):
    status, text = await pod.progress(record() | {"padding": "x" * BODY_LIMIT})
    assert (status, str(BODY_LIMIT) in text) == (413, True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"not json", "not JSON"),
        (record() | {"attempt": 0}, "attempt: Input should be greater than or equal to 1"),
        (record() | {"percentage": 101}, "percentage"),
        (record() | {"step": "cook"}, "step is 'cook'; it must be one of validate, prepare, train, evaluate"),
        ({k: v for k, v in record().items() if k != "sequence"}, "sequence: Field required"),
    ],
)
async def test_a_wrong_record_is_told_what_is_wrong(pod: Pod, body, expected: str):
    status, text = await pod.progress(body)
    assert status == 422
    assert expected in text


async def test_not_a_number_is_no_value(pod: Pod):
    body = record() | {"metrics": {"loss": float("nan"), "norm": 0, "rate": 0.5}, "epoch": float("inf")}
    text = json.dumps(body).replace('"norm": 0', '"norm": 1e999')
    assert await pod.progress(text.encode()) == (200, "")
    held = pod.store.get(UID)
    assert held is not None
    assert (held.metrics, held.epoch) == ({"loss": None, "norm": None, "rate": 0.5}, None)


async def test_unknown_routes_are_404(pod: Pod):
    assert (await pod.post("/v1/nothing", {}))[0] == 404


def kubeflow(seconds: int = 0, **status) -> dict:
    moment = datetime(2026, 1, 1, 0, 0, seconds, tzinfo=UTC).isoformat()
    return {"trainerStatus": {"lastUpdatedTime": moment, **status}}


async def test_the_kubeflow_format_becomes_a_record(pod: Pod):
    body = kubeflow(
        progressPercentage=42,
        estimatedRemainingSeconds=90,
        metrics=[
            {"name": "loss", "value": "1.25"},
            {"name": "grad_norm", "value": "nan"},
            {"name": "current_step", "value": "420"},
            {"name": "total_steps", "value": "1000"},
            {"name": "current_epoch", "value": "0.42"},
        ],
    )
    assert await pod.kubeflow(body, query="?step=train&attempt=3") == (200, "")
    held = pod.store.get(UID)
    assert held is not None
    assert (held.step, held.attempt, held.step_number, held.total_steps, held.epoch) == ("train", 3, 420, 1000, 0.42)
    assert (held.percentage, held.estimated_remaining_seconds) == (42, 90)
    assert held.metrics == {"loss": 1.25, "grad_norm": None}
    assert pod.reports == [(("ns", "alpha"), UID, Accepted.NEW)]


async def test_kubeflow_reports_are_ordered_by_their_time(pod: Pod):
    await pod.kubeflow(kubeflow(seconds=10, progressPercentage=10))
    await pod.kubeflow(kubeflow(seconds=5, progressPercentage=5))
    held = pod.store.get(UID)
    assert held is not None
    assert held.percentage == 10


async def test_a_library_callback_never_hides_our_own_records(pod: Pod):
    await pod.kubeflow(kubeflow(progressPercentage=10))
    await pod.progress(record(percentage=20))
    await pod.kubeflow(kubeflow(seconds=30, progressPercentage=30))
    held = pod.store.get(UID)
    assert held is not None
    assert held.percentage == 20


@pytest.mark.parametrize("query", ["?attempt=zero", "?attempt=0", "?step=cook"])
async def test_a_mangled_kubeflow_url_is_refused(pod: Pod, query: str):
    assert (await pod.kubeflow(kubeflow(), query=query))[0] == 422


async def test_the_way_transformers_sends_it(pod: Pod):
    """urllib, plain http, an SSL context that is None: as in transformers 5, integrations/integration_utils.py."""

    def send() -> int:
        request = urllib.request.Request(
            f"{pod.base}/v1/kubeflow/ns/alpha/{UID}?step=train&attempt=1",
            data=json.dumps(kubeflow(progressPercentage=1)).encode(),
            headers={"Authorization": f"Bearer {TOKENS.for_run(UID)}", "Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=5, context=None) as response:
            return int(response.status)

    assert await asyncio.to_thread(send) == 200
