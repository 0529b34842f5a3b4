"""Small GGUF files, written as the format says."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

TEXT, U32 = 8, 4


def gguf(fields: dict[str, Any], tensors: dict[str, tuple[tuple[int, ...], int, bytes]], *, version: int = 3) -> bytes:
    """`tensors` by name: shape, kind and bytes."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(fields))
    for name, value in fields.items():
        head += _text(name)
        if isinstance(value, str):
            head += struct.pack("<I", TEXT) + _text(value)
        elif isinstance(value, list):
            head += struct.pack("<IIQ", 9, TEXT, len(value)) + b"".join(map(_text, value))
        else:
            head += struct.pack("<II", U32, value)
    begin, body = 0, b""
    for name, (shape, kind, content) in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, begin)
        padded = content + b"\0" * (-len(content) % 32)
        body, begin = body + padded, begin + len(padded)
    return head + b"\0" * (-len(head) % 32) + body


def small(**fields: Any) -> bytes:
    """One tensor of 64 F32."""
    about = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 8,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", **fields,
    }  # fmt: skip
    return gguf(about, {"token_embd.weight": ((8, 8), 0, b"\0" * 256)})


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
