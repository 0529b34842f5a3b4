"""What stands at the head of a GGUF file: facts of the model, and a table of its tensors. Read without a library, in bounds.

The library maps the file and believes every count in it, so a damaged one costs it minutes or ends in an error that names
nothing. Here each count is held against the size of the file before it is followed, and of long lists (a vocabulary) only
the length is kept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainyard.trainer.errors import invalid_config
from trainyard.trainer.volume.weights import COPY, POINTER, POINTER_FAULT

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_TEXT, _LIST = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
KEPT = 64
"""Entries of a list that are kept; of a longer one, its length."""
DEEPEST = 4


@dataclass(frozen=True)
class Tensor:
    """One row of the table. `begin` counts from the end of the header."""

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int


@dataclass(frozen=True)
class Header:
    """All that is known without reading a weight."""

    fields: dict[str, Any]
    """By key; a list of more than a few entries is its length."""
    tensors: tuple[Tensor, ...]
    end: int
    """Where the weights begin, but for padding."""

    @property
    def architecture(self) -> str:
        """As llama.cpp calls it."""
        return str(self.fields.get("general.architecture", ""))

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        total = 0
        for tensor in self.tensors:
            count = 1
            for size in tensor.shape:
                count *= size
            total += count
        return total


def read_header(file: Path, uri: str) -> Header:
    """Raises UserError for a file that is none, or is cut off within its header."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        magic = stream.read(len(POINTER))
        if magic == POINTER:
            raise invalid_config(f"{uri} {POINTER_FAULT[0]}", hint=POINTER_FAULT[1])
        if magic[:4] != MAGIC:
            raise invalid_config(f"{uri} is no GGUF file: it does not begin with GGUF", hint=COPY)
        stream.seek(4)
        try:
            return _Reader(stream, size).header()
        except (struct.error, _Damaged, UnicodeDecodeError) as error:
            raise invalid_config(
                f"{uri} ({size} bytes) has a header that cannot be read: {error or 'it is cut off'}", hint=COPY
            ) from error


class _Damaged(Exception):
    """A count or a kind that cannot be."""


class _Reader:
    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    def header(self) -> Header:
        version = self._number("I")
        if version not in VERSIONS:
            told = "is written for the other byte order" if version > 0xFFFF else "is not known here"
            raise _Damaged(f"its version {version} {told}")
        tensors, pairs = self._count(8), self._count(8)
        fields = {self._text(): self._value(self._number("I"), 0) for _ in range(pairs)}
        table = tuple(self._tensor() for _ in range(tensors))
        return Header(fields, table, self._stream.tell())

    def _tensor(self) -> Tensor:
        name, dimensions = self._text(), self._number("I")
        if dimensions > 8:
            raise _Damaged(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return Tensor(name, shape, self._number("I"), self._number("Q"))

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind != _LIST:
            return self._number(self._format(kind))
        inner, count = self._number("I"), self._count(1)
        if inner in (_TEXT, _LIST):
            if depth == DEEPEST:
                raise _Damaged("lists in lists in lists")
            found = [self._value(inner, depth + 1) for _ in range(count)]
            return found if count <= KEPT else count
        form = self._format(inner)
        width = struct.calcsize(f"<{form}")
        if count <= KEPT:
            return list(struct.unpack(f"<{count}{form}", self._bytes(count * width)))
        self._bytes(0, within=count * width)
        self._stream.seek(count * width, 1)
        return count

    @staticmethod
    def _format(kind: int) -> str:
        if kind not in _SCALARS:
            raise _Damaged(f"a value of kind {kind}")
        return _SCALARS[kind]

    def _text(self) -> str:
        # Merges and tokens need not be whole characters.
        return self._bytes(self._count(1)).decode("utf-8", "replace")

    def _count(self, width: int) -> int:
        count = int(self._number("Q"))
        self._bytes(0, within=count * width)
        return count

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))[0]

    def _bytes(self, count: int, *, within: int = 0) -> bytes:
        left = self._size - self._stream.tell()
        if max(count, within) > left:
            raise _Damaged("it is cut off, or a count in it is wrong")
        return self._stream.read(count)
