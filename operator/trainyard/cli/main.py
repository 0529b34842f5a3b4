"""Entry point: the verbs by name, and what becomes of one that refuses.

Only the verb that is called gets imported; the others are a name and a line of `--help`. A new verb is a module beside
this one, with a function of its name, and a row in `VERBS`.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from trainyard.cli.exits import Refused

VERBS = {
    "validate": "Check manifests and list everything that is wrong with them, each fault with its line.",
    "run": "Run a TrainingRun on this machine: the same manifest, the same trainer, no Kubernetes.",
    "run-now": "Have a TrainingSchedule start its runs now, whatever its clock says, even while it is suspended.",
    "version": "Print the version of this program and of the API it knows.",
}
"""In the order of the help; the sentence is the one that the verb's own help begins with."""


def program(words: Sequence[str]) -> typer.Typer:
    """The program, ready to be called with these words."""
    app = typer.Typer(
        help="Check TrainingRuns and TrainingSchedules, and run a TrainingRun on this machine without a cluster.",
        epilog="In a cluster: kubectl apply -f FILE, then kubectl get trainingruns -w.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, sentence in VERBS.items():
        if name in words:
            app.command(name)(_refusing(verb(name)))
        else:
            app.command(name, help=sentence)(_not_called)
    return app


def verb(name: str) -> Callable[..., None]:
    """The function of a verb: `run_now` in `run_now.py`, for `run-now`."""
    word = name.replace("-", "_")
    found: Callable[..., None] = getattr(importlib.import_module(f"trainyard.cli.{word}"), word)
    return found


def _refusing(function: Callable[..., None]) -> Callable[..., None]:
    """The verb, with its refusals told in one line and no traceback."""

    @functools.wraps(function)
    def told(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except Refused as refused:
            typer.echo(f"trainyard: {refused}", err=True)
            raise typer.Exit(refused.code) from refused

    return told


def _not_called() -> None:
    """Stands in the help for a verb that is not called."""


def main() -> None:
    """Run the program under the name it was called by."""
    called_as = Path(sys.argv[0]).name
    name = called_as.replace("kubectl-", "kubectl ").replace("_", "-")
    try:
        program(sys.argv[1:])(prog_name=name if name.endswith("trainyard") else "trainyard")
    except BrokenPipeError:
        # The reader (head, less) has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
