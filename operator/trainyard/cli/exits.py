"""How the program ends. The codes are fixed: scripts go by them.

    0    done
    1    the run has failed, the manifest has faults, or what was asked for was refused
    2    the command line is wrong, or names something that this machine does not have
    3    there is no such run, pod or kind in the cluster
    4    not allowed: the API server says no to this user
    5    the cluster does not answer
    124  what was waited for has not come in time
    130  interrupted from the keyboard

`trainyard run --local` ends with the exit code of the step that failed.
"""

from enum import IntEnum

from trainyard.client.errors import Away, ClientError, NoAccess, NotAllowed, NotFound, TimedOut


class Exit(IntEnum):
    """The codes by name."""

    DONE = 0
    FAILED = 1
    MISUSED = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    AWAY = 5
    TIMED_OUT = 124
    INTERRUPTED = 130


class Refused(RuntimeError):
    """What was asked for is not done; the message says why."""

    code = Exit.FAILED


class Misused(Refused):
    """The command line is malformed, or names something that this machine does not have."""

    code = Exit.MISUSED


class Missing(Refused):
    """What the command line names is not in the cluster."""

    code = Exit.NOT_FOUND


class Unreachable(Refused):
    """No cluster answers."""

    code = Exit.AWAY


def code_of(error: ClientError) -> Exit:
    """The exit code of what the client says."""
    codes = {NoAccess: Exit.MISUSED, Away: Exit.AWAY, NotFound: Exit.NOT_FOUND, NotAllowed: Exit.NOT_ALLOWED}
    return {**codes, TimedOut: Exit.TIMED_OUT}.get(type(error), Exit.FAILED)
