"""History limits: which runs of the past go. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from trainyard.controller.schedules.views import ChildView


def surplus(children: Iterable[ChildView], *, successful: int, failed: int) -> list[ChildView]:
    """Finished runs beyond the limits, each variant by itself, oldest first.

    Each variant by itself, or of three agents the one that fails would push the successes of the others out.
    """
    groups: dict[tuple[str, bool], list[ChildView]] = defaultdict(list)
    for child in children:
        if child.finished and not child.deleting:
            groups[child.variant, child.succeeded].append(child)
    gone = []
    for (_, succeeded), group in groups.items():
        group.sort(key=lambda c: (c.completed or c.created, c.name), reverse=True)
        gone += group[successful if succeeded else failed :]
    return sorted(gone, key=lambda c: (c.created, c.name))
