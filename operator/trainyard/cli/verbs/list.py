"""`trainyard list`: runs, schedules or sweeps, as `kubectl get` shows them."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainyard.cli.cluster import add_cluster, runs_of, same_cluster
from trainyard.cli.columns import run_table
from trainyard.cli.costs import cost_table
from trainyard.cli.exits import Misused
from trainyard.cli.printing import add_output, age, print_objects, table
from trainyard.cli.watching import print_changes
from trainyard.client import Run, Runs

SCHEDULE_COLUMNS = ("NAME", "STATE", "SCHEDULE", "SUSPEND", "ACTIVE", "LAST", "NEXT", "AGE")
SWEEP_COLUMNS = ("NAME", "STATE", "BEST", "TRIALS", "METRIC", "AGE")
Cells = Callable[[Mapping[str, Any]], tuple[str, ...]]


def arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--schedules", action="store_true", help="TrainingSchedules instead of runs.")
    kinds.add_argument("--sweeps", action="store_true", help="TrainingSweeps instead of runs.")
    parser.add_argument(
        "-l", "--selector", default="", metavar="LABELS", help="Only those with these labels: agent=sre."
    )
    parser.add_argument("--state", default="", metavar="STATE", help="Only runs in this state: Training, Failed.")
    parser.add_argument("--cost", action="store_true", help="GPU hours and money: of each run, by agent, by month.")
    parser.add_argument("-w", "--watch", action="store_true", help="Go on, with a line for each change.")
    add_output(parser)
    add_cluster(parser, all_namespaces=True)


def call(options: argparse.Namespace) -> None:
    """List the runs, the schedules or the sweeps, and how they stand.

    The columns are those of kubectl get trainingruns; -o wide adds node, phase, checkpoint and message.
    """
    if options.cost and (options.schedules or options.watch):
        raise Misused("--cost is a table of runs: leave out --schedules and --watch")
    runs = runs_of(options)
    if options.schedules:
        _print_others("schedules", SCHEDULE_COLUMNS, _schedule, runs, options)
    elif options.sweeps:
        _print_others("sweeps", SWEEP_COLUMNS, _sweep, runs, options)
    elif options.watch:
        print_changes(runs, selector=options.selector, state=options.state, form=options.output)
    else:
        found = [run for run in runs.list(selector=options.selector) if _is_wanted(run, options.state)]
        print_objects(
            [run.raw for run in found],
            options.output,
            kind="trainingrun",
            as_table=lambda: _table(runs, found, options),
        )


def _is_wanted(run: Run, state: str) -> bool:
    return not state or run.state.lower() == state.lower()


def _table(runs: Runs, found: Sequence[Run], options: argparse.Namespace) -> list[str]:
    if not found:
        return [_nothing("runs", runs, options)]
    if options.cost:
        return cost_table(found, namespaces=options.all_namespaces)
    return run_table(found, wide=options.output == "wide", namespaces=options.all_namespaces)


def _nothing(what: str, runs: Runs, options: argparse.Namespace) -> str:
    where = f"in namespace {runs.namespace}" if runs.namespace else "in any namespace"
    further = (
        ""
        if options.all_namespaces
        else f"; {options.called_as} list -A{same_cluster(options, everywhere=True)} looks everywhere"
    )
    return f"no {what} {where}{further}"


def _print_others(what: str, columns: tuple[str, ...], cells: Cells, runs: Runs, options: argparse.Namespace) -> None:
    query = {"labelSelector": options.selector} if options.selector else {}
    found = list(runs.api.items(runs.path(plural=f"training{what}"), **query))

    def as_table() -> list[str]:
        if not found:
            return [_nothing(what, runs, options)]
        if not options.all_namespaces:
            return table(columns, [cells(raw) for raw in found])
        return table(("NAMESPACE", *columns), [(str(raw["metadata"]["namespace"]), *cells(raw)) for raw in found])

    print_objects(found, options.output, kind=f"training{what}".removesuffix("s"), as_table=as_table)


def _schedule(raw: Mapping[str, Any]) -> tuple[str, ...]:
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    last = age(status.get("lastScheduleTime"))
    return (
        str(metadata["name"]),
        str(status.get("state") or ""),
        str(
            spec.get("schedule")
            or (f"every {spec['intervalSeconds']} s" if spec.get("intervalSeconds") else "triggers")
        ),
        str(bool(spec.get("suspend"))),
        str(len(status.get("active") or ())),
        f"{last} ago" if last else "",
        str(status.get("nextScheduleTime") or ""),
        age(metadata.get("creationTimestamp")),
    )


def _sweep(raw: Mapping[str, Any]) -> tuple[str, ...]:
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    return (
        str(metadata["name"]),
        str(status.get("state") or ""),
        str((status.get("best") or {}).get("value") or ""),
        str(status.get("summary") or ""),
        str((spec.get("objective") or {}).get("metric") or ""),
        age(metadata.get("creationTimestamp")),
    )
