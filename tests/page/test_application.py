"""The page's routes over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.page.board import MemoryReviews, Stage, curve, example, training_run
from trainyard.controller.clock import SystemClock
from trainyard.controller.page import application, board
from trainyard.controller.page.assets import load
from trainyard.controller.page.reader import Doorman

RUN = "/api/runs/team-a/agent-sre-7"
ROUTES = ("/api/board", "/api/events", RUN, f"{RUN}/curves", "/api/schedules/lab/trm-monthly", "/api/sweeps/lab/tune")


def staged(access: Any) -> Stage:
    return Stage(Doorman(access, reviews=MemoryReviews(), clock=SystemClock(), token="the-token"))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), cookie_jar=aiohttp.CookieJar(unsafe=True)
    ) as opened:
        yield opened


async def get(session: aiohttp.ClientSession, stage: Stage, path: str, **more: Any) -> tuple[int, Any]:
    async with session.get(f"http://127.0.0.1:{stage.port}{path}", **more) as answer:
        return answer.status, await answer.json()


async def events(
    session: aiohttp.ClientSession, stage: Stage, query: str = "", **headers: str
) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events as a browser takes them."""
    async with session.get(f"http://127.0.0.1:{stage.port}/api/events{query}", headers=headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        said: dict[str, Any] = {}
        async for line in answer.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                said[name] = value
            elif "data" in said:
                yield said | {"data": json.loads(said["data"])}
                said = {}


async def first(source: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    return await asyncio.wait_for(anext(source), 5)


async def test_a_run_and_its_curves_can_be_read(session: aiohttp.ClientSession) -> None:
    async with (await example()).served() as stage:
        status, run = await get(session, stage, "/api/runs/team-a/agent-sre-7")
        assert (status, run["status"]["checkpoint"]["step"]) == (200, 50)
        _, curves = await get(session, stage, "/api/runs/team-a/agent-sre-7/curves")
        assert [p["step"] for p in curves["points"]] == list(range(1, 73))
        assert [m["kind"] for m in curves["marks"]] == ["checkpoint", "checkpoint", "restart", "out-of-memory"]
        for path in (
            "/api/runs/team-a/none",
            "/api/runs/team-a/none/curves",
            "/api/schedules/lab/none",
            "/api/sweeps/lab/none",
        ):
            status, said = await get(session, stage, path)
            assert status == 404
            assert "error" in said


async def test_who_cannot_unpack_gets_it_plain(session: aiohttp.ClientSession) -> None:
    plain, packed = {"Accept-Encoding": "identity"}, {"Accept-Encoding": "gzip"}
    async with (await example()).served() as stage:
        for path in ("/static/page.js", "/", "/api/runs/team-a/agent-sre-7/curves"):
            url = f"http://127.0.0.1:{stage.port}{path}"
            async with session.get(url, headers=plain) as one, session.get(url, headers=packed) as other:
                assert "Content-Encoding" not in one.headers
                assert other.headers["Content-Encoding"] == "gzip"
                assert await one.read() == await other.read()


async def test_nothing_can_be_changed(session: aiohttp.ClientSession) -> None:
    async with (await example()).served() as stage:
        for path in ("/", *ROUTES):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                async with session.request(method, f"http://127.0.0.1:{stage.port}{path}") as answer:
                    assert answer.status in (404, 405), (method, path)


async def test_the_files_are_small_and_may_do_nothing_elsewhere(session: aiohttp.ClientSession) -> None:
    assets = load()
    assert sum(asset.size for asset in assets.values()) < 150_000
    async with (await example()).served() as stage:
        for path in (
            "/",
            "/runs/a/b",
            "/compare",
            "/schedules",
            "/sweeps/a/b",
            "/login",
            *(f"/static/{name}" for name in assets),
        ):
            async with session.get(f"http://127.0.0.1:{stage.port}{path}") as answer:
                assert answer.status == 200
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "http" not in policy
                again = {"If-None-Match": answer.headers["ETag"]}
            async with session.get(f"http://127.0.0.1:{stage.port}{path}", headers=again) as answer:
                assert answer.status == 304
        for path in ("/static/../application.py", "/static/%2e%2e/application.py", "/static/none.js"):
            async with session.get(f"http://127.0.0.1:{stage.port}{path}") as answer:
                assert answer.status == 404


async def test_changes_come_as_events_and_who_comes_back_misses_none(session: aiohttp.ClientSession) -> None:
    async with (await example()).served() as stage:
        source = events(session, stage)
        waiting = asyncio.ensure_future(first(source))
        await asyncio.sleep(0.1)
        stage.put(training_run("new"))
        said = await waiting
        assert said["event"] == "lines"
        assert [row["name"] for row in said["data"]["runs"]] == ["new"]
        await source.aclose()  # type: ignore[attr-defined]
        stage.delete(training_run("new"))
        for back in (
            events(session, stage, **{"Last-Event-ID": said["id"]}),
            events(session, stage, f"?last={said['id']}"),
        ):
            assert (await first(back))["data"]["gone"] == [["run", "team-a", "new"]]
            await back.aclose()  # type: ignore[attr-defined]


async def test_a_point_comes_at_once_and_after_an_interruption(session: aiohttp.ClientSession) -> None:
    async with (await example()).served() as stage:
        uid, query = "uid-team-a-agent-sre-7", "?run=team-a/agent-sre-7"
        source = events(session, stage, query)
        waiting = asyncio.ensure_future(first(source))
        await asyncio.sleep(0.1)
        await stage.history.add(uid, curve(80)[72])
        said = await waiting
        assert (said["event"], said["data"]["step"]) == ("point", 73)
        await source.aclose()  # type: ignore[attr-defined]
        await stage.history.add(uid, curve(80)[73])
        await stage.history.add("uid-of-another", curve(80)[1])
        back = events(session, stage, query, **{"Last-Event-ID": said["id"]})
        assert (await first(back))["data"]["step"] == 74
        await back.aclose()  # type: ignore[attr-defined]


async def test_a_stream_ends_in_time_for_its_reader_to_come_again(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "STREAM_SECONDS", 0.3)
    async with (await example()).served() as stage:
        assert [said async for said in events(session, stage)] == []


async def test_one_page_too_many_is_told_so(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "READERS", 0)
    async with (await example()).served() as stage:
        status, said = await get(session, stage, "/api/events")
        assert (status, said["error"]) == (503, "too many pages are open")


async def test_a_reader_that_goes_leaves_nothing_behind(session: aiohttp.ClientSession) -> None:
    async with (await example()).served() as stage:
        before = len(asyncio.all_tasks())
        for _ in range(20):
            source = events(session, stage, "?run=team-a/agent-sre-7")
            waiting = asyncio.ensure_future(first(source))
            await asyncio.sleep(0.02)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await source.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        stage.put(training_run("wakes-readers"))
        await asyncio.sleep(0.2)
        assert len(asyncio.all_tasks()) <= before + 2
        assert stage.board._readers == 0


@pytest.mark.parametrize("access", ["Token", "Kubernetes", "Header"])
async def test_whoever_is_not_let_in_learns_nothing(access: str, session: aiohttp.ClientSession) -> None:
    async with staged(access).served() as stage:
        stage.put(training_run("agent-sre-7"))
        for path in ROUTES:
            status, said = await get(session, stage, path)
            assert status == 401
            assert "agent" not in json.dumps(said)


async def test_a_person_sees_the_runs_that_kubectl_would_show_him(session: aiohttp.ClientSession) -> None:
    async with staged("Kubernetes").served() as stage:
        stage.put(training_run("mine"))
        stage.put(training_run("theirs", namespace="team-b"))
        ann = {"headers": {"Authorization": "Bearer ann"}}
        _, seen = await get(session, stage, "/api/board", **ann)
        assert [row["name"] for row in seen["runs"]] == ["mine"]
        for path in ("/api/runs/team-b/theirs", "/api/runs/team-b/theirs/curves"):
            assert (await get(session, stage, path, **ann))[0] == 404
        source = events(session, stage, "?run=team-b/theirs", Authorization="Bearer ann")
        waiting = asyncio.ensure_future(first(source))
        await asyncio.sleep(0.1)
        await stage.history.add("uid-team-b-theirs", curve(3)[0])
        stage.put(training_run("theirs", namespace="team-b", step=41))
        stage.put(training_run("mine", step=41))
        said = await waiting
        assert "theirs" not in json.dumps(said)
        await source.aclose()  # type: ignore[attr-defined]


async def test_a_login_is_a_cookie_that_scripts_and_other_sites_do_not_get(session: aiohttp.ClientSession) -> None:
    async with staged("Token").served() as stage:
        stage.put(training_run("mine"))
        login = f"http://127.0.0.1:{stage.port}/login"
        async with session.post(login, data={"token": "wrong"}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/login?again")
        async with session.post(login, data={"token": "the-token"}, headers={"Sec-Fetch-Site": "cross-site"}) as answer:
            assert answer.status == 403
        async with session.post(login, data={"token": "the-token"}, allow_redirects=False) as answer:
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert "the-token" not in cookie
        status, seen = await get(session, stage, "/api/board")
        assert (status, len(seen["runs"])) == (200, 1)
