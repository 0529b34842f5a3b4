"""Who reads the page, and what he may see.

    Open        everybody; also where the page listens on the loopback address, to which only those come who may forward a port
    Token       whoever has the token of the installation's Secret
    Header      whoever a proxy in front has let in (OIDC), named by a header that is believed from the proxy's addresses alone
    Kubernetes  whoever shows a token that the API server knows (TokenReview)

Of the last two the API server is asked, too, in which namespaces they may list TrainingRuns (SubjectAccessReview): the page
shows nobody more than kubectl would.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Literal, Protocol

from trainyard.api import GROUP
from trainyard.controller.clock import Clock

Access = Literal["Open", "Token", "Header", "Kubernetes"]

REMEMBER_SECONDS = 60.0
"""An answer of the API server."""
SESSION_SECONDS = 8 * 3600.0
SESSIONS = 1000
TOKEN_LENGTH = 16 * 1024
NAMESPACES = 200
"""That one reader is asked about one by one."""


@dataclass(frozen=True)
class Person:
    """A user as the API server knows him; None in `name` where nobody is asked."""

    name: str | None
    groups: tuple[str, ...] = ()


EVERYBODY = Person(None)


class Reviews(Protocol):
    """The API server's word on tokens and rights."""

    async def review_token(self, token: str) -> Person | None:
        """Whose it is; None: nobody's."""
        ...

    async def may_list_runs(self, person: Person, namespace: str | None) -> bool:
        """In a namespace, or (None) in all."""
        ...


class Refused(Exception):
    """Not let in; the message says what to show."""


class Doorman:
    """Lets readers in, and remembers for a while what the API server has said of them."""

    def __init__(
        self,
        access: Access,
        *,
        reviews: Reviews,
        clock: Clock,
        token: str = "",
        user_header: str = "X-Forwarded-User",
        groups_header: str = "X-Forwarded-Groups",
        proxies: Sequence[IPv4Network | IPv6Network] = (),
    ) -> None:
        self.access: Access = access
        self._reviews = reviews
        self._clock = clock
        self._token = token
        self._user_header = user_header
        self._groups_header = groups_header
        self._proxies = tuple(proxies)
        self._sessions: OrderedDict[str, tuple[float, Person]] = OrderedDict()
        self._answers: OrderedDict[tuple[Person, str | None], tuple[float, bool]] = OrderedDict()

    async def log_in(self, token: str) -> str:
        """A new session for whoever has this token. Raises `Refused`."""
        person = None if len(token) > TOKEN_LENGTH else await self._owner(token.strip())
        if person is None:
            raise Refused(
                "this token is not known: log in with one of this cluster (kubectl create token NAME), or with that of the page"
            )
        session = secrets.token_urlsafe(32)
        self._sessions[session] = (self._clock.monotonic() + SESSION_SECONDS, person)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    async def reader(self, *, session: str, bearer: str, headers: Any, remote: str | None) -> Person:
        """Who asks. Raises `Refused`."""
        match self.access:
            case "Open":
                return EVERYBODY
            case "Header":
                return self._forwarded(headers, remote)
        until, person = self._sessions.get(session, (0.0, EVERYBODY))
        if until > self._clock.monotonic():
            return person
        self._sessions.pop(session, None)
        if bearer and len(bearer) <= TOKEN_LENGTH and (found := await self._owner(bearer)) is not None:
            return found
        raise Refused("a token is needed: log in at /login, or send it as Authorization: Bearer TOKEN")

    async def visible(self, person: Person, namespaces: Iterable[str]) -> set[str]:
        """In which of these namespaces he may see runs."""
        wanted = sorted(namespaces)
        if person.name is None or await self._may(person, None):
            return set(wanted)
        return {each for each in wanted[:NAMESPACES] if await self._may(person, each)}

    async def _owner(self, token: str) -> Person | None:
        if not token:
            return None
        if self.access == "Token":
            return EVERYBODY if hmac.compare_digest(token.encode(), self._token.encode()) and self._token else None
        return await self._reviews.review_token(token)

    def _forwarded(self, headers: Any, remote: str | None) -> Person:
        address = ip_address((remote or "0.0.0.0").partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not any(mapped in network for network in self._proxies):
            raise Refused("only the proxy in front of the page is let in: TRAINYARD_PAGE_PROXIES has its addresses")
        name = str(headers.get(self._user_header, "")).strip()
        if not name:
            raise Refused(
                f"the proxy has sent no {self._user_header}: TRAINYARD_PAGE_USER_HEADER says which header has the user"
            )
        groups = [group.strip() for group in str(headers.get(self._groups_header, "")).split(",")]
        return Person(name, tuple(group for group in groups if group))

    async def _may(self, person: Person, namespace: str | None) -> bool:
        now, question = self._clock.monotonic(), (person, namespace)
        until, answer = self._answers.get(question, (0.0, False))
        if until <= now:
            answer = await self._reviews.may_list_runs(person, namespace)
            self._answers[question] = (now + REMEMBER_SECONDS, answer)
            self._answers.move_to_end(question)
            while len(self._answers) > SESSIONS * 10:
                self._answers.popitem(last=False)
        return answer


def runs_listed(namespace: str | None) -> dict[str, Any]:
    """What is asked about the page's readers."""
    attributes = {"group": GROUP, "resource": "trainingruns", "verb": "list"}
    return attributes | ({"namespace": namespace} if namespace else {})


def access_review(person: Person, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The SubjectAccessReview that asks whether somebody may do something."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": person.name, "groups": list(person.groups), "resourceAttributes": dict(attributes)},
    }
