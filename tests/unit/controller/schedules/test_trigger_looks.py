"""Looks in processes of their own: what they may use, whom they may ask, and what becomes of those that go too far."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.controller.schedules.git_server import GitServer, commit, git
from tests.unit.controller.schedules.loopback import Serve
from trainyard.controller.schedules.triggers import ask as asks
from trainyard.controller.schedules.triggers.access import Access
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.answer import LIMIT, LookFailed, SourceDown, received
from trainyard.controller.schedules.triggers.ask import Ask
from trainyard.controller.schedules.triggers.looks import Looks
from trainyard.controller.schedules.triggers.s3 import Store

LOOPBACK = Rules(allow_loopback=True)
COMPARED = {"query": "up", "comparison": "LessThan", "threshold": 1}
BY_ALIAS = {"model": "m", "alias": "a", "metric": "f", "comparison": "LessThan", "threshold": 1, "missing": "Fire"}


def prometheus(url: str, *, rules: Rules = LOOPBACK) -> Ask:
    return Ask("prometheus", {"url": url, **COMPARED}, rules=rules)


def dataset(url: str, *, access: Access | None = None, rules: Rules = LOOPBACK) -> Ask:
    return Ask("dataset", {"url": url}, access or Access(), rules=rules)


def git_path(url: str, *, path: str = "", rules: Rules = LOOPBACK) -> Ask:
    return Ask("gitPath", {"url": url, "ref": "main", "path": path}, rules=rules)


def mlflow(url: str, *, rules: Rules = LOOPBACK) -> Ask:
    return Ask("mlflowMetric", {"tracking_uri": url, **BY_ALIAS}, rules=rules)


async def quiet(request: web.Request) -> web.Response:
    return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}})


async def silent(request: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    raise AssertionError


def processes(looks: Looks) -> tuple[int, list[int]]:
    """The fork server and the looks that it has made."""
    server = looks._server
    assert server is not None
    return server._process.pid, children(server._process.pid)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def shown_of(pid: int) -> bytes:
    """What every program of the same user sees of a process."""
    return Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not come")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in asks.KINDS.items():
        monkeypatch.setitem(asks.KINDS, name, replace(kind, seconds=1, cpu_seconds=1))


# The operator and the process beside it


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_operator_cannot_read_a_source_itself() -> None:
    modules = loaded("import trainyard.controller.app")
    package = "trainyard.controller.schedules.triggers"
    readers = {"dulwich", *(f"{package}.{name}" for name in ("gitpath", "dataset", "prometheus", "mlflow", "door"))}
    assert not readers & modules


def test_the_process_beside_it_carries_what_looks_need_and_no_more() -> None:
    modules = loaded("import trainyard.controller.schedules.triggers.forkserver")
    heavy = {"pydantic", "aiohttp", "kubernetes", "kopf", "dulwich", "trainyard.api.base"}
    assert not heavy & modules
    assert "urllib3" in modules


async def test_a_look_is_taken_elsewhere_and_answered(serve: Serve, looks: Looks) -> None:
    answer = await looks.take(prometheus(await serve(quiet)))
    assert (answer.token, answer.holds) == ("quiet", False)
    pid, _ = processes(looks)
    assert pid != os.getpid()
    await looks.close()
    assert not alive(pid)


async def test_nobody_beside_the_look_is_told_a_secret(
    serve: Serve, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("TRAINYARD_IDENTITY", "pod-1")
    monkeypatch.setenv("A_PASSWORD", "s3cret")
    ask = dataset(await serve(silent), access=Access(username="me", password="s3cret", store=Store(secret="s3cret")))
    assert "s3cret" not in repr(ask)
    look = asyncio.create_task(looks.take(ask))
    await eventually(lambda: looks._server is not None and bool(processes(looks)[1]))
    server, (child,) = processes(looks)
    for pid in (server, child):
        seen = shown_of(pid)
        assert b"s3cret" not in seen
        assert b"KUBERNETES" not in seen
        assert b"TRAINYARD" not in seen
    look.cancel()
    await asyncio.gather(look, return_exceptions=True)


async def test_a_look_that_nobody_waits_for_ends(serve: Serve, looks: Looks) -> None:
    look = asyncio.create_task(looks.take(prometheus(await serve(silent))))
    await eventually(lambda: looks._server is not None and bool(processes(looks)[1]))
    look.cancel()
    await asyncio.gather(look, return_exceptions=True)
    assert processes(looks)[1] == []


async def test_a_fork_server_that_is_gone_is_replaced_and_nothing_is_lost(serve: Serve, looks: Looks) -> None:
    asked = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.sleep(0.5)
        return await quiet(request)

    url = await serve(slow)
    look = asyncio.create_task(looks.take(prometheus(url)))
    await asked.wait()
    first, _ = processes(looks)
    os.kill(first, signal.SIGKILL)
    assert (await look).token == "quiet"
    assert processes(looks)[0] != first


async def test_when_the_operator_is_gone_all_of_it_is_gone(serve: Serve) -> None:
    code = (
        "import asyncio, sys\n"
        "from trainyard.controller.schedules.triggers.looks import Looks\n"
        "from trainyard.controller.schedules.triggers.ask import Ask\n"
        "from trainyard.controller.schedules.triggers.addresses import Rules\n"
        "async def main():\n"
        "    looks = Looks(memory=2**24)\n"
        "    spec = {'url': sys.argv[1], 'query': 'x', 'comparison': 'Equal', 'threshold': 0}\n"
        "    look = asyncio.create_task(looks.take(Ask('prometheus', spec, rules=Rules(allow_loopback=True))))\n"
        "    while looks._server is None: await asyncio.sleep(0.01)\n"
        "    print(looks._server._process.pid, flush=True)\n"
        "    await look\n"
        "asyncio.run(main())\n"
    )
    asked = asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        asked.set()
        return await silent(request)

    operator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, await serve(hold)), stdout=asyncio.subprocess.PIPE
    )
    assert operator.stdout is not None
    server = int(await operator.stdout.readline())
    await asked.wait()
    (child,) = children(server)
    operator.kill()
    await operator.wait()
    await eventually(lambda: not alive(server) and not alive(child))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Limits


async def test_a_look_that_needs_too_much_memory_is_the_error_of_its_trigger_alone(serve: Serve, looks: Looks) -> None:
    async def much(request: web.Request) -> web.Response:
        return web.Response(text="[" + ",".join(["[]"] * 600_000) + "]", content_type="application/json")

    good, bad = prometheus(await serve(quiet)), prometheus(await serve(much))
    answers = await asyncio.gather(*map(looks.take, (good, bad, good)), return_exceptions=True)
    assert [getattr(answer, "token", None) for answer in answers] == ["quiet", None, "quiet"]
    assert isinstance(answers[1], SourceDown)
    assert "prometheus.query: what the source sends needs more than 20 MiB" in str(answers[1])
    assert "fewer series" in str(answers[1])
    assert "TRAINYARD_TRIGGERS_MEMORY_MIB" in str(answers[1])


@pytest.mark.usefixtures("hasty")
async def test_a_look_that_takes_too_long_is_the_error_of_its_trigger_alone(serve: Serve, looks: Looks) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-git-upload-pack-advertisement"})
        await response.prepare(request)
        while True:
            await response.write(b"001e# service=git-upload-pack\n")
            await asyncio.sleep(0.05)

    slow = await serve(drip)
    wanted = [prometheus(await serve(silent)), git_path(slow), dataset(slow), prometheus(await serve(quiet))]
    *late, fine = await asyncio.gather(*map(looks.take, wanted), return_exceptions=True)
    assert getattr(fine, "token", None) == "quiet"
    for error, field in zip(late, ("prometheus.query", "gitPath.url", "dataset.url"), strict=True):
        assert f"{field}: the look took more than 1 s and was ended; " in str(error), error


@pytest.mark.usefixtures("hasty")
async def test_a_look_that_only_computes_is_ended_too(serve: Serve, looks: Looks, monkeypatch: Any) -> None:
    monkeypatch.setitem(asks.KINDS, "dataset", replace(asks.KINDS["dataset"], seconds=100))

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\n" * 2**16)

    with pytest.raises(SourceDown, match=r"dataset\.url: the look took more than 1 s of processor time"):
        await looks.take(dataset(await serve(endless)))


async def test_a_small_pack_that_unpacks_to_much_is_read_within_the_same_memory(
    tmp_path: Path, serve: Serve, looks: Looks
) -> None:
    git(tmp_path, "init", "--quiet", "-b", "main", "repo")
    (tmp_path / "repo/zeros").write_bytes(bytes(60 * 2**20))
    commit(tmp_path / "repo", {"a.md": "x"})
    answer = await looks.take(git_path(f"{await serve(GitServer(tmp_path))}/repo/.git", path="a.md"))
    assert answer.token == git(tmp_path / "repo", "rev-parse", "HEAD:a.md")


async def test_an_answer_of_many_series_fits_and_one_of_more_is_refused(serve: Serve, looks: Looks) -> None:
    labels = {"__name__": "up", "namespace": "lab", "pod": "runbook-1-train-abcde", "instance": "10.0.0.1:9100"}

    async def many(request: web.Request) -> web.Response:
        count = int(request.query["query"])
        series = [{"metric": {**labels, "n": str(n)}, "value": [0, str(n)]} for n in range(count)]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": series}})

    ask = prometheus(await serve(many))
    assert (await looks.take(replace(ask, spec={**ask.spec, "query": "9000"}))).holds
    with pytest.raises(SourceDown, match="sends more than 2 MiB"):
        await looks.take(replace(ask, spec={**ask.spec, "query": "20000"}))


async def test_an_answer_in_pieces_is_read_to_its_end(serve: Serve, looks: Looks) -> None:
    async def torn(request: web.Request) -> web.StreamResponse:
        body = (await quiet(request)).body
        assert isinstance(body, bytes)
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        for piece in (body[:10], body[10:20], body[20:]):
            await response.write(piece)
            await asyncio.sleep(0.1)
        return response

    assert (await looks.take(prometheus(await serve(torn)))).token == "quiet"


@given(st.binary(max_size=200) | st.just(b"x" * (LIMIT + 1)))
def test_whatever_comes_from_a_look_is_an_answer_or_an_error(data: bytes) -> None:
    try:
        received(data)
    except (SourceDown, LookFailed):
        return


@pytest.mark.parametrize(
    ("data", "observed"),
    [
        (b'{"token": "a\\u001bb", "observed": "x\\n\\ud800y", "holds": null, "marks": {"etag": "a\\nb"}}', "x y"),
        (
            b'{"token": "a b", "observed": "'
            + b"z" * 9000
            + b'", "holds": true, "marks": {"k": "'
            + b"m" * 9000
            + b'"}}',
            "z" * 511 + "…",
        ),
    ],
)
def test_what_an_answer_says_is_one_short_line(data: bytes, observed: str) -> None:
    answer = received(data)
    assert (answer.token, answer.observed, answer.marks) == ("a b", observed, {})


# Whom they may ask


KINDS: dict[str, Callable[..., Ask]] = {
    "gitPath": git_path,
    "prometheus": prometheus,
    "mlflowMetric": mlflow,
    "dataset": dataset,
}


def in_store(url: str, *, rules: Rules = LOOPBACK) -> Ask:
    keys = Store(key_id="a", secret="b", session="the-session", endpoint=url)
    return dataset("s3://bucket/key", access=Access(store=keys), rules=rules)


class Counted:
    """Remembers who asked."""

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = quiet) -> None:
        self.requests: list[web.Request] = []
        self._answer = answer

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self._answer(request)


@pytest.mark.parametrize("ask", [*KINDS.values(), in_store])
async def test_the_operators_own_pod_is_not_asked_by_any_of_its_names(
    ask: Callable[..., Ask], serve: Serve, looks: Looks
) -> None:
    server = Counted()
    port = (await serve(server)).rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        asked = ask(f"http://{host}:{port}", rules=Rules())
        told = rf"^{asks.KINDS[asked.kind].field}: .* which triggers must not ask; name a Service"
        with pytest.raises(SourceDown, match=told):
            await looks.take(asked)
    assert server.requests == []


def to(url: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": url + request.path_qs})

    return redirect


@pytest.mark.parametrize("ask", KINDS.values())
async def test_a_redirect_leads_nowhere_where_the_first_address_could_not(
    ask: Callable[..., Ask], serve: Serve, looks: Looks
) -> None:
    server = Counted()
    inner = await serve(server, host="127.0.0.2")
    outer = Counted(to(inner))
    rules = Rules(allow_loopback=True, denied_networks=("127.0.0.2/32",))
    with pytest.raises(SourceDown, match=r"127\.0\.0\.2 lies in 127\.0\.0\.2/32"):
        await looks.take(ask(await serve(outer), rules=rules))
    assert (len(outer.requests), server.requests) == (1, [])


async def test_only_hosts_that_the_installation_names_are_asked_also_behind_a_redirect(
    serve: Serve, looks: Looks
) -> None:
    server = Counted()
    url = await serve(server)
    rules = Rules(allow_loopback=True, allowed_hosts=("*.example.org", "127.0.0.1"))
    assert (await looks.take(prometheus(url, rules=rules))).token == "quiet"
    named = url.replace("127.0.0.1", "localhost")
    for source in (named, await serve(to(named))):
        with pytest.raises(SourceDown, match="localhost is not among the hosts"):
            await looks.take(prometheus(source, rules=rules))
    assert len(server.requests) == 1


REBINDING = """
import socket, sys
from trainyard.controller.schedules.triggers.access import Access
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.door import Door
from trainyard.controller.schedules.triggers.wall import Refused, Wall
port, answers = int(sys.argv[1]), iter(["127.0.0.2", "127.0.0.1"])
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, port, *a, **k: real(next(answers) if host == "rebind.test" else host, port, *a, **k)
wall = Wall(Rules(allow_loopback=True, denied_networks=("127.0.0.1/32",)))
wall.stand()
for _ in range(2):
    try:
        print(Door(Access(), wall).request("GET", f"http://rebind.test:{port}/").status)
    except Refused as error:
        print(error)
"""


async def test_a_name_that_leads_elsewhere_the_second_time_is_judged_again(serve: Serve) -> None:
    port = (await serve(quiet, host="0.0.0.0")).rpartition(":")[2]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", REBINDING, port], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "200",
        f"127.0.0.1 {Rules(denied_networks=('127.0.0.1/32',), allow_loopback=True).refuse_address('127.0.0.1')}",
    ]


async def test_where_the_installation_has_a_proxy_the_proxy_is_asked(
    serve: Serve, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Counted()
    address = await serve(proxy)
    monkeypatch.setenv("http_proxy", address.replace("http://", "http://me:p%40ss@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert (await looks.take(prometheus("http://prometheus.invalid:9090", rules=Rules()))).token == "quiet"
    assert str(proxy.requests[0].url).startswith("http://prometheus.invalid:9090/api/v1/query?")
    assert proxy.requests[0].headers["Proxy-Authorization"] == "Basic bWU6cEBzcw=="
    for kept in ("http://127.0.0.1:1", "http://169.254.169.254"):
        with pytest.raises(SourceDown, match="which triggers must not ask"):
            await looks.take(prometheus(kept, rules=Rules()))
    assert len(proxy.requests) == 1


async def test_a_store_that_sends_its_readers_elsewhere_is_not_followed_with_its_session(
    serve: Serve, looks: Looks
) -> None:
    elsewhere = Counted()
    store = Counted(to(await serve(elsewhere, host="127.0.0.2")))
    with pytest.raises(SourceDown, match="AWS_REGION of the Secret"):
        await looks.take(in_store(await serve(store)))
    assert store.requests[0].headers["x-amz-security-token"] == "the-session"
    assert elsewhere.requests == []


async def test_credentials_stay_with_their_origin(serve: Serve, looks: Looks) -> None:
    elsewhere = Counted()
    first = Counted(to(await serve(elsewhere)))
    ask = replace(prometheus(await serve(first)), access=Access(token="secret"))
    assert (await looks.take(ask)).token == "quiet"
    assert first.requests[0].headers["Authorization"] == "Bearer secret"
    assert "Authorization" not in elsewhere.requests[0].headers
