"""A run as a row: the same columns as `kubectl get trainingruns`, from the same fields of the status."""

from collections.abc import Sequence

from trainyard.cli.printing import GAP, NARROWEST, age, shortened, table, terminal_width
from trainyard.client import Run

NARROW = ("NAME", "STATE", "METHOD", "MODEL", "PROGRESS", "STEP", "LOSS", "ETA", "RESTARTS", "AGE")
MISSED_LEAST = ("RESTARTS", "METHOD", "MODEL", "LOSS")
WIDE = (*NARROW, "NODE", "PHASE", "CHECKPOINT", "MESSAGE")


def headings(*, wide: bool, namespaces: bool) -> tuple[str, ...]:
    return (("NAMESPACE",) if namespaces else ()) + (WIDE if wide else NARROW)


def row(run: Run, *, wide: bool, namespaces: bool) -> tuple[str, ...]:
    """The cells; empty where there is nothing to tell."""
    summary, checkpoint = run.status.get("summary") or {}, run.status.get("checkpoint") or {}
    cells = [run.name, run.state or "Pending"]
    cells += [str(summary.get(field) or "") for field in ("method", "model", "progress", "step", "loss", "eta")]
    cells += [str(run.status.get("restarts") or 0), age(run.metadata.get("creationTimestamp"))]
    if wide:
        cells += [str(summary.get("node") or ""), str(run.status.get("currentPhase") or "")]
        cells += [str(checkpoint.get("step", "")), run.message]
    return (*((run.namespace,) if namespaces else ()), *cells)


def run_table(runs: Sequence[Run], *, wide: bool = False, namespaces: bool = False) -> list[str]:
    """All of them, with headings."""
    rows = [row(run, wide=wide, namespaces=namespaces) for run in runs]
    names = headings(wide=wide, namespaces=namespaces)
    return table(names, rows) if wide else table(*_fitted(names, rows))


def _fitted(names: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """On a narrow terminal without the columns that are missed least, and with a shorter model; -o wide has them all."""
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    limit = terminal_width()

    def too_wide() -> int:
        widths = [max(len(cell) for cell in (name, *cells)) for name, cells in columns.items()]
        return 0 if limit is None else sum(widths) + GAP * (len(widths) - 1) - limit

    for name in MISSED_LEAST:
        if too_wide() > 0 and name == "MODEL":
            room = max(len(cell) for cell in columns[name]) - too_wide()
            columns[name] = tuple(shortened(cell, max(room, NARROWEST)) for cell in columns[name])
        elif too_wide() > 0:
            del columns[name]
    return tuple(columns), list(zip(*columns.values(), strict=True))
