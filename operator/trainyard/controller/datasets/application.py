"""The two routes of a trace store, on a port of their own.

    POST /api/datasets/build                                   a run of mode Dataset; answered when it has ended
    GET  /api/datasets/{dataset_key}/export.jsonl?format=F     its lines, as a pod reads them from the run's volume

The same build again is the same dataset: whoever was told 202, or lost his connection, asks once more. Errors are JSON with
`error`, and name the field. Every answer is bounded: a build waits for less than a proxy would, an export ends where its pod does.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from trainyard.api.manifest import parse_run
from trainyard.controller.datasets.gate import Gate
from trainyard.controller.datasets.relay import Piece, Relay
from trainyard.controller.datasets.request import (
    DATASET_LABEL,
    FORMATS,
    BuildRequest,
    Place,
    differences,
    is_key,
    is_over,
    refusal_of,
    request_of,
    run_of,
    state_of,
    told,
)
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import JOBS, TRAININGRUNS, Cluster, Object
from trainyard.controller.logs import seldom
from trainyard.controller.manifests.handing_over import hand_over_job
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.page.board import Board, TooManyReaders
from trainyard.controller.ports import last
from trainyard.controller.reports.formats import Refusal
from trainyard.controller.reports.receiver import BODY_LIMIT, body_of

log = logging.getLogger(__name__)
log.addFilter(seldom(seconds=10.0))

BUILD_SECONDS = 100.0
"""How long an answer to a build waits for the run; many proxies give up after 120."""
START_SECONDS = 180.0
"""How long an export waits for the first lines: the pod has to be placed and to start."""
PIECE_SECONDS = 20.0
"""Between two pieces."""
AGAIN = {"Retry-After": "5"}


class Datasets:
    """The HTTP application."""

    def __init__(
        self, *, cluster: Cluster, board: Board, gate: Gate, place: Place, relay: Relay, defaults: Defaults
    ) -> None:
        self._cluster = cluster
        self._board = board
        self._gate = gate
        self._place = place
        self._relay = relay
        self._defaults = defaults
        self._building = asyncio.Lock()

    def application(self) -> web.Application:
        """To be served on the port of datasets."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post("/api/datasets/build", self._answered(self._build))
        app.router.add_get("/api/datasets/{key}/export.jsonl", self._answered(self._export), allow_head=False)
        return app

    def _answered(
        self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await answer(request)
            except Refusal as refusal:
                headers = AGAIN if refusal.status == 503 else {}
                return last(web.json_response({"error": refusal.message}, status=refusal.status, headers=headers))
            except (TooManyReaders, errors.Transient) as error:
                words = {"error": f"not now: {error or 'too many wait for a dataset'}"}
                return last(web.json_response(words, status=503, headers=AGAIN))
            except errors.ClusterError as error:
                return last(web.json_response({"error": f"the API server refuses: {error}"}, status=502))

        return handle

    # ---- build

    async def _build(self, request: web.Request) -> web.Response:
        await self._gate.let_in(request, builds=True)
        asked = request_of(await body_of(request))
        async with self._building:  # two of the same at once are one dataset
            run, is_new = await self._run_for(asked)
        if asked.dry_run:
            return last(web.json_response({"dry_run": True, "dataset_key": asked.key, "run": run}))
        run = await self._ended(run)
        if not is_over(run):
            message = (run.get("status") or {}).get("message") or "the operator has not looked at it yet"
            waiting = told(run) | {"state": state_of(run), "message": message}
            return last(web.json_response(waiting, status=202, headers=AGAIN))
        if state_of(run) != "Succeeded":
            raise refusal_of(run)
        return last(web.json_response(told(run), status=201 if is_new else 200))

    async def _run_for(self, asked: BuildRequest) -> tuple[Object, bool]:
        """The run that builds it, and whether it is new."""
        there = await self._newest(asked.key)
        if there is not None and state_of(there) not in ("Failed", "Cancelled"):
            if fields := differences(asked, there):
                at = f"{there['metadata']['namespace']}/{there['metadata']['name']}"
                words = f"{asked.key} was built with other values of {', '.join(fields)}"
                raise Refusal(409, f"dataset_version: {words}; take another version, or delete TrainingRun {at}")
            return there, False
        run = run_of(asked, self._place)
        parse_run(run)
        if not asked.dry_run:
            made = await self._cluster.create(TRAININGRUNS, self._place.namespace, run)
            run["metadata"]["uid"] = made["metadata"]["uid"]
            log.info("dataset %s is built by TrainingRun %s", asked.key, run["metadata"]["name"])
        return run, True

    async def _newest(self, key: str) -> Object | None:
        found = await self._cluster.list(TRAININGRUNS, self._place.namespace, label_selector=f"{DATASET_LABEL}={key}")
        # Times are told in seconds, and what failed within one has been built anew.
        return max(
            found, key=lambda run: (run["metadata"]["creationTimestamp"], state_of(run) != "Failed"), default=None
        )

    async def _ended(self, run: Object) -> Object:
        """The run when it is over; as it is, where that takes long."""
        namespace, name = run["metadata"]["namespace"], run["metadata"]["name"]
        changes = self._board.bundles(self._board.now)
        try:
            async with asyncio.timeout(BUILD_SECONDS):
                while True:
                    seen = await self._cluster.get(TRAININGRUNS, namespace, name)
                    if seen is None or seen["metadata"]["uid"] != run["metadata"]["uid"]:
                        raise Refusal(409, f"TrainingRun {namespace}/{name} was deleted while it built the dataset")
                    run = seen
                    if is_over(run):
                        return run
                    async for bundle in changes:
                        if bundle.reset or any(place == ("run", namespace, name) for place, _ in bundle.changed):
                            break
        except TimeoutError:
            return run
        finally:
            await changes.aclose()  # type: ignore[attr-defined]

    # ---- export

    async def _export(self, request: web.Request) -> web.StreamResponse:
        await self._gate.let_in(request, builds=False)
        form = request.query.get("format", FORMATS[0])
        if form not in FORMATS:
            raise Refusal(422, f"format: {form[:60]!r} is none; there are {', '.join(FORMATS)}")
        run = await self._built(request.match_info["key"])
        ref = RunRef.of(run, parse_run(run))
        export = self._relay.open((ref.namespace, ref.name), ref.uid)
        job = hand_over_job(ref, export=export.id, form=form, defaults=self._defaults)
        name, came = job["metadata"]["name"], True
        try:
            await self._cluster.create(JOBS, ref.namespace, job)
            pieces = self._pieces(export.pieces)
            first = await anext(pieces, None)
            if first is None:
                came = False
                where = f"kubectl -n {ref.namespace} describe job {name}"
                raise Refusal(504, f"no pod has read the dataset within {START_SECONDS:g} s; see why: {where}")
            if first.is_problem:
                raise Refusal(409, first.body.decode(errors="replace")[:1000])
            return await _streamed(request, first, pieces)
        finally:
            self._relay.close(export)
            if came:  # else somebody is to look at it; its pod ends by itself when it finds that nobody waits
                await asyncio.shield(self._cluster.delete(JOBS, ref.namespace, name))

    async def _built(self, key: str) -> Object:
        run = await self._newest(key) if is_key(key) else None
        if run is None:
            raise Refusal(404, f"there is no dataset {key[:100]!r}; POST /api/datasets/build makes one")
        if not is_over(run):
            raise Refusal(
                503, f"dataset {key} is being built: {(run.get('status') or {}).get('message') or state_of(run)}"
            )
        if state_of(run) != "Succeeded":
            raise refusal_of(run)
        return run

    async def _pieces(self, queue: asyncio.Queue[Piece]) -> AsyncIterator[Piece]:
        """Until the last one; ends early where none comes."""
        patience = START_SECONDS
        while True:
            try:
                piece = await asyncio.wait_for(queue.get(), patience)
            except TimeoutError:
                return
            yield piece
            if piece.is_last:
                return
            patience = PIECE_SECONDS


async def _streamed(request: web.Request, first: Piece, pieces: AsyncIterator[Piece]) -> web.StreamResponse:
    """The lines, of unknown length. Where they break off, so does the connection, and no client takes a part for the whole."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    response.force_close()
    await response.prepare(request)
    done = False
    try:
        await response.write(first.body)
        done = first.is_last
        async for piece in pieces:
            await response.write(piece.body)
            done = piece.is_last
    except ConnectionError:
        pass  # the reader has gone
    if not done and request.transport is not None:
        request.transport.abort()
    return response
