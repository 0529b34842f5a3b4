"""Where the pods report: two wire formats, one store.

`POST /v1/runs/{namespace}/{name}/progress` takes our own `ProgressRecord`. `POST /v1/kubeflow/{namespace}/{name}/{uid}`
takes what transformers' KubeflowCallback sends to KUBEFLOW_TRAINER_SERVER_URL, so any script that uses a Hugging Face
Trainer shows its progress without a line of code; that format knows neither step nor attempt, so they stand in the URL's
query (`?step=train&attempt=2`).

A report needs the token of its run. Answers: 200 taken (or older than what is known, which is no fault of the sender),
401 wrong token, 410 the run has ended, 413 too large, 422 not a record. A pod gives up on 401, 404 and 410 and sends
again after anything else. Transport is plain HTTP inside the cluster: a token is good for nothing but the progress of one
run, and TLS with a certificate that every pod must be handed would add a way to fail for no secret worth it.
"""

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from trainyard.api.progress import ProgressRecord
from trainyard.api.steps import STEP_TRAIN, STEPS
from trainyard.controller.reports.progress_store import Accepted, ProgressStore, is_step
from trainyard.controller.reports.tokens import RunTokens

BODY_LIMIT = 64 * 1024

M = TypeVar("M", bound=BaseModel)
Key = tuple[str, str]
OnReport = Callable[[Key, str, Accepted], None]
"""Called after each authenticated record: namespace and name of the run, its uid, what became of the record."""
OnResult = Callable[[str, str], None]
"""Called after each request: the format (`trainyard` or `kubeflow`) and the result, for metrics."""


class _KubeflowMetric(BaseModel):
    name: str = Field(max_length=253)
    value: str = Field(max_length=64)


class _KubeflowStatus(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    progress_percentage: float | None = Field(None, ge=0, le=100)
    estimated_remaining_seconds: float | None = Field(None, ge=0)
    metrics: list[_KubeflowMetric] = Field(default_factory=list, max_length=64)
    last_updated_time: datetime


class _KubeflowReport(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    trainer_status: _KubeflowStatus


class Receiver:
    """The HTTP application. It never waits for the API server, so a report costs well under a millisecond."""

    def __init__(
        self,
        *,
        store: ProgressStore,
        tokens: RunTokens,
        on_report: OnReport,
        on_result: OnResult = lambda wire_format, result: None,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._on_report = on_report
        self._on_result = on_result

    def application(self) -> web.Application:
        """To be served on the receiver's port."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post("/v1/runs/{namespace}/{name}/progress", self._progress)
        app.router.add_post("/v1/kubeflow/{namespace}/{name}/{uid}", self._kubeflow)
        return app

    async def _progress(self, request: web.Request) -> web.Response:
        return await self._answer(request, "trainyard", self._own_record)

    async def _kubeflow(self, request: web.Request) -> web.Response:
        return await self._answer(request, "kubeflow", self._kubeflow_record)

    async def _answer(
        self, request: web.Request, wire_format: str, read: Callable[[web.Request, Any], ProgressRecord]
    ) -> web.Response:
        try:
            token = _bearer(request)
            body = await _json(request)
            uid = request.match_info.get("uid") or _run_uid(body)
            # Before anything is said about the content: a stranger learns nothing but that he is one.
            if uid is None or not self._tokens.matches(uid, token):
                raise _Refusal(401, "the token does not belong to this run; TRAINYARD_TOKEN_FILE has the right one")
            record = read(request, body)
            accepted = self._store.put(record, native=wire_format == "trainyard")
            if accepted is Accepted.GONE:
                raise _Refusal(410, "the run has ended or been deleted; no more progress is taken")
        except _Refusal as refusal:
            self._on_result(wire_format, str(refusal.status))
            return web.json_response({"error": refusal.message}, status=refusal.status)
        self._on_result(wire_format, accepted.value)
        self._on_report((request.match_info["namespace"], request.match_info["name"]), record.run_uid, accepted)
        return web.json_response({})

    def _own_record(self, request: web.Request, body: Any) -> ProgressRecord:
        record = _validated(ProgressRecord, body)
        if not is_step(record.step):
            raise _Refusal(422, f"step is {record.step!r}; it must be one of {', '.join(STEPS)}")
        return record

    def _kubeflow_record(self, request: web.Request, body: Any) -> ProgressRecord:
        status = _validated(_KubeflowReport, body).trainer_status
        step, attempt = request.query.get("step", STEP_TRAIN), request.query.get("attempt", "1")
        if not is_step(step) or not attempt.isdecimal() or int(attempt) < 1:
            raise _Refusal(
                422, f"the URL's query has step={step!r} and attempt={attempt!r}; leave the URL as it was given"
            )
        metrics = {m.name: _number(m.value) for m in status.metrics}
        total, done, epoch = (metrics.pop(name, None) for name in ("total_steps", "current_step", "current_epoch"))
        return ProgressRecord(
            run_uid=request.match_info["uid"],
            step=step,
            attempt=int(attempt),
            sequence=int(status.last_updated_time.timestamp() * 1000),
            time=status.last_updated_time.isoformat(),
            phase=STEP_TRAIN,
            step_number=_whole(done),
            total_steps=_whole(total),
            epoch=epoch,
            percentage=status.progress_percentage,
            estimated_remaining_seconds=status.estimated_remaining_seconds,
            metrics=metrics,
        )


class _Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _Refusal(401, "the header `Authorization: Bearer <token>` is missing")
    return token.strip()


async def _json(request: web.Request) -> Any:
    try:
        # NaN and infinity are no JSON and nothing that a status can hold: they count as absent.
        return json.loads(await request.read(), parse_constant=lambda name: None, parse_float=_number)
    except web.HTTPRequestEntityTooLarge:
        raise _Refusal(413, f"the body is larger than {BODY_LIMIT} bytes") from None
    except (ValueError, RecursionError):
        raise _Refusal(422, "the body is not JSON") from None


def _run_uid(body: Any) -> str | None:
    uid = body.get("runUid") if isinstance(body, dict) else None
    return uid if isinstance(uid, str) else None


def _validated(model: type[M], body: Any) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(str(p) for p in f['loc'])}: {f['msg']}" for f in error.errors()[:10])
        raise _Refusal(422, faults) from None


def _number(text: str) -> float | None:
    """A metric's value; NaN, infinity and words cannot stand in a status and count as absent."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(value: float | None) -> int | None:
    return None if value is None or value < 0 else int(value)
