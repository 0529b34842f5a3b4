"""Reports over real HTTP on loopback, sent as a pod would send them."""

import asyncio
import base64
import hmac
import json
import logging
import urllib.request
from datetime import UTC, datetime

import aiohttp
import pytest

from trainyard.api.progress import ProgressRecord
from trainyard.controller.ports import Served
from trainyard.controller.reports.progress_store import Accepted, ProgressStore
from trainyard.controller.reports.receiver import BODY_LIMIT, HEAD, Receiver
from trainyard.controller.reports.tokens import RunTokens

TOKENS = RunTokens(b"k" * 32)
UID = "0c5b7a52-6a51-4f9f-9f5e-3d9b4a1c2d3e"
KEY = ("ns", "alpha")
TOKEN = TOKENS.for_run(KEY, UID)


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
        headers = {"Authorization": f"Bearer {token or TOKEN}"} if token != "" else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.base + path, data=data, headers=headers) as response:
            answer = await response.text()
            return response.status, json.loads(answer).get("error", "") if answer.startswith("{") else answer

    async def progress(self, body, *, of: str = f"ns/alpha/{UID}", **kwargs) -> tuple[int, str]:
        return await self.post(f"/v1/runs/{of}/progress", body, **kwargs)

    async def progress_of_old(self, body, **kwargs) -> tuple[int, str]:
        """To the address that an older operator gave to its pods."""
        return await self.post("/v1/runs/ns/alpha/progress", body, **kwargs)

    async def kubeflow(
        self, body, *, of: str = f"ns/alpha/{UID}", query: str = "?step=train&attempt=1", **kwargs
    ) -> tuple[int, str]:
        return await self.post(f"/v1/kubeflow/{of}{query}", body, **kwargs)

    async def speak(self, data: bytes, *, hang_up: bool = False) -> bytes:
        """Bytes as they are; all that comes back until the other side closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.base.rpartition(":")[2]))
        writer.write(data)
        if hang_up:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer


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


@pytest.mark.parametrize("token", ["", "wrong", TOKENS.for_run(KEY, "another-run")])
async def test_without_the_runs_own_token_nothing_is_taken(pod: Pod, token: str):
    for status, text in (await pod.progress(record(), token=token), await pod.kubeflow({}, token=token)):
        assert status == 401
        assert "token" in text.lower()
    assert pod.store.get(UID) is None
    assert pod.reports == []


async def test_a_token_is_good_for_its_own_run_only(pod: Pod):
    for send in (pod.progress, pod.progress_of_old):
        assert (await send(record(run_uid="another")))[0] == 401
    for of in (f"ns/beta/{UID}", f"other/alpha/{UID}", "ns/alpha/another", f"ns%2Falpha/{UID}/x"):
        assert (await pod.progress(record(), of=of))[0] in (401, 404)
        assert (await pod.kubeflow(kubeflow(), of=of))[0] in (401, 404)
    assert (await pod.post("/v1/runs/ns/beta/progress", record()))[0] == 401
    assert pod.reports == [], "no run is looked at"
    assert pod.store.active() == 0


def head(*, token: str = TOKEN, of: str = f"ns/alpha/{UID}", length: int = 60_000) -> bytes:
    return (
        f"POST /v1/runs/{of}/progress HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode("latin-1")


async def test_a_stranger_is_told_so_before_the_body_has_come(pod: Pod):
    assert (await pod.speak(head(token="wrong"))).startswith(b"HTTP/1.1 401")
    assert (await pod.speak(head(of=f"ns/beta/{UID}"))).startswith(b"HTTP/1.1 401")


async def test_at_the_old_address_a_stranger_is_told_so_after_the_beginning_of_the_body(pod: Pod):
    old = head(token="wrong", of="ns/alpha") + json.dumps(record()).encode()
    assert (await pod.speak(old + b" " * HEAD)).startswith(b"HTTP/1.1 401")
    nameless = head(of="ns/alpha") + b'{"message": "' + b"x" * HEAD
    assert (await pod.speak(nameless)).startswith(b"HTTP/1.1 401")


async def test_what_is_announced_as_too_large_is_not_waited_for(pod: Pod):
    assert (await pod.speak(head(length=BODY_LIMIT + 1))).startswith(b"HTTP/1.1 413")


async def test_pods_of_an_older_operator_go_on_reporting(pod: Pod):
    old = base64.urlsafe_b64encode(hmac.digest(b"k" * 32, UID.encode(), "sha256")).rstrip(b"=").decode()
    assert await pod.progress_of_old(record(sequence=1), token=old) == (200, "")
    assert await pod.progress_of_old(record(sequence=2), token=TOKEN) == (200, ""), "its Secret has been written again"
    assert await pod.kubeflow(kubeflow(), token=old) == (200, "")
    assert (await pod.progress(record(sequence=3), token=old))[0] == 401, "who has this address has a token of today"
    long = record(sequence=4) | {"message": "x" * 5000}
    assert await pod.progress_of_old(long, token=old) == (200, "")
    held = pod.store.get(UID)
    assert held is not None
    assert held.sequence == 4


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
        (record() | {"time": "yesterday"}, "time: must be an RFC 3339 time from 1970 to 2999"),
        (record() | {"stepNumber": 10**40}, "stepNumber: Input should be less than or equal to 9007199254740992"),
        (record() | {"metrics": {"m" * 300: 1}}, "metrics.mmm"),
        (record() | {"effective": {"a": {"b": 1}}}, "effective.a: must be a text, true, false, or a number"),
        (record() | {"checkpoint": {"step": 1, "path": "/etc"}}, "checkpoint.path: must be relative to the volume"),
        ([], "the body: Input should be a valid dictionary"),
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


@pytest.mark.parametrize(
    "query",
    [
        "?attempt=zero",
        "?attempt=0",
        "?step=cook",
        f"?attempt={'9' * 1500}",
        "?attempt=٣",
        f"?step=train-{'x' * 60}",
        "?step=%ff",
    ],
)
async def test_a_mangled_kubeflow_url_is_refused(pod: Pod, query: str):
    assert (await pod.kubeflow(kubeflow(), query=query))[0] == 422


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"lastUpdatedTime": "0001-01-01T00:00:00+14:00"}, "time"),
        ({"lastUpdatedTime": "9999-12-31T23:59:59-14:00"}, "time"),
        ({"lastUpdatedTime": "1969-12-31T23:59:59Z"}, "sequence"),
        ({"lastUpdatedTime": -1}, "sequence"),
        ({"metrics": [{"name": "current_step", "value": "1e300"}]}, "stepNumber"),
        ({"metrics": [{"name": "a\nb", "value": "1"}]}, "metrics.a b"),
    ],
)
async def test_a_kubeflow_report_out_of_its_bounds_names_the_field(pod: Pod, status: dict, field: str):
    code, text = await pod.kubeflow({"trainerStatus": kubeflow()["trainerStatus"] | status})
    assert (code, field in text) == (422, True), text


async def test_a_kubeflow_time_without_a_zone_is_utc(pod: Pod):
    assert await pod.kubeflow({"trainerStatus": {"lastUpdatedTime": "2026-01-01T00:00:00"}}) == (200, "")
    held = pod.store.get(UID)
    assert held is not None
    assert held.time == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (head(token="\xff\xfe"), 401),
        (head(of="ns/alpha/%ff"), 401),
        (head(of="ns/alpha", length=20) + b'{"runUid": "\\ud800"}', 401),
        (head(length=3) + b'"\xff"', 422),
        (head(length=9) + b'"\\ud800" ', 422),
        (head(length=5000) + b"9" * 5000, 422),
        (head(length=60_000) + b"[" * 60_000, 422),
        (head().replace(b"Content-Length: 60000", b"Content-Length: 4\r\nContent-Encoding: gzip") + b"oops", 400),
        (head().replace(b"Content-Length: 60000", b"Transfer-Encoding: chunked") + b"oops\r\n", 400),
    ],
)
async def test_any_bytes_are_an_answer_without_a_traceback(pod: Pod, caplog, data: bytes, code: int):
    assert int((await pod.speak(data)).split(b" ")[1]) == code
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_body_that_breaks_off_is_nobodys_fault(pod: Pod, caplog):
    for data in (head() + b'{"run', head(of="ns/alpha") + b'{"run', head()[:-9]):
        assert await pod.speak(data, hang_up=True) == b""
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert await pod.progress(record()) == (200, "")


async def test_a_fault_of_ours_is_no_500_and_one_short_line(pod: Pod, caplog, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("x" * 5000)

    monkeypatch.setattr(pod.store, "put", fails)
    answers = {await pod.progress(record()) for _ in range(20)}
    assert answers == {(400, "the report cannot be read")}
    assert pod.results == [("trainyard", "fault")] * 20
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) <= 1
    assert all(record.exc_info is None and len(record.getMessage()) < 500 for record in lines)


async def test_a_refusal_is_of_bounded_length(pod: Pod):
    status, text = await pod.progress(record() | {"metrics": {f"{n}" + "x" * 300: 1 for n in range(60)}})
    assert (status, len(text) < 2000) == (422, True)


async def test_the_way_transformers_sends_it(pod: Pod):
    """urllib, plain http, an SSL context that is None: as in transformers 5, integrations/integration_utils.py."""

    def send() -> int:
        request = urllib.request.Request(
            f"{pod.base}/v1/kubeflow/ns/alpha/{UID}?step=train&attempt=1",
            data=json.dumps(kubeflow(progressPercentage=1)).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=5, context=None) as response:
            return int(response.status)

    assert await asyncio.to_thread(send) == 200
