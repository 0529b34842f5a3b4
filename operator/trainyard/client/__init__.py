"""A small client of Trainyard: create runs, wait for them, read their numbers and logs.

    from trainyard.client import connect

    runs = connect(namespace="lab")
    run = runs.create(manifest)
    run = runs.wait(run.name, seconds=3600)
    print(run.fate, runs.metrics(run.name))

The verbs of the command line are made of the same calls. It speaks HTTP to the API server by itself, with the standard
library and PyYAML alone, because importing a Kubernetes client takes longer than most of what is asked for here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainyard.client.errors import Away, ClientError, NoAccess, NotAllowed, NotFound, Rejected, TimedOut
    from trainyard.client.run import Fate, Run
    from trainyard.client.runs import Runs, connect

__all__ = [
    "Away",
    "ClientError",
    "Fate",
    "NoAccess",
    "NotAllowed",
    "NotFound",
    "Rejected",
    "Run",
    "Runs",
    "TimedOut",
    "connect",
]

_HOMES = {"Fate": "run", "Run": "run", "Runs": "runs", "connect": "runs"}


def __getattr__(name: str) -> Any:
    """A name is imported when it is asked for: who only wants an exception pays for no HTTP."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
