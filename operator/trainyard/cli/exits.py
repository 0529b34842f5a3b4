"""How the program ends.

Exit codes: 0 all is well; 1 the manifest has faults, or what was asked for failed; 2 the command line itself is wrong (no
such file, no kubectl). `trainyard run --local` ends with the exit code of the step that failed.
"""


class Refused(RuntimeError):
    """What was asked for is not done; the message says why."""

    code = 1


class Misused(Refused):
    """The command line is malformed, or names something that this machine does not have."""

    code = 2
