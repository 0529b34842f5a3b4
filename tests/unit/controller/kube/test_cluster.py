"""Requests as they go out, and errors as they come back, over real HTTP on loopback."""

import asyncio

import pytest
from aiohttp import web

from tests.unit.controller.fake_api import FakeApi, fake_api, status
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import JOBS, NODES, SECRETS, TRAININGRUNS, Cluster

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {}}


@pytest.fixture
async def api():
    async with fake_api() as served:
        yield served


@pytest.fixture
async def cluster(api: FakeApi):
    client = api.cluster()
    yield client
    await client.close()


async def test_every_request_carries_the_token_as_the_header_wants_it(api: FakeApi, cluster: Cluster):
    await cluster.get(JOBS, "ns", "a")
    assert api.seen[0].headers["Authorization"] == "Bearer secret-token"


async def test_an_absent_object_is_none(api: FakeApi, cluster: Cluster):
    api.answers = [status(404, "NotFound")]
    assert await cluster.get(JOBS, "ns", "a") is None
    assert (api.seen[0].method, api.seen[0].path) == ("GET", "/apis/batch/v1/namespaces/ns/jobs/a")


async def test_paths_of_core_and_cluster_scoped_objects(api: FakeApi, cluster: Cluster):
    await cluster.get(NODES, None, "forge")
    assert api.seen[0].path == "/api/v1/nodes/forge"
    with pytest.raises(ValueError, match="jobs 'a' needs a namespace"):
        await cluster.get(JOBS, None, "a")


async def test_a_list_follows_the_pages(api: FakeApi, cluster: Cluster):
    api.answers = [
        web.json_response({"items": [{"n": 1}], "metadata": {"continue": "more"}}),
        web.json_response({"items": [{"n": 2}], "metadata": {}}),
    ]
    assert await cluster.list(JOBS, label_selector="a=b", field_selector="c=d") == [{"n": 1}, {"n": 2}]
    assert api.seen[0].path == "/apis/batch/v1/jobs"
    assert api.seen[0].query == {"limit": "500", "labelSelector": "a=b", "fieldSelector": "c=d"}
    assert api.seen[1].query["continue"] == "more"


async def test_a_limited_list_is_one_request(api: FakeApi, cluster: Cluster):
    api.answers = [web.json_response({"items": [{"n": 1}], "metadata": {"continue": "more"}})]
    assert await cluster.list(JOBS, limit=1) == [{"n": 1}]
    assert len(api.seen) == 1


async def test_metadata_only_asks_for_nothing_else(api: FakeApi, cluster: Cluster):
    await cluster.get(SECRETS, "ns", "a", metadata_only=True)
    assert "as=PartialObjectMetadata;" in api.seen.pop().headers["Accept"]
    api.answers = [web.json_response({"items": []})]
    assert [page async for page in cluster.pages(TRAININGRUNS, metadata_only=True)] == [[]]
    assert "as=PartialObjectMetadataList" in api.seen[0].headers["Accept"]


async def test_writes_name_their_field_manager(api: FakeApi, cluster: Cluster):
    await cluster.create(JOBS, "ns", JOB)
    await cluster.patch(JOBS, "ns", "a", {"spec": {"suspend": True}})
    pending = {"status": {"state": "Pending"}, "metadata": {"resourceVersion": "42"}}
    await cluster.replace_status(TRAININGRUNS, "ns", "a", pending)
    assert all(seen.query["fieldManager"] == "trainyard" for seen in api.seen)
    sent = [(s.method, s.path.rpartition("/namespaces/ns/")[2], s.headers["Content-Type"]) for s in api.seen]
    assert sent == [
        ("POST", "jobs", "application/json"),
        ("PATCH", "jobs/a", "application/merge-patch+json"),
        ("PUT", "trainingruns/a/status", "application/json"),
    ]
    assert all("as=PartialObjectMetadata;" in seen.headers["Accept"] for seen in api.seen)
    assert api.seen[2].body == pending


async def test_a_delete_is_of_one_certain_object(api: FakeApi, cluster: Cluster):
    assert await cluster.delete(JOBS, "ns", "a", uid="u1", propagation="Foreground", grace_period=5)
    assert api.seen[0].body["preconditions"] == {"uid": "u1"}
    assert (api.seen[0].body["propagationPolicy"], api.seen[0].body["gracePeriodSeconds"]) == ("Foreground", 5)
    api.answers = [status(404, "NotFound")]
    assert not await cluster.delete(JOBS, "ns", "a")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(400, "BadRequest"), errors.Invalid),
        (status(401, "Unauthorized"), errors.Unauthorized),
        (status(403, "Forbidden"), errors.Forbidden),
        (status(404, "NotFound"), errors.NotFound),
        (status(409, "Conflict"), errors.Conflict),
        (status(409, "AlreadyExists"), errors.AlreadyExists),
        (status(410, "Expired"), errors.Transient),
        (status(413, "RequestEntityTooLarge"), errors.Invalid),
        (status(422, "Invalid"), errors.Invalid),
        (status(429, "TooManyRequests"), errors.Transient),
        (status(500, "InternalError"), errors.Transient),
        (web.Response(status=503, text="upstream is down"), errors.Transient),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value.status),
)
async def test_each_answer_is_one_kind_of_error(api: FakeApi, cluster: Cluster, answer, expected):
    api.answers = [answer]
    with pytest.raises(errors.ClusterError) as caught:
        await cluster.create(JOBS, "ns", JOB)
    assert type(caught.value) is expected
    assert caught.value.status == answer.status
    assert str(caught.value).startswith("create jobs ns/a: ")


async def test_an_invalid_object_names_its_fields(api: FakeApi, cluster: Cluster):
    cause = {"field": "spec.template.spec.containers[0].image", "message": "Required value", "reason": "Missing"}
    api.answers = [status(422, "Invalid", "Job is invalid", causes=[cause])]
    with pytest.raises(errors.Invalid) as caught:
        await cluster.create(JOBS, "ns", JOB)
    assert [str(c) for c in caught.value.causes] == ["spec.template.spec.containers[0].image: Required value"]
    assert caught.value.message == "Job is invalid"


async def test_quota_and_dying_namespaces_are_told_apart(api: FakeApi, cluster: Cluster):
    api.answers = [
        status(403, "Forbidden", 'pods "a" is forbidden: exceeded quota: compute, requested: cpu=4'),
        status(403, "Forbidden", "unable to create", causes=[{"reason": "NamespaceTerminating"}]),
    ]
    found = []
    for _ in range(2):
        with pytest.raises(errors.Forbidden) as caught:
            await cluster.create(JOBS, "ns", JOB)
        found.append((caught.value.exceeded_quota, caught.value.namespace_terminating))
    assert found == [(True, False), (False, True)]


async def test_a_busy_server_says_when_to_come_back(api: FakeApi, cluster: Cluster):
    busy = status(429, "TooManyRequests")
    busy.headers["Retry-After"] = "7"
    api.answers = [busy, status(504, "Timeout", retryAfterSeconds=3), status(500, "InternalError")]
    waits = []
    for _ in range(3):
        with pytest.raises(errors.Transient) as caught:
            await cluster.get(JOBS, "ns", "a")
        waits.append(errors.retry_after(caught.value))
    assert waits == [7.0, 3.0, None]


async def test_no_server_is_transient(api: FakeApi):
    client = api.cluster()
    client._present = client._present.__class__(server="http://127.0.0.1:1")
    with pytest.raises(errors.Transient, match="cannot reach the API server"):
        await client.get(JOBS, "ns", "a")
    await client.close()


async def test_a_server_that_never_answers_is_transient(api: FakeApi, cluster: Cluster, monkeypatch):
    monkeypatch.setattr("trainyard.controller.kube.transport.REQUEST_TIMEOUT", 0.05)
    api.hold = asyncio.Event()
    with pytest.raises(errors.Transient, match=r"no answer from the API server within 0\.05 s"):
        await cluster.get(JOBS, "ns", "a")
    api.hold.set()


async def test_refused_credentials_are_read_again(api: FakeApi, cluster: Cluster, tmp_path, monkeypatch):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: x
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "{api.url}"}}}}]
users: [{{name: u, user: {{token: renewed}}}}]
"""
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    api.answers = [status(401, "Unauthorized")]
    with pytest.raises(errors.Unauthorized):
        await cluster.get(JOBS, "ns", "a")
    await cluster.get(JOBS, "ns", "a")
    assert api.seen[1].headers["Authorization"] == "Bearer renewed"


async def test_an_unreadable_kubeconfig_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(ConnectionError, match=r"KUBECONFIG=.*nowhere.*set KUBECONFIG to the path of a kubeconfig"):
        await Cluster.connect()


async def test_requests_are_counted(api: FakeApi):
    counted: list[tuple[str, str, int]] = []
    client = api.cluster(on_request=lambda verb, resource, code, seconds: counted.append((verb, resource, code)))
    api.answers = [status(404, "NotFound")]
    await client.get(JOBS, "ns", "a")
    await client.replace_status(TRAININGRUNS, "ns", "a", {})
    assert counted == [("get", "jobs", 404), ("update", "trainingruns/status", 200)]
    await client.close()


async def test_whether_a_resource_is_served(api: FakeApi, cluster: Cluster):
    api.answers = [web.json_response({"resources": [{"name": "trainingruns"}]}), status(404, "NotFound")]
    assert await cluster.serves(TRAININGRUNS)
    assert not await cluster.serves(TRAININGRUNS)
    assert api.seen[0].path == "/apis/trainyard.dev/v1alpha1"
