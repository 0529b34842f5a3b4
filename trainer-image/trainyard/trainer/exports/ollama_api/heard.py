"""What Ollama tells of tokens: text, without the bytes that are no characters.

A token may be half a character. Ollama keeps pieces back until they end with a whole one, and what is no UTF-8 then it drops,
with all that it has kept back behind it. A model that has learned little says such things; a comparison has to hear them alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_START = "▁"


class Ear:
    """Tokens as Ollama's text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.added = {int(number): str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        backend = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
        self.bytes_of = _byte_level() if "ByteLevel" in json.dumps(backend.get("decoder")) else None

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of an answer that ends after these."""
        text, kept = "", b""
        for number in ids:
            kept += self.piece(number)
            if not _is_begun(kept):
                text, kept = text + _valid(kept), b""
        return text + _valid(kept)

    def piece(self, number: int) -> bytes:
        """The bytes of a token."""
        if number in self.added:
            return self.added[number].encode()
        token = str(self.tokenizer.convert_ids_to_tokens(number))
        if self.bytes_of is not None:
            return bytes(self.bytes_of[char] for char in token)
        if (found := _BYTE.fullmatch(token)) is not None:
            return bytes([int(found[1], 16)])
        return token.replace(_WORD_START, " ").encode()


def _is_begun(text: bytes) -> bool:
    """Whether the last character lacks bytes."""
    for size in range(1, min(4, len(text)) + 1):
        byte = text[-size]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        return size < wanted
    return False


def _valid(text: bytes) -> str:
    """As far as it is UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start].decode()


def _byte_level() -> dict[str, int]:
    """The letters that stand for bytes in vocabularies over bytes: printable ones for themselves, the others from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
