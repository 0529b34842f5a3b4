"""Types of what comes from outside: numbers, names, times and texts that a status can hold, whoever has sent them.

The bounds are those of the status' schema, or narrower: what passes here can be written there. Texts for people are
cleaned and cut (see `texts.py`); anything else out of its bounds is a fault that is told to whoever sent it.
"""

import math
import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from trainyard.api.texts import one_line

LARGEST = 2**53
"""Whole numbers up to here are the same for every reader of JSON."""
ENTRIES = 64
"""Of a mapping."""
FACT_LENGTH = 1024
LINES = 20
LINE_LENGTH = 300

_RFC3339 = re.compile(r"(?:19[7-9]\d|2\d{3})-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("printable", "must not have line ends or other characters that cannot be printed")
    return text


def _is_moment(text: str) -> str:
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError:
        raise PydanticCustomError(
            "moment", "must be an RFC 3339 time from 1970 to 2999, for example 2026-01-01T12:00:00Z"
        ) from None
    return text


def _is_relative(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise PydanticCustomError("relative", "must be relative to the volume: no / at the beginning and no .. in it")
    return path


def _finite(number: float | None) -> float | None:
    """NaN and infinity are no JSON and nothing that a status can hold: they count as absent."""
    return number if number is not None and math.isfinite(number) else None


def _fact(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case int() if abs(value) <= LARGEST:
            return value
        case float():
            return _finite(value)
        case str():
            return one_line(value, limit=FACT_LENGTH)
    raise PydanticCustomError("fact", "must be a text, true, false, or a number (a whole one up to 2^53)")


def _last_lines(lines: Any) -> Any:
    if not isinstance(lines, list):
        return lines
    return [one_line(line, limit=LINE_LENGTH) for line in lines[-LINES:] if isinstance(line, str)]


def cut(limit: int) -> BeforeValidator:
    """Make a text one clean line of at most so many characters."""
    return BeforeValidator(lambda text: one_line(text, limit=limit) if isinstance(text, str) else text)


Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]
Number = Annotated[float | None, AfterValidator(_finite)]
Percentage = Annotated[float, Field(ge=0, le=100)]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_is_moment)]
"""RFC 3339."""
Name = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_is_printable)]
RunUid = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
StepName = Annotated[str, Field(max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
MlflowRun = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
VolumePath = Annotated[str, Field(max_length=1024), AfterValidator(_is_relative), AfterValidator(_is_printable)]
Reason = Annotated[str, cut(128)]
GateText = Annotated[str, cut(512)]
ShortText = Annotated[str, cut(1024)]
LongText = Annotated[str, cut(4096)]
LogLines = Annotated[list[str], BeforeValidator(_last_lines)]
"""The last few; the others are let go."""
Metrics = Annotated[dict[Name, Number], Field(max_length=ENTRIES)]
Facts = Annotated[dict[Name, Annotated[Any, AfterValidator(_fact)]], Field(max_length=ENTRIES)]
"""Settings, versions and the like: flat."""
