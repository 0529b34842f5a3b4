"""`trainyard status`: everything about one run that fits on one screen."""

import argparse
import sys
import time

from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.events import warnings_about
from trainyard.cli.exits import Exit, Refused
from trainyard.cli.printing import add_output, coloured, print_next, print_objects
from trainyard.cli.screen import screen
from trainyard.client import Fate, Run, Runs
from trainyard.client.logs import pods_of

REDRAW_SECONDS = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--gpu", action="store_true", help="Also nvidia-smi, from the run's pod.")
    parser.add_argument(
        "-w", "--watch", action="store_true", help="Draw it anew at each change, until the run has ended."
    )
    add_output(parser, forms=("table", "json", "yaml", "name"))
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Show one run on one screen: progress, steps, attempts, pods, results.

    -o json and yaml give the object as the API server has it. The exit code is 0 however the run stands; with --watch it is
    the run's fate.
    """
    runs, name = runs_of(options), name_of(options)
    if options.watch and options.output == "table":
        return _draw_anew(runs, name, options)
    run = runs.get(name)
    print_objects([run.raw], options.output, kind="trainingrun", one=True, as_table=lambda: _lines(runs, run))
    if options.output != "table":
        return Exit.DONE
    if options.gpu:
        from trainyard.cli.verbs.gpu import of_run

        print()
        try:
            of_run(runs, options)
        except Refused as refused:
            print(f"GPU: {refused}")
    print()
    print_next(*next_commands(run, options))
    return Exit.DONE


def _lines(runs: Runs, run: Run) -> list[str]:
    pods = [] if run.ended else pods_of(runs.api, run)
    events = [] if run.fate is Fate.SUCCEEDED else warnings_about(runs, run, pods)
    return list(screen(run, pods, events))


def _draw_anew(runs: Runs, name: str, options: argparse.Namespace) -> int:
    drawn = 0.0
    for run in runs.watch(name):
        if not run.ended and time.monotonic() - drawn < REDRAW_SECONDS:
            continue
        drawn = time.monotonic()
        lines = _lines(runs, run)
        # From the top, and no line of the last drawing is left; piped, one screen after the other.
        sys.stdout.write("\x1b[H\x1b[2J" if coloured() else "")
        print("\n".join(lines) + ("" if coloured() else "\n"), flush=True)
        if run.ended:
            print_next(*next_commands(run, options))
            return Exit.DONE if run.fate is Fate.SUCCEEDED else Exit.FAILED
    return Exit.DONE


def next_commands(run: Run, options: argparse.Namespace) -> tuple[str, ...]:
    """What is likely to be asked for next, as the run stands."""
    words = {
        Fate.SUCCEEDED: ("download", "checkpoints", "promote"),
        Fate.FAILED: ("explain", "logs", "retry"),
        Fate.CANCELLED: ("explain", "logs", "retry"),
    }.get(run.fate)
    if words is None:
        stops = run.state == "Suspended" or run.spec.get("suspend")
        words = ("resume", "cancel", "checkpoints") if stops else ("logs -f", "explain", "stop")
    where = same_cluster(options)
    return tuple(f"{options.called_as} {word} {run.name}{where}" for word in words)
