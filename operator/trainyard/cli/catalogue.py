"""The verbs by name, and how the words of each are read.

Only the verb that is called gets imported; the others are a name and a line of `--help`. A new verb is a module in `verbs/`
and a row in `VERBS`.
"""

import argparse
import importlib
import os
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

from trainyard.cli.exits import Exit


@dataclass(frozen=True)
class Verb:
    """A line of the help."""

    group: str
    sentence: str
    """The one that the verb's own help begins with."""


VERBS = {
    "run": Verb("Runs", "Start a TrainingRun in the cluster, or run it on this machine without one."),
    "list": Verb("Runs", "List the runs, the schedules or the sweeps, and how they stand."),
    "status": Verb("Runs", "Show one run on one screen: progress, steps, attempts, pods, results."),
    "logs": Verb("Runs", "Print what a run says, over all its steps and attempts."),
    "watch": Verb("Runs", "Print a line whenever a run changes, until it has ended."),
    "wait": Verb("Runs", "Wait until a run has ended, and end as it did."),
    "explain": Verb("Runs", "Say in words why a run waits or has failed, and what to do."),
    "page": Verb("Runs", "Open the operator's live page: forward a port of this machine to it until Ctrl-C."),
    "stop": Verb("Runs", "Suspend a run: it writes a checkpoint and frees its GPU."),
    "resume": Verb("Runs", "Let a suspended run go on, or start a new one from one of its checkpoints."),
    "retry": Verb("Runs", "Start an ended run again, as a new run, from its newest checkpoint."),
    "cancel": Verb("Runs", "End a run for good, after it has written a checkpoint."),
    "approve": Verb("Runs", "Let a run begin that waits for approval of its cost."),
    "shell": Verb("Volumes and devices", "Open a shell in the trainer's pod, or in a short-lived one with its volume."),
    "checkpoints": Verb("Volumes and devices", "List the checkpoints on a run's volume."),
    "download": Verb("Volumes and devices", "Copy a folder of a run's volume to this machine, checked and resumable."),
    "gpu": Verb("Volumes and devices", "Show the GPU of a run's pod (nvidia-smi), or the cluster's GPU nodes."),
    "clean": Verb("Runs", "Delete runs that ended long ago, with their checkpoints."),
    "promote": Verb("Results", "Ask for a run's result to become the champion."),
    "rollback": Verb("Results", "Ask for the champion before this run's result to be set back."),
    "run-now": Verb("Schedules", "Have a TrainingSchedule start its runs now, whatever its clock says."),
    "sweep": Verb("Sweeps", "Show the trials of a TrainingSweep, the best first."),
    "validate": Verb(
        "Manifests", "Check manifests and list everything that is wrong with them, each fault with its line."
    ),
    "import": Verb("Manifests", "Make a TrainingRun of another trainer's configuration."),
    "doctor": Verb("Installation", "Check the installation: CRDs, operator, rights, storage, GPU nodes, queue."),
    "report": Verb("Installation", "Pack everything about a run for a bug report, without secrets."),
    "completion": Verb("Installation", "Print the completion script of a shell."),
    "version": Verb("Installation", "Print the version of this program and of the API it knows."),
}
"""In the order of the help."""

OTHER_NAMES = {"start": "run", "get": "list", "suspend": "stop", "describe": "status"}


class Parser(argparse.ArgumentParser):
    """Reads a verb's words. Its complaints end like all others."""

    def __init__(self, prog: str, module: ModuleType) -> None:
        first, *more = (module.call.__doc__ or "").strip().split("\n\n")
        width = min(_columns(), 100) - 2
        super().__init__(
            prog=prog,
            description="\n".join(wrapped_plainly(first, width)),
            epilog="\n".join("\n".join(wrapped_plainly(paragraph, width)) for paragraph in more),
            allow_abbrev=False,
            add_help=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=width),
        )
        self._positionals.title, self._optionals.title = "Arguments", "Options"
        module.arguments(self)
        self.add_argument("-h", "--help", action="help", help="This text.")

    def format_help(self) -> str:
        return "U" + super().format_help()[1:]

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\nTry '{self.prog} --help'. (exit code {int(Exit.MISUSED)})\n")
        raise SystemExit(int(Exit.MISUSED))


def module_of(verb: str) -> ModuleType:
    """`verbs/run_now.py` for `run-now`; what Python keeps for itself has a line at its end."""
    word = verb.replace("-", "_")
    return importlib.import_module(f"trainyard.cli.verbs.{'import_' if word == 'import' else word}")


def wrapped_plainly(text: str, width: int) -> list[str]:
    """The text in lines; textwrap takes as long to import as all the rest."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 80
