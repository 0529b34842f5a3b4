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
        raise shards_missing(uri, missing, len(files))
    for file in files:
        if file.is_dir():
            raise invalid_config(f"{uri}: {file.name} is a folder", hint=COPY)
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
        return [folder / name for name in shards_named(folder / INDEX, uri)]
    found = [file.name for file in sorted(folder.glob("*.safetensors"))]
    if not found:
        raise no_safetensors(uri, [file.name for file in sorted(folder.iterdir())])
    raise invalid_config(
        f"{uri} has {', '.join(found[:3])}, and neither {SINGLE} nor {INDEX}, which says what lies where",
        hint="copy the folder again, as a whole" if len(found) > 1 or "-of-" in found[0] else f"rename it to {SINGLE}",
    )


def shards_named(index: Path, uri: str) -> list[str]:
    """The files that an index names. Raises UserError if it is none."""
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _unreadable(uri, index) from error


def shards_missing(uri: str, missing: list[str], total: int) -> UserError:
    """The index names more than there is."""
    return invalid_config(
        f"{uri}: {len(missing)} of {total} files of weights are missing: {', '.join(missing[:5])}", hint=COPY
    )


def no_safetensors(uri: str, names: list[str]) -> UserError:
    """No file of the model can be loaded without running code."""
    others = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".gguf", ".h5"))]
    has = f" (it has {', '.join(others[:3])})" if others else ""
    files = [name for name in others if name.endswith(".gguf")]
    return invalid_config(
        f"{uri} has no weights as safetensors{has}",
        hint=f"name the file itself: {uri.rstrip('/')}/{files[0]}"
        if files
        else "convert it with model.save_pretrained(folder); files that have to be unpickled are not loaded",
    )


def _unreadable(uri: str, file: Path) -> UserError:
    if _is_pointer(file):
        return invalid_config(f"{uri}: {file.name} {POINTER_FAULT[0]}", hint=POINTER_FAULT[1])
    return invalid_config(f"{uri}: {file.name} is no index of weights", hint=COPY)


POINTER_FAULT = ("is a pointer of git-lfs and not the file", "run git lfs pull in that folder")


def _is_pointer(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(POINTER)) == POINTER


def _fault(file: Path) -> tuple[str, str] | None:
    """What is wrong with a file, and what to do."""
    size = file.stat().st_size
    if _is_pointer(file):
        return POINTER_FAULT
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
