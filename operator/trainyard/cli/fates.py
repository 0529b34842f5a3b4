"""How a run's end becomes that of the program that has waited for it."""

import argparse

from trainyard.cli.cluster import same_cluster
from trainyard.cli.exits import Exit
from trainyard.cli.printing import print_next
from trainyard.client import Fate, Run


def told(run: Run, options: argparse.Namespace) -> int:
    """Say how the run has ended and what may follow; the exit code."""
    print(f"{run.name} {run.standing}")
    name, it = options.called_as, run.name + same_cluster(options, namespace=run.namespace)
    if run.fate is Fate.SUCCEEDED:
        print_next(f"{name} status {it}", f"{name} download {it}")
        return Exit.DONE
    print_next(f"{name} explain {it}", f"{name} logs {it}", f"{name} retry {it}")
    return Exit.FAILED
