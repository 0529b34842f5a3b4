"""One line at a time for people, on standard output; the last few also go into the final record."""

from __future__ import annotations

import logging
import sys
from collections import deque
from typing import Any

from trainyard.api.addresses import told

LINES_KEPT = 5
LINE_LIMIT = 160
"""Characters of a line in the final record, which has to fit into a termination message as a whole."""

_silent = False

_last: deque[str] = deque(maxlen=LINES_KEPT)


def be_silent() -> None:
    """From now on only warnings are printed: another process tells the same."""
    global _silent
    _silent = True


def say(line: str, *, always: bool = False) -> None:
    """Print a line at once."""
    line = told(line)
    _last.append(line[:LINE_LIMIT])
    if _silent and not always:
        return
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def warn(line: str) -> None:
    """Print a line that somebody should act on."""
    say(f"warning: {line}", always=True)


def cut_addresses() -> None:
    """From now on what libraries log loses the queries of addresses as well, before any handler sees it."""
    make = logging.getLogRecordFactory()

    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        made = make(*arguments, **named)
        made.msg, made.args = told(made.getMessage()), ()
        return made

    logging.setLogRecordFactory(record)


def last_lines() -> list[str]:
    """The newest lines, oldest first."""
    return list(_last)
