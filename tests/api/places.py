"""One place in a spec: what stands there, and copies with something else or nothing there."""

import copy
from typing import Any

Place = tuple[str | int, ...]


def at(value: Any, place: Place) -> Any:
    """What stands at a place, or raises KeyError/IndexError."""
    for part in place:
        value = value[part]
    return value


def put(spec: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy of the spec with another value at one place; parents that are missing are made."""
    changed = copy.deepcopy(spec)
    inner: Any = changed
    for part in place[:-1]:
        inner = inner.setdefault(part, {}) if isinstance(inner, dict) else inner[part]
    inner[place[-1]] = value
    return changed


def without(spec: dict[str, Any], *places: Place) -> dict[str, Any]:
    """A copy of the spec without what stands at these places."""
    changed = copy.deepcopy(spec)
    for place in places:
        del at(changed, place[:-1])[place[-1]]
    return changed


def shown(place: Place) -> str:
    """`("datasets", 0, "name")` as `spec.datasets[0].name`."""
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
