"""Who may build datasets and read them.

Loopback     whoever may forward a port to the operator's pod; the request has to be meant for this machine, so that no web
             page that such a person has open can ask in his name
Kubernetes   whoever shows a token that the API server knows, and may himself do what is done for him: make TrainingRuns in
             the namespace, and to build, read the Secret with the database's address
"""

from typing import Any, Literal, Protocol

from aiohttp import web

from trainyard.api import GROUP
from trainyard.controller.datasets.request import Place
from trainyard.controller.page.reader import TOKEN_LENGTH, Person
from trainyard.controller.reports.formats import Refusal
from trainyard.controller.reports.receiver import bearer

Access = Literal["Loopback", "Kubernetes"]
LOCAL = ("localhost", "127.0.0.1", "[::1]")


class Reviews(Protocol):
    """The API server's word."""

    async def review_token(self, token: str) -> Person | None: ...

    async def may(self, person: Person, attributes: dict[str, Any]) -> bool: ...


class Gate:
    """Raises `Refusal` for whoever may not."""

    def __init__(self, access: Access, *, place: Place, reviews: Reviews) -> None:
        self._access = access
        self._place = place
        self._reviews = reviews

    async def let_in(self, request: web.Request, *, builds: bool) -> None:
        """Judged before the body is read."""
        if builds and request.content_type != "application/json":
            raise Refusal(415, "send the body as JSON, with the header Content-Type: application/json")
        if self._access == "Loopback":
            _is_local(request)
            return
        token = bearer(request)
        person = await self._reviews.review_token(token) if len(token) <= TOKEN_LENGTH else None
        if person is None:
            raise Refusal(401, "this token is not known: send one of this cluster (kubectl create token NAME)")
        namespace = self._place.namespace
        runs = {"group": GROUP, "resource": "trainingruns", "verb": "create", "namespace": namespace}
        secret = {"group": "", "resource": "secrets", "verb": "get", "namespace": namespace, "name": self._place.secret}
        for attributes in (runs, secret) if builds else (runs,):
            if not await self._reviews.may(person, attributes):
                what = f"{attributes['verb']} {attributes['resource']} {attributes.get('name', '')}".strip()
                raise Refusal(
                    403,
                    f"{person.name} may not {what} in namespace {namespace}, and what is built here is built for him",
                )


def _is_local(request: web.Request) -> None:
    host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    if host not in LOCAL or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refusal(403, "ask under localhost, over a forwarded port")
