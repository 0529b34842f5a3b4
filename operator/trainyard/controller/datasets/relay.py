"""From a pod that reads a dataset to whoever asked for it, piece by piece through the receiver.

    POST /v1/exports/{namespace}/{name}/{uid}/{export}?piece=N[&last=true|&problem=true]    Authorization: Bearer TOKEN OF THE RUN

A pod has the dataset's volume and no way in; the one who asks has a connection and no volume. So the pod posts pieces of at most
64 KiB, within the receiver's bounds, and gets its answer when there is room for the next: four are held, whatever the length of
the dataset. A piece that comes twice counts once. Answers: 200 taken, 409 another piece is due, 410 nobody waits any more, 503
the reader is slow, send it again.
"""

import asyncio
import secrets
from dataclasses import dataclass, field

from aiohttp import web

from trainyard.controller.ports import last
from trainyard.controller.reports.formats import Refusal
from trainyard.controller.reports.receiver import OnResult, bearer, body_of
from trainyard.controller.reports.tokens import Key, RunTokens

PATH = "/v1/exports/{namespace}/{name}/{uid}/{export}"
HELD = 4
"""Pieces."""
EXPORTS = 8
"""At a time."""
ROOM_SECONDS = 5.0
"""How long a pod waits for room; less than its connection may last."""


@dataclass(frozen=True)
class Piece:
    """Part of a dataset's lines; or, instead of the first, why there are none."""

    body: bytes
    is_last: bool = False
    is_problem: bool = False


@dataclass
class Export:
    """Between a pod and a reader."""

    key: Key
    uid: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    due: int = 0
    pieces: asyncio.Queue[Piece] = field(default_factory=lambda: asyncio.Queue(HELD))
    one_by_one: asyncio.Lock = field(default_factory=asyncio.Lock)


class Relay:
    """The exports under way."""

    def __init__(self, *, tokens: RunTokens, on_result: OnResult = lambda wire_format, result: None) -> None:
        self._tokens = tokens
        self._on_result = on_result
        self._open: dict[str, Export] = {}

    def add_to(self, app: web.Application) -> None:
        """Of the receiver."""
        app.router.add_post(PATH, self._take)

    def open(self, key: Key, uid: str) -> Export:
        """A new one. Raises `Refusal` where there are too many."""
        if len(self._open) >= EXPORTS:
            raise Refusal(503, f"{EXPORTS} datasets are being read already; ask again in a while")
        export = Export(key, uid)
        self._open[export.id] = export
        return export

    def close(self, export: Export) -> None:
        """Whoever still sends is told so."""
        self._open.pop(export.id, None)

    async def _take(self, request: web.Request) -> web.Response:
        try:
            await self._taken(request)
            status, told = 200, {}
        except Refusal as refusal:
            status, told = refusal.status, {"error": refusal.message}
        except (ConnectionError, web.RequestPayloadError):
            status, told = 400, {"error": "the body breaks off"}
        self._on_result("export", "ok" if status == 200 else str(status))
        return last(web.json_response(told, status=status))

    async def _taken(self, request: web.Request) -> None:
        at = request.match_info
        key, uid = (at["namespace"], at["name"]), at["uid"]
        if not self._tokens.matches(key, uid, bearer(request)):
            raise Refusal(401, "the token is not that of the run in this address")
        export = self._open.get(at["export"])
        if export is None or (export.key, export.uid) != (key, uid):
            raise Refusal(410, "nobody waits for this export any more")
        query = request.query
        number = query.get("piece", "")
        if not number.isdecimal() or len(number) > 12:
            raise Refusal(422, "piece is no number")
        piece = Piece(await body_of(request), "last" in query, "problem" in query)
        async with export.one_by_one:
            if int(number) < export.due:
                return  # its answer was lost
            if int(number) > export.due:
                raise Refusal(409, f"piece {export.due} is due")
            try:
                async with asyncio.timeout(ROOM_SECONDS):
                    await export.pieces.put(piece)
            except TimeoutError:
                raise Refusal(503, "the reader is slow; send it again") from None
            export.due += 1
