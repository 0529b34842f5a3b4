"""Folders on mounted volumes, and in the image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainyard.trainer.errors import UserError


def folder_of(uri: str, volumes: Path, *, told: str, invalid: Callable[..., UserError]) -> Path:
    """The folder behind pvc:// or file://. Raises what `invalid` makes of a text that begins with `told` if it is not there."""
    scheme, _, rest = uri.partition("://")
    folder = Path(rest)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if not (volumes / claim).is_dir():
            raise invalid(
                f"{told}: claim {claim} is not mounted at {volumes / claim}",
                hint="locally, pass --volume CLAIM=FOLDER; in a cluster the operator mounts it",
            )
        folder = volumes / claim / path
    if ".." in folder.parts:
        raise invalid(f"{told} contains ..", hint="give the path without it")
    if not folder.is_dir():
        parent = next((p for p in folder.parents if p.is_dir()), None)
        near = ", ".join(sorted(f.name for f in parent.iterdir())[:8]) if parent else ""
        raise invalid(f"{told} is not a folder", hint=f"{parent} has: {near}" if near else "check the path")
    return folder
