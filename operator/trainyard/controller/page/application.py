"""The page's routes. All of them read; none changes anything but who is logged in.

    /, /runs/..., /compare, /schedules/..., /sweeps/...    index.html; which view it is, the browser knows by the path
    /static/PATH                              scripts and styles
    /login                                    where a token is needed: a form's token becomes a session
    /api/board                                lines of all runs, schedules and sweeps that the reader may see
    /api/runs/NAMESPACE/NAME                  one run; .../curves its numbers over time
    /api/schedules/NAMESPACE/NAME             one schedule
    /api/sweeps/NAMESPACE/NAME                one sweep
    /api/events[?run=NAMESPACE/NAME]          server-sent events: lines that change; with `run` its points and marks, too

Whoever comes back with Last-Event-ID is told what he has missed, or to load anew.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from aiohttp import web

from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import TRAININGRUNS, TRAININGSCHEDULES, TRAININGSWEEPS, Resource
from trainyard.controller.page.assets import Asset, load
from trainyard.controller.page.board import Board, Bundle, TooManyReaders
from trainyard.controller.page.reader import TOKEN_LENGTH, Doorman, Person, Refused
from trainyard.controller.page.rows import run_detail, schedule_detail, sweep_detail
from trainyard.controller.ports import last
from trainyard.controller.reports.history import Curves, History, News

SESSION_COOKIE = "trainyard-session"
STREAM_SECONDS = 240.0
"""A stream ends before the connection's time is over; a browser comes back by itself, with the id of what it had last."""
HEARTBEAT_SECONDS = 20.0
"""Something is sent at least so often, so that proxies do not take the stream for dead."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Detail = Callable[[Mapping[str, Any]], dict[str, Any]]


class Page:
    """The HTTP application."""

    def __init__(self, *, board: Board, history: History, cluster: Cluster, doorman: Doorman) -> None:
        self._board = board
        self._history = history
        self._cluster = cluster
        self._doorman = doorman
        self._assets = load()

    def application(self) -> web.Application:
        """To be served on the page's port."""
        app = web.Application(client_max_size=2 * TOKEN_LENGTH)
        views = ("/runs/{namespace}/{name}", "/schedules/{namespace}/{name}", "/sweeps/{namespace}/{name}")
        for path in ("/", "/compare", "/schedules", "/sweeps", *views):
            app.router.add_get(path, self._index)
        app.router.add_get("/login", self._index)
        app.router.add_post("/login", self._log_in)
        app.router.add_get("/static/{path:.+}", self._static)
        app.router.add_get("/api/board", self._for_reader(self._lines))
        app.router.add_get("/api/events", self._for_reader(self._events))
        app.router.add_get("/api/runs/{namespace}/{name}", self._for_reader(self._one(TRAININGRUNS, run_detail)))
        app.router.add_get("/api/runs/{namespace}/{name}/curves", self._for_reader(self._curves))
        schedule = self._one(TRAININGSCHEDULES, schedule_detail)
        app.router.add_get("/api/schedules/{namespace}/{name}", self._for_reader(schedule))
        sweep = self._one(TRAININGSWEEPS, sweep_detail)
        app.router.add_get("/api/sweeps/{namespace}/{name}", self._for_reader(sweep))
        return app

    # ---- files

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return _file(request, self._assets["index.html"], cached="no-cache")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get(request.match_info["path"])
        if asset is None:
            return _problem(404, "there is no such file")
        return _file(request, asset, cached="no-cache")

    # ---- who reads

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return _problem(403, "log in on the page itself")
        try:
            told = await request.post()
            session = await self._doorman.log_in(str(told.get("token", "")))
        except (Refused, ValueError):
            return last(web.Response(status=303, headers={**_HEADERS, "Location": "/login?again"}))
        except errors.ClusterError as error:
            return _problem(503, f"the API server cannot be asked: {error}")
        response = web.Response(status=303, headers={**_HEADERS, "Location": "/"})
        secure = request.headers.get("X-Forwarded-Proto", request.scheme) == "https"
        response.set_cookie(SESSION_COOKIE, session, httponly=True, samesite="Strict", secure=secure, path="/")
        return last(response)

    def _for_reader(
        self, answer: Callable[[web.Request, Person], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
                person = await self._doorman.reader(
                    session=request.cookies.get(SESSION_COOKIE, ""),
                    bearer=bearer.strip() if scheme.lower() == "bearer" else "",
                    headers=request.headers,
                    remote=request.remote,
                )
                return await answer(request, person)
            except Refused as refused:
                return _problem(401, str(refused))
            except TooManyReaders:
                return _problem(503, "too many pages are open")
            except errors.ClusterError as error:
                return _problem(503, f"the API server cannot be asked: {error}")

        return handler

    async def _may_see(self, person: Person, namespace: str) -> bool:
        return namespace in await self._doorman.visible(person, [namespace])

    # ---- what they read

    async def _lines(self, request: web.Request, person: Person) -> web.StreamResponse:
        visible = await self._doorman.visible(person, self._board.namespaces())
        now = self._board.now
        return _json(
            {
                "id": now,
                "runs": [row for row in self._board.rows("run") if row["namespace"] in visible],
                "schedules": [row for row in self._board.rows("schedule") if row["namespace"] in visible],
                "sweeps": [row for row in self._board.rows("sweep") if row["namespace"] in visible],
            }
        )

    def _one(self, kind: Resource, detail: Detail) -> Callable[[web.Request, Person], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request, person: Person) -> web.StreamResponse:
            namespace, name = _place(request)
            raw = await self._cluster.get(kind, namespace, name) if await self._may_see(person, namespace) else None
            if raw is None:
                return _problem(404, f"there is no {kind.kind} {namespace}/{name}, or you may not see it")
            return _json(detail(raw))

        return answer

    async def _curves(self, request: web.Request, person: Person) -> web.StreamResponse:
        namespace, name = _place(request)
        row = self._board.row(("run", namespace, name)) if await self._may_see(person, namespace) else None
        if row is None:
            return _problem(404, f"there is no TrainingRun {namespace}/{name}, or you may not see it")
        return _json(_plain(await self._history.points((namespace, name), row["uid"])))

    async def _events(self, request: web.Request, person: Person) -> web.StreamResponse:
        came = request.headers.get("Last-Event-ID") or request.query.get("last")
        namespace, _, name = request.query.get("run", "").partition("/")
        row = None
        if name and await self._may_see(person, namespace):
            row = self._board.row(("run", namespace, name))
        of_board, _, of_history = (came or "").partition(" ")
        sources = [self._told_lines(person, of_board or None)]
        if row is not None:
            sources.append(_told_news(self._history.subscribe(uid=row["uid"], last_event_id=of_history or None)))
        return await _stream(request, sources, first=(of_board or self._board.now, of_history))

    async def _told_lines(self, person: Person, came: str | None) -> AsyncIterator[tuple[int, str, str, Any]]:
        async for bundle in self._board.bundles(came):
            visible = await self._doorman.visible(person, {place[1] for place, _ in bundle.changed})
            yield 0, bundle.id, "reset" if bundle.reset else "lines", _lines_of(bundle, visible)


async def _told_news(news: AsyncIterator[News]) -> AsyncIterator[tuple[int, str, str, Any]]:
    async for one in news:
        said = one.point or one.mark
        yield 1, one.id, "reset-curves" if one.kind == "reset" else one.kind, asdict(said) if said else {}


async def _stream(
    request: web.Request, sources: list[AsyncIterator[tuple[int, str, str, Any]]], *, first: tuple[str, str]
) -> web.StreamResponse:
    """Server-sent events out of several sources; the id has the newest of each."""
    response = web.StreamResponse(
        headers={
            **_HEADERS,
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    response.force_close()
    ids = list(first)
    waiting = {asyncio.ensure_future(anext(source)): source for source in sources}
    loop = asyncio.get_running_loop()
    ends = loop.time() + STREAM_SECONDS
    try:
        # A first failure (too many readers) is an answer; after the head there is none.
        await asyncio.sleep(0)
        done = {task for task in waiting if task.done()}
        for task in done:
            if (error := task.exception()) is not None and not isinstance(error, StopAsyncIteration):
                raise error
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        while waiting and (left := ends - loop.time()) > 0:
            done, _ = await asyncio.wait(
                waiting, timeout=min(left, HEARTBEAT_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                await response.write(b": still here\n\n")
            for task in done:
                source = waiting.pop(task)
                with suppress(StopAsyncIteration):
                    number, ids[number], event, data = task.result()
                    text = json.dumps(data, separators=(",", ":"))
                    await response.write(f"id: {' '.join(ids).strip()}\nevent: {event}\ndata: {text}\n\n".encode())
                    waiting[asyncio.ensure_future(anext(source))] = source
                    continue
                return response  # a source that ends wants its reader to come again
    except (ConnectionError, asyncio.CancelledError):
        pass  # the reader has gone
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for source in waiting.values():
            with suppress(Exception):
                await source.aclose()  # type: ignore[attr-defined]
    return response


def _lines_of(bundle: Bundle, visible: set[str]) -> dict[str, Any]:
    shown = [(place, row) for place, row in bundle.changed if place[1] in visible]
    return {
        "runs": [row for place, row in shown if place[0] == "run" and row],
        "schedules": [row for place, row in shown if place[0] == "schedule" and row],
        "sweeps": [row for place, row in shown if place[0] == "sweep" and row],
        "gone": [list(place) for place, row in shown if row is None],
    }


def _plain(curves: Curves) -> dict[str, Any]:
    return {"points": [asdict(point) for point in curves.points], "marks": [asdict(mark) for mark in curves.marks]}


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


def _file(request: web.Request, asset: Asset, *, cached: str) -> web.Response:
    headers = {
        **_HEADERS,
        "Content-Type": asset.kind,
        "ETag": asset.tag,
        "Cache-Control": cached,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("If-None-Match") == asset.tag:
        return last(web.Response(status=304, headers=headers))
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return last(web.Response(body=gzip.decompress(asset.packed), headers=headers))
    return last(web.Response(body=asset.packed, headers={**headers, "Content-Encoding": "gzip"}))


def _json(value: Any) -> web.Response:
    text = json.dumps(value, separators=(",", ":"))
    response = web.Response(
        text=text, content_type="application/json", headers={**_HEADERS, "Cache-Control": "no-store"}
    )
    if len(text) > 2048:
        response.enable_compression()  # where the client says that it can read it
    return last(response)


def _problem(status: int, words: str) -> web.Response:
    return last(web.json_response({"error": words}, status=status, headers=_HEADERS))
