"""Event files as TensorBoard reads them: scalars and nothing else, written without TensorBoard.

A file is a row of records: length, checksum of the length, content, checksum of the content (TensorFlow's TFRecord). The
content is an Event message of protocol buffers with at most four fields, encoded here by hand. The real reader is held
against it in `tests/servers`.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

_POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    rows = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ _POLYNOMIAL if number & 1 else number >> 1
        rows.append(number)
    return rows


_TABLE = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, kind: int, content: bytes) -> bytes:
    return _varint(number << 3 | kind) + (_varint(len(content)) if kind == 2 else b"") + content


def event(step: int, values: dict[str, float], *, now: float) -> bytes:
    """Event{wall_time=1, step=2, summary=5{value=1{tag=1, simple_value=2}}}."""
    summary = b"".join(
        _field(1, 2, _field(1, 2, name.encode()) + _field(2, 5, struct.pack("<f", value)))
        for name, value in values.items()
    )
    return _field(1, 1, struct.pack("<d", now)) + _field(2, 0, _varint(step)) + _field(5, 2, summary)


class EventFile:
    """One file of one attempt; TensorBoard reads all files of a folder as one history."""

    def __init__(self, folder: Path, *, attempt: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # The number in the name orders the files; the suffix keeps attempts of the same second apart.
        self._path = folder / f"events.out.tfevents.{int(time.time())}.trainyard.{attempt}"
        self._write(_field(1, 1, struct.pack("<d", time.time())) + _field(3, 2, b"brain.Event:2"))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Scalars of a step, on disk when this returns."""
        self._write(event(step, values, now=time.time()))

    def _write(self, content: bytes) -> None:
        length = struct.pack("<Q", len(content))
        record = length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))
        with self._path.open("ab") as file:
            file.write(record)
