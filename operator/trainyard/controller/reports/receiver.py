"""Where the pods report: two wire formats, one store. A third one, the lab's, stands in `lab_routes.py`.

`POST /v1/runs/{namespace}/{name}/{uid}/progress` takes our own `ProgressRecord`, and
`POST /v1/kubeflow/{namespace}/{name}/{uid}` what transformers' KubeflowCallback sends to KUBEFLOW_TRAINER_SERVER_URL, so
any script that uses a Hugging Face Trainer shows its progress without a line of code; that format knows neither step nor
attempt, so they stand in the URL's query (`?step=train&attempt=2`).

A report needs the token of the run that its address names, and that is judged before the body is read: a stranger costs
a header. Answers: 200 taken (or older than what is known, which is no fault of the sender), 400 not to be understood,
401 not the token of this run, 410 the run has ended, 413 too large, 422 not a record. A pod gives up on 401, 404 and
410. No answer is 500: whatever comes, a fault in reading it is an answer, a number and a short line now and then.
Transport is plain HTTP inside the cluster: a token is good for nothing but the progress of one run, and TLS with a
certificate that every pod must be handed would add a way to fail for no secret worth it.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from trainyard.api.progress import ProgressRecord
from trainyard.api.steps import STEP_TRAIN
from trainyard.controller.logs import seldom
from trainyard.controller.ports import last
from trainyard.controller.reports.formats import Refusal, kubeflow_record, own_record, uid_in
from trainyard.controller.reports.progress_store import Accepted, ProgressStore
from trainyard.controller.reports.tokens import Key, RunTokens

log = logging.getLogger(__name__)
log.addFilter(seldom(seconds=10.0))

BODY_LIMIT = 64 * 1024
HEAD = 1024
"""Bytes of a body that are read before the token is judged, where only the body names the run."""

OnReport = Callable[[Key, str, Accepted], None]
"""Called after each authenticated record: namespace and name of the run, its uid, what became of the record."""
OnResult = Callable[[str, str], None]
"""Called after each request: the format (`trainyard`, `kubeflow`, `lab` or `export`) and the result, for metrics."""
Read = Callable[[web.Request], Awaitable[ProgressRecord]]


class Receiver:
    """The HTTP application. It never waits for the API server, so a report costs well under a millisecond."""

    def __init__(
        self,
        *,
        store: ProgressStore,
        tokens: RunTokens,
        on_report: OnReport,
        on_result: OnResult = lambda wire_format, result: None,
        more: Iterable[Callable[[web.Application], None]] = (),
    ) -> None:
        """`more` add routes of their own."""
        self._more = tuple(more)
        self._store = store
        self._tokens = tokens
        self._on_report = on_report
        self._on_result = on_result

    def application(self) -> web.Application:
        """To be served on the receiver's port."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post("/v1/runs/{namespace}/{name}/{uid}/progress", self._progress)
        app.router.add_post("/v1/runs/{namespace}/{name}/progress", self._progress_of_old)
        app.router.add_post("/v1/kubeflow/{namespace}/{name}/{uid}", self._kubeflow)
        for add in self._more:
            add(app)
        return app

    async def _progress(self, request: web.Request) -> web.Response:
        return await self._answer(request, "trainyard", self._own)

    async def _progress_of_old(self, request: web.Request) -> web.Response:
        return await self._answer(request, "trainyard", self._own_of_old)

    async def _kubeflow(self, request: web.Request) -> web.Response:
        return await self._answer(request, "kubeflow", self._foreign)

    async def _answer(self, request: web.Request, wire_format: str, read: Read) -> web.Response:
        try:
            record = await read(request)
            accepted = self._store.put(record, native=wire_format == "trainyard")
            if accepted is Accepted.GONE:
                raise Refusal(410, "the run has ended or been deleted; no more progress is taken")
            self._on_report(_key(request), record.run_uid, accepted)
        except Refusal as refusal:
            return self._refused(wire_format, refusal)
        except (ConnectionError, web.RequestPayloadError):
            return self._refused(wire_format, Refusal(400, "the body breaks off"))
        except (
            Exception
        ) as error:  # a fault of ours, and still no reason to say 500 to a pod that can do nothing about it
            log.error("a report to %s cannot be read", request.path, exc_info=error)
            return self._refused(wire_format, Refusal(400, "the report cannot be read"), result="fault")
        self._on_result(wire_format, accepted.value)
        return last(web.Response(body=b"{}", content_type="application/json"))

    def _refused(self, wire_format: str, refusal: Refusal, *, result: str | None = None) -> web.Response:
        self._on_result(wire_format, result or str(refusal.status))
        return last(web.json_response({"error": refusal.message}, status=refusal.status))

    async def _own(self, request: web.Request) -> ProgressRecord:
        uid = self._admitted(request, request.match_info["uid"])
        return _of(uid, own_record(await body_of(request)))

    async def _own_of_old(self, request: web.Request) -> ProgressRecord:
        """From a pod that an older operator has started: its address lacks the uid, which stands early in the body."""
        head = await _head(request)
        uid = self._admitted(request, uid_in(head[:HEAD]), also_old=True)
        return _of(uid, own_record(head + await body_of(request)))

    async def _foreign(self, request: web.Request) -> ProgressRecord:
        uid = self._admitted(request, request.match_info["uid"], also_old=True)
        query = request.query
        return kubeflow_record(
            await body_of(request), uid=uid, step=query.get("step", STEP_TRAIN), attempt=query.get("attempt", "1")
        )

    def _admitted(self, request: web.Request, uid: str | None, *, also_old: bool = False) -> str:
        """The uid, if the token is that of the run in the address. A stranger learns nothing but that he is one."""
        token = bearer(request)
        if uid is not None and (
            self._tokens.matches(_key(request), uid, token) or (also_old and self._tokens.matches_old(uid, token))
        ):
            return uid
        raise Refusal(
            401,
            "the token is not that of the run in this address; TRAINYARD_PROGRESS_URL and TRAINYARD_TOKEN_FILE have both",
        )


def _key(request: web.Request) -> Key:
    return request.match_info["namespace"], request.match_info["name"]


def bearer(request: web.Request) -> str:
    """The token of the request. Raises `Refusal`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refusal(401, "the header `Authorization: Bearer <token>` is missing")
    return token.strip()


async def _head(request: web.Request) -> bytes:
    head = b""
    while len(head) < HEAD and not request.content.at_eof():
        head += await request.content.readany()
    return head


async def body_of(request: web.Request) -> bytes:
    """The whole body, within its bound. Raises `Refusal`."""
    too_large = Refusal(413, f"the body is larger than {BODY_LIMIT} bytes")
    if (request.content_length or 0) > BODY_LIMIT:
        raise too_large
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None


def _of(uid: str, record: ProgressRecord) -> ProgressRecord:
    if record.run_uid != uid:
        raise Refusal(401, f"runUid is {record.run_uid}, and address and token are those of another run")
    return record
