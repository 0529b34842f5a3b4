"""Runs while they change: a line for each change, as long as somebody reads."""

import json

from trainyard.cli.columns import headings, row
from trainyard.cli.printing import dump, table
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
    "ETA": 8,
}
WIDTHS |= {"RESTARTS": 8, "AGE": 8, "NODE": 16, "PHASE": 12, "CHECKPOINT": 10, "MESSAGE": 40}
"""Columns of what is printed line by line: nobody knows yet how long later ones will be."""


class ChangePrinter:
    """Prints each run that is not what was last printed of it; numbers that are not shown are no change."""

    def __init__(self, form: str, *, namespaces: bool) -> None:
        self._form, self._namespaces = form, namespaces
        self._headings = headings(wide=form == "wide", namespaces=namespaces)
        self._shown: dict[str, tuple[str, ...]] = {}
        self._begun = False

    def show(self, run: Run) -> None:
        if self._form in ("json", "yaml", "name"):
            texts = {"json": lambda: json.dumps(run.raw), "yaml": lambda: "---\n" + dump(run.raw, "yaml")}
            print(texts.get(self._form, lambda: f"trainingrun/{run.name}")(), flush=True)
            return
        cells = row(run, wide=self._form == "wide", namespaces=self._namespaces)
        # Age alone is no news.
        place = self._headings.index("AGE")
        if self._shown.get(run.uid) == (shown := (*cells[:place], *cells[place + 1 :])):
            return
        self._shown[run.uid] = shown
        lines = table(self._headings, [cells], widths=[WIDTHS[heading] for heading in self._headings])
        print("\n".join(lines[self._begun :]), flush=True)
        self._begun = True


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
