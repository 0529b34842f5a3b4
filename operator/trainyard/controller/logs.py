"""Logging: one line per event, as JSON for machines or as text for people.

Whatever a caller passes in `extra` becomes a field of the line. While a run is reconciled, `about` adds its namespace and
name to every line, also to those of code that knows nothing of runs.
"""

import contextvars
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from trainyard.api.addresses import told
from trainyard.api.texts import one_line

_ABOUT: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("about", default={})  # noqa: B039 never changed
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Add these fields to all lines of the enclosed code."""
    token = _ABOUT.set({**_ABOUT.get(), **fields})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def configure(*, level: str, format: Literal["auto", "json", "text"]) -> None:
    """Send all loggers to standard error. Call it once, first thing."""
    handler = logging.StreamHandler(sys.stderr)
    as_text = format == "text" or (format == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("aiohttp.access", "asyncio", "kopf", "kopf.objects"):
        # The watch engine reports each event that it has handed over; what matters is said by the reconcile.
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": told(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:30:05 INFO  message  key=value …`, with a traceback below where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {key}={value}" for key, value in _fields(record).items())
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        line = f"{when} {record.levelname:<7} {told(record.getMessage())}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    for framework in ("settings", "k8s_skip", "k8s_ref"):  # the watch engine's own, not for a log line
        extra.pop(framework, None)
    return {**_ABOUT.get(), **extra}


def seldom(*, seconds: float, clock: Callable[[], float] = time.monotonic) -> Callable[[logging.LogRecord], bool]:
    """A filter for what strangers can cause: one short line in so many seconds, without a traceback.

    The next line says how many were left out.
    """
    last, left_out = float("-inf"), 0

    def passes(record: logging.LogRecord) -> bool:
        nonlocal last, left_out
        if clock() - last < seconds:
            left_out += 1
            return False
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f": {type(error).__name__}: {error}"
        more = f" ({left_out} more since the last line of this kind)" if left_out else ""
        record.msg, record.args, record.exc_info = one_line(text, limit=300) + more, None, None
        last, left_out = clock(), 0
        return True

    return passes
