"""Folders on mounted volumes, and in the image."""

from __future__ import annotations

from pathlib import Path

from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.errors import invalid_data


def folder_of(uri: str, access: Access, *, field: str) -> Path:
    """The folder behind pvc:// or file://. Raises UserError if it is not there."""
    place = f"{access.name}: {field} {uri}"
    scheme, _, rest = uri.partition("://")
    folder = Path(rest)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if not (access.volumes / claim).is_dir():
            raise invalid_data(
                f"{place}: claim {claim} is not mounted at {access.volumes / claim}",
                hint="locally, pass --volume CLAIM=FOLDER; in a cluster the operator mounts it",
            )
        folder = access.volumes / claim / path
    if ".." in folder.parts:
        raise invalid_data(f"{place} contains ..", hint="give the path without it")
    if not folder.is_dir():
        parent = next((p for p in folder.parents if p.is_dir()), None)
        near = ", ".join(sorted(f.name for f in parent.iterdir())[:8]) if parent else ""
        raise invalid_data(f"{place} is not a folder", hint=f"{parent} has: {near}" if near else "check the path")
    return folder
