"""Whether the CustomResourceDefinitions that are installed can hold what this version reads and writes.

A field that the installed schema lacks is dropped by the API server without a word: a setting of a user's that is never
honoured, or a part of the status that is written again at each look. Two versions of a schema are told apart by a digest,
which stands on each definition as an annotation, and compared field by field where the digests differ.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from trainyard.api import GROUP

SCHEMA_ANNOTATION = f"{GROUP}/schema"

Schema = Mapping[str, Any]


def schema_of(definition: Schema) -> Schema:
    """The schema of the version that is stored."""
    versions = definition["spec"]["versions"]
    found: Schema = next(v for v in versions if v["storage"])["schema"]["openAPIV3Schema"]
    return found


def schema_digest(definition: Schema) -> str:
    """Changes with everything that decides what an object may be, and not with what is told about it."""
    return hashlib.sha256(json.dumps(_untold(schema_of(definition)), sort_keys=True).encode()).hexdigest()[:16]


def _untold(node: Any) -> Any:
    if isinstance(node, list):
        return [_untold(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    # A field that is called so has a mapping here.
    return {k: _untold(v) for k, v in node.items() if not (k == "description" and isinstance(v, str))}


def fields_lacking(ours: Schema, theirs: Schema, at: str = "") -> Iterator[str]:
    """The fields of our schema that theirs would drop, without those below them."""
    if theirs.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name, node in ours.get("properties", {}).items():
        here = f"{at}.{name}" if at else name
        if name not in theirs.get("properties", {}):
            yield here
        else:
            yield from fields_lacking(node, theirs["properties"][name], here)
    if isinstance(ours.get("items"), Mapping):
        yield from fields_lacking(ours["items"], theirs.get("items", {}), f"{at}[]")
