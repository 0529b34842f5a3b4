"""How a run's end becomes that of the program that has waited for it."""

from trainyard.cli.exits import Exit
from trainyard.cli.printing import print_next
from trainyard.client import Fate, Run


def told(run: Run, *, called_as: str) -> int:
    """Say how the run has ended and what may follow; the exit code."""
    print(f"{run.name} {run.standing}")
    if run.fate is Fate.SUCCEEDED:
        print_next(f"{called_as} status {run.name}", f"{called_as} download {run.name}")
        return Exit.DONE
    print_next(f"{called_as} explain {run.name}", f"{called_as} logs {run.name}", f"{called_as} retry {run.name}")
    return Exit.FAILED
