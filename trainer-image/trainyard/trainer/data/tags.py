"""What records say about themselves, metadata.source and metadata.type, kept beside them for the evaluation by groups.

A record that is trained on has no metadata; its digest and its split do not depend on what it is called. So tags of what is held
out lie in files of their own: `tags/<split>-<dataset>.jsonl` in a dataset version, `<split>.tags.jsonl` in prepared data; a
line each, in the order of the records (there, of the examples).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

KEYS = ("source", "type")
LIMIT = 100
"""Characters of a tag."""


def tags_file(split: str, dataset: str) -> str:
    """Of a dataset version, relative to its folder."""
    return f"tags/{split}-{dataset}.jsonl"


def prepared_tags(data: Path, split: str) -> Path:
    """Of prepared data."""
    return data / f"{split}.tags.jsonl"


def tags_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Of one row of a source."""
    metadata = row.get("metadata")
    if not isinstance(metadata, Mapping):
        return {}
    return {key: said[:LIMIT] for key in KEYS if isinstance(said := metadata.get(key), str) and said.strip()}


class OfRecord(Protocol):
    """Something that was made of one record."""

    @property
    def record(self) -> int:
        """Number of the record."""
        ...


T = TypeVar("T", bound=OfRecord)


def noted(examples: Iterable[tuple[T, int]], tags: Sequence[dict[str, str]], file: Path) -> Iterator[tuple[T, int]]:
    """The same examples, the tags of each one's record written down on the way."""
    with open(file, "w") as stream:
        for example, repeat in examples:
            stream.write(json.dumps(tags[example.record]) + "\n")
            yield example, repeat


def read_tags(file: Path) -> list[dict[str, str]]:
    """All of a file; none where there is none, as of a version that was built before there were any."""
    try:
        return [json.loads(line) for line in file.read_text().splitlines()]
    except FileNotFoundError:
        return []
