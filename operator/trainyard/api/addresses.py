"""Addresses: what may stand in one, and what of one may be told.

An address is shown wherever a run is: in `kubectl get`, Events, logs, the status, the words of whoever could not reach it. So
no user and password stand in one; every field that holds an address refuses them. And of what stands there nevertheless (the
query of a signed address, a user in what a library or an older object says) only the harmless part is told: `told` is what
every text goes through before it leaves the process.
"""

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from trainyard.api.base import Rule

CREDENTIALS = r"[a-z0-9+]+://([^/?#\s]*|[^/?#@:\[\s]*:[0-9]*[^0-9/\s]\S*)@\S*"
"""An address that begins with a user, also where a slash in the password ends what parsers take for the host."""
NO_CREDENTIALS = Rule(
    f"!self.matches(r'^{CREDENTIALS}$')",
    "an address holds no user and password, because it stands in status, Events and logs: put them into a Secret, and name it "
    "in secretRef",
    lambda address: re.fullmatch(CREDENTIALS, address) is None,
)
_SCHEMA: dict[str, Any] = {
    "x-kubernetes-validations": [{"rule": NO_CREDENTIALS.cel, "message": NO_CREDENTIALS.message}]
}


def _kinds(*kinds: str) -> Any:
    """What a field takes. Its pattern lets credentials pass, because the rule says what to do about them."""
    return Field(max_length=1024, pattern=f"^({'|'.join((*kinds, CREDENTIALS))})$", json_schema_extra=_SCHEMA)


def _without_credentials(address: str) -> str:
    assert NO_CREDENTIALS.holds is not None
    if not NO_CREDENTIALS.holds(address):
        said = NO_CREDENTIALS.message
        raise PydanticCustomError("rule", "{message}", {"message": said, "messages": [said]})
    return address


_CHECKED = AfterValidator(_without_credentials)
_HTTP = r"https?://[^\s/@]+(/\S*)?"
_HTTP_FILE = r"https?://[^/\s@]+/\S*"
_S3 = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/\S+"
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_FILE = r"file:///\S+"

HttpUrl = Annotated[str, _kinds(_HTTP), _CHECKED]
WatchedUrl = Annotated[str, _kinds(_HTTP, r"s3://[^/\s@]+/[^\s?#]+"), _CHECKED]
VolumeUri = Annotated[str, _kinds(rf"{_CLAIM}/\S*", _FILE), _CHECKED]
ManifestUri = Annotated[str, _kinds(_S3, r"https?://[^/\s@]+/\S+", rf"{_CLAIM}/\S+", _FILE), _CHECKED]
DatasetUri = Annotated[
    str,
    _kinds(_S3, _HTTP_FILE, rf"{_CLAIM}/\S+", _FILE, r"hf://[\w][\w.-]*/[\w][\w.-]*(@[\w.-]+)?(/\S+)?"),
    _CHECKED,
]
PuzzleUri = Annotated[str, _kinds(_S3, _HTTP_FILE, rf"{_CLAIM}/\S+", _FILE), _CHECKED]
FolderUri = Annotated[str, _kinds(r"hf://[^/\s]+/[^/\s@]+(@\S+)?", rf"{_CLAIM}/\S+", _FILE), _CHECKED]
_RUN = r"run://[a-z0-9]([-a-z0-9]*[a-z0-9])?(/[a-z0-9]([-a-z0-9]*[a-z0-9])?)?"
RewardUri = Annotated[str, _kinds(r"hf://[^/\s]+/[^/\s@]+(@\S+)?", rf"{_CLAIM}/\S+", _FILE, _RUN), _CHECKED]
ModelUri = Annotated[
    str,
    _kinds(r"hf://[^/\s]+/[^/\s@]+(@\S+|/\S+\.gguf)?", rf"{_CLAIM}/\S+", _FILE, _S3, _HTTP_FILE, _RUN),
    _CHECKED,
]
FOLDER_IN_BUCKET = (_kinds(r"(s3|gs)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_{}.=+-]+)+/?"), _CHECKED)
"""Of a text that may have placeholders besides."""
BucketUri = Annotated[str, _kinds(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/\S*[^/\s]/?"), _CHECKED]

CUT = "…"
"""Stands where something was left out."""
_HOST = re.compile(r"[^/?#]*")
_WORD = re.compile(r"[^\s\"<>`]+")
_PATTERNS_IN = ("pvc", "file", "hf")
"""Schemes whose addresses have no query: a question mark in them belongs to a pattern."""
_NAMED = re.compile(
    r"\b(X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)|AWSAccessKeyId|Signature|sig"
    r"|(?:private_|job_|access_|refresh_|id_)?token|api[-_]?key|secret|password|passwd|pwd)(=|%3D)[^\s&;,'\"<>)}\]]+",
    re.I,
)


_kept: list[str] = []
SECRET_KEYS = frozenset(("url", "password", "token", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
SHORTEST_SECRET = 8
"""Characters; a shorter one would be found in many a word."""


def keep_secret(values: Mapping[str, str]) -> None:
    """From now on what is secret in a Secret is left out of every text: a server may say what it was given."""
    found = {value for key, value in values.items() if key in SECRET_KEYS}
    login = f"{values.get('username', '')}:{values.get('password', '')}"
    found.add(base64.b64encode(login.encode("utf-8", "surrogateescape")).decode())
    _kept[:] = sorted({*_kept, *(value for value in found if len(value) >= SHORTEST_SECRET)}, key=len, reverse=True)


def told(text: str) -> str:
    """A text as it may be said: without the user and password and without the query of any address in it, and without values
    that are kept secret.

    Where only the end of an address is left, as in what some libraries say, a query is known by its `=`, and what is named
    like a credential goes wherever it stands. The time it takes grows with the length of the text alone.
    """
    for value in _kept:
        text = text.replace(value, CUT)
    if "/" not in text and "=" not in text and "%3D" not in text:
        return text
    return _NAMED.sub(rf"\1\2{CUT}", _WORD.sub(lambda word: _without_user(_without_query(word[0])), text))


def _without_query(word: str) -> str:
    slash, mark = word.find("/"), word.find("?")
    scheme, whole, _ = word.partition("://")
    if whole and scheme.lower().endswith(_PATTERNS_IN):
        return word
    if mark < 0 or not (whole or "=" in word[mark:]):
        mark = word.find("#")
        if "=" not in word[mark:]:
            mark = -1
    if not 0 <= slash < mark or mark == len(word) - 1:
        return word
    end = word[mark + 1 :].rstrip("'\\)],.;:")
    return f"{word[: mark + 1]}{CUT}{word[mark + 1 + len(end) :]}" if end else word


def _without_user(word: str) -> str:
    last = word.rfind("@")
    pieces, start = [], 0
    while 0 <= (found := word.find("://", start)) < last:
        begin = found + 3
        host = _HOST.match(word, begin)
        assert host is not None
        pieces.append(word[start:begin])
        _, colon, port = host[0].partition(":")
        if "@" in host[0]:
            start = begin + host[0].rfind("@") + 1
        elif colon and port and not host[0].startswith("[") and not port.isdigit():
            start = last + 1
        else:
            start = begin
    return "".join((*pieces, word[start:]))
