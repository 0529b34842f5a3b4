"""How long a source is left alone after a look: its trigger's `pollSeconds`, and longer while it fails or is slow. Pure."""

LONGEST_SECONDS = 1800.0
SLOW_SECONDS = 5.0
_SHARE = 10
"""A slow source is looked at for a tenth of the time at most."""


def pause(poll_seconds: float, *, took: float, failures: int) -> float:
    """Seconds until the next look, after one that took so long and was the so-manieth in a row to fail."""
    wanted = poll_seconds * 2.0 ** min(failures - 1, 20) if failures else 0.0
    if took > SLOW_SECONDS:
        wanted = max(wanted, took * _SHARE)
    return max(poll_seconds, min(wanted, LONGEST_SECONDS))
