"""Exit codes with a meaning, as the operator reads them from a step's container.

The codes below 128 that no shell and no kernel uses; 137 (SIGKILL) and 143 (SIGTERM) stay what they always were. Where
sysexits.h has a code for the case, its number is taken.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a step's process says by ending. Anything not listed is an ordinary error and counts against backoffLimit."""

    OK = 0
    INVALID_CONFIG = 64
    """The spec asks for something that cannot be done; the same spec will fail again, so it is never retried."""
    INVALID_DATA = 65
    """The data is malformed or refused to us; never retried."""
    SOURCE_UNAVAILABLE = 69
    """A source did not answer (refused, timed out, 5xx) after a few tries; retried, counted."""
    STORAGE = 74
    """Disk full or an I/O error on a volume; retried, counted."""
    RESUME = 75
    """SIGTERM was honoured and everything worth keeping is on the volume: run the step again, do not count it."""
    DEVICE_OUT_OF_MEMORY = 79
    """The accelerator ran out of memory. Retried only where the final record says Resume: then the next attempt will ask
    for less, and there is an end to how often that can happen."""
