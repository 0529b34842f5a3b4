"""From files to rows, one at a time: a row is a mapping, or the fault that stands in its place.

Memory stays bounded whatever the size of the data: JSONL and CSV are read line by line, text in pieces, Parquet (see
`parquet.py`) batch by batch. Only JSON has to be read as a whole. Files ending in .gz are unpacked on the way.

Whatever a library says of a file becomes a fault with file and line: a file that cannot be read today cannot be read
tomorrow, so nothing that is said here is worth another attempt.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from trainyard.trainer.data.parquet import Columns, read_parquet
from trainyard.trainer.data.row import Fault, Row, repeated
from trainyard.trainer.data.sources import SourceFile
from trainyard.trainer.errors import invalid_data

TEXT_RECORD = 32 * 1024
"""Bytes. A text file up to this size is one record; a larger one is cut at empty lines into records of about this size."""
JSON_LIMIT = 512 * 1024 * 1024
"""Bytes of a .json file, unpacked, which is held in memory as a whole."""
LINE_LIMIT = 256 * 1024 * 1024
"""Bytes of a line. A file without line ends is no file of lines, and a small packed one may hold as many bytes as it likes."""


def read_rows(file: SourceFile, file_format: str, used: Columns | None = None) -> Iterator[Row | Fault]:
    """All rows of a file in order; `file_format` is one of the API's, but not Auto. `used` spares reading other columns."""
    match file_format:
        case "JSONL":
            return _read_jsonl(file)
        case "JSON":
            return _read_json(file)
        case "CSV":
            return _read_csv(file)
        case "Parquet":
            return read_parquet(file, used)
        case _:
            return _read_text(file)


def read_inline_text(text: str, source: str) -> Iterator[Row]:
    """Paragraphs, separated by empty lines."""
    paragraph: list[str] = []
    start = 1
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.strip():
            if not paragraph:
                start = number
            paragraph.append(line)
        elif paragraph:
            yield Row(source, start, {"text": "\n".join(paragraph)})
            paragraph = []


def _open(file: SourceFile) -> IO[bytes]:
    return gzip.open(file.path, "rb") if _is_gzip(file.path) else open(file.path, "rb")  # type: ignore[return-value]


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _lines(file: SourceFile) -> Iterator[tuple[int, str | Fault]]:
    """Decoded lines; one that is not UTF-8 becomes a fault and does not hide the others."""
    number = 0
    with _open(file) as stream:
        while True:
            try:
                raw = stream.readline(LINE_LIMIT + 1)
            except _PACKING as error:
                yield number, Fault(f"{file.name}:{number + 1}", _not_unpacked(error, f"after line {number}"))
                return
            if not raw:
                return
            number += 1
            if len(raw) > LINE_LIMIT:
                yield (
                    number,
                    Fault(f"{file.name}:{number}", f"the line is longer than {LINE_LIMIT >> 20} MiB; split the record"),
                )
                return
            try:
                yield number, (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).decode()
            except UnicodeDecodeError as error:
                yield number, Fault(f"{file.name}:{number}", _not_utf8(error))


_PACKING = (EOFError, gzip.BadGzipFile, zlib.error)


def _not_unpacked(error: Exception, where: str) -> str:
    if isinstance(error, EOFError):
        return f"the compressed file is cut off {where}; copy it again"
    return f"the compressed file is damaged {where} ({error}); copy it again"


def _not_utf8(error: UnicodeDecodeError) -> str:
    return (
        f"byte {error.object[error.start]:#04x} at position {error.start} is not UTF-8; convert the file, for example with "
        "iconv -t utf-8"
    )


def _read_jsonl(file: SourceFile) -> Iterator[Row | Fault]:
    for number, line in _lines(file):
        if isinstance(line, Fault):
            yield line
        elif line.strip():
            yield _parse(line, file.name, number)


def _parse(line: str, source: str, number: int) -> Row | Fault:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Fault(f"{source}:{number}", _not_json(error))
    if not isinstance(value, dict):
        return Fault(f"{source}:{number}", f'expected an object like {{"text": ...}}, found {_kind(value)}')
    return Row(source, number, value)


def _read_json(file: SourceFile) -> Iterator[Row | Fault]:
    with _open(file) as stream:
        try:
            raw = stream.read(JSON_LIMIT + 1)
        except _PACKING as error:
            yield Fault(file.name, _not_unpacked(error, "before its end"))
            return
    if len(raw) > JSON_LIMIT:
        raise invalid_data(
            f"{file.name} is larger than {JSON_LIMIT >> 20} MiB, and JSON has to be read as a whole",
            hint="write one record per line (JSONL)",
        )
    try:
        value = json.loads(raw.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        yield Fault(file.name, _not_utf8(error))
        return
    except (ValueError, RecursionError) as error:
        place = f"{file.name}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else file.name
        lines = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        advice = "; a file with one record per line is JSONL: name it .jsonl or set fileFormat: JSONL" if lines else ""
        yield Fault(place, _not_json(error) + advice)
        return
    if not isinstance(value, list):
        yield Fault(file.name, f"expected a list of records, found {_kind(value)}")
        return
    for number, record in enumerate(value, start=1):
        if isinstance(record, dict):
            yield Row(file.name, number, record)
        else:
            yield Fault(f"{file.name}:{number}", f"expected an object, found {_kind(record)}")


def _read_csv(file: SourceFile) -> Iterator[Row | Fault]:
    faults: list[Fault] = []

    def text() -> Iterator[str]:
        for number, line in _lines(file):
            if not isinstance(line, Fault):
                yield line
                continue
            faults.append(line)
            if number <= 1:
                return  # without its header nothing in the file has a name

    csv.field_size_limit(1 << 28)
    delimiter = "\t" if ".tsv" in file.name.lower() else ","
    reader = csv.DictReader(text(), delimiter=delimiter, strict=True)
    while True:
        try:
            twice = repeated(reader.fieldnames or ()) if reader.line_num <= 1 else None
            row = None if twice else next(reader, None)
        except csv.Error as error:
            yield from faults or [Fault(f"{file.name}:{reader.line_num + 1}", f"not CSV: {error}")]
            return
        yield from faults
        faults.clear()
        if twice:
            yield Fault(f"{file.name}:1", f"the header names {twice} twice; rename or remove one of the columns")
        if row is None:
            return
        if None in row or None in row.values():
            found = len([v for v in row.values() if v is not None]) + (
                len(row.get(None) or []) - 1 if None in row else 0
            )
            yield Fault(
                f"{file.name}:{reader.line_num}",
                f"has {found} fields where the header names {len(reader.fieldnames or [])}; quote values that contain "
                f"{'tabs' if delimiter == chr(9) else 'commas'}",
            )
        else:
            yield Row(file.name, reader.line_num, dict(row))


def _read_text(file: SourceFile) -> Iterator[Row | Fault]:
    """Small files whole, large ones cut at empty lines, or at any line end if there is no empty one for long."""
    piece: list[str] = []
    size, start = 0, 1
    number = 0
    for number, line in _lines(file):
        if isinstance(line, Fault):
            yield line
            continue
        piece.append(line)
        size += len(line)
        if (size >= TEXT_RECORD and not line.strip()) or size >= 2 * TEXT_RECORD:
            yield Row(file.name, start, {"text": "".join(piece)})
            piece, size, start = [], 0, number + 1
    if piece:
        yield Row(file.name, start, {"text": "".join(piece)})


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    return "is nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error}"


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
