"""Kubernetes quantities as numbers, for comparing a request with a node."""

import re
from decimal import Decimal

_SUFFIX = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** (i + 1) for i, s in enumerate("kMGTPE")},
    **{f"{s}i": Decimal(1024) ** (i + 1) for i, s in enumerate("KMGTPE")},
}
_FORM = re.compile(r"^(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([a-zA-Z]*)$")


def parse_quantity(text: str) -> Decimal:
    """`16Gi`, `500m`, `1e3` or `2` as a number. Raises ValueError for anything else."""
    found = _FORM.match(text)
    if not found or found.group(2) not in _SUFFIX:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 16Gi")
    return Decimal(found.group(1)) * _SUFFIX[found.group(2)]
