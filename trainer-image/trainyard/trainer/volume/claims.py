"""Files and folders on mounted volumes, and in the image.

Others may write to a claim, and a link in it can lead to anything that the pod sees, such as its Secrets. So what is read
from a claim has to lie on it: a link may point to another place of the same claim and to nothing else. In the image, whose
author chose what runs anyway, links lead where they lead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from trainyard.trainer.errors import UserError

Invalid = Callable[..., UserError]


@dataclass(frozen=True)
class Bounds:
    """What a path may not leave, and what messages call it."""

    root: Path
    name: str

    def check(self, paths: Iterable[Path], *, told: str, invalid: Invalid) -> None:
        """Raises what `invalid` makes of the first link among the paths, or on the way to one, that leads out."""
        root = os.path.realpath(self.root)
        folders: dict[Path, str] = {}
        for path in paths:
            if path.parent not in folders:
                folders[path.parent] = os.path.realpath(path.parent)
            real = os.path.realpath(path) if path.is_symlink() else os.path.join(folders[path.parent], path.name)
            if not _is_below(real, root):
                way = (*reversed(path.parents), path)
                link = next((p for p in way if p.is_symlink() and self._leaves(p, root)), path)
                shown = link.relative_to(self.root) if link.is_relative_to(self.root) else link
                raise invalid(
                    f"{told}: the link {shown} leads to {os.path.realpath(link)}, out of {self.name}",
                    hint="put the file itself in the link's place, or give the address of what the link leads to",
                )

    def _leaves(self, link: Path, root: str) -> bool:
        return link.is_relative_to(self.root) and link != self.root and not _is_below(os.path.realpath(link), root)


def bounds_of(uri: str, volumes: Path) -> Bounds | None:
    """What a pvc:// or file:// address may not leave; None in the image."""
    scheme, _, rest = uri.partition("://")
    claim = rest.partition("/")[0]
    if scheme == "pvc":
        return Bounds(volumes / claim, f"claim {claim}")
    path = Path(os.path.abspath(rest))
    if path.is_relative_to(volumes) and path != volumes:
        claim = path.relative_to(volumes).parts[0]
        return Bounds(volumes / claim, f"claim {claim}")
    mounted = next(p for p in path.parents if os.path.ismount(p))
    return None if mounted == Path(mounted.anchor) else Bounds(mounted, f"the volume at {mounted}")


def folder_of(uri: str, volumes: Path, *, told: str, invalid: Invalid) -> Path:
    """The folder behind pvc:// or file://. Raises what `invalid` makes of a text that begins with `told` if it is not there,
    or not on the claim."""
    scheme, _, rest = uri.partition("://")
    folder = Path(rest)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if not (volumes / claim).is_dir():
            raise invalid(
                f"{told}: claim {claim} is not mounted at {volumes / claim}",
                hint="locally, pass --volume CLAIM=FOLDER; in a cluster the operator mounts it",
            )
        folder = volumes / claim / path.lstrip("/")
    if ".." in folder.parts:
        raise invalid(f"{told} contains ..", hint="give the path without it")
    if (bounds := bounds_of(uri, volumes)) is not None:
        bounds.check([folder], told=told, invalid=invalid)
    if not folder.is_dir():
        parent = next((p for p in folder.parents if p.is_dir()), None)
        near = ", ".join(sorted(f.name for f in parent.iterdir())[:8]) if parent else ""
        raise invalid(f"{told} is not a folder", hint=f"{parent} has: {near}" if near else "check the path")
    return folder


def own_folder_of(uri: str, volumes: Path, *, told: str, invalid: Invalid) -> Path:
    """The same, and no link in the folder leads out either: for readers that open whatever lies in it by name."""
    folder = folder_of(uri, volumes, told=told, invalid=invalid)
    if (bounds := bounds_of(uri, volumes)) is not None:
        bounds.check((p for p in folder.rglob("*") if p.is_symlink()), told=told, invalid=invalid)
    return folder


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
