"""Which cluster the tools work on, and how they call kubectl and helm there.

`CLUSTER=local` and `CLUSTER=kind` mean the cluster that this repository made, whose kubeconfig lies in `.cluster`.
`CLUSTER=existing` means the current context of the user's own kubeconfig, and is only touched after its name has been
given: typed at a prompt, or in TRAINYARD_CONTEXT where nobody can type.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.get("TRAINYARD_CLUSTER_DIR", ROOT / ".cluster"))
KINDS = ("local", "kind", "existing")
NAMESPACE = "trainyard-system"
RELEASE = "trainyard"


class Refused(RuntimeError):
    """The work cannot go on; the message says why and what to do."""


def cluster() -> str:
    """`local`, `kind` or `existing`."""
    chosen = os.environ.get("CLUSTER", "local")
    if chosen not in KINDS:
        raise Refused(f"CLUSTER={chosen} is not one of {', '.join(KINDS)}")
    return chosen


def program(name: str) -> str:
    """Path of kubectl or helm: the one built with the cluster, or the installed one."""
    ours = STATE / "bin" / name
    found = str(ours) if ours.exists() else shutil.which(name)
    if found is None:
        raise Refused(f"{name} is not here: run `make cluster`, or install it")
    return found


def environment() -> dict[str, str]:
    """The environment of kubectl and helm."""
    if cluster() == "existing":
        return dict(os.environ)
    kubeconfig = STATE / "kubeconfig"
    if not kubeconfig.exists():
        raise Refused(f"there is no {kubeconfig}: run `make cluster` first")
    return {**os.environ, "KUBECONFIG": str(kubeconfig)}


def call(name: str, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl or helm and return what it printed. Raises `Refused` with its error text."""
    result = subprocess.run([program(name), *arguments], input=stdin, capture_output=True, text=True, env=environment())
    if check and result.returncode != 0:
        raise Refused(f"{name} {' '.join(arguments)} failed:\n{result.stderr.strip()}")
    return result.stdout


def confirm_context() -> None:
    """In somebody's own cluster: go on only when its name has been given."""
    if cluster() != "existing":
        return
    name = call("kubectl", "config", "current-context").strip()
    given = os.environ.get("TRAINYARD_CONTEXT", "")
    if not given and sys.stdin.isatty():
        print(f"The current context is {name!r}. Trainyard will be installed there, in namespace {NAMESPACE}.")
        given = input("Type the context's name to go on: ").strip()
    if given != name:
        raise Refused(
            f"the context {name!r} was not confirmed; set TRAINYARD_CONTEXT={name} if this is the cluster you mean"
        )
