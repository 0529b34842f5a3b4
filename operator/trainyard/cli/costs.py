"""What runs have cost, as a table: each of them, and sums by agent and by the month in which a run began."""

from collections.abc import Callable, Sequence
from decimal import Decimal

from trainyard.cli.printing import table
from trainyard.client import Run

NOBODY = "-"


def cost_table(runs: Sequence[Run], *, namespaces: bool = False) -> list[str]:
    """Runs without GPUs and without a price are left out. Sums are of the runs that are there: what was deleted is gone."""
    known = [run for run in runs if run.status.get("cost")]
    if not known:
        return ["none of the runs asks for GPUs or has a price"]
    names = ("NAMESPACE",) if namespaces else ()
    rows = [((run.namespace,) if namespaces else ()) + _row(run) for run in known]
    lines = table((*names, "NAME", "AGENT", "STATE", "GPU-HOURS", "ACTUAL", "ESTIMATED", "LIMIT"), rows)
    return [*lines, "", *_sums("AGENT", known, _agent), "", *_sums("MONTH", known, _month)]


def _row(run: Run) -> tuple[str, ...]:
    cost, limit = run.status["cost"], (run.spec.get("cost") or {}).get("limit")
    currency = str(cost.get("currency") or "")
    amounts = [_amount(cost.get(name), currency) for name in ("actual", "estimated")]
    return (run.name, _agent(run), run.state, _rounded(cost["gpuHours"]), *amounts, _amount(limit, currency))


def _sums(heading: str, runs: Sequence[Run], key: Callable[[Run], str]) -> list[str]:
    """Sums in different currencies stand in lines of their own."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((key(run), str(run.status["cost"].get("currency") or "")), []).append(run)
    rows = []
    for (name, currency), group in sorted(found.items()):
        hours = sum((Decimal(run.status["cost"]["gpuHours"]) for run in group), Decimal(0))
        priced = [Decimal(run.status["cost"]["actual"]) for run in group if "actual" in run.status["cost"]]
        money = _amount(sum(priced, Decimal(0)), currency) if priced else ""
        rows.append((name, str(len(group)), _rounded(hours), money))
    return table((heading, "RUNS", "GPU-HOURS", "ACTUAL"), rows)


def _agent(run: Run) -> str:
    return str((run.spec.get("owner") or {}).get("agent") or NOBODY)


def _month(run: Run) -> str:
    return str(run.status.get("startTime") or "")[:7] or NOBODY


def _amount(number: object, currency: str) -> str:
    return "" if number is None else f"{_rounded(number)} {currency}".rstrip()


def _rounded(number: object) -> str:
    return f"{Decimal(str(number)):.2f}"
