"""Names of machines out of texts: addresses, ids, hosts, paths and numbers become numbered placeholders.

A network with a few million weights cannot learn that any address may stand where one stood; it does not have to. The
first address of a problem is `<ip1>` in the problem and in the solution, the second `<ip2>`, and after the answer is
found the names are put back. Exchanging the numbers among each other while training makes new examples of every old one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

PER_KIND = 8
"""Placeholders of each kind; the ninth address of one text shares the last placeholder and is not put back."""
_PATTERNS = {
    "time": r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?",
    "uuid": r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
    "ip": r"\b\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2}|:\d{1,5})?\b",
    "pod": r"\b[a-z][a-z0-9]*(?:-[a-z0-9]+)*-[0-9a-f]{7,10}-[a-z0-9]{5}\b",
    "host": r"\b[a-z0-9][a-z0-9-]*(?:\.[a-z0-9][a-z0-9-]*){2,}\b",
    "path": r"(?<![\w<])/(?:[\w.@-]+/)*[\w.@-]+",
    "hex": r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b",
    "num": r"(?<![\w<.])\d+(?:\.\d+)?(?:Ki|Mi|Gi|Ti|ms|us|ns|[smhdkMGT%])?(?![\w.])",
}
KINDS = tuple(_PATTERNS)
_ANY = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
_PLACEHOLDER = re.compile(rf"<({'|'.join(KINDS)})(\d)>")


def placeholders(kind: str) -> list[str]:
    """All placeholders of a kind, as they stand in texts."""
    return [f"<{kind}{number}>" for number in range(1, PER_KIND + 1)]


@dataclass
class Names:
    """What the placeholders of one example stand for."""

    known: dict[str, str] = field(default_factory=dict)
    """Name: placeholder."""

    def take_out(self, text: str) -> str:
        """Replace every name, with new placeholders for new ones."""

        def replace(found: re.Match[str]) -> str:
            name, kind = found[0], str(found.lastgroup)
            if name not in self.known:
                number = 1 + sum(p.startswith(f"<{kind}") for p in set(self.known.values()))
                self.known[name] = f"<{kind}{min(number, PER_KIND)}>"
            return self.known[name]

        return _ANY.sub(replace, text)

    def take_out_known(self, text: str) -> str:
        """Replace only what has come up already: a solution may name what no problem can tell."""
        return _ANY.sub(lambda found: self.known.get(found[0], found[0]), text)

    def put_back(self, text: str) -> str:
        """The names in place of their placeholders; a placeholder that stands for nothing stays."""
        first = {placeholder: name for name, placeholder in reversed(self.known.items())}
        return _PLACEHOLDER.sub(lambda found: first.get(found[0], found[0]), text)
