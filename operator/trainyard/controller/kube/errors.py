"""What can go wrong between the operator and the API server, as types that a caller can act upon.

Each failed request becomes exactly one of these. They say what to do next: look again (`NotFound`, `Conflict`,
`AlreadyExists`), tell the user (`Invalid`, `Forbidden`), or come back later (`Transient`, `Unauthorized`). Callers
never see an exception of the HTTP library.
"""

from dataclasses import dataclass
from typing import Any

RETRY_AFTER_LIMIT = 300.0
"""Seconds; an API server that asks for more is asked again after this."""


@dataclass(frozen=True)
class Cause:
    """One entry of `status.details.causes`: which field, and what is wrong with it."""

    field: str
    message: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True)
class Request:
    """What was asked, for messages: never a body, because a body may be a Secret."""

    verb: str
    resource: str
    namespace: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.resource} {where}".rstrip()


class ClusterError(Exception):
    """A request to the API server that did not do what it should.

    `status` is the HTTP status (0 without an answer), `reason` Kubernetes' own word for it, `message` the API server's
    sentence, `causes` the single faults when it names any.
    """

    def __init__(
        self,
        message: str,
        *,
        request: Request,
        status: int = 0,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{request}: {message}")
        self.message = message
        self.request = request
        self.status = status
        self.reason = reason
        self.causes = causes
        self.retry_after = retry_after


class NotFound(ClusterError):
    """404: the object, its namespace or the whole resource type is not there."""


class Conflict(ClusterError):
    """409: the object has changed since it was read, a precondition (uid) failed, or another field manager owns it."""


class AlreadyExists(ClusterError):
    """409 on a create: an object of this name is there."""


class Invalid(ClusterError):
    """400, 413, 415, 422: the object itself is wrong, and will be so the next time too. `causes` names the fields."""

    @property
    def faults(self) -> str:
        """All that is wrong with it, on one line."""
        return "; ".join(map(str, self.causes)) or self.message


class Forbidden(ClusterError):
    """403: not allowed to the operator, refused by admission, or beyond a quota."""

    @property
    def exceeded_quota(self) -> bool:
        """A ResourceQuota is used up; it may be free later."""
        return "exceeded quota" in self.message

    @property
    def namespace_terminating(self) -> bool:
        """The namespace is being deleted: nothing can be created in it any more."""
        return any(cause.reason == "NamespaceTerminating" for cause in self.causes) or (
            "because it is being terminated" in self.message
        )


class Unauthorized(ClusterError):
    """401: the API server does not know who asks. Credentials are read anew before the next request."""


class Transient(ClusterError):
    """No answer, 408, 410, 429 or 5xx: it may work later. `retry_after` in seconds if the server says it."""


_BY_STATUS: dict[int, type[ClusterError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Transient,
    409: Conflict,
    410: Transient,
    429: Transient,
}


def from_response(request: Request, status: int, body: Any, *, retry_after: str | None = None) -> ClusterError:
    """The error for an answer of 400 and above. `body` is a metav1.Status where the API server itself has answered."""
    answer: dict[str, Any] = body if isinstance(body, dict) else {}
    reason = str(answer.get("reason") or "")
    details = answer.get("details") or {}
    error = _BY_STATUS.get(status) or (Transient if status >= 500 else Invalid)
    if status == 409 and reason == "AlreadyExists":
        error = AlreadyExists
    seconds = _seconds(retry_after)
    if seconds is None:
        seconds = _seconds(details.get("retryAfterSeconds"))
    text = body.strip() if isinstance(body, str) else ""
    return error(
        str(answer.get("message") or text or f"HTTP {status}")[:8192],
        request=request,
        status=status,
        reason=reason,
        causes=tuple(
            Cause(str(c.get("field") or ""), str(c.get("message") or ""), str(c.get("reason") or ""))
            for c in details.get("causes") or ()
        ),
        retry_after=seconds,
    )


def retry_after(error: BaseException) -> float | None:
    """Seconds that the API server wants to be left alone, if this error says so."""
    return error.retry_after if isinstance(error, ClusterError) else None


def _seconds(value: Any) -> float | None:
    """A Retry-After in seconds. Its other form, a date, is not sent by API servers and counts as absent."""
    try:
        return min(max(0.0, float(value)), RETRY_AFTER_LIMIT)
    except (TypeError, ValueError):
        return None
