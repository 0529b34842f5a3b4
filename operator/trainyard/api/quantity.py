"""Kubernetes quantities as numbers, for comparing what is asked for with what is there."""

import re
from decimal import Context, Decimal

_SUFFIX = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** (i + 1) for i, s in enumerate("kMGTPE")},
    **{f"{s}i": Decimal(1024) ** (i + 1) for i, s in enumerate("KMGTPE")},
}
_FORM = re.compile(r"^(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([a-zA-Z]*)$")
_MOST = Decimal(2**63 - 1)
"""Kubernetes takes every larger number for this one."""
_CALM = Context(prec=40, traps=[])
"""Computes 1e99999999 without complaint, so that it becomes the largest number."""


def parse_quantity(quantity: str | int) -> Decimal:
    """`16Gi`, `500m`, `1e3` or `2` as a number. Raises ValueError for anything else."""
    found = _FORM.match(str(quantity))
    if not found or found.group(2) not in _SUFFIX:
        raise ValueError(f"{quantity!r} is not a quantity such as 500m, 2 or 16Gi")
    return min(_CALM.multiply(_CALM.create_decimal(found.group(1)), _SUFFIX[found.group(2)]), _MOST)
