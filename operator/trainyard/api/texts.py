"""Texts from outside (pods, annotations, sources): how they become one printable line of bounded length.

A terminal obeys escape codes, a log is read line by line, and a status has a bound for each field. So a text for people is
cleaned and cut where it comes in, never refused: half a sentence is better than none.
"""

import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
"""What terminals take as an order: colours, cursor moves, window titles."""
_CUT = "…"


def one_line(text: str, *, limit: int) -> str:
    """The text without escape codes, line ends and other characters that cannot be printed, at most `limit` long."""
    if not text.isprintable():
        # A text of megabytes is not cleaned as a whole to be cut afterwards.
        text = _ESCAPE.sub("", text[: 8 * limit])
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT
