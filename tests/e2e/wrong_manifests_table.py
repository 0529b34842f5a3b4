"""The table of wrong manifests for the documentation, made of what the cluster really said."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.measure import FOLDER

SHORTENED = 420
Row = tuple[str, str, str, float]


def rows(found: Sequence[Row]) -> str:
    """Markdown: the mistake, when it shows, what is said."""
    lines = ["| Mistake | Shows | After | Message |", "| --- | --- | --- | --- |"]
    lines += [f"| {title} | {where} | {seconds:.1f} s | {plain(said)} |" for title, where, said, seconds in found]
    return "\n".join(lines) + "\n"


def plain(said: str) -> str:
    """One line, without what differs from run to run (addresses, generated names, times)."""
    text = " ".join(said.split()).replace("|", "\\|")
    text = re.sub(r"http://10\.91\.0\.1:\d+", "http://files.example", text)
    text = re.sub(r"\b([a-z0-9-]+-(?:prepare|train|evaluate|validate)-\d+)-[a-z0-9]{5}\b", r"\1-xxxxx", text)
    text = re.sub(r"e2e-wrong-manifests-[0-9a-f]{4}(-full)?", "lab", text)
    return text if len(text) <= SHORTENED else text[: SHORTENED - 2].rstrip() + " …"


def write_table(found: Sequence[Row]) -> Path:
    """Keep the table with the measurements; a section of docs/use/errors.md is made from it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "wrong-manifests.md"
    path.write_text(rows(found))
    return path
