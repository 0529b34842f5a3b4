"""Runs while they change: a line for each change, as long as somebody reads."""

import json
from collections.abc import Sequence

from trainyard.cli.columns import MISSED_LEAST, headings, row
from trainyard.cli.printing import GAP, dump, table, terminal_width
from trainyard.client import Run, Runs

WIDTHS = {
    "NAMESPACE": 16,
    "NAME": 24,
    "STATE": 10,
    "METHOD": 8,
    "MODEL": 18,
    "PROGRESS": 8,
    "STEP": 11,
    "LOSS": 8,
    "ETA": 7,
}
WIDTHS |= {"RESTARTS": 8, "AGE": 5, "NODE": 16, "PHASE": 12, "CHECKPOINT": 10, "MESSAGE": 40}
"""Columns of what is printed line by line: nobody knows yet how long later ones will be."""


class ChangePrinter:
    """Prints each run that is not what was last printed of it; numbers that are not shown are no change."""

    def __init__(self, form: str, *, namespaces: bool) -> None:
        self._form, self._namespaces = form, namespaces
        self._headings = headings(wide=form == "wide", namespaces=namespaces)
        self._kept = _fitting(self._headings) if form == "table" else list(range(len(self._headings)))
        self._shown: dict[str, tuple[str, ...]] = {}
        self._begun = False

    def show(self, run: Run) -> None:
        if self._form in ("json", "yaml", "name"):
            texts = {"json": lambda: json.dumps(run.raw), "yaml": lambda: "---\n" + dump(run.raw, "yaml")}
            print(texts.get(self._form, lambda: f"trainingrun/{run.name}")(), flush=True)
            return
        cells = row(run, wide=self._form == "wide", namespaces=self._namespaces)
        kept = {self._headings[at]: cells[at] for at in self._kept}
        # Age alone is no news.
        if self._shown.get(run.uid) == (shown := tuple(kept[name] for name in kept if name != "AGE")):
            return
        self._shown[run.uid] = shown
        lines = table(tuple(kept), [tuple(kept.values())], widths=[WIDTHS[name] for name in kept])
        print("\n".join(lines[self._begun :]), flush=True)
        self._begun = True


def _fitting(names: Sequence[str]) -> list[int]:
    """Places of the columns that a terminal has room for, without those that are missed least."""
    kept, limit = list(names), terminal_width()
    for name in MISSED_LEAST:
        if limit is not None and sum(WIDTHS[each] + GAP for each in kept) - GAP > limit:
            kept.remove(name)
    return [at for at, name in enumerate(names) if name in kept]


def print_changes(
    runs: Runs,
    *,
    name: str = "",
    selector: str = "",
    state: str = "",
    form: str = "table",
    seconds: float | None = None,
) -> Run | None:
    """Until the time is over; of one run, at the latest until it has ended. The last that was seen."""
    printer, last = ChangePrinter(form, namespaces=runs.namespace is None), None
    for last in runs.watch(name, selector=selector, seconds=seconds):
        if not state or last.state.lower() == state.lower():
            printer.show(last)
        if name and last.ended:
            break
    return last
