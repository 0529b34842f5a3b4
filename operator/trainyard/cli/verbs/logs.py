"""`trainyard logs`: one text of what a run's pods say, one after the other."""

import argparse
import sys
from datetime import timedelta

from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster, seconds_of
from trainyard.cli.exits import Exit, Missing
from trainyard.cli.options import completes
from trainyard.cli.printing import now
from trainyard.client import Fate
from trainyard.client.logs import Wanted, follow


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="Go on over steps and attempts until the run has ended."
    )
    step = parser.add_argument("--step", default="", metavar="STEP", help="Only this step: prepare, train, evaluate.")
    completes("step", step)
    parser.add_argument("--attempt", type=int, metavar="N", help="Only this attempt.")
    parser.add_argument(
        "--rank", type=int, default=0, metavar="N", help="Of pods that train together, whose log. Default: 0."
    )
    parser.add_argument("--tail", type=int, metavar="N", help="Of each pod, only the last so many lines.")
    parser.add_argument("--since", default="", metavar="TIME", help="Only what is newer than this: 10m.")
    parser.add_argument("--timestamps", action="store_true", help="Each line with its time.")
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Print what a run says, over all its steps and attempts.

    Where a pod is gone, the end of a failed attempt's log is told from the status. With -f, the exit code is 1 if the run has
    failed. The headings between pods go to standard error.
    """
    runs = runs_of(options)
    run = runs.get(name_of(options))
    seconds = seconds_of(options.since, option="--since") if options.since else None
    since = (now() - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""
    wanted = Wanted(step=options.step, attempt=options.attempt, rank=options.rank, tail=options.tail, since=since)
    before, lines = None, 0
    for line in follow(runs.api, run, again=lambda: runs.get(run.name), follow_on=options.follow, wanted=wanted):
        if before != (place := (line.step, line.attempt, line.pod)):
            sys.stdout.flush()
            gone = "" if line.pod else "; its pod is gone, this is the end of its log"
            print(f"==> {line.step}, attempt {line.attempt}{gone} <==", file=sys.stderr)
            before = place
        lines += 1
        print(f"{line.time} {line.text}" if options.timestamps and line.time else line.text, flush=options.follow)
    if options.follow:
        run = runs.get(run.name)
        print(f"==> {run.name} {run.standing} <==", file=sys.stderr)
        return Exit.DONE if run.fate in (Fate.SUCCEEDED, Fate.OPEN) else Exit.FAILED
    if not lines:
        raise Missing(
            f"{run.name} has no log{_narrowed(options)}: {run.standing}; "
            f"{options.called_as} explain {run.name}{same_cluster(options)} says more"
        )
    return Exit.DONE


def _narrowed(options: argparse.Namespace) -> str:
    words = [f"--{name} {value}" for name in ("step", "attempt", "since") if (value := getattr(options, name))]
    return f" with {' '.join(words)}" if words else ""
