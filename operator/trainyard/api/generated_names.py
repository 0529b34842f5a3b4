"""Manifests for `kubectl create`: the API server makes the name of an object out of `metadata.generateName`."""

import re
from typing import Any

from pydantic_core import PydanticCustomError

ADDED = 5
"""Characters that the API server puts behind the prefix."""
HERE = "local"
"""Stands for them where there is no API server: the same each time, so that a run goes on from what it has left."""
assert len(HERE) == ADDED


def named_by_prefix(metadata: Any, *, limit: int) -> Any:
    """The metadata with a name that the prefix could become, if there is no other.

    Raises:
        PydanticCustomError: no name that begins so would be allowed.
    """
    if not isinstance(metadata, dict) or metadata.get("name") or not isinstance(metadata.get("generateName"), str):
        return metadata
    prefix = metadata["generateName"]
    if not re.fullmatch(r"[a-z0-9][-a-z0-9]*", prefix) or len(prefix) > limit - ADDED:
        raise PydanticCustomError(
            "generate_name",
            "generateName {prefix} must be at most {limit} characters of a-z, 0-9 and -, because the API server adds {added}",
            {"prefix": repr(prefix), "limit": limit - ADDED, "added": ADDED},
        )
    return {**metadata, "name": f"{prefix}{HERE}"}
