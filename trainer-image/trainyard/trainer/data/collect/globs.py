"""Patterns of paths: `*` and `?` inside one name, `**/` for any folders, `[a-z]` for one of some characters."""

from __future__ import annotations

import re
from collections.abc import Iterable


def matcher(patterns: Iterable[str]) -> re.Pattern[str]:
    """A pattern that full-matches every path that one of the globs means. A glob without a slash means a name anywhere."""
    return re.compile("|".join(f"(?:{_translate(p if '/' in p else f'**/{p}')})" for p in patterns) or r"(?!)")


def _translate(glob: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", glob.removeprefix("/"))
    known = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}

    def one(part: str) -> str:
        if part in known:
            return known[part]
        if part.startswith("[") and part.endswith("]") and len(part) > 2:
            inner = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
            return f"[{'^' + inner[1:] if inner[0] == '!' else inner}]"
        return re.escape(part)

    return "".join(one(part) for part in parts if part)
