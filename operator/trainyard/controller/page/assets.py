"""The files of the page, read once and packed once: what a browser gets is bytes that lie ready in memory."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """One file."""

    kind: str
    """Its media type."""
    packed: bytes
    """gzip."""
    size: int
    """Bytes before packing."""
    tag: str
    """Changes with the content."""


def load(folder: Path = FOLDER) -> dict[str, Asset]:
    """By path below the folder, as in a URL."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix in _TYPES:
            data = file.read_bytes()
            packed = gzip.compress(data, 9, mtime=0)
            tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            found[file.relative_to(folder).as_posix()] = Asset(_TYPES[file.suffix], packed, len(data), tag)
    return found
