"""What an export sends: files of the run's volume, under the names they get outside, and one digest over all of them.

The digest is made from names and contents alone. The same model has the same one wherever it is sent, whenever and how often,
and that is how a target knows what it has already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainyard.api.run.exports import Export
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import storage
from trainyard.trainer.exports.exported import files_dir
from trainyard.trainer.volume.commit import Committed, find_damage, read_committed

ADAPTER = "adapter/"


@dataclass(frozen=True)
class PackedFile:
    """One file. `name` is relative, with `/`; `sha256` in hexadecimal."""

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """Files by name, and `sha256:...` over all of them."""

    files: tuple[PackedFile, ...]
    digest: str

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def package_of(context: RunContext, export: Export) -> Package:
    """What this export is to send: the files that exports of dependsOn have made (GGUF, MLX), else the model and its adapter.

    Every file is read and compared with what was committed: what was damaged on the volume is not handed out.

    Raises:
        UserError: something is damaged, or not there.
    """
    made = [one.name for one in context.run.spec.all_exports() if one.name in export.depends_on and one.row.makes_files]
    if made:
        places = [("" if len(made) == 1 else f"{name}/", files_dir(context, name)) for name in made]
    else:
        places = [("", context.model_dir), (ADAPTER, context.adapter_dir)]
    found = [(prefix, folder) for prefix, path in places if (folder := read_committed(path)) is not None]
    if len(found) < len(made) or not found:
        raise storage(
            f"export {export.name}: there is nothing to send in {places[0][1]}", hint="run the steps before first"
        )
    if len(found) == 1 and not made:
        found = [("", found[0][1])]  # an adapter alone stands at the top
    for _, folder in found:
        if (damage := find_damage(folder)) is not None:
            raise storage(f"export {export.name}: {folder.path}: {damage}", hint="train again, or restore the volume")
    return package(found)


def package(folders: Iterable[tuple[str, Committed]]) -> Package:
    """The files of committed folders, each below its prefix (`""` or `adapter/`)."""
    files = sorted(
        (
            PackedFile(prefix + name, folder.path / name, int(entry["size"]), str(entry["sha256"]))
            for prefix, folder in folders
            for name, entry in folder.manifest["files"].items()
        ),
        key=lambda file: file.name,
    )
    return Package(tuple(files), digest_of(files))


def digest_of(files: Iterable[PackedFile]) -> str:
    """One digest over names and contents, in the format of `sha256sum`."""
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in sorted(files, key=lambda file: file.name))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
