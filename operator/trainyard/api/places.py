"""Where in a schema a field of some name stands: for somebody who has put a field into the wrong object, or misspelt it."""

import difflib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

DEEPEST = 12
SHOWN = 3
LIKE = 0.85
"""How much a name that is looked for in the whole schema has to resemble another; in its own object less is enough."""


def did_you_mean(name: str, here: Sequence[str | int], root: type[BaseModel]) -> str:
    """The paths of fields that may have been meant by a name that nothing at `here` has; empty where there are none."""
    places = _places(root)
    meant = next((n for n in places if _plain(n) == _plain(name)), None)
    if meant is None:
        close = difflib.get_close_matches(name, places, n=1, cutoff=LIKE)
        meant = close[0] if close else None
    if meant is None:
        return ""
    asked = [str(part) for part in here if not isinstance(part, int)]
    found = [path for path in places[meant] if "phases[]" not in path or "phases" in asked] or places[meant]
    nearest = sorted(found, key=lambda path: (-_shared(path, asked), path.count(".")))
    return " or ".join(nearest[:SHOWN])


def _shared(path: str, asked: Sequence[str]) -> int:
    """How many of the first parts are the same."""
    parts = [part.removesuffix("[]") for part in path.split(".")]
    return next((n for n, (one, other) in enumerate(zip(parts, asked, strict=False)) if one != other), len(asked))


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


@lru_cache(maxsize=4)
def _places(root: type[BaseModel]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, path in _fields(root, "", 0):
        if path not in found.setdefault(name, []):
            found[name].append(path)
    return found


def _fields(model: type[BaseModel], above: str, depth: int) -> Iterator[tuple[str, str]]:
    for python_name, field in model.model_fields.items():
        name = field.alias or to_camel(python_name)
        path = f"{above}.{name}" if above else name
        yield name, path
        inner, listed = _inner(field.annotation)
        if inner is not None and depth < DEEPEST and name != "status":
            yield from _fields(inner, f"{path}[]" if listed else path, depth + 1)


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        inner, listed = _inner(argument)
        if inner is not None:
            return inner, listed or getattr(annotation, "__origin__", None) is list
    return None, False
