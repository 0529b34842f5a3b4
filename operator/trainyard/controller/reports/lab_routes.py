"""The lab's API in the receiver: its trainers post metrics and alerts, anybody with the run's token reads them.

    POST /api/training/local/metrics              Authorization: Bearer JOB_TOKEN     a batch of points
    GET  /api/training/local/{jobId}/metrics      Authorization: Bearer JOB_TOKEN     the run's curves
    POST /api/training/local/{jobId}/metrics      405: no job stands in the address of a post
    POST /api/alerts/trigger                      X-API-Key: JOB_TOKEN                an alert of the script's own

The rules are the receiver's: the token first, then the body; bounds on both; never 500. Which step and attempt a post is about
stands in the query of METRICS_API_URL, which a client that knows nothing of it sends along.
"""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from trainyard.api.names import ALERTS_PATH, METRICS_PATH
from trainyard.api.steps import STEP_TRAIN
from trainyard.controller.clock import Clock
from trainyard.controller.logs import seldom
from trainyard.controller.ports import last
from trainyard.controller.reports.formats import Refusal, attempt_in
from trainyard.controller.reports.history import Curves, Key, Point
from trainyard.controller.reports.lab import LabAlert, alert_of, points_of, record_of, report_of, told_points
from trainyard.controller.reports.progress_store import Accepted, ProgressStore, is_step
from trainyard.controller.reports.receiver import OnReport, OnResult, bearer, body_of
from trainyard.controller.reports.tokens import RunTokens

log = logging.getLogger(__name__)
log.addFilter(seldom(seconds=10.0))

OnPoints = Callable[[Key, str, list[Point]], None]
OnAlert = Callable[[Key, str, LabAlert], None]
Read = Callable[[Key, str], Awaitable[Curves]]
Answered = Callable[[web.Request], Awaitable[dict[str, object]]]


class LabRoutes:
    """The handlers of these routes."""

    def __init__(
        self,
        *,
        store: ProgressStore,
        tokens: RunTokens,
        clock: Clock,
        on_report: OnReport,
        on_points: OnPoints,
        on_alert: OnAlert,
        read: Read,
        on_result: OnResult = lambda wire_format, result: None,
    ) -> None:
        """`read` tells the curves of a run; the other three take what was posted."""
        self._store = store
        self._tokens = tokens
        self._clock = clock
        self._on_report = on_report
        self._on_points = on_points
        self._on_alert = on_alert
        self._read = read
        self._on_result = on_result

    def add_to(self, app: web.Application) -> None:
        """Of the receiver."""
        app.router.add_post(METRICS_PATH, self._of(self._metrics))
        app.router.add_get("/api/training/local/{job}/metrics", self._of(self._curves), allow_head=False)
        app.router.add_post("/api/training/local/{job}/metrics", self._no_post)
        app.router.add_post(ALERTS_PATH, self._of(self._alert))

    def _of(self, answered: Answered) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                answer = await answered(request)
            except Refusal as refusal:
                return self._refused(refusal)
            except (ConnectionError, web.RequestPayloadError):
                return self._refused(Refusal(400, "the body breaks off"))
            except Exception as error:  # as in the receiver: a pod can do nothing about a fault of ours
                log.error("a request to %s cannot be answered", request.path, exc_info=error)
                return self._refused(Refusal(400, "the request cannot be read"), result="fault")
            self._on_result("lab", "ok")
            return last(web.json_response(answer))

        return handle

    def _refused(self, refusal: Refusal, *, result: str | None = None) -> web.Response:
        self._on_result("lab", result or str(refusal.status))
        return last(web.json_response({"error": refusal.message}, status=refusal.status))

    async def _no_post(self, request: web.Request) -> web.Response:
        self._on_result("lab", "405")
        message = f"metrics are posted to {METRICS_PATH}, with the job in job_id; this address is read with GET"
        return last(web.json_response({"error": message}, status=405, headers={"Allow": "GET"}))

    async def _metrics(self, request: web.Request) -> dict[str, object]:
        key, uid = self._admitted(bearer(request))
        query = request.query
        step, attempt = query.get("step", STEP_TRAIN), attempt_in(query.get("attempt", "1"))
        if not is_step(step) or attempt is None:
            raise Refusal(
                422, "step and attempt in the address are not those of METRICS_API_URL; leave it as it was given"
            )
        report = report_of(await body_of(request), uid=uid)
        now = self._clock.now()
        record = record_of(report, uid=uid, step=step, attempt=attempt, now=now)
        if record is not None:
            accepted = self._store.put(record, native=False)
            if accepted is Accepted.GONE:
                raise Refusal(410, "the run has ended or been deleted; no more metrics are taken")
            self._on_points(key, uid, points_of(report, now=now))
            self._on_report(key, uid, accepted)
        return {"success": True, "job_id": uid, "received": len(report.metrics)}

    async def _curves(self, request: web.Request) -> dict[str, object]:
        key, uid = self._admitted(bearer(request))
        if request.match_info["job"] != uid:
            raise Refusal(401, "the job in the address is not the run that the token belongs to")
        return {"job_id": uid, "metrics": told_points(await self._read(key, uid))}

    async def _alert(self, request: web.Request) -> dict[str, object]:
        key, uid = self._admitted(request.headers.get("X-API-Key", "").strip())
        self._on_alert(key, uid, alert_of(await body_of(request), uid=uid))
        return {"success": True}

    def _admitted(self, presented: str) -> tuple[Key, str]:
        if (found := self._tokens.job_of(presented)) is None:
            raise Refusal(
                401, "the token is not that of a run; JOB_TOKEN has it, and as INTERNAL_API_KEY it is the X-API-Key"
            )
        return found
