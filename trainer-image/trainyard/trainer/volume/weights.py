"""Whether the weights in a model folder are whole: looked at in the first step, without a GPU and without loading them.

A safetensors file begins with its own table of contents, so a file that was cut off, a pointer that git-lfs has not replaced
and a shard that was not copied show in milliseconds. The bytes of the weights themselves are not read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainyard.trainer.errors import UserError, invalid_config

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs"
"""How a file begins that git has and git-lfs has not yet replaced."""
HEADER_LIMIT = 100_000_000
"""Bytes of a header, as the library itself bounds it."""
COPY = "copy the folder again, as a whole"


def check_weights(folder: Path, uri: str) -> None:
    """Look at the files that would be loaded.

    Raises:
        UserError: one is missing, cut off, or no file of weights.
    """
    files = _files(folder, uri)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise invalid_config(
            f"{uri}: {len(missing)} of {len(files)} files of weights are missing: {', '.join(missing[:5])}", hint=COPY
        )
    for file in files:
        if (fault := _fault(file)) is not None:
            message, hint = fault
            raise invalid_config(f"{uri}: {file.name} {message}", hint=hint)


def embeddings_of(folder: Path) -> int | None:
    """Rows of the input embeddings by the table of contents; None where their name is not a usual one."""
    for file in sorted(folder.glob("*.safetensors")):
        for name, about in (_header(file) or {}).items():
            if name.endswith(_EMBEDDINGS) and isinstance(about, dict) and about.get("shape"):
                return int(about["shape"][0])
    return None


_EMBEDDINGS = ("embed_tokens.weight", ".wte.weight", "word_embeddings.weight", "embed_in.weight")


def _files(folder: Path, uri: str) -> list[Path]:
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        try:
            names = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
            return [folder / name for name in sorted(names)]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _unreadable(uri, folder / INDEX) from error
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        others = [f.name for f in sorted(folder.iterdir()) if f.suffix in (".bin", ".pt", ".pth", ".gguf", ".h5")]
        has = f" (it has {', '.join(others[:3])})" if others else ""
        raise invalid_config(
            f"{uri} has no weights as safetensors{has}",
            hint="convert it with model.save_pretrained(folder); files that have to be unpickled are not loaded",
        )
    return found


def _unreadable(uri: str, file: Path) -> UserError:
    if _is_pointer(file):
        return invalid_config(f"{uri}: {file.name} {_POINTER[0]}", hint=_POINTER[1])
    return invalid_config(f"{uri}: {file.name} is no index of weights", hint=COPY)


_POINTER = ("is a pointer of git-lfs and not the file", "run git lfs pull in that folder")


def _is_pointer(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(POINTER)) == POINTER


def _fault(file: Path) -> tuple[str, str] | None:
    """What is wrong with a file, and what to do."""
    size = file.stat().st_size
    if _is_pointer(file):
        return _POINTER
    header = _header(file)
    if header is None:
        return f"({size} bytes) is cut off, or no safetensors file", COPY
    try:
        ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
        wanted = _begin(file) + max(ends, default=0)
    except (KeyError, TypeError, IndexError):
        return "has a table of contents that cannot be read", COPY
    return (f"is cut off: it has {size} of {wanted} bytes", COPY) if size < wanted else None


def _begin(file: Path) -> int:
    """Where the weights begin."""
    with open(file, "rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def _header(file: Path) -> dict[str, Any] | None:
    begin = _begin(file)
    if not 8 < begin <= min(file.stat().st_size, HEADER_LIMIT):
        return None
    with open(file, "rb") as stream:
        stream.seek(8)
        try:
            found = json.loads(stream.read(begin - 8))
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None
