"""What a collector has fetched already, on the run's volume, so that a killed step goes on where it was.

The unit is a piece: the answer to one question that has the same answer whenever it is asked (a query over a stretch of
the past, one commit). A piece is written beside its place, flushed and renamed, so it is there whole or not at all. Its
records are read back from the file also in the attempt that fetched them: memory holds one piece in the making per
thread, and both attempts put out the same bytes.

The journal belongs to one source and one window. If either changes, it begins anew.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.trainer.data.collect import Record
from trainyard.trainer.volume.commit import flush_folder

LABEL = "source.json"
TEMPORARY = ".tmp-"
COMPRESSION = 1
"""Level of gzip: text of this kind shrinks to a tenth even so, and it costs less time than the network."""


@dataclass(frozen=True)
class Piece:
    """Something to fetch. `name` is a file name, unique in the source."""

    name: str
    fetch: Callable[[], Iterable[Record]]


class Journal:
    """The pieces of one source. Threads may fetch at once; one thread reads."""

    def __init__(self, folder: Path, basis: Any) -> None:
        """`basis` is what the pieces depend on: the source's model and its window, as JSON."""
        self.folder = folder
        self.reused = 0
        """Pieces that an earlier attempt had fetched."""
        label = hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()
        try:
            known = json.loads((folder / LABEL).read_text())["basis"]
        except (OSError, ValueError, KeyError, TypeError):
            known = None
        if known != label:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._commit(LABEL, json.dumps({"basis": label}).encode())
        for leftover in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def fact(self, name: str, find: Callable[[], Any]) -> Any:
        """A small JSON value that is found out once, such as the commit a branch stood at."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            self._commit(path.name, json.dumps(find()).encode())
        return json.loads(path.read_text())

    def note(self, name: str, value: Any) -> None:
        """A small JSON value, in the place of the one before."""
        self._commit(f"{name}.json", json.dumps(value).encode())

    def place(self, name: str, fill: Callable[[Path], None]) -> Path:
        """A folder that is filled once, such as a repository."""
        path = self.folder / name
        if path.is_dir():
            self.reused += 1
            return path
        temporary = self.folder / f"{TEMPORARY}{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        fill(temporary)
        os.sync()
        temporary.rename(path)
        flush_folder(self.folder)
        return path

    def records(self, pieces: Iterable[Piece], *, parallel: int = 1) -> Iterator[Record]:
        """The records of all pieces in their order. Up to `parallel` are fetched at once, ahead of the one that is read."""
        ahead: deque[tuple[Path, Future[None] | None]] = deque()
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="collect")
        try:
            for piece in pieces:
                path = self.folder / f"{piece.name}.jsonl.gz"
                if path.exists():
                    self.reused += 1
                    ahead.append((path, None))
                else:
                    ahead.append((path, pool.submit(self._fetch, piece, path)))
                if len(ahead) > parallel:
                    yield from self._read(*ahead.popleft())
            while ahead:
                yield from self._read(*ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, piece: Piece, path: Path) -> None:
        temporary = self.folder / f"{TEMPORARY}{path.name}"
        with open(temporary, "wb") as raw:
            # No time and no name in the header: the same records make the same file.
            with gzip.GzipFile("", "wb", compresslevel=COMPRESSION, fileobj=raw, mtime=0) as stream:
                for record in piece.fetch():
                    stream.write(_whole(json.dumps(record, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n")
            raw.flush()
            os.fsync(raw.fileno())
        temporary.rename(path)
        flush_folder(self.folder)

    def _read(self, path: Path, fetched: Future[None] | None) -> Iterator[Record]:
        if fetched is not None:
            fetched.result()
        with gzip.open(path, "rb") as stream:
            for line in stream:
                yield json.loads(line)

    def _commit(self, name: str, content: bytes) -> None:
        temporary = self.folder / f"{TEMPORARY}{name}"
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(self.folder / name)
        flush_folder(self.folder)


def _whole(text: str) -> str:
    """Without half characters, which servers pass on as they found them in somebody's log."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
