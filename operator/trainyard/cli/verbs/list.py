"""`trainyard list`: runs or schedules, as `kubectl get` shows them."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard.cli.cluster import add_cluster, runs_of, same_cluster
from trainyard.cli.columns import run_table
from trainyard.cli.costs import cost_table
from trainyard.cli.exits import Misused
from trainyard.cli.printing import add_output, age, print_objects, table
from trainyard.cli.watching import print_changes
from trainyard.client import Run, Runs

SCHEDULE_COLUMNS = ("NAME", "STATE", "SCHEDULE", "SUSPEND", "ACTIVE", "LAST", "NEXT", "AGE")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schedules", action="store_true", help="TrainingSchedules instead of runs.")
    parser.add_argument(
        "-l", "--selector", default="", metavar="LABELS", help="Only those with these labels: agent=sre."
    )
    parser.add_argument("--state", default="", metavar="STATE", help="Only runs in this state: Training, Failed.")
    parser.add_argument("--cost", action="store_true", help="GPU hours and money: of each run, by agent, by month.")
    parser.add_argument("-w", "--watch", action="store_true", help="Go on, with a line for each change.")
    add_output(parser)
    add_cluster(parser, all_namespaces=True)


def call(options: argparse.Namespace) -> None:
    """List the runs, or the schedules, and how they stand.

    The columns are those of kubectl get trainingruns; -o wide adds node, phase, checkpoint and message.
    """
    if options.cost and (options.schedules or options.watch):
        raise Misused("--cost is a table of runs: leave out --schedules and --watch")
    runs = runs_of(options)
    if options.schedules:
        _print_schedules(runs, options)
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


def _print_schedules(runs: Runs, options: argparse.Namespace) -> None:
    query = {"labelSelector": options.selector} if options.selector else {}
    found = list(runs.api.items(runs.path(plural="trainingschedules"), **query))

    def as_table() -> list[str]:
        if not found:
            return [_nothing("schedules", runs, options)]
        space = ("NAMESPACE",) if options.all_namespaces else ()
        return table((*space, *SCHEDULE_COLUMNS), [_schedule(raw, namespaces=options.all_namespaces) for raw in found])

    print_objects(found, options.output, kind="trainingschedule", as_table=as_table)


def _schedule(raw: Mapping[str, Any], *, namespaces: bool) -> tuple[str, ...]:
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    last = age(status.get("lastScheduleTime"))
    cells = (
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
    return ((str(metadata["namespace"]), *cells)) if namespaces else cells
