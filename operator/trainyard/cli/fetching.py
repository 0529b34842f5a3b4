"""Copying a folder out of a container: file by file, each gone on with where it broke off, all of them compared at the end.

A stream through the API server may end early and say nothing about it. So the number of bytes is known before, what is
missing is asked for again from there, and only files whose sha256 is that of the original are kept.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from trainyard.cli.exits import Misused, Refused
from trainyard.cli.inspection import Place
from trainyard.cli.printing import readable_size

PIECE = 1 << 18
TRIES = 5
"""In a row, without a single byte."""
PAUSE_SECONDS = 1.0
LIST = 'cd "$1" 2>/dev/null || exit 3; find -L . -type f ! -path "*/.tmp*" -exec stat -L -c "%s %n" {} +'
SUMS = 'cd "$1" || exit 3; shift; sha256sum "$@"'
BATCH = 200
"""Files whose sums are asked for in one go: a command line has an end."""


@dataclass(frozen=True)
class Remote:
    """A file in the container; the path is relative to the folder."""

    path: str
    size: int


def list_files(place: Place, folder: str) -> list[Remote]:
    """All files below the folder. Raises Refused where there is no such folder."""
    try:
        text = place.run("sh", "-c", LIST, "sh", folder)
    except Refused as error:
        raise Misused(f"there is no folder {folder} on the volume ({error})") from error
    found = [
        Remote(path.removeprefix("./"), int(size))
        for size, _, path in (line.partition(" ") for line in text.splitlines())
    ]
    for file in found:
        parts = PurePosixPath(file.path).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise Refused(f"the volume has a file of the name {file.path!r}, which would not stay in the folder here")
    return sorted(found, key=lambda file: file.path)


def fetch(
    place: Place, folder: str, files: Sequence[Remote], into: Path, *, tell: Callable[[int, int, str], None]
) -> int:
    """Bring the files here; the bytes that came over the wire.

    Raises:
        Refused: the stream breaks again and again, or a file differs from the original after a second copy too.
    """
    total = sum(file.size for file in files)
    moved = have = 0
    for file in files:
        target = into / file.path
        if not (target.is_file() and target.stat().st_size == file.size):
            moved += _copy(place, folder, file, target, partial(_tell_on, tell, have, total, file.path))
        have += file.size
        tell(have, total, file.path)
    for file in _different(place, folder, files, into):
        (into / file.path).unlink()
        moved += _copy(place, folder, file, into / file.path, lambda _: None)
        if _different(place, folder, [file], into):
            (into / file.path).unlink()
            raise Refused(
                f"{file.path} is not what lies on the volume, twice: does the run still write it? The rest is here"
            )
    return moved


def _tell_on(tell: Callable[[int, int, str], None], before: int, total: int, path: str, here: int) -> None:
    tell(before + here, total, path)


def _copy(place: Place, folder: str, file: Remote, target: Path, tell: Callable[[int], None]) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    moved, silent = 0, 0
    with part.open("ab") as out:
        while (there := out.tell()) < file.size:
            stream = place.open("tail", "-c", f"+{there + 1}", f"{folder}/{file.path}")
            assert stream.stdout is not None
            assert stream.stderr is not None
            while piece := stream.stdout.read1(PIECE):  # type: ignore[attr-defined]
                out.write(piece[: file.size - out.tell()])
                tell(out.tell())
            said = stream.stderr.read().decode(errors="replace").strip()
            stream.wait()
            moved += out.tell() - there
            silent = 0 if out.tell() > there else silent + 1
            if silent >= TRIES:
                raise Refused(
                    f"{file.path} breaks off at byte {out.tell()} of {file.size}: {said}; the same command goes on there"
                )
            if out.tell() < file.size:
                time.sleep(PAUSE_SECONDS)
    part.replace(target)
    return moved


def _different(place: Place, folder: str, files: Sequence[Remote], into: Path) -> list[Remote]:
    theirs: dict[str, str] = {}
    for start in range(0, len(files), BATCH):
        names = [file.path for file in files[start : start + BATCH]]
        for line in place.run("sh", "-c", SUMS, "sh", folder, *names).splitlines():
            digest, _, name = line.partition("  ")
            theirs[name] = digest
    return [file for file in files if _sha256(into / file.path) != theirs.get(file.path)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bar:
    """How far it is, on a terminal's one line; nothing where nobody watches."""

    WIDTH = 24

    def __init__(self) -> None:
        self._begin = self._shown = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int, name: str) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty() or (now - self._shown < 0.1 and done < total):
            return
        self._shown = now
        self._first = done if self._first is None else self._first
        speed = (done - self._first) / max(now - self._begin, 0.1)
        share = done / total if total else 1.0
        filled = int(share * self.WIDTH)
        line = f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] {share:4.0%} {readable_size(done)} of {readable_size(total)}"
        sys.stderr.write(
            f"\r\x1b[K{line}, {readable_size(speed)}/s  {name[-24:]}" + ("\r\x1b[K" if done >= total else "")
        )
        sys.stderr.flush()
