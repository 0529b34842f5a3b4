"""What a look brings back: the few words that leave its process.

A source is somebody else's program, and what it sent has been through the process of the look. So the operator takes no more
than this from there, of bounded length, and only what can be printed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from trainyard.api.texts import one_line

LIMIT = 64 * 2**10
"""Bytes that the operator reads of an answer."""
TOKEN_LIMIT = 8192
OBSERVED_LIMIT = 512
WORDS_LIMIT = 900
_TRACE_LIMIT = 8000


class SourceDown(Exception):
    """The source gave no usable answer; nothing follows from that."""


class LookFailed(Exception):
    """The look itself broke: a fault of ours, or an answer that nobody thought of."""

    def __init__(self, words: str, trace: str) -> None:
        super().__init__(words)
        self.trace = trace


@dataclass(frozen=True)
class Answer:
    """What a source answered. Every kind of trigger fills the part that it speaks of."""

    token: str
    """Identifies what is there: two equal tokens are the same thing."""
    observed: str
    """The same for people."""
    holds: bool | None = None
    """For a trigger that speaks of a state: whether it is reached."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """What the next look at the same source is told, to have less to ask for."""


def sent(answer: Answer) -> bytes:
    """As it goes to the operator."""
    return json.dumps(asdict(answer)).encode()


def sent_down(words: str) -> bytes:
    """The source gave no usable answer."""
    return json.dumps({"down": words[:WORDS_LIMIT]}).encode()


def sent_failed(words: str, trace: str) -> bytes:
    """The look broke."""
    return json.dumps({"failed": words[:WORDS_LIMIT], "trace": trace[-_TRACE_LIMIT:]}).encode()


def received(data: bytes) -> Answer:
    """As the operator reads it. Raises `SourceDown` or `LookFailed` for what the look said instead of an answer."""
    if len(data) > LIMIT:
        raise SourceDown("the look says more than an answer can be")
    try:
        body = json.loads(data)
        if "down" in body:
            raise SourceDown(one_line(body["down"], limit=WORDS_LIMIT))
        if "failed" in body:
            raise LookFailed(one_line(body["failed"], limit=WORDS_LIMIT), body["trace"][-_TRACE_LIMIT:])
        token, holds = body["token"], body["holds"]
        if len(token) > TOKEN_LIMIT or holds not in (True, False, None):
            raise SourceDown("what the source says of its content is too long to be compared")
        marks = {key: value for key, value in body["marks"].items() if value == one_line(value, limit=TOKEN_LIMIT)}
        observed = one_line(body["observed"], limit=OBSERVED_LIMIT)
        return Answer(one_line(token, limit=TOKEN_LIMIT), observed, holds, marks)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise SourceDown("the look ended with something that is no answer") from None
