"""What results look like: a table, JSON, YAML or names; colours on a terminal, and nowhere else."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trainyard.api.duration import duration

FORMS = ("table", "wide", "json", "yaml", "name")
GAP = 3
NARROWEST = 12
"""Columns that a text keeps, however narrow the terminal is."""

_STATES = {
    "Succeeded": "32",
    "Promote": "32",
    "Failed": "31",
    "Reject": "31",
    "Cancelled": "35",
    "Suspended": "33",
    "Pending": "33",
    "Waiting": "33",
    "Inconclusive": "33",
}
_WORKS = "36"


def add_output(parser: argparse.ArgumentParser, *, forms: Sequence[str] = FORMS) -> None:
    """`-o`."""
    parser.add_argument("-o", "--output", choices=forms, default=forms[0], help="Form of the answer.")


def coloured() -> bool:
    """Whether colours may be written."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Columns of the terminal; None where there is none, and nothing is cut."""
    if not sys.stdout.isatty():
        return None
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        return 80


def paint(text: str, state: str) -> str:
    """The text in the colour of a state."""
    return f"\x1b[{_STATES.get(state, _WORKS)}m{text}\x1b[0m" if state and coloured() else text


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if coloured() else text


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, widths: Sequence[int] | None = None) -> list[str]:
    """Lines of a table; on a terminal the last column is cut, so that each row stays one line."""
    columns = list(zip(headings, *rows, strict=True))
    found = widths or [max(len(cell) for cell in column) for column in columns]
    limit = terminal_width()
    states = headings.index("STATE") if "STATE" in headings else -1
    lines = []
    for row in (headings, *rows):
        used = sum(width + GAP for width in found[:-1])
        cells = [cell.ljust(width + GAP) for cell, width in zip(row[:-1], found, strict=False)]
        last = row[-1]
        if limit is not None and len(last) > (room := max(limit - used, NARROWEST)):
            last = shortened(last, room)
        if row is not headings and 0 <= states < len(cells):
            cells[states] = paint(cells[states], row[states])
        lines.append(("".join(cells) + last).rstrip())
    return lines


def shortened(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def wrapped(text: str, *, indent: str = "", width: int | None = None) -> list[str]:
    """The text in lines of the terminal's width, each with the indent. Long words are not broken: they are copied."""
    limit = max((width or terminal_width() or 80) - len(indent), NARROWEST)
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > limit:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [f"{indent}{line}".rstrip() for line in lines]


def dump(value: Any, form: str) -> str:
    """JSON or YAML of a value."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    return yaml.dump(
        value, sort_keys=False, allow_unicode=True, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    ).rstrip()


def print_objects(
    found: Sequence[Mapping[str, Any]],
    form: str,
    *,
    kind: str,
    as_table: Callable[[], Sequence[str]],
    one: bool = False,
) -> None:
    """Objects of the API server in the form that was asked for; of `one`, the object and no list."""
    if form in ("json", "yaml"):
        whole: Any = found[0] if one else {"apiVersion": "v1", "kind": "List", "items": [dict(o) for o in found]}
        print(dump(whole, form))
    elif form == "name":
        for entry in found:
            print(f"{kind}/{entry['metadata']['name']}")
    else:
        for line in as_table():
            print(line)


def print_next(*commands: str) -> None:
    """The commands that are likely to follow."""
    for number, command in enumerate(commands):
        print(f"{'Next: ' if number == 0 else '      '}{command}")


def now() -> datetime:
    return datetime.now(UTC)


def seconds_since(stamp: str | None, until: str | None = None) -> float | None:
    """Seconds between two times as the API server writes them; without the second, until now."""
    try:
        begin = datetime.fromisoformat(str(stamp))
        end = datetime.fromisoformat(until) if until else now()
    except ValueError:
        return None
    return max(0.0, (end - begin).total_seconds())


def age(stamp: str | None, until: str | None = None) -> str:
    """Like kubectl's ages; empty where the time is not known."""
    seconds = seconds_since(stamp, until)
    return "" if seconds is None else duration(seconds)


def readable_size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
