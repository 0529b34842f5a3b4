"""Reading a git pack as it comes: commits, tags and folders are kept, the content of files is passed over.

What a pack inflates to has nothing to do with its size, so it is counted before it is inflated: each object says its size
first. Nothing is written to a disk, and of files not even their ids are computed. (The format: git's own documentation,
gitformat-pack.)
"""

import hashlib
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

_KINDS = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
_BLOB, _OFFSET_DELTA, _ID_DELTA = 3, 6, 7
_FOLDER = b"40000"
_PIECE = 64 * 2**10
_STEP = 4 * 2**10
"""Bytes that zlib is given at once; what it does not need is copied back."""
_HEAD = 12
_TAIL = 20


class TooLarge(Exception):
    """It goes beyond a limit."""


class Broken(Exception):
    """It is no pack, or ends too early."""


@dataclass(frozen=True)
class Limits:
    """How far a pack is followed."""

    objects: int = 1_000_000
    inflated: int = 512 * 2**20
    """Bytes of all objects together, passed over or not."""


@dataclass(frozen=True)
class Entry:
    """A line of a folder."""

    name: bytes
    key: bytes
    is_folder: bool


@dataclass(frozen=True)
class Object:
    """A commit, tag or folder."""

    kind: bytes
    content: bytes

    def reference(self) -> bytes | None:
        """What a commit (its tree) or a tag (its object) points to."""
        word, _, rest = self.content.partition(b" ")
        return rest[:40] if word in (b"tree", b"object") else None

    def entries(self) -> Iterator[Entry]:
        """What a folder holds."""
        at = 0
        while at < len(self.content):
            space, end = self.content.find(b" ", at), self.content.find(b"\0", at)
            if not at < space < end or end + 21 > len(self.content):
                raise Broken("a folder cannot be read")
            key = self.content[end + 1 : end + 21].hex().encode()
            yield Entry(self.content[space + 1 : end], key, self.content[at:space] == _FOLDER)
            at = end + 21


class PackReader:
    """Takes a pack piece by piece. What it raises is `TooLarge` or `Broken`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inflated = 0
        self._data = b""
        self._at = 0
        self._passed = 0
        """Bytes of the pack before `_data`."""
        self._ids: dict[int, bytes] = {}  # by offset
        self._objects: dict[bytes, Object] = {}
        self._done = False
        self._steps = self._read()
        next(self._steps)

    def feed(self, data: bytes) -> None:
        """The next piece, cut anywhere."""
        self._steps.send(data)

    def finish(self) -> dict[bytes, Object]:
        """The kept objects by id (in hex)."""
        if not self._done:
            raise Broken("the pack ends too early")
        return self._objects

    def _read(self) -> Generator[None, bytes, None]:
        head = yield from self._take(_HEAD)
        count = int.from_bytes(head[8:], "big")
        if head[:4] != b"PACK" or head[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
            raise Broken("what was sent is no pack")
        if count > self._limits.objects:
            raise TooLarge(f"{count} objects")
        for _ in range(count):
            yield from self._object()
        yield from self._take(_TAIL)
        self._done = True
        while True:
            yield

    def _object(self) -> Generator[None, bytes, None]:
        offset = self._passed + self._at
        kind, size = yield from self._kind_and_size()
        base = None
        if kind == _OFFSET_DELTA:
            base = self._ids.get(offset - (yield from self._distance()))
        elif kind == _ID_DELTA:
            base = (yield from self._take(20)).hex().encode()
        elif kind not in _KINDS:
            raise Broken(f"an object of kind {kind}")
        self._count(size)
        # What is made from an object comes after it. So a base that is not there is a file, and so is what is made from it.
        if base is None or base not in self._objects:
            wanted = kind in _KINDS and kind != _BLOB
            content = yield from self._inflate(size, keep=wanted)
            if wanted:
                self._add(offset, Object(_KINDS[kind], content))
            return
        delta, source = (yield from self._inflate(size, keep=True)), self._objects[base]
        self._add(offset, Object(source.kind, patched(source.content, delta, room=self._count)))

    def _add(self, offset: int, found: Object) -> None:
        name = hashlib.sha1(found.kind + b" %d\0" % len(found.content), usedforsecurity=False)
        name.update(found.content)
        key = name.hexdigest().encode()
        self._ids[offset] = key
        self._objects[key] = found

    def _count(self, size: int) -> None:
        self._inflated += size
        if self._inflated > self._limits.inflated:
            raise TooLarge(f"more than {self._limits.inflated >> 20} MiB when it is unpacked")

    def _kind_and_size(self) -> Generator[None, bytes, tuple[int, int]]:
        byte = (yield from self._take(1))[0]
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 128:
            byte = (yield from self._take(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if shift > 60:
                raise Broken("an object without a size")
        return kind, size

    def _distance(self) -> Generator[None, bytes, int]:
        """How far back the base of a delta lies."""
        byte = (yield from self._take(1))[0]
        distance = byte & 127
        while byte & 128:
            byte = (yield from self._take(1))[0]
            distance = (distance + 1) << 7 | byte & 127
            if distance > 2**40:
                raise Broken("a delta without a base")
        return distance

    def _inflate(self, size: int, *, keep: bool) -> Generator[None, bytes, bytes]:
        stream, parts, left = zlib.decompressobj(), [], size
        while not stream.eof:
            given = stream.unconsumed_tail
            if not given:
                if self._at == len(self._data):
                    yield from self._more()
                given = self._data[self._at : self._at + _STEP]
                self._at += len(given)
            try:
                part = stream.decompress(given, _PIECE)
            except zlib.error as error:
                raise Broken(str(error)) from None
            left -= len(part)
            if left < 0:
                raise Broken("an object is larger than it says")
            if keep:
                parts.append(part)
        self._at -= len(stream.unused_data)
        if left:
            raise Broken("an object is smaller than it says")
        return b"".join(parts)

    def _take(self, size: int) -> Generator[None, bytes, bytes]:
        while len(self._data) - self._at < size:
            yield from self._more()
        self._at += size
        return self._data[self._at - size : self._at]

    def _more(self) -> Generator[None, bytes, None]:
        self._passed += self._at
        self._data, self._at = self._data[self._at :] + (yield), 0


def patched(base: bytes, delta: bytes, *, room: Callable[[int], None]) -> bytes:
    """What a delta makes of its base. `room` is asked for the size that it says, which is never exceeded."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = delta[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value
            if shift > 60:
                raise Broken("a delta without a size")

    try:
        if number() != len(base):
            raise Broken("a delta of something else")
        size = number()
        room(size)
        made = bytearray()
        while at < len(delta):
            what = delta[at]
            at += 1
            if what & 128:
                start = length = 0
                for bit in range(4):
                    if what & 1 << bit:
                        start |= delta[at] << 8 * bit
                        at += 1
                for bit in range(3):
                    if what & 16 << bit:
                        length |= delta[at] << 8 * bit
                        at += 1
                part = base[start : start + (length or 0x10000)]
            else:
                part = delta[at : at + what]
                at += what
            if not part or len(made) + len(part) > size:
                raise Broken("a delta that does not fit")
            made += part
    except IndexError:
        raise Broken("a delta ends too early") from None
    if len(made) != size:
        raise Broken("a delta that does not fit")
    return bytes(made)
