"""What the model will see: a record as text, with what counts for the loss in brackets.

Made from the very tokens that would be trained on, decoded again, so a wrong template or a wrong mask shows here.
"""

from __future__ import annotations

from typing import Any

from trainyard.trainer.data.records import Built
from trainyard.trainer.data.tokenize import Encoder, Tally

OPEN, CLOSE = "⟦", "⟧"
LONGEST = 600
"""Characters of one preview."""


def previews(built: Built, encoder: Encoder, tokenizer: Any) -> list[dict[str, Any]]:
    """The first training record of each dataset."""
    found = []
    for entry in built.manifest["datasets"]:
        first = next(built.records_of(entry, "train"), None)
        if first is None:
            continue
        for example, _ in encoder.encode([first], Tally()):
            counted = len(example.ids) if example.counts is None else sum(example.counts)
            found.append(
                {
                    "dataset": entry["name"],
                    "tokens": len(example.ids),
                    "counted": counted,
                    "text": _marked(example.ids, example.counts, tokenizer),
                }
            )
            break
    return found


def _marked(ids: list[int], counts: list[bool] | None, tokenizer: Any) -> str:
    """Tokens decoded run by run, so that a character of several tokens stays whole."""
    pieces, start = [], 0
    flags = counts or [True] * len(ids)
    for end in range(1, len(ids) + 1):
        if end == len(ids) or flags[end] != flags[start]:
            text = str(tokenizer.decode(ids[start:end], skip_special_tokens=False))
            pieces.append(f"{OPEN}{text}{CLOSE}" if flags[start] else text)
            start = end
    whole = "".join(pieces)
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST // 2]} … {whole[-LONGEST // 2 :]}"
