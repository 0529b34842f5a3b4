"""The datasets' API: bodies, answers, refusals; pods are played by a function."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.controller.datasets.store import Store, step_of
from trainyard.controller.datasets import application
from trainyard.controller.datasets.relay import Piece
from trainyard.controller.reports.receiver import BODY_LIMIT

BODY = {"dataset_name": "high_card_duel_prod", "dataset_version": "v1", "filters": {"source": "ungar"}, "limit": 1000}
LINES = [json.dumps({"n": n, "text": "x" * 300}).encode() + b"\n" for n in range(2000)]


class Pods:
    """How pods behave; tests change it."""

    def __init__(self) -> None:
        self.failure: tuple[str, str] | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.never = False

    def __call__(self, store: Store, job: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        if step_of(job) == "hand-over":
            return (-1, None) if self.never else self._hand_over(store, job)
        self.hold.wait(60)
        record: dict[str, Any] = {"version": 1, "step": "prepare", "attempt": 1, "outcome": "Succeeded"}
        if self.failure is not None:
            reason, message = self.failure
            code = {"InvalidData": 65, "SourceUnavailable": 69}[reason]
            return code, record | {"outcome": "Failed", "reason": reason, "message": message, "hint": "do this"}
        built = {"key": "k", "buildId": "b", "traceCount": 7, "manifestPath": "r-1/dataset/manifest.json"}
        return 0, record | {"dataset": {"records": 7, "sources": [{"name": "traces", "records": 7, **built}]}}

    def _hand_over(self, store: Store, job: dict[str, Any]) -> tuple[int, None]:
        env = store._environment(job)
        run = job["metadata"]["ownerReferences"][0]["name"]
        token = store.from_secret(f"{run}-trainyard", "token")
        held, pieces = b"", []
        for line in LINES:
            held += line
            if len(held) > 60_000:
                pieces.append(held)
                held = b""
        pieces.append(held)
        for number, piece in enumerate(pieces):
            last = "&last=true" if number == len(pieces) - 1 else ""
            for _ in range(2):  # the answer to the first was lost
                url = f"{env['TRAINYARD_HAND_OVER_URL']}?piece={number}{last}"
                request = urllib.request.Request(url, piece, {"Authorization": f"Bearer {token}"})
                try:
                    urllib.request.urlopen(request, timeout=15).close()
                except urllib.error.HTTPError as error:
                    if error.code != 410 or not last:  # after the last piece the reader may have all of it
                        raise
        return 0, None


@pytest.fixture(scope="module")
def pods() -> Pods:
    return Pods()


@pytest.fixture(scope="module")
def store(pods: Pods, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(tmp_path_factory.mktemp("store"), pods) as running:
        running.secret("tunix-rt-training-secrets", **{"database-url": "postgresql://x"})
        yield running


def ask(store: Store, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(
        store.url + path, data, kind | {k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def build(store: Store, **changes: Any) -> tuple[int, dict[str, Any]]:
    return ask(store, "/api/datasets/build", BODY | changes)


def runs(store: Store, key: str) -> list[dict[str, Any]]:
    found = store.kube.objects["trainingruns"].values()
    return [r for r in found if r["metadata"]["labels"].get("trainyard.dev/dataset") == key]


def test_a_build_has_the_four_fields_and_is_a_run(store: Store) -> None:
    status, answer = build(store)
    (run,) = runs(store, "high_card_duel_prod-v1")
    assert status == 201
    assert answer == {
        "dataset_key": "high_card_duel_prod-v1",
        "build_id": run["metadata"]["uid"],
        "trace_count": 7,
        "manifest_path": "r-1/dataset/manifest.json",
        "run": f"lab/{run['metadata']['name']}",
        "manifest_uri": f"pvc://{run['metadata']['name']}-checkpoints/r-1/dataset/manifest.json",
    }
    (dataset,) = run["spec"]["datasets"]
    assert dataset["secretRef"] == {"name": "tunix-rt-training-secrets"}
    assert dataset["traces"] == {
        "database": {}, "datasetName": "high_card_duel_prod", "datasetVersion": "v1", "filters": {"source": "ungar"},
        "limit": 1000, "selectionStrategy": "Latest", "exportFormat": "TRM",
    }  # fmt: skip
    assert (run["spec"]["mode"], run["metadata"]["name"][:20]) == ("Dataset", "high-card-duel-prod-")


def test_the_same_again_is_the_same_and_another_one_under_its_name_is_refused(store: Store) -> None:
    _, first = build(store, dataset_version="again")
    status, second = build(store, dataset_version="again")
    assert (status, second) == (200, first)
    status, told = build(store, dataset_version="again", limit=5, filters={})
    assert status == 409
    assert "dataset_version: high_card_duel_prod-again was built with other values of filters, limit" in told["error"]
    assert "delete TrainingRun lab/high-card-duel-prod-again-" in told["error"]


def test_two_at_once_are_one(store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: build(store, dataset_version="at-once"), range(6)))
    assert len({answer["build_id"] for _, answer in answers}) == 1
    assert sorted(status for status, _ in answers) == [200] * 5 + [201]


def test_a_dry_run_makes_nothing_and_says_what_it_would(store: Store) -> None:
    status, told = build(store, dataset_version="dry", dry_run=True)
    assert (status, told["dry_run"], told["dataset_key"]) == (200, True, "high_card_duel_prod-dry")
    assert told["run"]["spec"]["datasets"][0]["traces"]["datasetVersion"] == "dry"
    assert runs(store, "high_card_duel_prod-dry") == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BODY | {"dataset_name": ""}, "dataset_name: "),
        (BODY | {"dataset_name": "a/b"}, "dataset_name: "),
        (BODY | {"dataset_name": None}, "dataset_name: "),
        ({"dataset_name": "a"}, "dataset_version: Field required"),
        (BODY | {"dataset_name": "x" * 40, "dataset_version": "y" * 40}, "more than 62 characters together"),
        (BODY | {"limit": 0}, "limit: "),
        (BODY | {"limit": 10001}, "limit: "),
        (BODY | {"limit": "10"}, "limit: "),
        (BODY | {"selection_strategy": "best"}, "selection_strategy: "),
        (BODY | {"selection_strategy": "random"}, "random needs a seed"),
        (BODY | {"filters": {"a": "x" * 5000}}, "filters are longer than 4096"),
        (BODY | {"filters": ["a"]}, "filters: "),
        (BODY | {"limt": 3}, "limt: there is no such field; a build has dataset_name, dataset_version, filters, limit"),
        ([], "the body"),
        (b"{", "the body is not JSON"),
    ],
)
def test_what_is_no_build_names_the_field(store: Store, body: Any, words: str) -> None:
    before = len(store.kube.objects["trainingruns"])
    status, told = ask(store, "/api/datasets/build", body)
    assert (status, words in told["error"]) == (422, True), told
    assert len(store.kube.objects["trainingruns"]) == before


def test_bodies_are_bounded_and_are_json(store: Store) -> None:
    assert ask(store, "/api/datasets/build", b" " * (BODY_LIMIT + 1))[0] == 413
    assert ask(store, "/api/datasets/build", BODY, Content_Type="text/plain")[0] == 415


@pytest.mark.parametrize("headers", [{"Host": "evil.example.org:8000"}, {"Sec_Fetch_Site": "cross-site"}])
def test_no_web_page_can_ask_for_whoever_has_it_open(store: Store, headers: dict[str, str]) -> None:
    assert ask(store, "/api/datasets/build", BODY, **headers)[0] == 403
    assert ask(store, "/api/datasets/high_card_duel_prod-v1/export.jsonl", **headers)[0] == 403


@pytest.mark.parametrize(("reason", "status"), [("InvalidData", 422), ("SourceUnavailable", 503)])
def test_a_build_that_fails_says_why_and_may_be_asked_for_again(
    store: Store, pods: Pods, reason: str, status: int
) -> None:
    version = f"bad-{reason.lower()}"
    pods.failure = reason, "the table is empty"
    try:
        got, told = build(store, dataset_version=version)
    finally:
        pods.failure = None
    assert got == status
    assert "the table is empty; do this" in told["error"]
    assert ask(store, f"/api/datasets/high_card_duel_prod-{version}/export.jsonl")[0] == status
    assert build(store, dataset_version=version)[0] == 201
    assert len(runs(store, f"high_card_duel_prod-{version}")) == 2


def test_an_export_is_whole_and_its_job_goes(store: Store) -> None:
    build(store, dataset_version="whole")
    with urllib.request.urlopen(
        f"{store.url}/api/datasets/high_card_duel_prod-whole/export.jsonl?format=training_example", timeout=60
    ) as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert answer.read() == b"".join(LINES)
    store.wait(lambda: not [n for _, n in store.kube.objects["jobs"] if "-lines-" in n])
    assert store.status(runs(store, "high_card_duel_prod-whole")[0]["metadata"]["name"])["state"] == "Succeeded"


async def test_an_export_that_breaks_off_is_not_taken_for_the_whole() -> None:
    async def pieces() -> AsyncIterator[Piece]:
        yield Piece(b"second\n")

    async def handler(request: web.Request) -> web.StreamResponse:
        return await application._streamed(request, Piece(b"first\n"), pieces())

    app = web.Application()
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/")
        with pytest.raises(ClientPayloadError):
            await answer.read()


def test_exports_that_cannot_be(store: Store, pods: Pods) -> None:
    status, told = ask(store, "/api/datasets/none-v1/export.jsonl")
    assert (status, "POST /api/datasets/build makes one" in told["error"]) == (404, True)
    asked = len(store.kube.queries)
    assert ask(store, "/api/datasets/a,trainyard.dev%2Fdataset/export.jsonl")[0] == 404
    assert not [q for _, q in store.kube.queries[asked:] if "," in q.get("labelSelector", "")]
    build(store, dataset_version="form")
    status, told = ask(store, "/api/datasets/high_card_duel_prod-form/export.jsonl?format=csv")
    assert (status, told["error"]) == (422, "format: 'csv' is none; there are trace, training_example, tunix_sft")
    pods.hold.clear()
    try:
        with ThreadPoolExecutor(1) as pool:
            building = pool.submit(build, store, dataset_version="slow")
            store.wait(lambda: runs(store, "high_card_duel_prod-slow"))
            status, told = ask(store, "/api/datasets/high_card_duel_prod-slow/export.jsonl")
            assert (status, "is being built" in told["error"]) == (503, True)
            pods.hold.set()
            assert building.result(60)[0] == 201
    finally:
        pods.hold.set()


def test_pieces_are_taken_from_the_runs_own_pods_alone(store: Store) -> None:
    build(store, dataset_version="strange")
    (run,) = runs(store, "high_card_duel_prod-strange")
    at = f"{store.origin}/v1/exports/lab/{run['metadata']['name']}/{run['metadata']['uid']}/some?piece=0"
    for token, status in (("x", 401), (store.from_secret(f"{run['metadata']['name']}-trainyard", "token"), 410)):
        request = urllib.request.Request(at, b"{}\n", {"Authorization": f"Bearer {token}"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == status


def test_the_pod_of_an_export_reads_the_volume_and_nothing_else(store: Store, pods: Pods) -> None:
    build(store, dataset_version="pod")
    pods.never = True
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(
                store.curl, "curl --max-time 5 http://localhost:8000/api/datasets/high_card_duel_prod-pod/export.jsonl"
            )
            found: list[dict[str, Any]] = []

            def made() -> bool:
                found[:] = [j for (_, n), j in store.kube.objects["jobs"].items() if "-lines-" in n]
                return bool(found)

            store.wait(made)
            job = json.loads(json.dumps(found[0]))
            waiting.result(60)
    finally:
        pods.never = False
    pod = job["spec"]["template"]["spec"]
    assert [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v] == [
        f"{job['metadata']['ownerReferences'][0]['name']}-trainyard"
    ]
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/trainyard/checkpoints"]
    assert mount["readOnly"]
    assert not pod["automountServiceAccountToken"]
    assert job["spec"]["ttlSecondsAfterFinished"] <= application.START_SECONDS
    store.wait(lambda: not [n for _, n in store.kube.objects["jobs"] if "-lines-" in n])
